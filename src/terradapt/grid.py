"""Window, Axis, Grid: the integer lattice of a scene and the weights that blend its windows.

Each axis carries a 1-D partition of unity: a taper on every window start, divided once by the sum
of all tapers. A window's 2-D weight is the outer product of its two rows, so the weights of all
windows sum to 1 at every pixel, corners included, without an accumulator of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels; may reach beyond the scene.

    Args:
        row: First row, px.
        col: First column, px.
        height: Rows, px.
        width: Columns, px.
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below the window, px."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """First column right of the window, px."""
        return self.col + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of an array of the whole scene."""
        return slice(self.row, self.bottom), slice(self.col, self.right)

    def shift(self, rows: int, cols: int) -> Window:
        """Return the same rectangle moved by ``rows`` and ``cols``."""
        return Window(self.row + rows, self.col + cols, self.height, self.width)

    def around(self, times: int) -> Window:
        """Return the window of as many cells that lies concentric on ``times`` times the ground.

        A cell is a square of ``times`` px to a side, on the lattice that starts with the scene; the
        two centres are at most half a cell apart along each axis.
        """
        row, col = (
            (2 * first - (times - 1) * size + times) // (2 * times)
            for first, size in ((self.row, self.height), (self.col, self.width))
        )
        return Window(row, col, self.height, self.width)

    def intersect(self, other: Window) -> Window | None:
        """Return the common rectangle, or None where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.bottom, other.bottom) - row
        width = min(self.right, other.right) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None


@dataclass(frozen=True)
class Axis:
    """One axis of the lattice: window starts and their partition of unity.

    Starts are 0, stride, 2 stride, ...; the last window is pulled back to end with the scene. A
    scene shorter than a window has one window, which reaches beyond it.

    Args:
        length: Pixels of the scene along this axis, >= 1.
        window: Pixels of a window, >= 1.
        stride: Pixels between starts, 1..window - 2 margin.
        margin: Pixels at a window's inner edges whose scores are not used, >= 0. A convolution
            that sees no further than this gives the same as on the whole scene.
    """

    length: int
    window: int
    stride: int
    margin: int = 0

    def __post_init__(self) -> None:
        assert self.length >= 1 and self.window >= 1 and self.margin >= 0
        assert 1 <= self.stride <= self.window - 2 * self.margin

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixels of all windows, strictly ascending."""
        last = max(self.length - self.window, 0)
        return (*range(0, last, self.stride), last)

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """(len(starts), window) weights; at every pixel of the scene they sum to 1.

        Pixels of a window beyond the scene weigh 0.
        """
        tapers = np.stack([self._taper(i) for i in range(len(self.starts))])
        total = np.zeros(max(self.length, self.window))
        for start, taper in zip(self.starts, tapers, strict=True):
            total[start : start + self.window] += taper
        for i, start in enumerate(self.starts):
            tapers[i] /= np.maximum(total[start : start + self.window], np.finfo(float).tiny)
        return tapers.astype(np.float32)

    def _taper(self, index: int) -> NDArray[np.float64]:
        """sin^2 ramps over the overlap; flat where the window meets the scene's edge."""
        ramp = max(self.window - self.stride - 2 * self.margin, 1)
        step = (np.arange(self.window) - self.margin + 0.5) / ramp
        rise = np.sin(np.clip(step, 0.0, 1.0) * (np.pi / 2)) ** 2
        taper = np.ones(self.window)
        if self.starts[index] > 0:
            taper *= rise
        if self.starts[index] + self.window < self.length:
            taper *= rise[::-1]
        taper[max(self.length - self.starts[index], 0) :] = 0.0
        return taper

    def touching(self, first: int, stop: int) -> range:
        """Return the indexes of the windows that hold a pixel of ``first``..``stop`` - 1."""
        starts = np.asarray(self.starts)
        low = int(np.searchsorted(starts, first - self.window, side="right"))
        return range(low, int(np.searchsorted(starts, stop, side="left")))


@dataclass(frozen=True)
class Grid:
    """All windows of a scene on one lattice, and its output blocks.

    Args:
        height: Rows of the scene, px.
        width: Columns of the scene, px.
        window: Side of a window, px.
        stride: Pixels between windows.
        margin: See :class:`Axis`.
        block: Side of an output block, px.
    """

    height: int
    width: int
    window: int
    stride: int
    margin: int = 0
    block: int = 512

    @cached_property
    def rows(self) -> Axis:
        """The axis from top to bottom."""
        return Axis(self.height, self.window, self.stride, self.margin)

    @cached_property
    def cols(self) -> Axis:
        """The axis from left to right."""
        return Axis(self.width, self.window, self.stride, self.margin)

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.cols.starts)

    def window_at(self, row: int, col: int) -> Window:
        """Return the window of lattice row ``row`` and lattice column ``col``."""
        return Window(self.rows.starts[row], self.cols.starts[col], self.window, self.window)

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.height // self.block), -(-self.width // self.block)

    def block_at(self, row: int, col: int) -> Window:
        """Return the output block of block row ``row`` and column ``col``, cut to the scene."""
        top, left = row * self.block, col * self.block
        return Window(
            top, left, min(self.block, self.height - top), min(self.block, self.width - left)
        )

    def blocks(self) -> Iterator[Window]:
        """Yield all output blocks, row by row."""
        rows, cols = self.block_shape
        return (self.block_at(row, col) for row in range(rows) for col in range(cols))
