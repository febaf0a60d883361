"""Choosing what the report shows: worst, middle and best places, the same every time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from terradapt.grid import Window
from terradapt.metrics.confusion import Confusion, class_scores

_LABELLED = 0.5  # least share of counted pixels of a place
_SECOND = 0.01  # least share of its second class


@dataclass(frozen=True)
class Place:
    """A cell of one image with its label and prediction, packed.

    Attributes:
        error: 0..1; with two classes 1 - IoU of the second, else the share of wrong pixels.
        id: The image.
        window: Where, on the label's pixels.
        packed: Label and prediction, compressed.
    """

    error: float
    id: str
    window: Window
    packed: bytes

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return (label, prediction), each (h, w)."""
        both = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        label, prediction = both.reshape(2, self.window.height, self.window.width)
        return label, prediction


def image_places(
    name: str,
    label: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    num_classes: int,
    side: int,
    keep: int = 3,
) -> list[Place]:
    """Return cells of an image from its worst to its best, with two classes or more in the label.

    Args:
        name: The image's id.
        label: (H, W) ids, 255 not counted.
        prediction: (H, W) ids.
        num_classes: K.
        side: Side of a cell, px.
        keep: Cells at most, evenly spaced among the ranks.
    """
    ranked = []
    for window in _cells(label.shape[0], label.shape[1], side):
        confusion = Confusion(num_classes).update(label[window.slices], prediction[window.slices])
        support = confusion.matrix.sum(axis=1)
        enough = support.sum() >= _LABELLED * window.height * window.width
        if enough and np.sort(support)[-2] >= _SECOND * support.sum():
            ranked.append((_error(confusion), window.row, window.col, window))
    ranked.sort(key=lambda r: r[:3])
    kept = set(np.linspace(0, len(ranked) - 1, keep).round().astype(int)) if ranked else set()
    return [
        Place(ranked[i][0], name, ranked[i][3], _pack(label, prediction, ranked[i][3]))
        for i in sorted(kept)
    ]


def choose_places(places: list[Place], count: int) -> list[tuple[str, Place]]:
    """Return up to ``count`` places as (why, place): worst, middle, best, other images first.

    Deterministic: ties go by the image's id, then row, then column.
    """
    left = sorted(places, key=lambda p: (p.error, p.id, p.window.row, p.window.col))
    chosen: list[tuple[str, Place]] = []
    while left and len(chosen) < count:
        why = ("worst", "median", "best")[len(chosen) % 3]
        fresh = [p for p in left if p.id not in {c.id for _, c in chosen}] or left
        place = fresh[{"worst": -1, "median": len(fresh) // 2, "best": 0}[why]]
        chosen.append((why, place))
        left.remove(place)
    order = ("worst", "median", "best")
    return sorted(chosen, key=lambda c: (order.index(c[0]), -c[1].error))


def _cells(height: int, width: int, side: int) -> list[Window]:
    rows, cols = (max(1, round(length / side)) for length in (height, width))
    ys = np.linspace(0, height, rows + 1).astype(int)
    xs = np.linspace(0, width, cols + 1).astype(int)
    return [
        Window(int(y), int(x), int(below - y), int(right - x))
        for y, below in pairwise(ys)
        for x, right in pairwise(xs)
    ]


def _error(confusion: Confusion) -> float:
    if confusion.num_classes == 2 and confusion.matrix[1].sum():
        return 1.0 - float(class_scores(confusion.matrix)["iou"][1])
    return 1.0 - float(confusion.matrix.trace() / max(1, confusion.matrix.sum()))


def _pack(label: NDArray[np.uint8], prediction: NDArray[np.uint8], window: Window) -> bytes:
    both = np.stack([label[window.slices], prediction[window.slices]])
    return zlib.compress(both.tobytes(), 1)
