"""What a run's folder, the papers and this machine say, for the report."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from terradapt.classes import ClassMap
from terradapt.report import Reference
from terradapt.report.printed import DATA, load_tables

LOG = "log.jsonl"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a run's log; [] without one."""
    events: list[dict[str, Any]] = []
    path = folder / LOG
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def hardware() -> str:
    """Return the processor's model and the number of cores."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [s for s in info.read_text("utf-8").splitlines() if s.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{model}, {os.cpu_count()} cores"


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
