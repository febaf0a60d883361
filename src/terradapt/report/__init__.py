"""Report: JSON, Markdown and one self-contained HTML page with pictures."""

from terradapt.report.model import Picture, Plate, Reference, Report, read_report

__all__ = ["Picture", "Plate", "Reference", "Report", "read_report"]
