"""Fill the papers' printed tables with figures of reports, counts and measured speeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terradapt.errors import ConfigError, DataError, one_of
from terradapt.report import read_report
from terradapt.report.printed import DATA, PrintedRow, PrintedTable, load_tables
from terradapt.tables.speeds import Speeds
from terradapt.tables.variants import (
    TEACHER,
    PaperVariant,
    absence_of,
    arafnet_variant,
    count_variant,
    variant_of,
)

SPEED = "needs terradapt bench"
FPS = "complexity.fps"


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        printed: The paper's, or None where it prints a dash.
        ours: Ours in the paper's unit, the mean over the seeds of trials, or None.
        why: Where ours comes from, or what it needs.
        slip: A known error of the paper here, or "".
        printed_ratio: Of a speed: the printed one over the teacher's, or None.
        ours_ratio: Of a speed: ours over the teacher's, or None.
        spread: Standard deviation over the seeds; None where there is one, or a count.
        runs: Reports that ours is the mean of.
    """

    printed: float | None
    ours: float | None
    why: str
    slip: str = ""
    printed_ratio: float | None = None
    ours_ratio: float | None = None
    spread: float | None = None
    runs: int = 0


@dataclass(frozen=True)
class FilledTable:
    """A printed table with our numbers: ``cells[row][column]``, and where speeds come from."""

    table: PrintedTable
    cells: tuple[tuple[Cell, ...], ...]
    speeds: Speeds | None = None


Count = Callable[[PaperVariant, str], float | None]


def find_reports(folders: Sequence[Path | str]) -> list[tuple[Path, dict[str, Any]]]:
    """Read every report below some folders, the newest first.

    Raises:
        DataError: No such folder.
    """
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder", "give a folder with runs or reports")
        for path in folder.rglob("*.json"):
            try:
                report = read_report(path)
            except DataError:
                continue
            if str(report.get("format", "")).startswith("terradapt-report"):
                found.append((path, report))
    return sorted(found, key=lambda f: (-f[0].stat().st_mtime, str(f[0])))


def fill(
    only: Sequence[str] = (),
    reports: Sequence[tuple[Path, Mapping[str, Any]]] = (),
    count: Count | None = None,
    speeds: Speeds | None = None,
) -> list[FilledTable]:
    """Fill the papers' tables.

    Args:
        only: Ids of tables, for example ``arafnet-4``; all when empty.
        reports: Reports with their paths, the first that fits a row is taken.
        count: Gives a variant's ``params``, ``gmacs`` or ``size``; counted when missing.
        speeds: Of ``terradapt bench``.

    Raises:
        ConfigError: No such table.
    """
    tables = load_tables()
    known = [t.id for t in tables]
    for name in only:
        if name not in known:
            raise ConfigError(f"no table '{name}'", one_of(name, known))
    return [
        _filled(t, reports, count or count_variant, speeds)
        for t in tables
        if not only or t.id in only
    ]


def _filled(
    table: PrintedTable,
    reports: Sequence[tuple[Path, Mapping[str, Any]]],
    count: Count,
    speeds: Speeds | None,
) -> FilledTable:
    fps = [m for _, m in table.columns if m == FPS]
    rows = []
    for row in table.rows:
        variant = variant_of(table, row)
        cells = []
        for _, metric in table.columns:
            if metric == FPS:
                cells.append(_speed(table, row, variant, speeds))
                continue
            if variant is None:
                cells.append(
                    Cell(row.values[metric], None, absence_of(row), row.slips.get(metric, ""))
                )
                continue
            values, why = _values(table, variant, metric, reports, count)
            cells.append(
                Cell(
                    row.values[metric],
                    statistics.fmean(values) if values else None,
                    why,
                    row.slips.get(metric, ""),
                    spread=statistics.stdev(values) if len(values) > 1 else None,
                    runs=0 if metric.startswith("complexity.") else len(values),
                )
            )
        rows.append(tuple(cells))
    return FilledTable(table, tuple(rows), speeds if fps else None)


def _speed(
    table: PrintedTable, row: PrintedRow, variant: PaperVariant | None, speeds: Speeds | None
) -> Cell:
    printed, slip = row.values[FPS], row.slips.get(FPS, "")
    teacher = table.rows[0].values[FPS]
    ratio = printed / teacher if printed and teacher and row is not table.rows[0] else None
    rate = speeds.rates.get(variant.encoder) if speeds and variant else None
    if speeds is None or rate is None:
        return Cell(printed, None, SPEED if variant else absence_of(row), slip, ratio)
    whole = speeds.rates.get(TEACHER)
    own = rate / whole if whole and variant and variant.encoder != TEACHER else None
    return Cell(printed, rate, str(speeds.path), slip, ratio, own)


def _values(
    table: PrintedTable,
    variant: PaperVariant,
    metric: str,
    reports: Sequence[tuple[Path, Mapping[str, Any]]],
    count: Count,
) -> tuple[list[float], str]:
    """A figure of each seed of the newest run that is of a row, or what it needs."""
    if metric.startswith("complexity."):
        counted, why = _complexity(table, variant, metric.removeprefix("complexity."), count)
        return ([] if counted is None else [counted]), why
    metric, _, pair = metric.partition("@")
    trained, _, tested = pair.partition(">")
    tested = tested or table.data
    found: dict[Path, float] = {}
    for path, report in reports:
        if variant.fits(report.get("model") or {}) and _is_on(report, trained, tested):
            value = _lookup(report["metrics"], metric)
            if value is not None:
                found[path] = value if metric == "mae_x100" else 100 * value
    if found:
        newest = next(iter(found))
        alike = {p: v for p, v in found.items() if p == newest or _is_seed(p, newest)}
        return list(alike.values()), str(min(alike, key=str))
    wanted = dict.fromkeys(DATA[d] for d in (trained, tested) if d)
    return [], f"needs {' and '.join(wanted)}"


def _is_seed(path: Path, other: Path) -> bool:
    """Whether two reports are of one method of the same trials: METHOD/seed-N/report.json."""
    runs = (path.parent, other.parent)
    return (
        all(run.name.startswith("seed-") for run in runs)
        and runs[0].parent == runs[1].parent
        and path.name == other.name
    )


def _complexity(
    table: PrintedTable, variant: PaperVariant, what: str, count: Count
) -> tuple[float | None, str]:
    if what == "reduction":
        teacher = arafnet_variant(table.number, "SAM2")
        assert teacher is not None
        own, whole = count(variant, "params"), count(teacher, "params")
        if variant == teacher or own is None or not whole:
            return None, "counted"
        return 100 * (1 - own / whole), "counted"
    return count(variant, what), "counted"


def _is_on(report: Mapping[str, Any], trained: str, tested: str) -> bool:
    data = report.get("data") or {}
    name, origin = str(data.get("name", "")), str(data.get("trained_on", ""))
    return tested in name.casefold() and trained in origin.casefold()


def _lookup(metrics: Mapping[str, Any], dotted: str) -> float | None:
    value: Any = metrics
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
