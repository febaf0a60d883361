"""The papers' tables again: printed values, ours where a report exists, "needs DATA" elsewhere.

Counts of parameters and multiply-accumulates are computed here and now, never quoted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from terradapt import complexity
from terradapt.config import EncoderConfig, ModelConfig
from terradapt.errors import ConfigError, DataError
from terradapt.models import MODELS, parse_options
from terradapt.models.arafnet import ABLATIONS
from terradapt.report import read_report
from terradapt.report.markdown import markdown_table
from terradapt.report.printed import DATA, PrintedTable, Row, load_tables

TRUNKS = {
    "Tiny": "sam2_hiera_tiny",
    "Small": "sam2_hiera_small",
    "Base+": "sam2_hiera_base_plus",
    "Large": "sam2_hiera_large",
}
STUDENTS = {
    "Efficientnet_b0 (Selected)": "efficientnet_b0",
    "Efficientnet_b1": "efficientnet_b1",
    "Mobilenetv3_large": "mobilenetv3_large_100",
    "Mobilenetv3_small": "mobilenetv3_small_100",
    "Resnet18": "resnet18",
    "Resnet50": "resnet50",
    "Segformer_b0": "mit_b0",
    "Segformer_b1": "mit_b1",
    "Ghostnetv3": "ghostnetv3_100",
}
ABSENT = "not in terradapt"
SPEED = "see terradapt bench"
_TRAINING_ONLY = {"aux"}


@dataclass(frozen=True)
class Variant:
    """What a row of a paper is in terradapt.

    Attributes:
        model: Name in the registry.
        encoder: Its encoder.
        options: Its options where they are not the defaults.
        counted: Options of the published code whose counts the paper prints.
        adapters: Whether the trunk has adapters; None where that says nothing.
        distilled: Whether it learnt from a teacher; None: either.
        lossnet: ``none``, ``vgg16`` or ``resnet50``; None: any.
    """

    model: str
    encoder: str
    options: Mapping[str, Any] = field(default_factory=dict)
    counted: Mapping[str, Any] = field(default_factory=dict)
    adapters: bool | None = None
    distilled: bool | None = None
    lossnet: str | None = None

    def fits(self, model: Mapping[str, Any]) -> bool:
        """Return whether a report's model is this one."""
        encoder, objective = model.get("encoder") or {}, model.get("objective") or {}
        distilled = bool((objective.get("distill") or {}).get("teacher"))
        lossnet = (objective.get("lossnet") or {}).get("name", "none")
        return (
            model.get("name") == self.model
            and encoder.get("name") == self.encoder
            and self.adapters in (None, encoder.get("adapters", True))
            and self.distilled in (None, distilled)
            and self.lossnet in (None, str(lossnet).casefold())
            and _options(self.model, model.get("options") or {})
            in (_options(self.model, self.options), _options(self.model, self.counted))
        )


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        printed: The paper's, or None where it prints a dash.
        ours: Ours in the paper's unit, or None.
        why: Where ours comes from, or what it needs.
        slip: A known error of the paper here, or "".
    """

    printed: float | None
    ours: float | None
    why: str
    slip: str = ""


@dataclass(frozen=True)
class FilledTable:
    """A printed table with our numbers: ``cells[row][column]``."""

    table: PrintedTable
    cells: tuple[tuple[Cell, ...], ...]


Count = Callable[[Variant, str], float | None]


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
) -> list[FilledTable]:
    """Fill the papers' tables.

    Args:
        only: Ids of tables, for example ``arafnet-4``; all when empty.
        reports: Reports with their paths, the first that fits a row is taken.
        count: Gives a variant's ``params``, ``gmacs`` or ``size``; counted when missing.

    Raises:
        ConfigError: No such table.
    """
    tables = load_tables()
    known = [t.id for t in tables]
    for name in only:
        if name not in known:
            raise ConfigError(f"no table '{name}'", f"use: {', '.join(known)}")
    return [
        FilledTable(t, tuple(_row(t, row, reports, count or count_variant) for row in t.rows))
        for t in tables
        if not only or t.id in only
    ]


def variant_of(table: PrintedTable, row: Row) -> Variant | None:
    """Return what a printed row is in terradapt, None when terradapt has no such model."""
    name = row.names[0]
    if table.id.startswith("arafnet"):
        return _arafnet(table.number, name)
    if name.startswith("SAM2-"):
        return _sam2ms_ablation(table, row)
    if name.startswith("SAM2MS"):
        release = {"drb": "release"}
        return Variant("sam2ms", TRUNKS["Large"], counted=release, adapters=True)
    return Variant("sam2-unet", TRUNKS["Large"]) if name.startswith("SAM2UNet") else None


@lru_cache(maxsize=64)
def _counted(model: str, encoder: str, options: tuple[tuple[str, Any], ...]) -> dict[str, float]:
    roads = MODELS[model].binary
    row = complexity.row(
        model,
        encoder,
        options=dict(options),
        **({"classes": 2, "batch": 1, "size": 1024} if roads else {}),
    )
    config = ModelConfig(name=model, encoder=EncoderConfig(name=encoder), options={**dict(options)})
    built = complexity.build_on_meta(config, 2 if roads else 6)
    held = sum(v.numel() * v.element_size() for v in built.state_dict().values())
    return {"params": row.thop_parameters / 1e6, "gmacs": row.gmacs, "size": held / 2**20}


def count_variant(variant: Variant, what: str) -> float | None:
    """Count ``params`` (thop, millions), ``gmacs`` or ``size`` (float32 weights, MiB)."""
    options = tuple(sorted({**variant.options, **variant.counted}.items()))
    return _counted(variant.model, variant.encoder, options).get(what)


def to_markdown(filled: Sequence[FilledTable]) -> str:
    """Return the tables as Markdown, two lines for each row: printed and ours."""
    parts = [
        "# The papers' tables",
        "`printed`: from the paper, with its slips marked by *. `ours`: from a report of terradapt,"
        " or counted here. `needs DATA`: evaluate a run on that dataset, then run this again."
        " A method without a second line is not in terradapt.",
    ]
    for one in filled:
        table = one.table
        parts += [f"## {table.paper}, Table {table.number}: {table.title}", f"> {table.citation}"]
        parts += [f"- {note}" for note in table.notes]
        header = [*table.keys, "", *(name for name, _ in table.columns)]
        rows: list[list[str]] = []
        for row, cells in zip(table.rows, one.cells, strict=True):
            rows.append([*row.names, "printed", *(_printed(c) for c in cells)])
            if variant_of(table, row) is not None:
                rows.append([*([""] * len(table.keys)), "ours", *(_ours(c) for c in cells)])
        parts.append(markdown_table(header, rows))
        parts += [f"\\* {text}" for text in _slips(table)]
        used = sorted({c.why for r in one.cells for c in r if c.why.endswith(".json")})
        parts += [f"Ours from {path}" for path in used]
    return "\n\n".join(parts) + "\n"


def to_csv(filled: Sequence[FilledTable]) -> str:
    """Return the tables as CSV, one line per cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("table", "paper", "data", "row", "column", "printed", "ours", "why", "slip"))
    for one in filled:
        t = one.table
        for row, cells in zip(t.rows, one.cells, strict=True):
            for (column, _), cell in zip(t.columns, cells, strict=True):
                ours = "" if cell.ours is None else f"{cell.ours:.3f}"
                printed = "" if cell.printed is None else cell.printed
                name = " / ".join(row.names)
                writer.writerow(
                    (t.id, t.paper, DATA[t.data], name, column, printed, ours, cell.why, cell.slip)
                )
    return buffer.getvalue()


