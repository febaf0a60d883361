"""The report as Markdown: the figures without pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from terradapt.report.wording import (
    class_rows,
    headline,
    per_class_columns,
    shown,
    shown_of_class,
    title_of,
)

if TYPE_CHECKING:
    from terradapt.report.model import Report


_BIN = ("confidence", "accuracy", "pixels")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def render_markdown(report: Report) -> str:
    """Return the report's Markdown text."""
    parts = [f"# {report.title}"]
    parts += [f"> {note}" for note in report.notes]
    parts += ["## Figures", markdown_table(("figure", "value"), _figures(report.metrics))]
    parts += ["## Per class", _per_class(report)]
    if report.confusion is not None:
        parts += ["## Confusion (rows: label, columns: prediction, pixels)", _confusion(report)]
    for name, bins in report.reliability.items():
        parts += [f"## Confidence, {name}", _reliability(bins)]
    if report.images:
        parts += ["## Per image", _images(report)]
    for title, values in (("Data", report.data), ("Protocol", report.protocol)):
        if values:
            parts += [f"## {title}", _pairs(values)]
    facts = {"checkpoint": report.checkpoint, "commit": report.commit, **report.facts}
    parts += ["## Run", _pairs({k: v for k, v in facts.items() if v})]
    if report.references:
        parts += ["## Printed results, for orientation only (not measured here)", _printed(report)]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _figures(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    return [(title_of(k), shown(k, v)) for k, v in headline(metrics, everything=True)]


def _per_class(report: Report) -> str:
    per_class = class_rows(report.metrics)
    columns = per_class_columns(per_class)
    rows = [[name, *(shown_of_class(c, row) for c in columns)] for name, row in per_class.items()]
    return markdown_table(["class", *map(title_of, columns)], rows)


def _confusion(report: Report) -> str:
    assert report.confusion is not None
    names = report.classes.names
    rows = [
        [name, *map(str, row)] for name, row in zip(names, report.confusion.tolist(), strict=True)
    ]
    return markdown_table(["label \\ prediction", *names], rows)


def _reliability(bins: Sequence[Mapping[str, float | int]]) -> str:
    rows = [[f"{b['low']:.3f} to {b['high']:.3f}", *(shown(k, b[k]) for k in _BIN)] for b in bins]
    return markdown_table(("bin of confidence", "mean confidence", "right", "pixels"), rows)


def _images(report: Report) -> str:
    columns = list(dict.fromkeys(k for row in report.images for k in row))
    rows = [[shown(c, row.get(c, "")) for c in columns] for row in report.images]
    return markdown_table([title_of(c) for c in columns], rows)


def _pairs(values: dict[str, Any]) -> str:
    return markdown_table(("what", "value"), [(k, str(v)) for k, v in values.items()])


def _printed(report: Report) -> str:
    columns = list(dict.fromkeys(k for r in report.references for k in r.values))
    rows = [
        [r.name, *(shown(c, r.values.get(c, "")) for c in columns), r.source]
        for r in report.references
    ]
    return markdown_table(["method", *map(title_of, columns), "source"], rows)
