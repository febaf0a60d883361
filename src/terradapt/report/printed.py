"""The papers' printed tables, transcribed; references with their source, never results of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

PAPERS = ("sam2-arafnet", "sam2ms")
_NOT_PER_CENT = ("complexity.",)
_TIMES_100 = ("mae_x100",)
DATA = {
    "vaihingen": "ISPRS Vaihingen",
    "potsdam": "ISPRS Potsdam",
    "deepglobe": "DeepGlobe",
    "spacenet": "SpaceNet 3",
    "massachusetts": "Massachusetts",
}
"""The papers' datasets, by their short names."""


@dataclass(frozen=True)
class PrintedRow:
    """One printed row.

    Attributes:
        names: What the row is, one name for each of the table's keys.
        values: Printed numbers by metric, None where the paper prints a dash.
        slips: Known errors of the paper in this row, by metric.
    """

    names: tuple[str, ...]
    values: Mapping[str, float | None]
    slips: Mapping[str, str]

    def fractions(self, table: PrintedTable) -> dict[str, float]:
        """Return the headline accuracies as fractions; counts and per-class figures left out."""
        names = {"per_class.road.f1": "f1", "per_class.road.iou": "iou"}
        return {
            names.get(m, m): v if m in _TIMES_100 else round(v / 100, 6)
            for m, v in self.values.items()
            if v is not None and (m in names or not m.startswith(("per_class.", *_NOT_PER_CENT)))
        }


@dataclass(frozen=True)
class PrintedTable:
    """A table of a paper.

    Attributes:
        id: For example ``"arafnet-2"``.
        paper: Short name of the paper.
        citation: The paper in full.
        number: The table's number.
        title: What it shows.
        data: Dataset that its accuracies are on.
        keys: Headings of the rows' names.
        columns: (heading, metric) in the paper's order. Metrics are keys of a report's figures,
            dotted; ``complexity.*`` are counts; ``rlod@a>b`` is trained on a, tested on b.
        rows: In the paper's order.
        notes: How it was read where the paper is unclear.
    """

    id: str
    paper: str
    citation: str
    number: int
    title: str
    data: str
    keys: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    rows: tuple[PrintedRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Paper and table, in short."""
        return f"{self.paper}, Table {self.number}"


@lru_cache(maxsize=1)
def load_tables() -> tuple[PrintedTable, ...]:
    """Return ARAFNet's Tables 2 to 6 and SAM2MS's Tables 1 to 7."""
    folder = resources.files("terradapt.report") / "papers"
    tables = []
    for name in PAPERS:
        text = (folder / f"{name}.yaml").read_text("utf-8")
        values = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        tables += [_table(t, values["paper"], values["citation"]) for t in values["tables"]]
    return tuple(tables)


def _table(values: Mapping[str, Any], paper: str, citation: str) -> PrintedTable:
    keys = tuple(values["keys"])
    columns = tuple((str(n), str(m)) for n, m in values["columns"])
    metrics = [m for _, m in columns]
    slips: dict[str, dict[str, str]] = {}
    for slip in values.get("slips", ()):
        for metric in slip["metrics"]:
            slips.setdefault(slip["row"], {})[metric] = slip["text"]
    rows = []
    for cells in values["rows"]:
        names, numbers = cells[: len(keys)], cells[len(keys) :]
        pairs = dict(zip(metrics, numbers, strict=True))
        rows.append(PrintedRow(tuple(map(str, names)), pairs, slips.get(names[0], {})))
    return PrintedTable(
        values["id"],
        paper,
        citation,
        values["number"],
        values["title"],
        values["data"],
        keys,
        columns,
        tuple(rows),
        tuple(values.get("notes", ())),
    )
