"""The filled tables as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from terradapt.report.markdown import markdown_table
from terradapt.report.printed import DATA, PrintedTable
from terradapt.tables.fill import Cell, FilledTable
from terradapt.tables.variants import UNSPECIFIED, absence_of, variant_of

COLUMNS = (
    "table",
    "paper",
    "data",
    "row",
    "column",
    "printed",
    "ours",
    "why",
    "slip",
    "printed_over_teacher",
    "ours_over_teacher",
    "ours_sd",
    "ours_runs",
)


def to_markdown(filled: Sequence[FilledTable]) -> str:
    """Return the tables as Markdown, two lines for each row: printed and ours."""
    parts = [
        "# The papers' tables",
        "`printed`: from the paper, with its slips marked by *. `ours`: from a report of terradapt,"
        " of trials mean ± standard deviation over the seeds, or counted here. `needs DATA`:"
        " evaluate a run on that dataset, then run this again."
        " A method without a second line is not in terradapt. SAM2-ARAFNet's Table 1 holds its"
        " splits and classes: `terradapt data vaihingen` and `potsdam` follow it.",
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
        parts += [
            f"{r.names[0]}: {absence_of(r)}." for r in table.rows if r.names[0] in UNSPECIFIED
        ]
        used = sorted({c.why for r in one.cells for c in r if c.why.endswith(".json")})
        parts += [f"Ours from {path}" for path in used]
        parts += _speed_note(one)
    return "\n\n".join(parts) + "\n"


def to_csv(filled: Sequence[FilledTable]) -> str:
    """Return the tables as CSV, one line per cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in filled:
        t = one.table
        for row, cells in zip(t.rows, one.cells, strict=True):
            for (column, _), cell in zip(t.columns, cells, strict=True):
                name = " / ".join(row.names)
                printed = "" if cell.printed is None else cell.printed
                ratios = (_number(r) for r in (cell.printed_ratio, cell.ours_ratio))
                writer.writerow(
                    (
                        t.id,
                        t.paper,
                        DATA[t.data],
                        name,
                        column,
                        printed,
                        _number(cell.ours),
                        cell.why,
                        cell.slip,
                        *ratios,
                        _number(cell.spread),
                        cell.runs or "",
                    )
                )
    return buffer.getvalue()


def _printed(cell: Cell) -> str:
    text = "–" if cell.printed is None else f"{cell.printed:.2f}{_times(cell.printed_ratio)}"
    return f"{text}*" if cell.slip else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.1f}x)"


def _ours(cell: Cell) -> str:
    if cell.ours is not None:
        spread = "" if cell.spread is None else f" ± {cell.spread:.2f}"
        return f"**{cell.ours:.2f}**{spread}{_times(cell.ours_ratio)}"
    return "–" if cell.printed is None else cell.why


def _speed_note(one: FilledTable) -> list[str]:
    speeds = one.speeds
    if speeds is None:
        return []
    return [
        f"Images per second are of {speeds.engine}, {speeds.shape}, on {speeds.hardware}; in"
        " brackets the speed over the teacher's on the same machine: that, not the speed, can be"
        " compared with the paper's."
    ]


def _slips(table: PrintedTable) -> list[str]:
    headings = {metric: name for name, metric in table.columns}
    texts: dict[tuple[str, str], list[str]] = {}
    for row in table.rows:
        for metric, text in row.slips.items():
            texts.setdefault((row.names[0], text), []).append(headings[metric])
    return [f"{row}, {', '.join(cols)}: {text}." for (row, text), cols in texts.items()]
