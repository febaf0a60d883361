"""A split inside one scene: blocks of it, with a gap as wide as a crop between two splits.

Validation and test lie side by side in one strip across the scene, and all that is more than the
gap away from it trains. Of the places where the strip could lie, one is drawn among those whose
shares of every class come nearest to what was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE
from terradapt.config import DataConfig
from terradapt.data.dataset import Dataset, Item
from terradapt.data.reading import ItemReader
from terradapt.data.splits import NAMES, SplitsFile
from terradapt.errors import DataError
from terradapt.grid import Window

PROTOCOL = "by_block"
_CELLS = 96  # of the longer side: the places where blocks may end
_STEPS = 32  # places of a strip, and of the cut through it
_WIDTHS = (1.0, 1.4, 0.7, 2.0, 3.0)  # of a strip, in what the fractions ask for
_NEAR = 0.02  # how much worse than the best a drawn place may be
_LEAST = 2.6  # crops of the longer side: one for train, one for the gap, half of one, and cells
_MISSING = 0.5  # what a class that a part lacks costs

Layout = dict[str, list[Window]]


def gap_of(item: Item, config: DataConfig) -> int:
    """Return the width of a crop in pixels of an image."""
    zoom = config.resolution / item.resolution if config.resolution and item.resolution else 1.0
    return max(1, math.ceil(config.crop * zoom))


def has_room(item: Item, config: DataConfig) -> bool:
    """Tell whether an image is large enough for blocks for train and val."""
    gap, sides = gap_of(item, config), (item.height, item.width)
    return max(sides) >= _LEAST * gap and min(sides) >= gap


def cut_blocks(dataset: Dataset, blocks: Mapping[str, Window], source: Path) -> Dataset:
    """Return a dataset with blocks as items instead of their scenes.

    Args:
        dataset: The scenes are items of it; blocks of one that is not are left out.
        blocks: Windows by id: the scene's id, a colon, a name.
        source: Where the blocks stand, for errors.

    Raises:
        DataError: A block reaches beyond its scene.
    """
    scenes = {i.id: i for i in dataset.items}
    parts = [(b, w, scenes[b.rpartition(":")[0]]) for b, w in blocks.items()
             if b.rpartition(":")[0] in scenes]  # fmt: skip
    for name, window, scene in parts:
        if window.intersect(scene.window) != window:
            raise DataError(
                f"{source}: the block '{name}' reaches beyond {scene.image}, which has "
                f"{scene.width} x {scene.height} px",
                f"put the old image back, or remove {source.name} to draw new blocks",
            )
    cut = {scene.id: scene for _, _, scene in parts}
    items = [
        replace(scene, id=b, group=b, area=w, height=w.height, width=w.width)
        for b, w, scene in parts
    ]
    whole = [i for i in dataset.items if i.id not in cut]
    return replace(dataset, items=(*whole, *items), scenes=tuple(cut.values()))


def draw_blocks(dataset: Dataset, item: Item, config: DataConfig) -> SplitsFile:
    """Cut one labelled image into blocks for train, val and test.

    Where there is no room for a test part, there is none; where both fractions are 0, all of it
    trains.

    Args:
        dataset: Its labels say which blocks are alike.
        item: The image.
        config: ``val_fraction``, ``test_fraction``, ``split_seed``; the gap is its crop.

    Raises:
        DataError: The image, or what is labelled of it, is too small.
    """
    shares = {n: f for n, f in (("val", config.val_fraction), ("test", config.test_fraction)) if f}
    if not shares:
        splits = {**dict.fromkeys(NAMES, ()), "train": (item.id,)}
        return SplitsFile(splits, "by_image", config.split_seed)
    gap = gap_of(item, config)
    counts, cell = _label_counts(dataset, item)
    asked = [shares, {n: f for n, f in shares.items() if n == "val"}]
    size, seed = (item.height, item.width), config.split_seed
    found = (_drawn(counts, cell, size, part, gap, seed) for part in asked if part)
    layout = next((drawn for drawn in found if drawn is not None), None)
    if layout is None:
        raise _too_small(item, config, counts)
    blocks: dict[str, Window] = {}
    splits = {}
    for name in NAMES:
        windows = layout.get(name, [])
        ids = [name if len(windows) == 1 else f"{name}{n + 1}" for n in range(len(windows))]
        splits[name] = tuple(f"{item.id}:{i}" for i in ids)
        blocks |= dict(zip(splits[name], windows, strict=True))
    return SplitsFile(splits, PROTOCOL, config.split_seed, blocks=blocks, gap=gap)


def blocks_text(file: SplitsFile, item: Item) -> str:
    """Return how a scene was cut, in one line."""
    if not file.blocks:
        return f"one labelled image ({item.id}): it trains as a whole, and is not validated"
    size = item.height * item.width
    areas = {n: sum(file.blocks[i].height * file.blocks[i].width for i in ids)
             for n, ids in file.splits.items() if ids}  # fmt: skip
    parts = ", ".join(f"{n} {a / size:.0%}" for n, a in areas.items())
    text = f"one labelled image ({item.id}): split into blocks of it, {parts}, and "
    text += f"{1 - sum(areas.values()) / size:.0%} in gaps of {file.gap} px"
    return text if "test" in areas else f"{text}; no room for a test part"


def gap_note(scenes: Sequence[Item], gap: int) -> str:
    """Return what a reader of figures from blocks should know."""
    names = ", ".join(i.id for i in scenes)
    return (
        f"split inside one scene ({names}), into blocks with gaps of {gap} px: figures on other "
        "ground may be lower"
    )


def _label_counts(dataset: Dataset, item: Item) -> tuple[NDArray[np.int64], int]:
    """Labelled pixels (rows, columns, K) of square cells, and a cell's side in px."""
    side = max(1, math.ceil(max(item.height, item.width) / _CELLS))
    rows, cols = math.ceil(item.height / side), math.ceil(item.width / side)
    counts = np.zeros((rows, cols, len(dataset.classes)), np.int64)
    with ItemReader(dataset, item) as reader:
        for row in range(rows):
            window = Window(row * side, 0, min(side, item.height - row * side), item.width)
            ids = reader.mask(window)
            for number in np.unique(ids[ids != IGNORE]):
                edges = np.arange(0, item.width, side)
                counts[row, :, number] = np.add.reduceat((ids == number).sum(0), edges)
    return counts, side


