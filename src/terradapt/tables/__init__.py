"""The papers' tables again: printed values, ours where a report exists, "needs DATA" elsewhere.

Counts of parameters and multiply-accumulates are computed here and now, never quoted.
"""

from terradapt.tables.fill import Cell, FilledTable, fill, find_reports
from terradapt.tables.present import to_csv, to_markdown
from terradapt.tables.speeds import Speeds, find_speeds, read_speeds
from terradapt.tables.variants import STUDENTS, TRUNKS, PaperVariant, count_variant, variant_of

__all__ = [
    "STUDENTS",
    "TRUNKS",
    "Cell",
    "FilledTable",
    "PaperVariant",
    "Speeds",
    "count_variant",
    "fill",
    "find_reports",
    "find_speeds",
    "read_speeds",
    "to_csv",
    "to_markdown",
    "variant_of",
]
