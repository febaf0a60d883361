"""From a mask to a graph of pixel chains, block by block.

**Halo rule.** Thinning runs a fixed number of iterations, 1.5 times the greatest half width in
pixels, and a value depends on the mask within two pixels per iteration; that is the halo. So a
block's skeleton is the scene's skeleton by construction. What is wider than ``max_width`` is not
thinned to a line: its core remains thick, and becomes one node where the roads around it meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from terradapt.grid import Window
from terradapt.progress import Advance
from terradapt.vector.lattice.directions import COL_STEP, ROW_STEP
from terradapt.vector.lattice.graph import Graph
from terradapt.vector.lattice.join import Part, join
from terradapt.vector.lattice.metric import Metric
from terradapt.vector.lattice.trace import Codes, Ints, Lattice, Pieces, trace
from terradapt.vector.roads.bits import Bits, close_pinholes, depths, pack, unpack
from terradapt.vector.roads.source import MaskSource, read_mirrored
from terradapt.vector.roads.thin import thin
from terradapt.vector.roads.widths import SCALE, Widths

_BEYOND = 2  # px traced outside the scene, where mirrored roads end


@dataclass(frozen=True)
class Reach:
    """How far the value of a pixel depends on others, px.

    Args:
        metric: The raster's metric.
        max_width: Greatest width of a road, m.
    """

    metric: Metric
    max_width: float

    @property
    def iterations(self) -> int:
        """Iterations of thinning: a diagonal line loses 0.7 px per side in each."""
        return ceil(1.5 * self.max_width / 2 / self.metric.pixel) + 2

    @property
    def halo(self) -> int:
        """Pixels read around a block."""
        search = ceil(self.max_width / 2 / self.metric.pixel * 1.5) + 4
        return max(2 * self.iterations, search) + 4


def skeleton_graph(
    source: MaskSource, max_width: float, *, block: int = 2048, progress: Advance | None = None
) -> Graph:
    """Return the graph of a mask's skeleton, the same for every block size.

    Args:
        source: The mask.
        max_width: Greatest width of a road, m.
        block: Side of a block, px.
        progress: Called with the number of finished blocks after each.
    """
    georef = source.georef
    metric = Metric.of(georef)
    reach = Reach(metric, max_width)
    widths = Widths(metric, max_width / 2)
    lattice = Lattice(georef.height, georef.width)
    parts = []
    for window in blocks(georef.height, georef.width, block):
        part = block_part(source, window, reach, widths, lattice)
        if part is not None:
            parts.append(part)
        if progress is not None:
            progress(1)
    return join(parts, lattice)


def blocks(height: int, width: int, side: int) -> Iterator[Window]:
    """Yield the blocks of a scene and of the two pixels around it."""
    rows = _cuts(height, side)
    cols = _cuts(width, side)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            yield Window(top, left, bottom - top, right - left)


def _cuts(length: int, side: int) -> list[int]:
    inner = [*range(0, length, side), length]
    inner[0], inner[-1] = -_BEYOND, length + _BEYOND
    return inner


def block_part(
    source: MaskSource, window: Window, reach: Reach, widths: Widths, lattice: Lattice
) -> Part | None:
    """Return one block's pieces with the widths and scores along them; None when it is empty."""
    halo = reach.halo
    area = Window(
        window.row - halo, window.col - halo, window.height + 2 * halo, window.width + 2 * halo
    )
    mask, scores = read_mirrored(source, area)
    if not mask.any():
        return None
    closed = close_pinholes(pack(mask))
    mask = unpack(closed)
    rows = slice(halo - 2, window.height + halo + 2)
    skeleton = unpack(thin(closed, reach.iterations), rows)
    links = link_codes(skeleton[:, halo - 2 : window.width + halo + 2])
    pieces = trace(links, window.row, window.col, lattice)
    return _measured(pieces, closed, mask, scores, (area.row, area.col), widths, lattice)


