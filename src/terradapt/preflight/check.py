"""The pre-flight: everything about a dataset that would spoil a training run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from terradapt.classes import ClassMap
from terradapt.config import DataConfig
from terradapt.data.class_files import read_class_file
from terradapt.data.corrections import corrections_file, on_ground, with_corrections
from terradapt.data.dataset import INDEX_NAME, Dataset, Item, load_index
from terradapt.data.folder import Layout, Pair, build_dataset, find_layout
from terradapt.data.joining import told
from terradapt.data.labels import VectorForm
from terradapt.data.leaks import Leak, find_leaks
from terradapt.data.new_splits import with_splits
from terradapt.data.raster_classes import unknown_labels
from terradapt.data.scan import CACHE_NAME, ClassIndex, class_index, scan_labels
from terradapt.data.vector_files import spellings
from terradapt.data.vector_labels import strangers, uncovered, vector_source
from terradapt.errors import DataError, TerradaptError
from terradapt.preflight.alignment import WARN, Shift, Surfaces
from terradapt.preflight.inspection import (
    Facts,
    Level,
    Problem,
    duplicates,
    inspect_files,
    label_surfaces,
)
from terradapt.preflight.thumbnails import Thumb, choose_items, thumbnail
from terradapt.progress import Track, silent

_THREADS = 4
_ALIGNED = 64  # images whose alignment is estimated, spread over the set
_PATCHES = 2048  # of all images together
_EACH = (32, 64)  # of one image, at least and at most
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
    try:
        dataset = _readable(report, config or DataConfig(), track)
        if dataset is not None:
            _examine(report, dataset, track, pictures)
    except TerradaptError as error:
        report.problems.append(Problem.of(error, root))
    rank = {"error": 0, "warning": 1, "note": 2}
    report.problems.sort(key=lambda p: rank[p.level])
    return report


def _readable(report: CheckReport, config: DataConfig, track: Track) -> Dataset | None:
    """The dataset of all items whose files are in order, with splits; None when none is left."""
    root, problems = report.root, report.problems
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", "give the folder of a dataset")
    if (root / INDEX_NAME).is_file():
        corrections_file(config)
        prepared, given = with_corrections(on_ground(load_index(root), config), config), None
        every = (*prepared.items, *prepared.unlabelled)
        good = _inspect(report, [(i.id, i.image, i.label) for i in every], track)
        for facts, item in zip(report.facts, every, strict=True):
            facts.resolution = facts.resolution or item.resolution
        dataset = replace(
            prepared,
            items=tuple(i for i in prepared.items if i.id in good),
            unlabelled=tuple(i for i in prepared.unlabelled if i.id in good),
        )
    else:
        layout = find_layout(root, corrections_file(config))
        given = layout.splits
        problems += [Problem.of(e, root) for e in layout.unmatched]
        good = _inspect(report, layout.every, track)
        unknown = dict(_unknown_labels(root, layout, good))
        problems += [Problem.of(error, path) for path, error in unknown.items()]
        pairs = [p for p in layout.every if p[0] in good and p[2] not in unknown]
        if not any(p[2] or layout.corrections for p in pairs):
            return None
        dataset = build_dataset(root, layout, pairs, config)
    whole = len(report.facts) == len(dataset.items) + len(dataset.unlabelled)
    if report.of("error") or not whole:
        return dataset if dataset.items else None  # no splits are drawn while items are broken
    try:
        return with_splits(dataset, config, given, tell=lambda _: None)  # the notes say it
    except DataError as error:
        problems.append(Problem.of(error, root))
        return dataset


def _inspect(report: CheckReport, pairs: Sequence[Pair], track: Track) -> set[str]:
    """Look into the files of every item; return the ids of those without an error."""
    good = set()
    with track(len(pairs), "files", "images") as advance, ThreadPoolExecutor(_THREADS) as pool:
        for facts, wrong in pool.map(lambda p: inspect_files(*p), pairs):
            report.facts.append(facts)
            report.problems += wrong
            if not any(p.level == "error" for p in wrong):
                good.add(facts.id)
            advance(1)
    report.problems += duplicates(report.facts)
    return good


def _examine(report: CheckReport, dataset: Dataset, track: Track, pictures: bool) -> None:
    """Fill a report step by step: what was found stays there when a later step raises."""
    problems = report.problems
    problems += _check_splits(dataset)
    problems += _check_images(dataset.root, report.facts)
    index, broken = _count_classes(dataset)
    problems += broken.values()
    report.dataset = dataset = _without(dataset, broken)
    for facts in report.facts:
        own = [i.id for i in _items_of(dataset, facts) if i.id in index.counts]
        if own:
            facts.pixels = np.sum([index.counts[i] for i in own], axis=0).tolist()
            facts.ignored = sum(index.ignored[i] for i in own)
    if index.counts:
        report.index = index
        problems += _check_classes(dataset, class_pixels(report))
    if isinstance(dataset.label, VectorForm):
        problems += _check_vectors(dataset, dataset.label)
    if dataset.corrections is not None:
        above = dataset.corrections
        problems += _check_features(above.path, above.form, dataset.split("all"), dataset.classes)
    shifts, report.shift = _shifts(dataset, track)
    for facts in report.facts:
        found = (shifts.get(i.id) for i in _items_of(dataset, facts))
        facts.shift = next((s for s in found if s is not None), None)
    problems += _check_alignment(dataset, shifts, report.shift)
    if dataset.splits:
        report.leaks = sorted(find_leaks(dataset, track), key=lambda leak: -leak.share)
        problems += _check_leaks(dataset, report.leaks)
    if pictures:
        warned = {p.file for p in report.of("warning")}
        report.thumbs = _pictures(dataset, warned, track)


def _items_of(dataset: Dataset, facts: Facts) -> list[Item]:
    """The item of an image, or its blocks."""
    return [i for i in dataset.items if str(i.image) == facts.image]


def _unknown_labels(root: Path, layout: Layout, good: set[str]) -> Iterable[tuple[Path, DataError]]:
    """The label rasters of a bare folder with values that its classes file lacks."""
    stated = read_class_file(root)
    if stated is None or layout.vector is not None:
        return ()
    paths = [label for name, _, label in layout.pairs if label and name in good]
    return unknown_labels(scan_labels(paths, root / CACHE_NAME), stated)


def _check_splits(dataset: Dataset) -> Iterator[Problem]:
    for note in dataset.notes:
        fix = "see docs/data.md, Splits; remove splits.json to draw new ones"
        yield Problem("note", str(dataset.root), f"{dataset.root}: {note}", fix)
    if dataset.unlabelled:
        message = f"{dataset.root}: {told(dataset.unlabelled)} without a label, in no split"
        fix = "nothing, if it is meant so; else give each image a label of its name"
        yield Problem("note", str(dataset.root), message, fix)
    left = {i.id for i in dataset.items} - {i for ids in dataset.splits.values() for i in ids}
    barred = sorted(left & set(dataset.left_out))
    if barred:
        message = f"{dataset.root}: {told(barred)}: left out by splits.json, as ground of another "
        message += "split or on wish"
        fix = "list them in the split whose ground they show, or leave it so"
        yield Problem("note", str(dataset.root), message, fix)
    left -= set(barred)
    if left and dataset.splits:
        names = ", ".join(sorted(left)[:5])
        message = f"{dataset.root}: {len(left)} images are in no split: {names}"
        yield Problem("note", str(dataset.root), message, "list them in splits.json to use them")
    if dataset.splits and not dataset.splits.get("val"):
        message = f"{dataset.root}: no image in the split 'val': a run is checked on its own images"
        yield Problem("warning", str(dataset.root), message, "list some under 'val' in splits.json")


def _check_images(folder: Path, facts: Sequence[Facts]) -> Iterator[Problem]:
    facts, root = [f for f in facts if f.width], str(folder)
    kinds: dict[str, tuple[Level, dict[str, str]]] = {
        "CRS": ("note", {f.crs or "none": f.image for f in facts}),
        "data type": ("error", {f.dtype: f.image for f in facts}),
        "number of bands": ("warning", {str(f.bands): f.image for f in facts}),
    }
    for what, (level, values) in kinds.items():
        if len(values) > 1:
            shown = ", ".join(f"{v} ({Path(values[v]).name})" for v in sorted(values)[:6])
            message = f"{root}: images differ in {what}: {shown}"
            yield Problem(level, root, message, "make them alike, or split them")
    orders = {tuple(n.casefold() for n in f.names): f.image for f in facts if all(f.names)}
    for order, image in list(orders.items())[1:]:
        first, other = next(iter(orders.items()))
        if order != first and sorted(order) == sorted(first):
            message = f"{image}: its bands are {', '.join(order)}, those of {Path(other).name} "
            fix = "bring all images to one order of bands: gdal_translate -b 3 -b 2 -b 1 IN OUT"
            yield Problem("error", image, message + ", ".join(first), fix)
    known = [f.resolution for f in facts if f.resolution]
    if known and max(known) > 1.5 * min(known):
        message = f"{root}: resolutions from {min(known):.3g} to {max(known):.3g} m/px"
        fix = f"set data.resolution={np.median(known):.3g} to train at one scale"
        yield Problem("warning", root, message, fix)
    if facts and not any(f.crs for f in facts):
        message = f"{root}: no image has a CRS: metres, footprints and maps are unknown"
        yield Problem("note", root, message, "use GeoTIFF where you have it")


def _count_classes(dataset: Dataset) -> tuple[ClassIndex, dict[str, Problem]]:
    """Pixels by class of every item that can be decoded, and what is wrong with the others."""
    try:
        return class_index(dataset), {}
    except TerradaptError:
        index, broken = ClassIndex({}, {}, {}), {}
    for item in dataset.items:
        try:
            one = class_index(replace(dataset, items=(item,)))
        except TerradaptError as error:
            broken[item.id] = Problem.of(error, item.label or item.image)
            continue
        index.counts.update(one.counts)
        index.ignored.update(one.ignored)
        index.places.update(one.places)
    return index, broken


def _without(dataset: Dataset, broken: Collection[str]) -> Dataset:
    items = tuple(i for i in dataset.items if i.id not in broken)
    splits = {s: tuple(i for i in ids if i not in broken) for s, ids in dataset.splits.items()}
    return replace(dataset, items=items, splits=splits)


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


def _check_classes(dataset: Dataset, pixels: Mapping[str, Sequence[int]]) -> Iterator[Problem]:
    root = str(dataset.root)
    for split, numbers in pixels.items():
        if split != "all" and not sum(numbers):
            if dataset.splits.get(split):
                message = f"{root}: no pixel of the split '{split}' is labelled, all are ignored"
                fix = "label some of its images, or move labelled ones there in splits.json"
                level: Level = "error" if split in ("train", "val") else "warning"
                yield Problem(level, root, message, fix)
            continue
        fix = "move an image with it there, or drop the class"
        if dataset.scenes:
            fix = "add an image with it, or remove splits.json and draw with another split_seed"
        for name, number in zip(dataset.classes.names, numbers, strict=True):
            share = number / max(1, sum(numbers))
            if number == 0:
                message = f"{root}: class '{name}' does not occur in {split}"
                level = "warning" if split in ("train", "all") else "note"
                yield Problem(level, root, message, fix)
            elif share < _RARE and split == "train":
                message = f"{root}: class '{name}' is {share:.2%} of the train pixels"
                often = "set data.balance=0.5 to draw its places more often"
                yield Problem("note", root, message, often)


def _check_vectors(dataset: Dataset, form: VectorForm) -> Iterator[Problem]:
    """Tell what was wrong with features of vector labels."""
    images = dataset.split("all")
    for path in sorted({i.label for i in images if i.label is not None}):
        items = [i for i in images if i.label == path]
        yield from _check_features(path, form, items, dataset.classes)


def _check_features(
    path: Path, form: VectorForm, items: Sequence[Item], classes: ClassMap
) -> Iterator[Problem]:
    census = vector_source(path, form).census
    numbers = {
        "are empty": census.empty,
        "have an invalid geometry, which was mended": census.invalid,
        "are points, which label nothing": census.points,
        "have no class": census.unclassed,
    }
    for what, number in numbers.items():
        if number:
            message = f"{path}: {number} of {census.features} features {what}"
            fix = "look at them in a GIS; the others are used"
            yield Problem("warning", str(path), message, fix)
    for line in spellings(form, classes):
        message = f"{path}: column '{form.column}': {line}"
        yield Problem("note", str(path), message, "spell a class in one way")
    if lost := strangers(path, form, items):
        yield Problem("warning", str(path), lost, "mend their column 'image'")
    outside, all_of_them = uncovered(path, form, items)
    if outside:
        level: Level = "error" if outside == all_of_them else "warning"
        message = f"{path}: {outside} of {all_of_them} geometries lie outside all images"
        fix = "check the CRS of the labels and of the images"
        yield Problem(level, str(path), message, fix)


def _shifts(dataset: Dataset, track: Track) -> tuple[dict[str, Shift | None], Shift | None]:
    """Where the labels lie on their images: of some items by id, and of all these together."""
    items = [i for i in dataset.items if i.label is not None]
    step = np.linspace(0, len(items) - 1, min(_ALIGNED, len(items))).round().astype(int)
    chosen = [items[i] for i in step]
    patches = int(np.clip(_PATCHES // max(1, len(chosen)), *_EACH))
    shifts, means = {}, Surfaces()
    with track(len(chosen), "alignment", "images") as advance:
        for item in chosen:
            surfaces = label_surfaces(dataset, item, patches)
            shifts[item.id] = surfaces.shift()
            means.add_means(surfaces)
            advance(1)
    return shifts, means.shift()


def _check_alignment(
    dataset: Dataset, shifts: Mapping[str, Shift | None], whole: Shift | None
) -> Iterator[Problem]:
    for name, shift in shifts.items():
        if shift is not None and shift.is_off:
            label = dataset.item(name).label
            yield _shifted(shift, str(label), f"{label}: lies")
    if whole is not None and whole.is_off:
        yield _shifted(whole, str(dataset.root), f"{dataset.root}: the labels together lie")


def _shifted(shift: Shift, file: str, where: str) -> Problem:
    down = "below" if shift.rows > 0 else "above"
    right = "right" if shift.cols > 0 else "left"
    message = (
        f"{where} {abs(shift.rows):.1f} px {down} and {abs(shift.cols):.1f} px {right} of the "
        f"image (standard error {shift.error:.1f} px; a warning from {WARN:.0f} px)"
    )
    fix = "look at the overlay; if it is so, move the labels, or train with data.align=auto"
    return Problem("warning", file, message, fix)


def _check_leaks(dataset: Dataset, leaks: Sequence[Leak]) -> Iterator[Problem]:
    for leak in leaks:
        message = f"{dataset.item(leak.other).image}: {leak}"
        fix = "put both into one split (one 'group' in dataset.json, or edit splits.json)"
        yield Problem("warning", str(dataset.root), message, fix)


def _pictures(dataset: Dataset, warned: set[str], track: Track) -> dict[str, Thumb]:
    items = choose_items([i for i in dataset.items if i.label is not None], _THUMBS, warned)
    thumbs = {}
    with track(len(items), "thumbnails", "images") as advance:
        for item in items:
            thumbs[item.id] = thumbnail(dataset, item)
            advance(1)
    return thumbs
