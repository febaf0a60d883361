"""Small pictures of images and labels for the pre-flight's page."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terradapt.data.dataset import Dataset, Item
from terradapt.data.reading import LOADED_PIXELS, ItemReader
from terradapt.grid import Window

SIDE = 240  # px, the longer side of a thumbnail and of a close-up
_LINE = (255, 0, 255)  # colour of the label's borders in a close-up: rare on the ground


@dataclass(frozen=True)
class Thumb:
    """Small pictures of an item.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W, 3) uint8 in the classes' colours.
        close: (H, W, 3) uint8, where the label has most borders, at full scale, with the borders
            drawn in: a shift of a few pixels shows there.
        place: The close-up's window.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    close: NDArray[np.uint8]
    place: Window


def choose_items(items: Sequence[Item], most: int, first: Collection[str]) -> list[Item]:
    """Return at most ``most`` items: those whose files are in ``first``, then an even choice."""
    told = [i for i in items if str(i.image) in first or str(i.label) in first][:most]
    rest = [i for i in items if i not in told]
    step = np.linspace(0, len(rest) - 1, min(most - len(told), len(rest))).round().astype(int)
    chosen = {i.id for i in told} | {rest[i].id for i in step}
    return [i for i in items if i.id in chosen]


def thumbnail(dataset: Dataset, item: Item) -> Thumb:
    """Return an item's pictures; bands that are not 8 bit are stretched for the eye."""
    step = max(1, -(-max(item.height, item.width) // SIDE))
    pixels, ids = [], []
    with ItemReader(dataset, item) as reader:
        if item.height * item.width <= LOADED_PIXELS:
            reader.load()
        for row in range(step // 2, item.height, step):
            line, mask = reader.sample(Window(row, 0, 1, item.width))
            pixels.append(line[:, 0, step // 2 :: step])
            ids.append(mask[0, step // 2 :: step])
        small = np.stack(ids)
        place = _busiest(small, step, item.height, item.width)
        near, near_ids = reader.sample(place)
    bands = np.stack(pixels, axis=1)
    low, high = _limits(bands)
    close = _rgb(near, low, high)
    close[borders(near_ids)] = _LINE
    return Thumb(_rgb(bands, low, high), dataset.classes.to_rgb(small), close, place)


def borders(ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (H, W): pixels whose right or lower neighbour is of another class."""
    edge = np.zeros(ids.shape, bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    return edge


def _busiest(small: NDArray[np.uint8], step: int, height: int, width: int) -> Window:
    """The window of the thumbnail's size with most borders; the label is thinned by ``step``."""
    rows, cols = small.shape
    size = (max(1, rows // step), max(1, cols // step))
    sums = ndimage.uniform_filter(borders(small).astype(np.float32), size, mode="constant")
    row, col = (int(i) * step for i in np.unravel_index(sums.argmax(), sums.shape))
    top = int(np.clip(row - rows // 2, 0, height - rows))
    return Window(top, int(np.clip(col - cols // 2, 0, width - cols)), rows, cols)


def _limits(bands: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What becomes black and white, of each band."""
    if bands.dtype == np.uint8:
        return np.zeros((3, 1, 1), np.float32), np.full((3, 1, 1), 255, np.float32)
    values = np.nan_to_num(_three(bands).astype(np.float32))
    low, high = np.percentile(values, (2, 98), axis=(1, 2), keepdims=True)
    return low, np.maximum(high, low + 1e-6)


def _three(bands: NDArray[Any]) -> NDArray[Any]:
    return bands[:3] if len(bands) >= 3 else np.repeat(bands[:1], 3, axis=0)


def _rgb(
    bands: NDArray[Any], low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.uint8]:
    values = np.nan_to_num(_three(bands).astype(np.float32))
    scaled = np.clip((values - low) / (high - low) * 255, 0, 255)
    return np.ascontiguousarray(np.moveaxis(scaled, 0, -1)).astype(np.uint8)
