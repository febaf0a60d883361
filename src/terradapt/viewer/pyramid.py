"""Tiles of a scene in its own pixels: level n shows one pixel in 2^n.

A tile of level 0 is a block of 512 px, the same that a prediction writes. A tile never covers more
than 4096 px of the scene, so that a coarse one of a scene without overviews comes at once: from
level 4 on tiles are smaller pictures instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from terradapt.grid import Window

TILE = 512
"""Side of a block and of a tile of level 0, px."""
WIDEST = 4096
"""Pixels of the scene that a tile covers at most, to a side."""
_SMALLEST = 256  # px: the longer side of the coarsest level is at least this


@dataclass(frozen=True)
class Pyramid:
    """The levels of a scene.

    Args:
        height: Rows, px.
        width: Columns, px.
    """

    height: int
    width: int

    @property
    def levels(self) -> int:
        """Number of levels, >= 1."""
        count = 1
        while max(self.height, self.width) >> count >= _SMALLEST and WIDEST >> count >= 16:
            count += 1
        return count

    def side(self, level: int) -> int:
        """Return the side of a level's tiles, px of the picture."""
        return min(TILE, WIDEST >> level)

    def span(self, level: int) -> int:
        """Return the side of a level's tiles, px of the scene."""
        return self.side(level) << level

    def tile(self, level: int, x: int, y: int) -> Window | None:
        """Return a tile's pixels of the scene, which may reach beyond it; None for no tile."""
        if not 0 <= level < self.levels:
            return None
        span = self.span(level)
        if not (0 <= x < -(-self.width // span) and 0 <= y < -(-self.height // span)):
            return None
        return Window(y * span, x * span, span, span)

    def blocks(self, window: Window) -> list[tuple[int, int]]:
        """Return (row, column) of the blocks that a window touches, within the scene."""
        rows = range(max(0, window.row // TILE), -(-min(window.bottom, self.height) // TILE))
        cols = range(max(0, window.col // TILE), -(-min(window.right, self.width) // TILE))
        return [(row, col) for row in rows for col in cols]

    @property
    def all_blocks(self) -> list[tuple[int, int]]:
        """(row, column) of every block, row by row."""
        return self.blocks(Window(0, 0, self.height, self.width))

    def block(self, row: int, col: int) -> Window:
        """Return the pixels of a block, cut to the scene."""
        top, left = row * TILE, col * TILE
        return Window(top, left, min(TILE, self.height - top), min(TILE, self.width - left))
