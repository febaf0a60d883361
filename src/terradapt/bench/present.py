"""The bench as Markdown, JSON and a plot of accuracy against speed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terradapt.bench.run import BACKBONES, TEACHER, BenchRow
from terradapt.documents import validated
from terradapt.errors import ConfigError, MissingExtraError, refusing
from terradapt.files import read_json, replacing, write_together
from terradapt.report.printed import PrintedRow, load_tables

PAPER_RATIO = 15.3
COLUMNS = (
    ("backbone", "{}"),
    ("engine", "{}"),
    ("parameters", "{:.2f}"),
    ("reduction", "{:.2f}"),
    ("gmacs", "{:.2f}"),
    ("size_mib", "{:.2f}"),
    ("rate", "{:.2f}"),
    ("best_rate", "{:.2f}"),
    ("best_batch", "{}"),
    ("latency_ms", "{:.1f}"),
    ("memory_mib", "{:.0f}"),
    ("joules", "{:.2f}"),
    ("of_limit", "{:.2f}"),
)
TITLES = (
    "Backbone",
    "Engine",
    "Params (M)",
    "Reduction (%)",
    "GMACs",
    "Size (MiB)",
    "img/s",
    "img/s, best",
    "at batch",
    "Latency (ms)",
    "Peak memory (MiB)",
    "J/image",
    "x limit",
)


def write_bench(
    folder: Path, result: Mapping[str, Any], accuracy: Mapping[str, float]
) -> list[Path]:
    """Write ``bench.json``, ``bench.md`` and, with matplotlib, ``bench.png``; return them.

    Args:
        folder: Where to.
        result: Of :func:`terradapt.bench.bench`.
        accuracy: mIoU 0..1 by backbone, measured; the paper's are drawn where there is none.
    """
    texts = write_together(
        {
            folder / "bench.json": json.dumps(dict(result), indent=2) + "\n",
            folder / "bench.md": bench_markdown(result),
        }
    )
    return [*texts, draw_chart(folder / "bench.png", result, accuracy)]


def read(folder: Path) -> tuple[list[BenchRow], dict[str, Any]]:
    """Return rows and options of an earlier ``bench.json``; none where there is no such file.

    Raises:
        ConfigError: The file is damaged or of another version.
    """
    path = folder / "bench.json"
    if not path.is_file():
        return [], {}
    fix = "give another folder"
    with refusing(path, ConfigError, fix, "no results of terradapt bench"):
        values = read_json(path, ConfigError, fix)
        rows = validated(list[BenchRow], values["rows"], path, ConfigError, fix)
        return rows, validated(dict[str, Any], values["options"], path, ConfigError, fix)


def bench_markdown(result: Mapping[str, Any]) -> str:
    """Return the rows as a table, the ratios beside the paper's, and what the columns mean."""
    options = result["options"]
    shape = f"{options['batch']} x 3 x {options['size']} x {options['size']}"
    lines = [
        "# Efficiency on this machine",
        "",
        f"{result['hardware']}; {result['threads']} threads. A product of 2048 x 2048 matrices in "
        f"float32 ran at {_range([row['gflops'] for row in result['rows']])} GFLOP/s. "
        "Random weights: speed does not depend on them.",
        "",
        "| " + " | ".join(TITLES) + " |",
        "|---|---|" + "---:|" * (len(TITLES) - 2),
        *[_line(row) for row in result["rows"]],
        "",
        f"img/s, GMACs and x limit are for a batch of {shape}; normalisation and softmax are "
        "inside. GMACs and Params are thop's. x limit is the batch's time over that of its "
        "multiply-adds at the rate of the matrix product in the same run. Latency is "
        "for a batch of one. Peak memory is what weights and a batch of one add to the process.",
        "",
        *ratios(result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how many times faster than the teacher each student is, beside the paper's."""
    printed = {name: row.values["complexity.fps"] for name, row in printed_rows().items()}
    teacher = {r["engine"]: r["rate"] for r in rows if r["backbone"] == TEACHER}
    students = [r for r in rows if r["backbone"] != TEACHER and r["engine"] in teacher]
    if not students:
        return []
    lines = [
        "## Student over teacher, images per second",
        "",
        f"The paper's {PAPER_RATIO}x is efficientnet_b0 on a TITAN RTX (its Table 4).",
        "",
        "| Backbone | Engine | here | paper |",
        "|---|---|---:|---:|",
    ]
    for row in students:
        known = printed.get(row["backbone"])
        paper = "" if known is None else f"{known / (printed[TEACHER] or 1):.1f}"
        ratio = row["rate"] / teacher[row["engine"]]
        lines.append(f"| {row['backbone']} | {row['engine']} | {ratio:.1f} | {paper} |")
    return lines


def printed_rows() -> dict[str, PrintedRow]:
    """Return the rows of ARAFNet's Table 4 by encoder."""
    table = next(t for t in load_tables() if t.id == "arafnet-4")
    rows = {row.names[0]: row for row in table.rows}
    return {encoder: rows[name] for encoder, name in BACKBONES.items()}


def draw_chart(path: Path, result: Mapping[str, Any], accuracy: Mapping[str, float]) -> Path:
    """Draw accuracy against speed, each engine in its colour.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
    except ImportError as error:
        raise MissingExtraError("the plot of terradapt bench", "report") from error
    paper = {name: row.values["miou"] for name, row in printed_rows().items()}
    known = {k: v / 100 for k, v in paper.items() if v is not None}
    values = dict(accuracy) or known
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for engine in dict.fromkeys(row["engine"] for row in result["rows"]):
        rows = [r for r in result["rows"] if r["engine"] == engine and r["backbone"] in values]
        x, y = [r["rate"] for r in rows], [100 * values[r["backbone"]] for r in rows]
        axes.scatter(x, y, s=24, label=engine)
        if engine == result["rows"][0]["engine"]:
            for row, at in zip(rows, zip(x, y, strict=True), strict=True):
                axes.annotate(
                    row["backbone"],
                    at,
                    xytext=(-6, 0),
                    textcoords="offset points",
                    fontsize=7,
                    ha="right",
                    va="center",
                )
    axes.set_xscale("log")
    axes.set_xmargin(0.2)  # room for the names, which stand left of the first engine
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"images per second here, batch of {result['options']['batch']}")
    source = "measured" if accuracy else "as the paper prints it for Vaihingen"
    axes.set_ylabel(f"mIoU, per cent, {source}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)
    return path


def _line(row: Mapping[str, Any]) -> str:
    empty = {"reduction": "-"}
    cells = [
        empty.get(key, "not measured") if row[key] is None else form.format(row[key])
        for key, form in COLUMNS
    ]
    return "| " + " | ".join(cells) + " |"
