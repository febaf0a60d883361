"""Leaks between splits: overlapping footprints, and the same ground in two images."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import fft, ndimage

from terradapt.data.dataset import Dataset, Item
from terradapt.errors import TerradaptError
from terradapt.grid import Window
from terradapt.progress import Track, silent
from terradapt.raster import SceneReader
from terradapt.raster.georef import move_points, parse_crs

COMPARED = 250_000_000  # px; datasets up to this size are compared by pixels before a split
LEAST_OVERLAP = 0.005  # of the smaller footprint; tiles that only touch do not leak
_SIDE = 1024  # px, larger images are thinned to it for the fingerprints
_CELLS, _EACH = 8, 2  # fingerprints: 2 in each of 8 x 8 cells of an image
_PATCH = 32  # px, of a fingerprint
_NEAR = 12  # of 63 bits that may differ; two patches of different ground differ in 31 or so
_VOTES = 4  # fingerprints that agree on one offset: the same ground
_TOLERANCE = 3  # px (of the thinned image), of that offset
_EVERY_PAIR = 4 << 30  # pairs of fingerprints that are all compared; beyond it by buckets


@dataclass(frozen=True)
class Leak:
    """Two items of different splits that show the same ground.

    Args:
        train: Id of the item in train.
        other: Id of the item in the other split.
        split: Name of that split.
        kind: ``footprint`` (their georeference overlaps) or ``pixels`` (near-duplicate crops).
        share: Of the smaller footprint that both cover, or of the fingerprints that match, 0..1.
    """

    train: str
    other: str
    split: str
    kind: str
    share: float

    def __str__(self) -> str:
        what = "overlaps" if self.kind == "footprint" else "shows the same ground as"
        return f"{self.split} '{self.other}' {what} train '{self.train}' ({self.share:.0%})"


def find_leaks(dataset: Dataset, track: Track = silent, *, pixels: bool = True) -> list[Leak]:
    """Find items of val, test and further splits that show ground of train.

    Args:
        dataset: Its splits are compared.
        track: Progress.
        pixels: Also compare the images themselves, which reads them all.
    """
    leaks = footprint_leaks(dataset)
    if pixels:
        known = {(k.train, k.other) for k in leaks}
        leaks += [k for k in pixel_leaks(dataset, track) if (k.train, k.other) not in known]
    return leaks


def footprint_leaks(dataset: Dataset) -> list[Leak]:
    """Find overlapping footprints by CRS and transform; images without a CRS have none."""
    outlines = {i.id: shape for i in dataset.items if (shape := footprint(i)) is not None}
    train = [i for i in dataset.splits.get("train", ()) if i in outlines]
    tree = shapely.STRtree([outlines[i] for i in train])
    found = []
    for split, ids in dataset.splits.items():
        for other in ids if split != "train" else ():
            if other not in outlines:
                continue
            for hit in tree.query(outlines[other], predicate="intersects"):
                share = overlap(outlines[train[hit]], outlines[other])
                if share >= LEAST_OVERLAP:
                    found.append(Leak(train[hit], other, split, "footprint", share))
    return found


def group_by_ground(items: Sequence[Item], *, pixels: bool) -> tuple[Item, ...] | None:
    """Put images of the same ground into one group, so that no split cuts through them.

    Args:
        items: The images; their own groups are kept together too.
        pixels: Also compare the images themselves, which reads them all.

    Returns:
        The items with their groups, or None where fewer than three groups would be left, as in a
        mosaic of overlapping tiles.
    """
    first = {item.group: n for n, item in reversed(list(enumerate(items)))}
    head = [first[item.group] for item in items]

    def top(index: int) -> int:
        while head[index] != index:
            index = head[index]
        return index

    pairs = [(a, b) for a, b, _ in same_pixels(items)] if pixels else []
    for a, b in (*overlapping(items), *pairs):
        low, high = sorted((top(a), top(b)))
        head[high] = low
    groups = [top(i) for i in range(len(items))]
    if len(set(groups)) < min(3, len(first)):
        return None
    return tuple(replace(i, group=items[g].group) for i, g in zip(items, groups, strict=True))


def overlapping(items: Sequence[Item]) -> list[tuple[int, int]]:
    """Return pairs of indexes of images whose footprints overlap."""
    outlines = {n: shape for n, i in enumerate(items) if (shape := footprint(i)) is not None}
    keys = list(outlines)
    tree = shapely.STRtree([outlines[k] for k in keys])
    return [
        (keys[hit], key)
        for key in keys
        for hit in tree.query(outlines[key], predicate="intersects")
        if keys[hit] < key and overlap(outlines[keys[hit]], outlines[key]) >= LEAST_OVERLAP
    ]


def footprint(item: Item) -> Any | None:
    """Return an image's outline in longitude and latitude, or None without a CRS."""
    try:
        with SceneReader(item.image) as file:
            georef = item.placed(file.georef)
    except TerradaptError:
        return None
    if georef.crs is None:
        return None
    places = move_points(georef.outline(4), georef.crs, parse_crs("EPSG:4326", str(item.image)))
    return shapely.Polygon(places) if np.isfinite(places).all() else None