@dataclass(frozen=True)
class _Strip:
    """A strip across the scene, cut into parts; lengths in cells.

    Attributes:
        cost: How far the parts are from what was asked for.
        turned: It runs along the columns.
        start: Where it begins along the other axis.
        width: Its width.
        parts: Split, first cell and length along the strip.
    """

    cost: float
    turned: bool
    start: int
    width: int
    parts: tuple[tuple[str, int, int], ...]


def _drawn(
    counts: NDArray[np.int64],
    cell: int,
    size: tuple[int, int],
    shares: Mapping[str, float],
    gap: int,
    seed: int,
) -> Layout | None:
    """Windows by split; None where no strip leaves labels in every part."""
    apart, least = math.ceil(gap / cell), math.ceil(gap / 2 / cell)
    strips = list(_strips(counts, shares, apart, least))
    if not strips:
        return None
    limit = min(s.cost for s in strips) + _NEAR
    near = [s for s in strips if s.cost <= limit]
    strip = near[int(np.random.default_rng([seed, 0xB10C]).integers(len(near)))]
    long, wide = counts.shape[1::-1] if strip.turned else counts.shape[:2]
    end = strip.start + strip.width + apart
    rest = [(0, strip.start - apart), (end, long - end)]
    places = {"train": [(at, n, 0, wide) for at, n in rest if n >= 2 * least]}
    places |= {name: [(strip.start, strip.width, at, n)] for name, at, n in strip.parts}
    return {k: [_window(v, cell, size, strip.turned) for v in vs] for k, vs in places.items()}


