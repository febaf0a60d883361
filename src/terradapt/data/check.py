"""The pre-flight: everything about a dataset that would spoil a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from terradapt.config import DataConfig
from terradapt.data.alignment import PATCHES, WARN, Shift, Surfaces
from terradapt.data.class_files import read_class_file, unknown_values
from terradapt.data.dataset import INDEX_NAME, Dataset, load_index
from terradapt.data.folder import build_dataset, find_layout
from terradapt.data.inspection import (
    Facts,
    Level,
    Problem,
    duplicates,
    inspect_files,
    label_surfaces,
)
from terradapt.data.leaks import Leak, find_leaks
from terradapt.data.new_splits import with_splits
from terradapt.data.scan import CACHE_NAME, ClassIndex, class_index, scan_labels
from terradapt.data.thumbnails import Thumb, choose_items, thumbnail
from terradapt.errors import DataError, TerradaptError
from terradapt.progress import Track, silent

_THREADS = 4
_ALIGNED = 64  # images whose alignment is estimated, spread over the set
_PATCHES = 2048  # of all images together
_THUMBS = 24  # on the page
_RARE = 0.001  # share of a class that is worth a note


@dataclass
class CheckReport:
    """What the pre-flight found.

    Args:
        root: The dataset's folder.
        dataset: The dataset of all items without an error, or None when there is none.
        facts: Of every item.
        problems: Errors first, then warnings and notes.
        shift: Of the labels as a whole, from all images together; None where unknown.
        index: Pixels by class.
        leaks: Between the splits, the largest first.
        thumbs: Item id to pictures, for the page.
    """

    root: Path
    dataset: Dataset | None = None
    facts: list[Facts] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    shift: Shift | None = None
    index: ClassIndex | None = None
    leaks: list[Leak] = field(default_factory=list)
    thumbs: dict[str, Thumb] = field(default_factory=dict)

    def of(self, level: str) -> list[Problem]:
        """Return the problems of one level."""
        return [p for p in self.problems if p.level == level]

    def raise_first(self) -> None:
        """Raise the first error, with the number of all.

        Raises:
            DataError: There is an error.
        """
        errors = self.of("error")
        if errors:
            more = f" (and {len(errors) - 1} more errors, listed above)" if errors[1:] else ""
            raise DataError(errors[0].message + more, errors[0].fix)


def check_dataset(
    root: Path,
    config: DataConfig | None = None,
    track: Track = silent,
    *,
    pictures: bool = False,
) -> CheckReport:
    """Check a prepared dataset or a bare folder; problems are collected, not raised.

    Args:
        root: Folder of the dataset.
        config: Splits, class column and line width.
        track: Progress.
        pictures: Also make thumbnails for the page.

    Returns:
        The report; its :meth:`CheckReport.raise_first` raises what would stop a training run.
    """
    report = CheckReport(root)
    config = config or DataConfig()
    try:
        dataset = _readable(report, config, track)
        if dataset is None:
            return report
        report.dataset = _with_splits(report, dataset, config)
        _check_images(report)
        report.index = _count_classes(report)
        _check_classes(report)
        _check_vectors(report)
        _check_alignment(report, track)
        _check_leaks(report, track)
        if pictures:
            _take_pictures(report, track)
    except TerradaptError as error:
        report.problems.append(Problem.of(error, root))
    rank = {"error": 0, "warning": 1, "note": 2}
    report.problems.sort(key=lambda p: rank[p.level])
    return report


def _readable(report: CheckReport, config: DataConfig, track: Track) -> Dataset | None:
    """The dataset of all items whose files are in order; None when nothing is left."""
    root = report.root
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", "give the folder of a dataset")
    if (root / INDEX_NAME).is_file():
        dataset = load_index(root)
        good = _inspect(report, [(i.id, i.image, i.label) for i in dataset.items], track)
        items = tuple(i for i in dataset.items if i.id in good)
        for fact, item in zip(report.facts, dataset.items, strict=True):
            fact.resolution = fact.resolution or item.resolution
        return replace(dataset, items=items) if items else None
    layout = find_layout(root)
    report.problems += [Problem.of(e, root) for e in layout.unmatched]
    good = _inspect(report, layout.pairs, track)
    pairs = [p for p in layout.pairs if p[0] in good]
    if not pairs:
        return None
    stated = read_class_file(root)
    if stated is not None and layout.vector is None:
        scans = scan_labels([p[2] for p in pairs if p[2]], root / CACHE_NAME)
        wrong = unknown_values(scans, stated)
        report.problems += [Problem.of(error, path) for path, error in wrong]
        names = {path for path, _ in wrong}
        pairs = [p for p in pairs if p[2] not in names]
    return build_dataset(root, layout, pairs, config) if pairs else None


def _inspect(
    report: CheckReport, pairs: Sequence[tuple[str, Path, Path | None]], track: Track
) -> set[str]:
    good = set()
    with track(len(pairs), "files", "images") as advance, ThreadPoolExecutor(_THREADS) as pool:
        for facts, problems in pool.map(lambda p: inspect_files(*p), pairs):
            report.facts.append(facts)
            report.problems += problems
            if not any(p.level == "error" for p in problems):
                good.add(facts.id)
            advance(1)
    report.problems += duplicates(report.facts)
    return good


def _with_splits(report: CheckReport, dataset: Dataset, config: DataConfig) -> Dataset:
    """Read the splits or draw and write them; while items are broken, do neither."""
    if report.of("error") or len(report.facts) != len(dataset.items):
        return dataset
    given = None if (dataset.root / INDEX_NAME).is_file() else find_layout(dataset.root).splits
    try:
        dataset = with_splits(dataset, config, given)
    except DataError as error:
        report.problems.append(Problem.of(error, dataset.root))
        return dataset
    left = {i.id for i in dataset.items} - {i for ids in dataset.splits.values() for i in ids}
    if left:
        names = ", ".join(sorted(left)[:5])
        message = f"{dataset.root}: {len(left)} images are in no split: {names}"
        report.problems.append(
            Problem("note", str(dataset.root), message, "list them in splits.json to use them")
        )
    return dataset


def _check_images(report: CheckReport) -> None:
    facts = [f for f in report.facts if f.width]
    root = str(report.root)
    kinds = {
        "CRS": {f.crs or "none" for f in facts},
        "data type": {f.dtype for f in facts},
        "number of bands": {str(f.bands) for f in facts},
    }
    for what, values in kinds.items():
        if len(values) > 1:
            level: Level = "note" if what == "CRS" else "warning"
            shown = ", ".join(sorted(values)[:6])
            message = f"{root}: images differ in {what}: {shown}"
            report.problems.append(Problem(level, root, message, "make them alike, or split them"))
    known = [f.resolution for f in facts if f.resolution]
    if known and max(known) > 1.5 * min(known):
        message = f"{root}: resolutions from {min(known):.3g} to {max(known):.3g} m/px"
        fix = f"set data.resolution={np.median(known):.3g} to train at one scale"
        report.problems.append(Problem("warning", root, message, fix))
    if facts and not any(f.crs for f in facts):
        message = f"{root}: no image has a CRS: metres, footprints and maps are unknown"
        report.problems.append(Problem("note", root, message, "use GeoTIFF where you have it"))


def _count_classes(report: CheckReport) -> ClassIndex | None:
    """Pixels by class of every item that can be decoded; the others become errors."""
    dataset = report.dataset
    assert dataset is not None
    try:
        index = class_index(dataset)
    except TerradaptError:
        index = ClassIndex({}, {}, {})
        kept = []
        for item in dataset.items:
            try:
                one = class_index(replace(dataset, items=(item,)))
            except TerradaptError as error:
                report.problems.append(Problem.of(error, item.label or item.image))
                continue
            kept.append(item)
            for name in ("counts", "ignored", "places"):
                getattr(index, name).update(getattr(one, name))
        known = {i.id for i in kept}
        splits = {s: tuple(i for i in ids if i in known) for s, ids in dataset.splits.items()}
        report.dataset = replace(dataset, items=tuple(kept), splits=splits)
    for fact in report.facts:
        if fact.id in index.counts:
            fact.pixels = index.counts[fact.id].tolist()
            fact.ignored = index.ignored[fact.id]
    return index if index.counts else None


def class_pixels(report: CheckReport) -> dict[str, list[int]]:
    """Return pixels by class of every split, and of ``all``."""
    if report.dataset is None or report.index is None:
        return {}
    names = {**report.dataset.splits, "all": tuple(report.index.counts)}
    counts: Mapping[str, Any] = report.index.counts
    size = len(report.dataset.classes)
    return {
        name: np.sum([counts[i] for i in ids if i in counts], axis=0, initial=0).tolist()
        if any(i in counts for i in ids)
        else [0] * size
        for name, ids in names.items()
    }


def _check_classes(report: CheckReport) -> None:
    if report.dataset is None or report.index is None:
        return
    root, names = str(report.root), report.dataset.classes.names
    for split, pixels in class_pixels(report).items():
        if split != "all" and not sum(pixels):
            continue
        for name, number in zip(names, pixels, strict=True):
            share = number / max(1, sum(pixels))
            if number == 0:
                message = f"{root}: class '{name}' does not occur in {split}"
                level: Level = "warning" if split in ("train", "all") else "note"
                fix = "move an image with it there, or drop the class"
                report.problems.append(Problem(level, root, message, fix))
            elif share < _RARE and split == "train":
                message = f"{root}: class '{name}' is {share:.2%} of the train pixels"
                fix = "set data.balance=0.5 to draw its places more often"
                report.problems.append(Problem("note", root, message, fix))


def _check_vectors(report: CheckReport) -> None:
    """Tell what was wrong with features of vector labels."""
    dataset = report.dataset
    if dataset is None or dataset.label.vector is None:
        return
    from terradapt.data.vector_labels import uncovered, vector_source

    for path in sorted({i.label for i in dataset.items if i.label is not None}):
        items = [i for i in dataset.items if i.label == path]
        census = vector_source(path, dataset.label.vector).census
        told = {
            "are empty": census.empty,
            "have an invalid geometry, which was mended": census.invalid,
            "are points, which label nothing": census.points,
            "have no class": census.unclassed,
        }
        for what, number in told.items():
            if number:
                message = f"{path}: {number} of {census.features} features {what}"
                fix = "look at them in a GIS; the others are used"
                report.problems.append(Problem("warning", str(path), message, fix))
        outside, all_of_them = uncovered(dataset, path, items)
        if outside:
            level: Level = "error" if outside == all_of_them else "warning"
            message = f"{path}: {outside} of {all_of_them} geometries lie outside all images"
            fix = "check the CRS of the labels and of the images"
            report.problems.append(Problem(level, str(path), message, fix))


def _check_alignment(report: CheckReport, track: Track) -> None:
    dataset = report.dataset
    assert dataset is not None
    items = [i for i in dataset.items if i.label is not None]
    step = np.linspace(0, len(items) - 1, min(_ALIGNED, len(items))).round().astype(int)
    chosen = [items[i] for i in step]
    facts = {f.id: f for f in report.facts}
    patches = int(np.clip(_PATCHES // max(1, len(chosen)), 32, PATCHES))
    means = Surfaces()
    with track(len(chosen), "alignment", "images") as advance:
        for item in chosen:
            surfaces = label_surfaces(dataset, item, patches)
            facts[item.id].shift = shift = surfaces.shift()
            means.add_means(surfaces)
            if shift is not None and shift.is_off:
                report.problems.append(_shifted(shift, str(item.label), f"{item.label}: lies"))
            advance(1)
    report.shift = means.shift()
    if report.shift is not None and report.shift.is_off:
        where = f"{report.root}: the labels together lie"
        report.problems.append(_shifted(report.shift, str(report.root), where))


def _shifted(shift: Shift, file: str, where: str) -> Problem:
    down = "below" if shift.rows > 0 else "above"
    right = "right" if shift.cols > 0 else "left"
    message = (
        f"{where} {abs(shift.rows):.1f} px {down} and {abs(shift.cols):.1f} px {right} of the "
        f"image (standard error {shift.error:.1f} px; a warning from {WARN:.0f} px)"
    )
    return Problem("warning", file, message, "look at the overlay, and move the labels if it is so")


def _check_leaks(report: CheckReport, track: Track) -> None:
    dataset = report.dataset
    if dataset is None or not dataset.splits:
        return
    report.leaks = sorted(find_leaks(dataset, track), key=lambda leak: -leak.share)
    for leak in report.leaks:
        message = f"{dataset.item(leak.other).image}: {leak}"
        fix = "put both into one split (one 'group' in dataset.json, or edit splits.json)"
        report.problems.append(Problem("warning", str(report.root), message, fix))


def _take_pictures(report: CheckReport, track: Track) -> None:
    dataset = report.dataset
    assert dataset is not None
    told = {p.file for p in report.of("warning")}
    items = choose_items([i for i in dataset.items if i.label is not None], _THUMBS, told)
    with track(len(items), "thumbnails", "images") as advance:
        for item in items:
            report.thumbs[item.id] = thumbnail(dataset, item)
            advance(1)