def overlap(a: Any, b: Any) -> float:
    """Return the share of the smaller of two polygons that the other covers."""
    return float(shapely.area(shapely.intersection(a, b)) / min(shapely.area(a), shapely.area(b)))


def pixel_leaks(dataset: Dataset, track: Track = silent) -> list[Leak]:
    """Find the same ground by the pixels alone, at any offset, same scale and orientation."""
    split_of = {i: name for name, ids in dataset.splits.items() for i in ids}
    items = [i for i in dataset.items if i.id in split_of]
    if len({split_of[i.id] for i in items}) < 2:
        return []
    train = np.array([split_of[i.id] == "train" for i in items], bool)
    found = []
    for a, b, share in same_pixels(items, track, np.flatnonzero(train), np.flatnonzero(~train)):
        other = items[b].id
        found.append(Leak(items[a].id, other, split_of[other], "pixels", share))
    return found


def same_pixels(
    items: Sequence[Item],
    track: Track = silent,
    left: NDArray[np.int64] | None = None,
    right: NDArray[np.int64] | None = None,
) -> list[tuple[int, int, float]]:
    """Find pairs of images that show the same ground.

    Fingerprints lie at distinct spots of an image; two images show the same ground when several
    of their fingerprints match at one common offset.

    Args:
        items: The images.
        track: Progress.
        left: Indexes of the first of a pair; all when None.
        right: Indexes of the second of a pair; all when None.

    Returns:
        (index, index, share of the fingerprints that match).
    """
    with track(len(items), "fingerprints", "images") as advance, ThreadPoolExecutor(4) as pool:
        prints = []
        for spots in pool.map(fingerprints, items):
            prints.append(spots)
            advance(1)
    every = np.arange(len(items))
    return _matches(prints, every if left is None else left, every if right is None else right)


@dataclass(frozen=True)
class Fingerprints:
    """Spots of an image that its content chooses, with what they look like.

    Args:
        places: (N, 2) row, column, in pixels of the thinned image.
        bits: (N,) uint64.
    """

    places: NDArray[np.float32]
    bits: NDArray[np.uint64]


def fingerprints(item: Item) -> Fingerprints:
    """Return the fingerprints of an image; none if it cannot be read."""
    try:
        grey = _grey(item)
    except TerradaptError:
        return Fingerprints(np.empty((0, 2), np.float32), np.empty(0, np.uint64))
    places = _spots(grey)
    half = _PATCH // 2
    patches = [grey[r - half : r + half, c - half : c + half] for r, c in places]
    bits = np.array([_bits(p) for p in patches], np.uint64)
    return Fingerprints(places.astype(np.float32), bits)


