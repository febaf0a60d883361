"""The ground around windows: a moving band of the scene's cells, in memory of its width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terradapt.grid import Grid, Window
from terradapt.raster import Scene

_ROWS = 256  # px read at once where a file's blocks say nothing
_TALLEST = 1024  # px of blocks that are read whole


class Surroundings:
    """Reads the context of a lattice's windows, row by row: every cell is a function of the scene.

    Args:
        source: The scene.
        grid: The lattice.
        cols: The lattice columns wanted.
        side: Pixels to the side of a cell, and how many times as wide the ground is.
    """

    def __init__(self, source: Scene, grid: Grid, cols: range, side: int) -> None:
        self.source, self.grid, self.side = source, grid, side
        first, last = (grid.window_at(0, c).around(side) for c in (cols[0], cols[-1]))
        self.left, self.width = first.col, last.right - first.col
        tall = source.block_height
        whole = tall % side == 0 and tall <= _TALLEST
        self.step = (max(tall, _ROWS // tall * tall) if whole else _ROWS) // side
        self.top = self.bottom = 0
        self.held: list[NDArray[np.uint8]] = []

    def window(self, row: int, col: int) -> NDArray[np.uint8]:
        """Return the (C, window, window) cells around a window; rows only ever go down."""
        area = self.grid.window_at(row, col).around(self.side)
        self._reach(area.row, area.bottom)
        rows, cols = area.shift(-self.top, -self.left).slices
        return self.held[0][:, rows, cols]

    def _reach(self, top: int, bottom: int) -> None:
        """Hold the rows of cells from ``top`` to ``bottom``, and some more."""
        if not self.held or top >= self.bottom:
            self.held, self.top = [], top // self.step * self.step
            self.bottom = self.top
        if bottom <= self.bottom:
            return
        parts = [cells[:, top - self.top :] for cells in self.held]
        self.top = top if parts else self.top
        while self.bottom < bottom:
            area = Window(self.bottom, self.left, self.step, self.width)
            parts.append(self.source.cells(area, self.side))
            self.bottom += self.step
        self.held = [np.concatenate(parts, 1)]
