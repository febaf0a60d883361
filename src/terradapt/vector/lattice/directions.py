"""Link codes of pixels: which of the eight neighbours a pixel is linked to, and what that makes it.

A link code is one byte per pixel: bit ``d`` is set where the pixel is linked to its neighbour in
direction ``d``. Directions run counterclockwise from east: E, NE, N, NW, W, SW, S, SE. A pixel with
two links is part of a chain; with one it is an end; with three or more it belongs to a junction.
"""

from __future__ import annotations

import numpy as np

ROW_STEP = np.array([0, -1, -1, -1, 0, 1, 1, 1])
COL_STEP = np.array([1, 1, 0, -1, -1, -1, 0, 1])
BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1
DEGREE = BITS.sum(axis=1).astype(np.uint8)
CHAIN, END, JUNCTION, OUTSIDE = 1, 2, 3, 8
KIND = np.choose(np.minimum(DEGREE, 3), [0, END, CHAIN, JUNCTION]).astype(np.uint8)
