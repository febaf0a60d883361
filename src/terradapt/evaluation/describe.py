"""What a run's folder, the papers and this machine say, for the report."""

from __future__ import annotations

from terradapt.classes import ClassMap
from terradapt.report import Reference
from terradapt.report.printed import DATA, load_tables


def references(classes: ClassMap) -> list[Reference]:
    """Return the papers' own rows for land cover or roads, whichever the classes speak of."""
    wanted = {"sam2ms-1", "sam2ms-2", "sam2ms-3"} if _roads(classes) else {"arafnet-2", "arafnet-3"}
    if not _roads(classes):
        wanted |= {"arafnet-5"}
    return [
        Reference(f"{row.names[0]}, {DATA[table.data]}", row.fractions(table), table.source)
        for table in load_tables()
        if table.id in wanted
        for row in table.rows
        if "ours" in row.names[0].casefold() or row.names[0].startswith("KD-")
    ]


def _roads(classes: ClassMap) -> bool:
    return len(classes) == 2 and "road" in classes.names[1].casefold()