def _strips(
    counts: NDArray[np.int64], shares: Mapping[str, float], apart: int, least: int
) -> Iterator[_Strip]:
    """Strips of both directions at all places and cuts whose parts have labels."""
    total = counts.sum((0, 1))
    counts, total = counts[..., total > 0], total[total > 0]

    def cost(pixels: NDArray[np.int64], share: float) -> NDArray[np.float64]:
        off = np.abs(pixels / total - share).mean(-1) + _MISSING * (pixels == 0).mean(-1)
        return np.where(pixels.any(-1), off, np.inf)

    for turned in (False, True):
        cells = counts.swapaxes(0, 1) if turned else counts
        long, wide = cells.shape[:2]
        table = np.pad(cells, ((1, 0), (1, 0), (0, 0))).cumsum(0).cumsum(1)
        room = wide - apart * (len(shares) - 1)
        if room < least * len(shares) or wide < 2 * least or not len(total):
            continue
        cuts = np.array([room]) if len(shares) == 1 else _spread(least, room - least)
        ideal = sum(shares.values()) * long * wide / room
        for width in dict.fromkeys(max(least, round(ideal * w)) for w in _WIDTHS):
            for start in _spread(0, long - width).tolist():
                above, below = start - apart, start + width + apart
                train = np.zeros_like(total)
                train += table[above, -1] if above >= 2 * least else 0
                train += table[-1, -1] - table[below, -1] if long - below >= 2 * least else 0
                own = cost(train, 1 - sum(shares.values()))
                along = table[start + width] - table[start]
                for names in list(permutations(shares)):
                    costs = own + cost(along[cuts], shares[names[0]])
                    if names[1:]:
                        costs += cost(along[-1] - along[cuts + apart], shares[names[1]])
                    for at in np.flatnonzero(np.isfinite(costs)).tolist():
                        cut = int(cuts[at])
                        places = ((0, cut), (cut + apart, room - cut))
                        parts = tuple((n, *place) for n, place in zip(names, places, strict=False))
                        yield _Strip(float(costs[at]), turned, start, width, parts)


def _spread(first: int, last: int) -> NDArray[np.int64]:
    """Some whole numbers from first to last, evenly; none where there are none."""
    if last < first:
        return np.empty(0, np.int64)
    return np.unique(np.linspace(first, last, _STEPS).round().astype(np.int64))


def _window(
    place: tuple[int, int, int, int], cell: int, size: tuple[int, int], turned: bool
) -> Window:
    """A place in cells (along, length, across, width) as pixels within the scene."""
    along, length, across, width = place
    row, height, col, wide = (across, width, along, length) if turned else place
    window = Window(row * cell, col * cell, height * cell, wide * cell)
    inside = window.intersect(Window(0, 0, *size))
    assert inside is not None
    return inside


def _too_small(item: Item, config: DataConfig, counts: NDArray[np.int64]) -> DataError:
    gap = gap_of(item, config)
    fits = min(max(item.height, item.width) / _LEAST, item.height, item.width)
    crop = int(fits * config.crop / gap) // 32 * 32
    rest = "add a second labelled image; data.val_fraction=0 data.test_fraction=0 trains unchecked"
    if not has_room(item, config):
        smaller = f"take a smaller crop (data.crop={crop}), or " if crop >= 32 else ""
        return DataError(
            f"{item.image}: {item.width} x {item.height} px are too few for blocks with a gap of a "
            f"crop ({gap} px) between train and val",
            f"{smaller}{rest}",
        )
    if not counts.any():
        return DataError(f"{item.image}: no pixel is labelled, all are ignored", "label its ground")
    return DataError(
        f"{item.image}: its labels lie so near to each other that no two blocks with a gap of a "
        f"crop ({gap} px) between them have some",
        f"label ground farther apart, take a smaller crop (data.crop=...), or {rest}",
    )
