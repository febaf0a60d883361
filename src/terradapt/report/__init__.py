"""Report: JSON, Markdown and one self-contained HTML page with pictures."""

from terradapt.report.model import Picture, Plate, Reference, Report, read_report
from terradapt.report.write import check_report, write_report

__all__ = [
    "Picture",
    "Plate",
    "Reference",
    "Report",
    "check_report",
    "read_report",
    "write_report",
]