def link_codes(skeleton: NDArray[np.bool_]) -> Codes:
    """Return the (H - 2, W - 2) link codes of the inner pixels of an (H, W) skeleton.

    A pixel is linked to its four neighbours, and to a diagonal one where no pixel next to both is
    set (m-adjacency), so that a corner is no triangle.
    """
    inner = np.zeros_like(skeleton)
    inner[1:-1, 1:-1] = skeleton[1:-1, 1:-1]
    place = np.flatnonzero(inner)
    flat, stride = skeleton.ravel().view(np.uint8), skeleton.shape[1]
    code = np.zeros(len(place), np.uint8)
    for d in range(8):
        code |= flat.take(place + (ROW_STEP[d] * stride + COL_STEP[d])) << np.uint8(d)
    links = np.zeros(skeleton.shape, np.uint8)
    links.ravel()[place] = _LINKS.take(code)
    return links[1:-1, 1:-1]


def _link_table() -> Codes:
    """(256,) neighbours to links: a diagonal counts where both its neighbours are empty."""
    codes = np.arange(256)
    table = codes & 0b01010101
    for d in (1, 3, 5, 7):
        alone = ((codes >> (d - 1)) & 1 == 0) & ((codes >> ((d + 1) % 8)) & 1 == 0)
        table |= np.where(alone, codes & (1 << d), 0)
    return table.astype(np.uint8)


_LINKS = _link_table()


def _measured(
    pieces: Pieces,
    bits: Bits,
    mask: NDArray[np.bool_],
    scores: NDArray[np.float32] | None,
    origin: tuple[int, int],
    widths: Widths,
    lattice: Lattice,
) -> Part:
    """Sum widths and scores over pixels of each piece; take the half width of each node."""
    pixels, piece = piece_pixels(pieces.first, pieces.sizes, pieces.codes, lattice)
    last = np.cumsum(pieces.sizes + 1) - 1
    chosen = sampled(*lattice.place(pixels))
    chosen[last[pieces.ring]] = False  # the pixel that closes a ring counts once
    piece = piece[chosen]
    node = pieces.ends.T.ravel()
    at_nodes = np.concatenate([last - pieces.sizes, last])[node >= 0]
    row, col = lattice.place(np.concatenate([pixels[chosen], pixels[at_nodes]]))
    row, col = row - origin[0], col - origin[1]
    half, toward = widths.nearest(mask, row, col, depths(bits, row, col))
    count = len(piece)
    radius = np.zeros(len(pieces.node_pixel))
    np.maximum.at(radius, node[node >= 0], half[count:])
    row, col, half = row[:count], col[:count], half[:count]
    width = half + widths.opposite(mask, row, col, toward[:count], half)
    ones = np.ones(count)
    values = (ones, width, ones if scores is None else scores[row, col])
    sums = np.zeros((len(pieces.sizes), 4), np.int64)
    for i, value in enumerate(values):
        sums[:, i] = np.bincount(piece, np.rint(value * SCALE), len(sums))  # exact below 2**53
    return Part(pieces, sums, radius)


SAMPLED = 0.4


def sampled(row: Ints, col: Ints) -> NDArray[np.bool_]:
    """Choose the pixels at which roads are measured: two of five along every direction."""
    value: NDArray[np.bool_] = ((row + 2 * col) % 5) % 2 == 1
    return value


def piece_pixels(first: Ints, sizes: Ints, codes: Codes, lattice: Lattice) -> tuple[Ints, Ints]:
    """Return the numbers of all pixels of all pieces, and the piece of each."""
    counts = sizes + 1
    begins = np.cumsum(counts) - counts
    steps = np.zeros(int(counts.sum()), np.int64)
    inner = np.ones(len(steps), bool)
    inner[begins] = False
    steps[inner] = (ROW_STEP * lattice.stride + COL_STEP).take(codes)
    piece = np.repeat(np.arange(len(sizes)), counts)
    moved = np.cumsum(steps)
    return first[piece] + moved - moved[begins][piece], piece