def _arafnet(number: int, name: str) -> Variant | None:
    teacher = Variant("sam2-arafnet", TRUNKS["Large"], adapters=True)
    if name in ("SAM2-ARAFNet", "SAM2-ARAFNet (ours)", "SAM2"):
        return teacher
    if name in STUDENTS:
        return Variant("kd-arafnet", STUDENTS[name], distilled=True)
    if name.startswith("KD-ARAFNet"):
        return Variant("kd-arafnet", "efficientnet_b0", distilled="Distilled" in name)
    ablations = {k.casefold(): v for k, v in ABLATIONS.items()}
    if number == 6 and name.casefold() in ablations:
        return Variant("sam2-arafnet", TRUNKS["Large"], ablations[name.casefold()], adapters=True)
    return None


def _sam2ms_ablation(table: PrintedTable, row: Row) -> Variant:
    marks = dict(zip(table.keys, row.names, strict=True))
    options: dict[str, Any] = {}
    if marks.get("DRB") == "off":
        options["drb"] = "none"
    if marks.get("MSSM") == "off":
        options["mssm"] = False
    return Variant(
        "sam2ms",
        TRUNKS[row.names[0].removeprefix("SAM2-")],
        options,
        adapters=marks.get("adapter", "on") == "on",
        lossnet=marks["lossnet"].casefold() if "lossnet" in marks else None,
    )


