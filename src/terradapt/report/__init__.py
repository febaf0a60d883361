"""Report: JSON, Markdown and one self-contained HTML page with pictures."""

from terradapt.report.model import Picture, Plate, Reference, Report, read_report
from terradapt.report.write import write_report

__all__ = ["Picture", "Plate", "Reference", "Report", "read_report", "write_report"]