def _grey(item: Item) -> NDArray[np.float32]:
    """The image's mean of up to three bands, thinned to ``_SIDE``."""
    with SceneReader(item.image) as file:
        area = item.area or file.window
        step = max(1, -(-max(area.height, area.width) // _SIDE))
        rows = []
        for row in range(0, area.height - step + 1, step * 64):
            height = min(step * 64, (area.height - row) // step * step)
            window = Window(area.row + row, area.col, height, area.width // step * step)
            pixels = file.read(window)[0]
            plane = pixels[:3].astype(np.float32).mean(0)
            rows.append(plane.reshape(height // step, step, -1, step).mean((1, 3)))
    grey: NDArray[np.float32] = np.concatenate(rows)
    return grey


def _spots(grey: NDArray[np.float32]) -> NDArray[np.int64]:
    """Extrema of a band-passed image, the strongest of each cell: they move with the content."""
    band = abs(ndimage.gaussian_filter(grey, 3) - ndimage.gaussian_filter(grey, 6))
    top = (band == ndimage.maximum_filter(band, 17)) & (band > 0.5)
    half = _PATCH // 2
    top[:half], top[-half:], top[:, :half], top[:, -half:] = False, False, False, False
    places = np.argwhere(top)
    places = places[np.argsort(-band[top], kind="stable")]
    rows, cols = (places[:, i] * _CELLS // grey.shape[i] for i in (0, 1))
    cells = rows * _CELLS + cols
    order = np.argsort(cells, kind="stable")
    first = np.searchsorted(cells[order], cells[order])
    chosen: NDArray[np.int64] = places[order[np.arange(len(order)) - first < _EACH]]
    return chosen


def _bits(patch: NDArray[np.float32]) -> int:
    """Signs of the 63 lowest frequencies of a patch against their median."""
    waves = fft.dctn(patch, norm="ortho")[:8, :8].ravel()[1:]
    signs = waves > np.median(waves)
    return int(sum(1 << i for i in np.flatnonzero(signs).tolist()))


def _matches(
    prints: Sequence[Fingerprints], left: NDArray[np.int64], right: NDArray[np.int64]
) -> list[tuple[int, int, float]]:
    owner = np.repeat(np.arange(len(prints)), [len(p.bits) for p in prints])
    bits = np.concatenate([p.bits for p in prints])
    places = np.concatenate([p.places for p in prints])
    sides = (np.flatnonzero(np.isin(owner, side)) for side in (left, right))
    same = np.array_equal(left, right)
    votes: dict[tuple[int, int], list[NDArray[np.float32]]] = {}
    for a, b in _near_pairs(bits, *sides):
        pair = int(owner[a]), int(owner[b])
        if pair[0] != pair[1] and (not same or pair[0] < pair[1]):
            votes.setdefault(pair, []).append(places[b] - places[a])
    found = []
    for (a, b), offsets in votes.items():
        count = _agreeing(np.array(offsets))
        if count >= _VOTES:
            fewest = min(len(prints[a].bits), len(prints[b].bits))
            found.append((a, b, min(1.0, count / fewest)))
    return found


def _near_pairs(
    bits: NDArray[np.uint64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Pairs that differ in few bits."""
    if len(left) * len(right) > _EVERY_PAIR:
        return _bucket_pairs(bits, left, right)
    pairs: list[tuple[int, int]] = []
    for b in right.tolist():
        near = np.bitwise_count(bits[left] ^ bits[b]) <= _NEAR
        pairs += [(a, b) for a in left[near].tolist()]
    return pairs


def _bucket_pairs(
    bits: NDArray[np.uint64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Those near pairs that have one of four 16-bit quarters in common: far fewer comparisons."""
    pairs: set[tuple[int, int]] = set()
    for quarter in range(4):
        keys = (bits >> np.uint64(16 * quarter)).astype(np.uint16)
        order = left[np.argsort(keys[left], kind="stable")]
        first = np.searchsorted(keys[order], keys[right], "left")
        last = np.searchsorted(keys[order], keys[right], "right")
        counts = np.minimum(last - first, 64)
        b = np.repeat(right, counts)
        within = np.arange(len(b)) - np.repeat(np.cumsum(counts) - counts, counts)
        a = order[np.repeat(first, counts) + within]
        near = np.bitwise_count(bits[a] ^ bits[b]) <= _NEAR
        pairs.update(zip(a[near].tolist(), b[near].tolist(), strict=True))
    return sorted(pairs)


def _agreeing(offsets: NDArray[np.float32]) -> int:
    """Size of the largest set of offsets around one of them."""
    near = np.abs(offsets[:, None] - offsets[None]).max(-1) <= _TOLERANCE * 2
    return int(near.sum(1).max())