def _row(
    table: PrintedTable,
    row: Row,
    reports: Sequence[tuple[Path, Mapping[str, Any]]],
    count: Count,
) -> tuple[Cell, ...]:
    variant = variant_of(table, row)
    cells = []
    for _, metric in table.columns:
        ours, why = _value(table, variant, metric, reports, count)
        cells.append(Cell(row.values[metric], ours, why, row.slips.get(metric, "")))
    return tuple(cells)


def _value(
    table: PrintedTable,
    variant: Variant | None,
    metric: str,
    reports: Sequence[tuple[Path, Mapping[str, Any]]],
    count: Count,
) -> tuple[float | None, str]:
    if variant is None:
        return None, ABSENT
    if metric.startswith("complexity."):
        return _complexity(table, variant, metric.removeprefix("complexity."), count)
    metric, _, pair = metric.partition("@")
    trained, _, tested = pair.partition(">")
    tested = tested or table.data
    for path, report in reports:
        if variant.fits(report.get("model") or {}) and _is_on(report, trained, tested):
            value = _lookup(report["metrics"], metric)
            if value is not None:
                return (value if metric == "mae_x100" else 100 * value), str(path)
    wanted = dict.fromkeys(DATA[d] for d in (trained, tested) if d)
    return None, f"needs {' and '.join(wanted)}"


def _complexity(
    table: PrintedTable, variant: Variant, what: str, count: Count
) -> tuple[float | None, str]:
    if what == "fps":
        return None, SPEED
    if what == "reduction":
        teacher = _arafnet(table.number, "SAM2")
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


def _options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A model's options in full, those left out that do not change the prediction."""
    try:
        parsed = parse_options(ModelConfig(name=model, options=dict(options)))
    except ConfigError:
        return {"unknown": dict(options)}
    return {k: v for k, v in parsed.model_dump().items() if k not in _TRAINING_ONLY}


def _printed(cell: Cell) -> str:
    text = "–" if cell.printed is None else f"{cell.printed:.2f}"
    return f"{text}*" if cell.slip else text


def _ours(cell: Cell) -> str:
    if cell.ours is not None:
        return f"**{cell.ours:.2f}**"
    return "–" if cell.printed is None else cell.why


def _slips(table: PrintedTable) -> list[str]:
    headings = {metric: name for name, metric in table.columns}
    texts: dict[tuple[str, str], list[str]] = {}
    for row in table.rows:
        for metric, text in row.slips.items():
            texts.setdefault((row.names[0], text), []).append(headings[metric])
    return [f"{row}, {', '.join(cols)}: {text}." for (row, text), cols in texts.items()]
