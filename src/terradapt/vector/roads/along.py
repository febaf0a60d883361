"""Scores along straight lines of pixels."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from terradapt.grid import Window
from terradapt.vector.lattice.directions import COL_STEP, ROW_STEP
from terradapt.vector.lattice.graph import line_codes
from terradapt.vector.roads.source import MaskSource

_TILE, _TILES = 512, 32  # px; tiles kept


class Scores:
    """Mean scores of the pixels of lines that lie outside the mask; the last tiles are kept.

    Args:
        source: The mask and the scores.
    """

    def __init__(self, source: MaskSource) -> None:
        self.source = source
        self._tiles: OrderedDict[tuple[int, int], NDArray[np.floating] | None] = OrderedDict()

    def along(self, row: int, col: int, to_row: int, to_col: int) -> float | None:
        """Return the mean score outside the mask from pixel to pixel; 1 where all is mask.

        None for a source without scores.
        """
        codes = line_codes(row, col, to_row, to_col)
        rows = row + np.concatenate([[0], np.cumsum(ROW_STEP[codes])])
        cols = col + np.concatenate([[0], np.cumsum(COL_STEP[codes])])
        georef = self.source.georef
        inside = (rows >= 0) & (cols >= 0) & (rows < georef.height) & (cols < georef.width)
        rows, cols = rows[inside], cols[inside]
        values = []
        for key in sorted(
            set(zip((rows // _TILE).tolist(), (cols // _TILE).tolist(), strict=True))
        ):
            tile = self._tile(key)
            if tile is None:
                return None
            here = (rows // _TILE == key[0]) & (cols // _TILE == key[1])
            values.append(tile[rows[here] % _TILE, cols[here] % _TILE])
        outside = np.concatenate([np.empty(0, np.float32), *values])
        outside = outside[np.isfinite(outside)]
        return float(outside.mean()) if len(outside) else 1.0

    def _tile(self, key: tuple[int, int]) -> NDArray[np.floating] | None:
        if key not in self._tiles:
            georef = self.source.georef
            whole = Window(0, 0, georef.height, georef.width)
            window = Window(key[0] * _TILE, key[1] * _TILE, _TILE, _TILE).intersect(whole)
            assert window is not None
            mask, scores = self.source.read(window)
            self._tiles[key] = None if scores is None else np.where(mask, np.nan, scores)
            if len(self._tiles) > _TILES:
                self._tiles.popitem(last=False)
        return self._tiles[key]
