"""The report as one HTML page without anything outside it."""

from __future__ import annotations

from importlib import import_module, resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from terradapt.errors import MissingExtraError
from terradapt.report.wording import (
    MEANINGS,
    class_rows,
    headline,
    per_class_columns,
    shown,
    shown_of_class,
    title_of,
)

if TYPE_CHECKING:
    from terradapt.report.model import Report

TEMPLATE = "report.html.j2"
LIBRARIES = ("jinja2", "matplotlib", "PIL")
_MAX_IMAGES = 100  # rows of the per-image table


def require_html() -> None:
    """Refuse early when the page's libraries are missing.

    Raises:
        MissingExtraError: jinja2, matplotlib or Pillow is not installed.
    """
    try:
        for name in LIBRARIES:
            import_module(name)
    except ImportError as error:
        raise MissingExtraError("the HTML report", "report") from error


def has_html() -> bool:
    """Tell whether the page's libraries are installed."""
    return all(find_spec(name) is not None for name in LIBRARIES)


def render_html(report: Report) -> str:
    """Return the report's page.

    Raises:
        MissingExtraError: jinja2, matplotlib or Pillow is not installed.
    """
    require_html()
    from jinja2 import Environment, StrictUndefined

    from terradapt.report.figures import draw_curves, draw_reliability
    from terradapt.report.pictures import css, draw_panels, legend, photo_uri

    source = (resources.files(__package__) / TEMPLATE).read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["title_of"] = title_of
    return environment.from_string(source).render(
        report=report,
        subtitle=_subtitle(report),
        tiles=[(title_of(k), shown(k, v), MEANINGS.get(k, "")) for k, v in _tiles(report)],
        figures=[
            (title_of(k), shown(k, v), MEANINGS.get(k, ""))
            for k, v in headline(report.metrics, everything=True)
        ],
        colours=report.classes.css,
        classes=_class_rows(report),
        class_columns=per_class_columns(class_rows(report.metrics)),
        heat=_heat(report),
        curves=draw_curves(report.events),
        reliability=draw_reliability(report.reliability),
        pictures=[draw_panels(p, report.classes) for p in report.pictures],
        legend=legend(report.classes),
        networks=[(p.name, p.caption, photo_uri(p.image)) for p in report.networks],
        network_legend=[(name, css(colour)) for name, colour in report.network_legend],
        image_columns=list(dict.fromkeys(k for row in report.images for k in row)),
        image_rows=[[(k, shown(k, v)) for k, v in row.items()] for row in report.images][
            :_MAX_IMAGES
        ],
        data=_pairs(report.data),
        protocol=_pairs(report.protocol),
        facts=_pairs(
            {"checkpoint": report.checkpoint, "commit": report.commit, **dict(report.facts)}
        ),
        reference_columns=list(dict.fromkeys(k for r in report.references for k in r.values)),
        references=[
            (r.name, {k: shown(k, v) for k, v in r.values.items()}, r.source)
            for r in report.references
        ],
    )


def _subtitle(report: Report) -> str:
    data, model = report.data, report.model
    count = data.get("images")
    encoder = (model.get("encoder") or {}).get("name")
    parts = [
        data.get("name"),
        f"split {data['split']}" if data.get("split") else None,
        f"{count} image{'' if count == 1 else 's'}" if count else None,
    ]
    what = f"{model['name']} with {encoder}" if encoder else model.get("name")
    return " · ".join(t for t in (", ".join(p for p in parts if p), what) if t)


def _tiles(report: Report) -> list[tuple[str, float | int]]:
    road = report.metrics.get("per_class", {}).get("road")
    if len(report.classes) == 2 and road:
        named = [("road F1", road["f1"]), ("road IoU", road["iou"])]
        kept = ("mdice", "miou_image", "rlod", "mae_x100", "apls", "topo_f1")
        return [*named, *(t for t in headline(report.metrics) if t[0] in kept)]
    return headline(report.metrics)[:6]


def _class_rows(report: Report) -> list[dict[str, Any]]:
    per_class = class_rows(report.metrics)
    columns = per_class_columns(per_class)
    rows = []
    for name, values in per_class.items():
        bars = {c: None if values.get("absent") else _width(values.get(c)) for c in columns}
        cells = [(c, shown_of_class(c, values), bars[c]) for c in columns]
        index = report.classes.names.index(name) if name in report.classes.names else -1
        evaluated = values.get("evaluated", True)
        rows.append({"name": name, "index": index, "cells": cells, "evaluated": evaluated})
    return rows


def _width(value: Any) -> float | None:
    return round(100 * value, 1) if isinstance(value, float) else None


def _heat(report: Report) -> list[tuple[str, list[tuple[str, float, str]]]]:
    """Rows of (class, cells of (share of the label's pixels, 0..1, tooltip))."""
    if report.confusion is None:
        return []
    matrix = report.confusion
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = matrix / totals
    names = report.classes.names
    return [
        (
            name,
            [
                (
                    f"{100 * share:.1f}",
                    float(share),
                    f"{int(count):,} px labelled {name}, predicted {other}",
                )
                for other, share, count in zip(names, shares[i], matrix[i], strict=True)
            ],
        )
        for i, name in enumerate(names)
    ]


def _pairs(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(title_of(k), _plain(v)) for k, v in values.items() if v not in ("", None, [], {})]


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return shown("", value)
