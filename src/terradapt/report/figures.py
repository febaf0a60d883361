"""Drawings as SVG text that takes the page's text colour: curves and scatter plots."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terradapt.report.wording import title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour until the SVG is done
SERIES = ("#3b82c4", "#e0812b", "#2f9e77", "#c44e8a", "#8a6fd1", "#a08a2e")
_NOT_LOSSES = {"event", "step", "epoch", "lr", "crops_per_second", "seconds"}
_VALIDATED = ("miou", "mf1", "oa")


def draw_curves(events: Sequence[Mapping[str, Any]]) -> str:
    """Draw a run's log: losses, learning rate, validation figures over the step.

    Args:
        events: Lines of ``log.jsonl``: ``event`` is "step" or "val", with ``step`` and numbers.

    Returns:
        SVG text; "" without a step.
    """
    steps = [e for e in events if e.get("event") == "step"]
    checks = [e for e in events if e.get("event") == "val"]
    if not steps and not checks:
        return ""
    losses = sorted((k for k in _keys(steps) if k not in _NOT_LOSSES), key=lambda n: n != "loss")
    panels = [
        ("loss", steps, losses),
        ("learning rate", steps, [k for k in ("lr",) if k in _keys(steps)]),
        (_checked_on(checks), checks, [k for k in _VALIDATED if k in _keys(checks)]),
    ]
    panels = [p for p in panels if p[2]]
    figure = _figure(10.5, 2.9)
    last = max(int(e.get("step", 0)) for e in (*steps, *checks))
    for axes, (title, lines, names) in zip(
        np.atleast_1d(figure.subplots(1, max(1, len(panels)))), panels, strict=False
    ):
        for colour, name in zip(SERIES, names, strict=False):
            marker = "o" if lines is checks else ""
            _line(axes, lines, name, colour, smooth=name == "loss", marker=marker)
        _dress(axes, title, "step")
        axes.set_xlim(0, 1.02 * max(1, last))
        axes.yaxis.set_major_formatter("{x:.3g}")
    return to_svg(figure)


def draw_overlay(logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """Draw the loss and the validation mIoU of several methods over the step, one colour each.

    Args:
        logs: Method -> the lines of ``log.jsonl`` of each of its seeds. The line is the mean over
            the seeds at the steps that all have, the band from the least to the greatest.

    Returns:
        SVG text; "" without a step.
    """
    panels = {"loss": ("step", "loss"), "validation mIoU": ("val", "miou")}
    figure = _figure(10.5, 4.2 if len(logs) <= 12 else 5.4)
    drawn = False
    for axes, (title, (event, key)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for number, (name, seeds) in enumerate(logs.items()):
            runs = [_points(events, event, key) for events in seeds]
            steps = sorted(set.intersection(*map(set, runs))) if runs else []
            if not steps:
                continue
            drawn = True
            values = np.array([[run[s] for s in steps] for run in runs])
            colour = SERIES[number % len(SERIES)]
            style = ("-", "--", ":", "-.")[number // len(SERIES) % 4]
            marker = "o" if len(steps) == 1 else ""
            mean = values.mean(0)
            axes.plot(steps, mean, color=colour, ls=style, lw=1.4, marker=marker, ms=4, label=name)
            axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
        _dress(axes, title, "step")
        if axes.get_legend() is not None:
            axes.get_legend().remove()
    if not drawn:
        return ""
    handles, names = max(
        (axes.get_legend_handles_labels() for axes in figure.axes), key=lambda pair: len(pair[1])
    )
    figure.legend(
        handles, names, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False,
        labelcolor=INK,
    )  # fmt: skip
    return to_svg(figure)


def _points(events: Sequence[Mapping[str, Any]], event: str, key: str) -> dict[int, float]:
    chosen = (e for e in events if e.get("event") == event)
    return {int(e["step"]): float(e[key]) for e in chosen if isinstance(e.get(key), int | float)}


def draw_reliability(tables: Mapping[str, Sequence[Mapping[str, float | int]]]) -> str:
    """Draw accuracy over confidence, and how the pixels are spread over the confidences.

    Args:
        tables: Name -> bins with ``low``, ``high``, ``pixels``, ``confidence`` and ``accuracy``.

    Returns:
        SVG text; "" without a pixel.
    """
    if not any(tables.values()):
        return ""
    figure = _figure(8.4, 3.6)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=INK, alpha=0.5, lw=1.0, ls="--", label="as it should be")
    for colour, (name, bins) in zip(SERIES, tables.items(), strict=False):
        x, y = ([b[k] for b in bins] for k in ("confidence", "accuracy"))
        left.plot(x, y, color=colour, marker="o", ms=3.5, lw=1.6, label=name)
        total = sum(b["pixels"] for b in bins)
        middle = [(b["low"] + b["high"]) / 2 for b in bins]
        shares = [100 * b["pixels"] / total for b in bins]
        right.plot(middle, shares, color=colour, marker="o", ms=3.5, lw=1.6, label=name)
    for axes, title in ((left, "share that is right"), (right, "pixels, per cent")):
        _dress(axes, title, "confidence")
        axes.set_xlim(0, 1)
    left.set_ylim(0, 1)
    return to_svg(figure)


def _checked_on(checks: Sequence[Mapping[str, Any]]) -> str:
    """Name the images that a run was checked on: a run without a validation split has others."""
    return "training images" if any(e.get("split") == "train" for e in checks) else "validation"


def draw_scatter(
    panels: Mapping[str, NDArray[np.floating[Any]]], labels: Sequence[str], note: str = ""
) -> str:
    """Draw two-dimensional embeddings, coloured by label.

    Args:
        panels: Title -> (N, 2) points.
        labels: N names, one colour each.
        note: One line below.

    Returns:
        SVG text.
    """
    figure = _figure(5.0 * len(panels), 4.2)
    names = list(dict.fromkeys(labels))
    for axes, (title, points) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        for colour, name in zip(SERIES * 9, names, strict=False):
            mine = points[[i for i, label in enumerate(labels) if label == name]]
            axes.scatter(mine[:, 0], mine[:, 1], s=18, color=colour, alpha=0.75, label=name, lw=0)
        _dress(axes, title, "")
        axes.set_xticks([])
        axes.set_yticks([])
    if note:
        figure.supxlabel(note, fontsize=8, color=INK)
    return to_svg(figure)


def to_svg(figure: Figure) -> str:
    """Return a figure as SVG for inlining; :data:`INK` becomes the page's text colour."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "terradapt"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _keys(events: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for e in events for k, v in e.items() if isinstance(v, float)))


def _line(
    axes: Axes,
    events: Sequence[Mapping[str, Any]],
    name: str,
    colour: str,
    *,
    smooth: bool = False,
    marker: str = "",
) -> None:
    points = [(e["step"], e[name]) for e in events if isinstance(e.get(name), int | float)]
    if not points:
        return
    x, y = np.array(points, float).T
    marker = marker or ("o" if len(x) == 1 else "")
    smooth = smooth and len(x) >= 40
    style: dict[str, Any] = {"marker": marker, "ms": 3.5, "lw": 1.0 if smooth else 1.6}
    label = title_of(name)
    axes.plot(x, y, color=colour, alpha=0.35 if smooth else 1.0, label=label, **style)
    if smooth:
        width = max(5, len(y) // 20)
        middle = np.convolve(y, np.ones(width) / width, "valid")
        axes.plot(x[width - 1 :], middle, color=colour, lw=1.8, label=f"mean of {width}")


def _dress(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(below, fontsize=8, color=INK)
    axes.tick_params(colors=INK, labelsize=8, length=2)
    axes.grid(True, color=INK, alpha=0.12, lw=0.6)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_alpha(0.4)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(fontsize=7.5, frameon=False, labelcolor=INK)
