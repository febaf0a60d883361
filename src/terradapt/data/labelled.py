"""Where an image has labels: the rest of a large scene need not be predicted to be scored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terradapt.classes import IGNORE
from terradapt.data.dataset import Dataset, Item
from terradapt.data.reading import ItemReader
from terradapt.grid import Window

_BLOCK = 512  # px, the lattice that areas lie on


def labelled_areas(dataset: Dataset, item: Item) -> tuple[Window, ...]:
    """Return rectangles that hold all labelled pixels of an item and do not overlap.

    They lie on blocks of 512 px. Where labels are whole rasters it is the whole item.

    Raises:
        DataError: As of :class:`ItemReader`.
        SceneError: As of :class:`ItemReader`.
    """
    if not dataset.is_partial:
        return (Window(0, 0, item.height, item.width),)
    with ItemReader(dataset, item) as reader:
        shape = -(-reader.height // _BLOCK), -(-reader.width // _BLOCK)
        held = np.zeros(shape, bool)
        for row, col in np.ndindex(shape):
            held[row, col] = bool((reader.mask(_block(row, col, row + 1, col + 1)) != IGNORE).any())
        blocks = (_block(*box).intersect(reader.window) for box in apart(held))
        return tuple(area for area in blocks if area is not None)


Box = tuple[int, int, int, int]


def apart(held: NDArray[np.bool_]) -> list[Box]:
    """Return boxes that hold all true cells and do not overlap: first row and column, and stops.

    Cells that touch share a box, and so do groups whose boxes overlap::

        #...        aaaa
        #.#.   ->   aaaa      the one cell stands apart, and lies in the other group's box
        #...        aaaa
        ####        aaaa
    """
    parts = ndimage.find_objects(ndimage.label(held, np.ones((3, 3)))[0])
    boxes = [(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in parts]
    found: list[Box] = []
    while boxes:
        box = boxes.pop()
        other = next((b for b in found if _overlap(b, box)), None)
        if other is None:
            found.append(box)
            continue
        found.remove(other)  # the larger one may now overlap what stood apart
        tops, lefts, bottoms, rights = zip(box, other, strict=True)
        boxes.append((min(tops), min(lefts), max(bottoms), max(rights)))
    return sorted(found)


def _overlap(a: Box, b: Box) -> bool:
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


def _block(row: int, col: int, bottom: int, right: int) -> Window:
    return Window(row * _BLOCK, col * _BLOCK, (bottom - row) * _BLOCK, (right - col) * _BLOCK)
