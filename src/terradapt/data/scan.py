"""Scan label files once: pixels per value and some places of each, cached in the dataset."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap
from terradapt.data.corrections import is_corrected
from terradapt.data.dataset import Dataset, Item
from terradapt.data.labels import ColourForm, IndexForm, RasterForm, VectorForm
from terradapt.data.reading import ItemReader, open_label
from terradapt.errors import DataError, OutputError
from terradapt.files import read_json, stamp, write_json
from terradapt.grid import Window
from terradapt.machine import cpu_cores
from terradapt.progress import Advance

CACHE_NAME = "label-index.json"
PLACES = 16  # kept for each value and file
DRAWN_PLACES = 256  # the same of labels that are drawn shapes, which may lie far apart
MAX_VALUES = 4096  # distinct values kept for each file
_STRIP = 1 << 25  # pixels read at a time
_FORMAT = 2

Place = tuple[int, int]


@dataclass(frozen=True)
class LabelScan:
    """What one label file holds.

    Args:
        bands: Bands of the file.
        height: Rows, px.
        width: Columns, px.
        nodata: The file's nodata value, or None.
        counts: Pixels by value; colours are packed as 0xRRGGBB.
        places: Up to 16 (row, column) of each value, drawn uniformly from its pixels.
        hidden: Pixels that are no data, of any value.
    """

    bands: int
    height: int
    width: int
    nodata: float | None
    counts: dict[int, int]
    places: dict[int, tuple[Place, ...]]
    hidden: int = 0

    @property
    def is_grey(self) -> bool:
        """Whether the file has no colours, in one band or in three equal ones."""
        return self.bands < 3 or all(v >> 16 == (v >> 8) & 255 == v & 255 for v in self.counts)

    def first_band(self) -> LabelScan:
        """Return the scan of the first band alone."""
        if self.bands < 3:
            return self
        counts: dict[int, int] = {}
        places: dict[int, tuple[Place, ...]] = {}
        for value, number in self.counts.items():
            red = value >> 16
            counts[red] = counts.get(red, 0) + number
            places[red] = places.get(red, ()) + self.places.get(value, ())
        return replace(self, bands=1, counts=counts, places=places)


def scan_labels(
    paths: Sequence[Path],
    cache: Path | None = None,
    progress: Advance | None = None,
) -> dict[Path, LabelScan]:
    """Scan label rasters, each only when it changed since the last scan.

    Args:
        paths: Label rasters.
        cache: File that keeps the scans; not written where its folder is read-only.
        progress: Called with 1 after each file.

    Raises:
        DataError: A file cannot be read, or its values are no integers.
    """
    known = _read_cache(cache)
    keys = {p: _key(p) for p in paths}
    found = {p: s for p in paths if (s := known.get(keys[p])) is not None}
    todo = [p for p in paths if p not in found]

    def scan(path: Path) -> LabelScan:
        result = scan_label(path)
        if progress:
            progress(1)
        return result

    with ThreadPoolExecutor(min(8, cpu_cores())) as pool:
        found.update(zip(todo, pool.map(scan, todo), strict=True))
    if todo and cache is not None:
        _write_cache(cache, {keys[p]: s for p, s in found.items()})
    return found


def scan_label(path: Path) -> LabelScan:
    """Scan one label raster.

    Raises:
        DataError: It cannot be read, or its values are no integers.
    """
    with open_label(path) as file:
        colours = file.count >= 3 and file.dtype == "uint8"
        tally = Tally(zlib.crc32(path.name.encode()))
        rows, hidden = max(1, _STRIP // file.width), 0
        for row in range(0, file.height, rows):
            window = Window(row, 0, min(rows, file.height - row), file.width)
            raw, valid = file.read(window)
            tally.add(_packed(raw) if colours else _integers(raw[0], valid, path), row, valid)
            hidden += int(valid.size - np.count_nonzero(valid))
        counts, places = tally.result()
        return LabelScan(file.count, file.height, file.width, file.nodata, counts, places, hidden)


class Tally:
    """Counts values strip by strip and keeps uniformly drawn places of each.

    Args:
        seed: Of the places.
        most: Places kept of each value.
    """

    def __init__(self, seed: int, most: int = PLACES) -> None:
        self._most = most
        self._rng = np.random.default_rng([seed, 0x7A11])
        self._counts: dict[int, int] = {}
        self._keys: dict[int, list[tuple[float, int, int]]] = {}

    def add(self, values: NDArray[Any], row: int, valid: NDArray[np.bool_] | None = None) -> None:
        """Add the valid pixels of an (H, W) strip that begins at ``row``; all without ``valid``."""
        if valid is None or valid.all():
            flat, spots = values.ravel(), None
        else:
            flat, spots = values[valid], np.flatnonzero(valid)
        if values.dtype == np.uint8:
            numbers = np.bincount(flat, minlength=256)
            found = np.flatnonzero(numbers)
            numbers = numbers[found]
        else:
            found, numbers = np.unique(flat, return_counts=True)
        for value, number in zip(found.tolist(), numbers.tolist(), strict=True):
            self._counts[value] = self._counts.get(value, 0) + number
            if len(self._keys) < 256 or value in self._keys:
                self._draw(flat, value, number, (row, values.shape[1]), spots)

    def _draw(
        self,
        flat: NDArray[Any],
        value: int,
        number: int,
        place: Place,
        spots: NDArray[np.int64] | None,
    ) -> None:
        """Merge draws: the k smallest of n uniform keys are k draws without replacement.

        Args:
            flat: Values.
            value: The one drawn.
            number: How many of them.
            place: First row and width of the strip.
            spots: Positions of the values in the strip; None: it is whole.
        """
        row, width = place
        count = min(self._most, number)
        hits = np.flatnonzero(flat == value)
        chosen = hits[self._rng.choice(number, count, replace=False)]
        chosen = chosen if spots is None else spots[chosen]
        gaps = self._rng.exponential(size=count) / np.arange(number, number - count, -1)
        keys = 1 - np.exp(-np.cumsum(gaps))
        drawn = zip(keys.tolist(), (chosen // width + row).tolist(), (chosen % width).tolist())  # noqa: B905
        self._keys[value] = sorted([*self._keys.get(value, []), *drawn])[: self._most]

    def result(self) -> tuple[dict[int, int], dict[int, tuple[Place, ...]]]:
        """Return counts and places by value; of very many values the most frequent."""
        top = sorted(self._counts, key=self._counts.__getitem__, reverse=True)[:MAX_VALUES]
        counts = {v: self._counts[v] for v in sorted(top)}
        places = {v: tuple((r, c) for _, r, c in self._keys[v]) for v in counts if v in self._keys}
        return counts, places


@dataclass(frozen=True)
class ClassIndex:
    """Pixels and places by class of every item of a dataset.

    Args:
        counts: Item id to (K,) int64 pixels.
        ignored: Item id to pixels that are ignored.
        places: Item id to class id to (row, column) places.
    """

    counts: dict[str, NDArray[np.int64]]
    ignored: dict[str, int]
    places: dict[str, dict[int, tuple[Place, ...]]]

    def total(self, items: Iterable[Item]) -> NDArray[np.int64]:
        """Return (K,) pixels by class over items."""
        rows = [self.counts[i.id] for i in items]
        total: NDArray[np.int64] = np.sum(rows, axis=0, dtype=np.int64)
        return total


def class_index(dataset: Dataset, progress: Advance | None = None) -> ClassIndex:
    """Return pixels and places by class; labels are scanned unless the cache knows them.

    Raises:
        DataError: A label cannot be read, or has a value that is no class.
    """
    above = dataset.corrections
    labels = {i: i.label for i in dataset.items if i.label is not None}
    burnt = [i for i in dataset.items if is_corrected(dataset, i)]
    if isinstance(dataset.label, VectorForm):  # burnt, they hold the classes' ids
        burnt = list(labels)
    else:
        alone = [i for i in dataset.items if i.area is not None or (above and i not in labels)]
        burnt += [i for i in alone if i not in burnt]
    shapes = {i: _scan_burnt(dataset, i) for i in burnt}
    index = _by_class(shapes, dataset.classes, IndexForm.identity(len(dataset.classes)))
    if isinstance(dataset.label, VectorForm):
        return index
    left = {i: path for i, path in labels.items() if i not in shapes}
    by_path = scan_labels(list(left.values()), dataset.root / CACHE_NAME, progress)
    scans = {i: by_path[path] for i, path in left.items()}
    rest = _by_class(scans, dataset.classes, dataset.label)
    return ClassIndex(
        rest.counts | index.counts, rest.ignored | index.ignored, rest.places | index.places
    )


def is_labelled(dataset: Dataset, items: Iterable[Item]) -> bool:
    """Tell whether any pixel of some items has a class; looks no further than the first one.

    Raises:
        DataError: A label cannot be read, or has a value that is no class.
    """
    for item in items:
        with ItemReader(dataset, item) as reader:
            rows = max(1, _STRIP // max(1, item.width))
            for row in range(0, item.height, rows):
                window = Window(row, 0, min(rows, item.height - row), item.width)
                if (reader.mask(window) != IGNORE).any():
                    return True
    return False


def _by_class(scans: dict[Item, LabelScan], classes: ClassMap, form: RasterForm) -> ClassIndex:
    size = len(classes)
    counts: dict[str, NDArray[np.int64]] = {}
    ignored: dict[str, int] = {}
    places: dict[str, dict[int, tuple[Place, ...]]] = {}
    for item, whole in scans.items():
        scan = whole if isinstance(form, ColourForm) else whole.first_band()
        row, skipped = np.zeros(size, np.int64), whole.hidden
        spots: dict[int, tuple[Place, ...]] = {}
        for value, number in scan.counts.items():
            class_id = form.class_of(value, classes)
            if class_id < 0:
                raise DataError(
                    f"{item.label}: {form.named(value)} is no class ({number} pixels)",
                    "mend the label, or add it to classes.yaml under the classes or 'ignore'",
                )
            if class_id >= size:
                skipped += number
                continue
            row[class_id] += number
            spots[class_id] = spots.get(class_id, ()) + scan.places.get(value, ())
        counts[item.id], ignored[item.id], places[item.id] = row, skipped, spots
    return ClassIndex(counts, ignored, places)


def _scan_burnt(dataset: Dataset, item: Item) -> LabelScan:
    with ItemReader(dataset, item) as reader:
        tally = Tally(zlib.crc32(item.id.encode()), DRAWN_PLACES if dataset.is_partial else PLACES)
        rows = max(1, _STRIP // item.width)
        for row in range(0, item.height, rows):
            window = Window(row, 0, min(rows, item.height - row), item.width)
            valid = np.ones((window.height, window.width), bool)
            tally.add(reader.mask(window, valid), row)
        counts, places = tally.result()
    return LabelScan(1, item.height, item.width, None, counts, places)


def _packed(raw: NDArray[Any]) -> NDArray[np.uint32]:
    wide = raw[:3].astype(np.uint32)
    packed: NDArray[np.uint32] = (wide[0] << 16) | (wide[1] << 8) | wide[2]
    return packed


def _integers(band: NDArray[Any], valid: NDArray[np.bool_], path: Path) -> NDArray[Any]:
    if band.dtype.kind == "f":
        band = np.where(valid, band, 0)
        if not np.isfinite(band).all() or (band != np.floor(band)).any():
            raise DataError(
                f"{path}: has label values that are no integers ({band.dtype})",
                "save the label as 8 bit class values",
            )
        return band.astype(np.int64)
    return band


def _key(path: Path) -> str:
    found = stamp(path)
    if not found:
        raise DataError(f"{path}: no such file", "check the path")
    return f"{path.absolute()}|{found[0]}|{found[1]}"


def _read_cache(cache: Path | None) -> dict[str, LabelScan]:
    if cache is None or not cache.is_file():
        return {}
    try:
        values = read_json(cache)
        if values.get("format") != _FORMAT:
            return {}
        return {k: _scan_from(v) for k, v in values["labels"].items()}
    except (DataError, KeyError, TypeError, ValueError):
        return {}  # a damaged cache is made anew


def _write_cache(cache: Path, scans: dict[str, LabelScan]) -> None:
    labels = {k: {**s.__dict__} for k, s in scans.items()}
    with suppress(OutputError):  # a read-only folder is scanned each time
        write_json(cache, {"format": _FORMAT, "labels": labels})


def _scan_from(values: dict[str, Any]) -> LabelScan:
    places = {int(k): tuple((int(r), int(c)) for r, c in v) for k, v in values["places"].items()}
    counts = {int(k): int(v) for k, v in values["counts"].items()}
    bands, height, width = (int(values[k]) for k in ("bands", "height", "width"))
    hidden = int(values["hidden"])
    return LabelScan(bands, height, width, values["nodata"], counts, places, hidden)
