"""Counts of models that were made before: what `terradapt models` and `tables` show at once.

They lie in ``counts.json``, which ``checks/counts.py`` writes and a test holds to the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from terradapt.files import parse_json

FILE = "counts.json"


@dataclass(frozen=True)
class ComplexityRow:
    """A line of ``terradapt models``: a model on an encoder, and what it is counted at."""

    name: str
    encoder: str
    parameters: int
    trainable: int
    thop_parameters: int
    gmacs: float
    batch: int
    size: int  # px, both sides
    classes: int
    options: dict[str, Any] = field(default_factory=dict)
    state_bytes: int = 0  # of all weights, in float32

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@cache
def counted_rows() -> dict[str, tuple[ComplexityRow, ...]]:
    """Return the stored rows: ``catalogue``, in its order, and ``further`` ones of the tables."""
    text = resources.files("terradapt").joinpath(FILE).read_text("utf-8")
    parts: dict[str, list[dict[str, Any]]] = parse_json(text, FILE)
    return {name: tuple(ComplexityRow(**row) for row in rows) for name, rows in parts.items()}


def counted_row(
    name: str,
    encoder: str,
    *,
    classes: int = 6,
    batch: int = 8,
    size: int = 512,
    options: Mapping[str, Any] | None = None,
) -> ComplexityRow | None:
    """Return a stored row, None where the model was not counted like this."""
    wanted = (name, encoder, classes, batch, size, dict(options or {}))
    for row in (row for rows in counted_rows().values() for row in rows):
        if (row.name, row.encoder, row.classes, row.batch, row.size, row.options) == wanted:
            return row
    return None


HEAD = ("model", "encoder", "options", "parameters M", "trainable M", "thop M", "GMACs", "at")


def markdown(rows: list[ComplexityRow]) -> str:
    """Return rows as a Markdown table, parameters in millions."""
    table = [list(HEAD), ["---"] * 3 + ["---:"] * 4 + ["---"], *(_cells(r) for r in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in table)


def plain(rows: list[ComplexityRow]) -> str:
    """Return rows as aligned columns for a terminal, parameters in millions."""
    table = [list(HEAD), *(_cells(r) for r in rows)]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(HEAD))]
    pairs = ([*zip(cells, widths, strict=True)] for cells in table)
    return "".join("  ".join(c.ljust(w) for c, w in line).rstrip() + "\n" for line in pairs)


def _cells(r: ComplexityRow) -> list[str]:
    options = " ".join(f"{k}={v}" for k, v in r.options.items())
    counts = [f"{n / 1e6:.3f}" for n in (r.parameters, r.trainable, r.thop_parameters)]
    at = f"{r.batch} x {r.size} x {r.size}, {r.classes} classes"
    return [r.name, r.encoder, options, *counts, f"{r.gmacs:.3f}", at]


TABLE_MARKS = ("<!-- table: python checks/counts.py -->\n", "<!-- end of table -->\n")


def with_table(page: str, rows: list[ComplexityRow]) -> str:
    """Return a page of the docs with its table of models renewed."""
    before, _, rest = page.partition(TABLE_MARKS[0])
    _, _, after = rest.partition(TABLE_MARKS[1])
    return before + TABLE_MARKS[0] + markdown(rows) + TABLE_MARKS[1] + after
