"""Count all models again: writes the package's counts and the table of docs/models.md.

python checks/counts.py
"""

from __future__ import annotations

import json
from pathlib import Path

from terradapt import counts
from terradapt.complexity import catalogue
from terradapt.tables.variants import counts_of_tables

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "src" / "terradapt" / counts.FILE
PAGE = ROOT / "docs" / "models.md"


def fresh() -> dict[str, list[counts.ComplexityRow]]:
    """Return what is to be stored, counted now."""
    known, counts.counted_rows = counts.counted_rows, lambda: {}
    try:
        listed = catalogue()
        further = [row for row in counts_of_tables() if row not in listed]
    finally:
        counts.counted_rows = known
    return {"catalogue": listed, "further": further}


def main() -> None:
    """Write both."""
    rows = fresh()
    parts = {name: [row.to_dict() for row in found] for name, found in rows.items()}
    STORE.write_text(json.dumps(parts, indent=1) + "\n", "utf-8")
    PAGE.write_text(counts.with_table(PAGE.read_text("utf-8"), rows["catalogue"]), "utf-8")


if __name__ == "__main__":
    main()
