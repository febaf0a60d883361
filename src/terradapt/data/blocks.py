"""A split inside one scene: blocks of it, with a gap as wide as a crop between two splits.

Validation and test lie side by side in one strip across the scene, and all that is more than the
gap away from it trains. Of the places where the strip could lie, one is drawn among those whose
shares of every class come nearest to what was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
_STEPS = 14  # places of a strip, and of the cut through it
_WIDTHS = (1.0, 1.5, 0.7, 2.5)  # of a strip, in what the fractions ask for
_NEAR = 0.03  # how much worse than the best a drawn place may be
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
    layout = next((found for s in asked if s and (found := _best(counts, cell, item, s, gap, config))), None)  # fmt: skip
    if layout is None:
        raise _too_small(item, config, counts)
    blocks = {}
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


def _best(
    counts: NDArray[np.int64],
    cell: int,
    item: Item,
    shares: Mapping[str, float],
    gap: int,
    config: DataConfig,
) -> Layout | None:
    """A layout among those nearest to the shares; None where none has labels in every part."""
    rows, cols, _ = counts.shape
    table = np.zeros((rows + 1, cols + 1, counts.shape[2]), np.int64)
    table[1:, 1:] = counts.cumsum(0).cumsum(1)
    total = table[-1, -1]
    present = total > 0
    scored = []
    for layout in _layouts((item.height, item.width), cell, shares, gap):
        cost = 0.0
        for name in ("train", *shares):
            wanted = shares.get(name, 1 - sum(shares.values()))
            pixels = sum(_pixels(table, w, cell) for w in layout[name])[present]  # type: ignore[index]
            if not pixels.any():
                break
            cost += float(np.abs(pixels / total[present] - wanted).mean())
            cost += _MISSING * float((pixels == 0).mean())
        else:
            scored.append((cost, layout))
    if not scored:
        return None
    limit = min(cost for cost, _ in scored) + _NEAR
    near = [layout for cost, layout in scored if cost <= limit]
    rng = np.random.default_rng([config.split_seed, 0xB10C])
    return near[int(rng.integers(len(near)))]


def _pixels(table: NDArray[np.int64], window: Window, cell: int) -> NDArray[np.int64]:
    """Labelled pixels (K,) of a window whose edges are those of cells."""
    top, left = window.row // cell, window.col // cell
    bottom, right = math.ceil(window.bottom / cell), math.ceil(window.right / cell)
    found: NDArray[np.int64] = (
        table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    )
    return found


def _layouts(
    size: tuple[int, int], cell: int, shares: Mapping[str, float], gap: int
) -> Iterator[Layout]:
    """All ways to lay a strip across the scene and to cut it; edges lie on cells' edges."""
    apart = math.ceil(gap / cell)  # cells
    least = math.ceil(gap / 2 / cell)
    names = list(shares)
    for turned in (False, True):
        long, wide = (math.ceil(n / cell) for n in (size[::-1] if turned else size))
        room = wide - apart * (len(names) - 1)
        strip = sum(shares.values()) * long * wide / max(1, room)
        for width in dict.fromkeys(max(least, round(strip * w)) for w in _WIDTHS):
            for start in _spread(0, long - width):
                above, below = start - apart, long - (start + width + apart)
                train = [(0, above, 0, wide)] if above >= 2 * least else []
                train += [(long - below, below, 0, wide)] if below >= 2 * least else []
                if not train or wide < 2 * least:
                    continue
                for cut in _cuts(names, shares, room, least):
                    for order in (names, names[::-1]) if len(names) > 1 else (names,):
                        lengths = {order[0]: (0, cut)}
                        if len(order) > 1:
                            lengths[order[1]] = (cut + apart, room - cut)
                        places = {n: [(start, width, *lengths[n])] for n in order}
                        places["train"] = train
                        yield {
                            n: [_window(p, cell, size, turned) for p in parts]
                            for n, parts in places.items()
                        }


def _cuts(names: list[str], shares: Mapping[str, float], room: int, least: int) -> list[int]:
    """Lengths of a strip's first part, cells: all of it where there is one part."""
    if room < least * len(names):
        return []
    return [room] if len(names) == 1 else _spread(least, room - least)


def _spread(first: int, last: int) -> list[int]:
    """Some whole numbers from first to last, evenly."""
    if last < first:
        return []
    return sorted({round(x) for x in np.linspace(first, last, _STEPS).tolist()})


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
    zoom = gap_of(item, config) / config.crop
    fits = min(max(item.height, item.width) / _LEAST, min(item.height, item.width))
    crop = int(fits / zoom) // 32 * 32
    gap = gap_of(item, config)
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
