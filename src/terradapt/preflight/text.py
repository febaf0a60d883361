"""The pre-flight as text and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terradapt.classes import IGNORE
from terradapt.data.dataset import Dataset
from terradapt.data.labels import VectorForm
from terradapt.data.leaks import Leak
from terradapt.files import size_text
from terradapt.preflight.alignment import Shift
from terradapt.preflight.check import CheckReport, class_pixels
from terradapt.preflight.inspection import Problem
from terradapt.raster import SceneReader

_MARKS = {"error": "ERROR", "warning": "warning", "note": "note"}
_ALIKE = 8  # problems of one kind that are printed


def render_text(report: CheckReport, estimate: Mapping[str, Any] | None = None) -> str:
    """Return the report as lines for a terminal.

    Args:
        report: What was found.
        estimate: Memory and time of a recipe, from :func:`terradapt.preflight.estimate`.
    """
    lines = [f"dataset  {report.root}", *summary_lines(report), *estimate_lines(estimate or {})]
    for problem, more in shorten(report.problems, _ALIKE):
        lines += [f"{_MARKS[problem.level]}: {problem.message}", f"  -> {problem.fix}"]
        if more:
            lines.append(f"  and {more} more {problem.level}s like these: see --json")
    counts = [counted(len(report.of(level)), level) for level in _MARKS]
    return "\n".join([*lines, ", ".join(counts)])


def summary_lines(report: CheckReport, *, classes: bool = True) -> list[str]:
    """Return what the files are, without what is wrong with them.

    Args:
        report: What was found.
        classes: With the share of every class.
    """
    lines = [*_facts(report), *(_classes(report) if classes else ())]
    if report.dataset is not None:
        lines += _ground(report.dataset)
    if report.shift is not None:
        lines.append(f"labels   {shift_text(report.shift)}")
    if report.dataset is not None and report.dataset.splits:
        lines += _leaks(report.dataset, report.leaks)
    return lines


def _ground(dataset: Dataset) -> list[str]:
    """What ground without a drawn label is, and what lies above the labels."""
    lines = []
    if isinstance(dataset.label, VectorForm):
        lines.append(f"ground   without a feature: {ground_text(dataset)} (data.background)")
    if dataset.corrections is not None:
        lines.append(f"above    the labels: {dataset.corrections.path}")
    return lines


def ground_text(dataset: Dataset) -> str | None:
    """Return what ground without a feature of a vector label is; None with label rasters."""
    if not isinstance(dataset.label, VectorForm):
        return None
    ground = dataset.label.background
    return "ignored" if ground == IGNORE else f"class '{dataset.classes.names[ground]}'"


def shorten(problems: Sequence[Problem], most: int) -> list[tuple[Problem, int]]:
    """Return at most ``most`` problems of each kind (level and fix), kind by kind.

    Returns:
        (problem, number of further ones of its kind after it that are left out).
    """
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.level, problem.fix), []).append(problem)
    return [
        (problem, len(alike) - most if number == most - 1 else 0)
        for alike in kinds.values()
        for number, problem in enumerate(alike[:most])
    ]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _leaks(dataset: Dataset, leaks: Sequence[Leak]) -> list[str]:
    if not leaks:
        return ["leaks    none between train and the other splits"]
    lines = []
    for split, ids in dataset.splits.items():
        found = {leak.other for leak in leaks if leak.split == split}
        pairs = sum(leak.split == split for leak in leaks)
        if found:
            lines.append(
                f"{len(found)} of {len(ids)} {split} images show ground of train "
                f"({counted(pairs, 'pair')})"
            )
    return ["leaks    " + "; ".join(lines)]


def _facts(report: CheckReport) -> list[str]:
    facts = [f for f in report.facts if f.width]
    if not facts:
        return [f"images   {len(report.facts)}"]
    pixels = sum(f.width * f.height for f in facts)
    sides = sorted({(f.width, f.height) for f in facts})
    size = f"{sides[0][0]} x {sides[0][1]}"
    if len(sides) > 1:
        size += f" to {sides[-1][0]} x {sides[-1][1]}"
    known = [f.resolution for f in facts if f.resolution]
    ends = dict.fromkeys(f"{end(known):.3g}" for end in (min, max) if known)
    scale = f"{' to '.join(ends)} m/px" if known else "unknown"
    valid = sum(f.valid * f.width * f.height for f in facts) / pixels
    crs = ", ".join(sorted({f.crs or "none" for f in facts})[:4])
    kinds = ", ".join(sorted({f"{f.bands} x {f.dtype}" for f in facts}))
    beside = (
        next((i.extra for i in report.dataset.items if i.extra), None) if report.dataset else None
    )
    if beside is not None:
        with SceneReader(beside) as file:
            count = file.count
        kinds += " and a surface model" if count == 1 else f" and {count} of a second raster"
    count = len(report.dataset.unlabelled) if report.dataset else 0
    bare = f" ({count} of them without a label)" if count else ""
    lines = [
        f"images   {len(report.facts)}{bare}, {pixels / 1e6:.3g} Mpx, {size} px, {kinds}",
        f"CRS      {crs}; resolution {scale}",
        f"nodata   {1 - valid:.2%} of the pixels; {_nodata(report)}",
    ]
    if report.dataset is not None and report.dataset.splits:
        parts = ", ".join(f"{k} {len(v)}" for k, v in report.dataset.splits.items())
        lines.append(f"splits   {parts} ({report.dataset.protocol})")
        lines += _blocks(report.dataset)
    return lines


def _blocks(dataset: Dataset) -> list[str]:
    """How much of a scene that is split inside lies in each split."""
    lines = []
    for scene in dataset.scenes:
        parts = []
        for name, ids in dataset.splits.items():
            own = [i for i in map(dataset.item, ids) if i.image == scene.image and i.area]
            share = sum(i.height * i.width for i in own) / (scene.height * scene.width)
            parts += [f"{name} {share:.0%}"] if own else []
        lines.append(f"blocks   of {scene.image.name}: {', '.join(parts)}; the rest lies in gaps")
    return lines


def _nodata(report: CheckReport) -> str:
    values = sorted({f.nodata for f in report.facts if f.nodata is not None})
    return "value " + ", ".join(f"{v:g}" for v in values[:4]) if values else "no value stated"


def _classes(report: CheckReport) -> list[str]:
    table = class_pixels(report)
    if not table or report.dataset is None:
        return []
    splits = [s for s in table if sum(table[s])]
    names = report.dataset.classes.names
    width = max(map(len, names))
    lines = [f"classes  {'':{width}}" + "".join(f"{s:>9}" for s in splits)]
    for number, name in enumerate(names):
        shares = (table[s][number] / sum(table[s]) for s in splits)
        lines.append(f"         {name:{width}}" + "".join(f"{v:9.2%}" for v in shares))
    ignored = sum(report.index.ignored.values()) if report.index else 0
    every = ignored + sum(table["all"])
    return [*lines, f"         {ignored / max(1, every):.2%} of the label pixels are ignored"]


def shift_text(shift: Shift) -> str:
    """Return a shift in words."""
    error = f"{shift.error:.1f} px" if np.isfinite(shift.error) else "unknown"
    place = f"shift {shift.rows:+.1f} rows, {shift.cols:+.1f} columns (standard error {error})"
    return place if shift.is_clear else f"{place}: too vague to tell"


def estimate_lines(estimate: Mapping[str, Any]) -> list[str]:
    """Return the estimate of a recipe as lines."""
    if not estimate:
        return []
    lines = [
        f"recipe   {estimate['recipe']}: {estimate['crops']} crops of {estimate['crop']} px an "
        f"epoch, {estimate['steps']} steps in {estimate['epochs']} epochs",
        f"reading  {estimate['crops_per_second']:.3g} crops/s in one process, images held in "
        f"memory {size_text(estimate['held_bytes'])}",
    ]
    if "step_seconds" in estimate:
        lines.append(
            f"training about {time_text(estimate['hours'] * 3600)} on {estimate['device']} "
            f"({estimate['step_seconds']:.2g} s a step measured), about "
            f"{size_text(estimate['memory_bytes'])} of memory"
        )
    return lines


def time_text(seconds: float) -> str:
    """Return seconds as s, min or h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def to_dict(report: CheckReport, estimate: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the report as plain values for JSON."""
    dataset = report.dataset
    shift = report.shift
    return {
        "dataset": str(report.root),
        "name": dataset.name if dataset else Path(report.root).name,
        "classes": dataset.classes.to_dict() if dataset else None,
        "label": dataset.label.to_dict() if dataset else None,
        "ground": ground_text(dataset) if dataset else None,
        "splits": {k: list(v) for k, v in dataset.splits.items()} if dataset else {},
        "protocol": dataset.protocol if dataset else None,
        "blocks": _areas(dataset) if dataset else {},
        "unlabelled": [i.id for i in dataset.unlabelled] if dataset else [],
        "notes": list(dataset.notes) if dataset else [],
        "class_pixels": class_pixels(report),
        "shift": None if shift is None else _shift_values(shift),
        "leaks": [leak.__dict__ for leak in report.leaks],
        "problems": [p.__dict__ for p in report.problems],
        "estimate": dict(estimate) if estimate else None,
        "items": [f.to_dict() for f in report.facts],
    }


def _areas(dataset: Dataset) -> dict[str, list[int]]:
    """Row, column, height and width of every block, px of its image."""
    areas = {i.id: i.area for i in dataset.items if i.area is not None}
    return {name: [w.row, w.col, w.height, w.width] for name, w in areas.items()}


def _shift_values(shift: Shift) -> dict[str, Any]:
    error = shift.error if np.isfinite(shift.error) else None
    return {**shift.__dict__, "error": error, "clear": shift.is_clear}
