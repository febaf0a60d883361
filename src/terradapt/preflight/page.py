"""The pre-flight as one HTML page without anything outside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import Colour
from terradapt.errors import MissingExtraError
from terradapt.files import check_output, write_text
from terradapt.preflight.check import CheckReport, class_pixels
from terradapt.preflight.text import counted, estimate_lines, shorten, summary_lines

TEMPLATE = "check.html.j2"
_ROWS = 300  # of the table of images
_ALIKE = 20  # findings of one kind
_LARGE = 8  # up to so many images, their pictures are shown larger


def require_page() -> None:
    """Refuse early when the page's libraries are missing.

    Raises:
        MissingExtraError: jinja2 or Pillow is not installed.
    """
    try:
        for name in ("jinja2", "PIL"):
            import_module(name)
    except ImportError as error:
        raise MissingExtraError("the HTML page", "report") from error


def write_page(report: CheckReport, path: Path, estimate: Mapping[str, Any] | None = None) -> Path:
    """Write the page beside ``path``, then rename it.

    Raises:
        MissingExtraError: jinja2 or Pillow is not installed.
        OutputError: The folder cannot be written, or the page is a file of the dataset.
    """
    own = [Path(p) for f in report.facts for p in (f.image, f.label) if p]
    more = report.dataset.files if report.dataset else [*report.root.glob("*")]
    check_output(path, (".html", ".htm"), reads=[*own, *more])
    return write_text(path, render_page(report, estimate))


def render_page(report: CheckReport, estimate: Mapping[str, Any] | None = None) -> str:
    """Return the page.

    Raises:
        MissingExtraError: jinja2 or Pillow is not installed.
    """
    require_page()
    from jinja2 import Environment, StrictUndefined

    dataset = report.dataset
    split_of = {i: s for s, ids in dataset.splits.items() for i in ids} if dataset else {}
    split_of |= {i.id: "in blocks" for i in dataset.scenes} if dataset else {}
    split_of |= {i.id: "no label" for i in dataset.unlabelled} if dataset else {}
    table = class_pixels(report)
    splits = [s for s in table if sum(table[s])]
    source = (resources.files(__package__) / TEMPLATE).read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(
        name=dataset.name if dataset else Path(report.root).absolute().name,
        report=report,
        findings=shorten(report.problems, _ALIKE),
        counts=", ".join(counted(len(report.of(v)), v) for v in ("error", "warning", "note")),
        summary=_summary(report, estimate),
        legend=_legend(report),
        ignored=sum(report.index.ignored.values()) if report.index else 0,
        large=len(report.thumbs) <= _LARGE,
        splits=splits,
        classes=_class_rows(report, table, splits),
        thumbs=[
            {
                "id": i,
                "split": split_of.get(i),
                "image": _jpeg(t.image),
                "label": _png(t.label),
                "close": _jpeg(t.close),
                "place": t.place,
            }
            for i, t in report.thumbs.items()
        ],
        facts=report.facts[:_ROWS],
        hidden=max(0, len(report.facts) - _ROWS),
        split_of=split_of,
    )


def _summary(report: CheckReport, estimate: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The facts by name; the classes have a table of their own."""
    lines = (*summary_lines(report, classes=False), *estimate_lines(estimate or {}))
    return [(line[:9].strip(), line[9:]) for line in lines]


def _legend(report: CheckReport) -> list[tuple[str, str]]:
    if report.dataset is None:
        return []
    classes = report.dataset.classes
    return [(n, _hex(c)) for n, c in zip(classes.names, classes.colours, strict=True)]


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _class_rows(
    report: CheckReport, table: Mapping[str, list[int]], splits: list[str]
) -> list[dict[str, Any]]:
    if report.dataset is None or not splits:
        return []
    classes = report.dataset.classes
    return [
        {
            "name": name,
            "colour": _hex(classes.colours[i]),
            "cells": [(table[s][i], table[s][i] / sum(table[s])) for s in splits],
        }
        for i, name in enumerate(classes.names)
    ]


def _jpeg(picture: NDArray[np.uint8]) -> str:
    return _uri(picture, "JPEG", quality=80)


def _png(picture: NDArray[np.uint8]) -> str:
    return _uri(picture, "PNG", optimize=True)


def _uri(picture: NDArray[np.uint8], kind: str, **options: Any) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"
