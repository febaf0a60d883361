"""A graph whose edges are chains of pixels: the form in which road networks are cleaned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from terradapt.vector.lattice.directions import COL_STEP, ROW_STEP
from terradapt.vector.lattice.trace import Codes, Ints

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_STAY = np.uint8(8)
_ROWS, _COLS = np.append(ROW_STEP, 0), np.append(COL_STEP, 0)


@dataclass(frozen=True)
class Chains:
    """E chains of pixels as directions of steps, one after the other.

    Attributes:
        row: (E,) first pixels' rows.
        col: (E,) first pixels' columns.
        sizes: (E,) steps.
        codes: All steps, directions counterclockwise from east.
    """

    row: Ints
    col: Ints
    sizes: Ints
    codes: Codes

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def offsets(self) -> Ints:
        """(E + 1,) where each chain's steps begin and the last one's end."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def take(self, index: Ints) -> Chains:
        """Return the chains of these indexes, in their order."""
        sizes, begins = self.sizes[index], self.offsets[:-1][index]
        codes = [self.codes[spans(begins[b], sizes[b])] for b in batches(sizes)]
        joined = np.concatenate([np.empty(0, np.uint8), *codes])
        return Chains(self.row[index], self.col[index], sizes, joined)

    def turned(self, which: Bools) -> Chains:
        """Return the chains with some of them reversed."""
        row, col = self.stops()
        offsets, codes = self.offsets, self.codes.copy()
        some = np.flatnonzero(which)
        for b in batches(self.sizes[some]):
            sizes, begins = self.sizes[some[b]], offsets[some[b]]
            there = spans(begins, sizes)
            back = np.repeat(2 * begins + sizes - 1, sizes) - there
            codes[there] = self.codes[back] ^ np.uint8(4)
        first = np.where(which, row, self.row), np.where(which, col, self.col)
        return Chains(*first, self.sizes, codes)

    def stops(self) -> tuple[Ints, Ints]:
        """Return the rows and columns of the last pixels."""
        counts = self.counts()
        return self.row + counts @ ROW_STEP, self.col + counts @ COL_STEP

    def counts(self) -> Ints:
        """(E, 8) steps of each chain by direction."""
        counts = np.zeros((len(self), 8), np.int64)
        for b in batches(self.sizes):
            sizes = self.sizes[b]
            codes = self.codes[self.offsets[b.start] : self.offsets[b.stop]]
            edge = np.repeat(np.arange(len(sizes)), sizes)
            flat = np.bincount(edge * 8 + codes, minlength=8 * len(sizes))
            counts[b] = flat.reshape(-1, 8)
        return counts

    def pixels(self) -> tuple[Ints, Ints, Ints]:
        """Return the rows and the columns of all pixels of all chains, and the pixels per chain."""
        sizes = self.sizes + 1
        begins = np.cumsum(sizes) - sizes
        inner = np.ones(int(sizes.sum()), bool)
        inner[begins] = False
        codes = np.full(len(inner), _STAY)
        codes[inner] = self.codes
        places = []
        for step, first in ((_ROWS, self.row), (_COLS, self.col)):
            moved = np.cumsum(step.take(codes))
            places.append(moved + np.repeat(first - moved[begins], sizes))
        return places[0], places[1], sizes

    def points(self) -> tuple[Floats, Ints]:
        """Return the (rows, columns) of all pixels of all chains, and the pixels per chain."""
        rows, cols, sizes = self.pixels()
        return np.stack([rows, cols], axis=1).astype(np.float64), sizes


@dataclass(frozen=True)
class Graph:
    """N nodes and E edges in pixels; nodes and edges in an order that no cutting changes.

    Attributes:
        place: (N, 2) row and column of the nodes, px.
        radius: (N,) half width of the road at the node, m.
        fixed: (N,) where the scene's edge cuts the road.
        ends: (E, 2) nodes that each edge joins.
        chains: The edges' pixels, from the first node to the second.
        sums: (E, 4) pixels, widths, scores, and pixels where a gap of the mask was closed, summed
            in fixed point; see ``measure.SCALE``.
        inside: (N,) m around each node within which lines run straight to it; empty for none.
    """

    place: Floats
    radius: Floats
    fixed: Bools
    ends: Ints
    chains: Chains
    sums: Ints
    inside: Floats = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def degree(self) -> Ints:
        """(N,) edge ends at each node; a loop counts twice."""
        return np.bincount(self.ends.ravel(), minlength=len(self.place))

    def take(self, index: Ints) -> Graph:
        """Return the graph with these edges only; nodes stay as they are."""
        return replace(
            self,
            ends=self.ends[index],
            chains=self.chains.take(index),
            sums=self.sums[index],
        )

    def without(self, edges: Bools) -> Graph:
        """Return the graph without these edges."""
        return self.take(np.flatnonzero(~edges)) if edges.any() else self

    def compact(self) -> Graph:
        """Drop nodes without an edge."""
        used = self.degree > 0
        number = np.cumsum(used) - 1
        return replace(
            self,
            place=self.place[used],
            radius=self.radius[used],
            fixed=self.fixed[used],
            ends=number[self.ends],
        )

    def components(self) -> Ints:
        """(N,) number of the connected component of each node."""
        count = len(self.place)
        ones = np.ones(len(self), np.int8)
        matrix = coo_matrix((ones, (self.ends[:, 0], self.ends[:, 1])), shape=(count, count))
        value: Ints = connected_components(matrix, directed=False)[1].astype(np.int64)
        return value


def batches(sizes: Ints, limit: int = 1 << 17) -> Iterator[slice]:
    """Yield slices of chains that have about ``limit`` steps together: memory stays bounded."""
    number = np.cumsum(sizes) // limit
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sizes)]
    return (slice(one, two) for one, two in pairwise(cuts) if two > one)


def spans(begins: Ints, sizes: Ints) -> Ints:
    """Return the indexes of runs that begin at ``begins``, one after the other."""
    ends = np.cumsum(sizes)
    value: Ints = np.repeat(begins - (ends - sizes), sizes) + np.arange(
        int(ends[-1]) if len(ends) else 0
    )
    return value


def line_codes(row: int, col: int, to_row: int, to_col: int) -> Codes:
    """Return the steps of a straight line of pixels (Bresenham 1965)."""
    count = max(abs(to_row - row), abs(to_col - col))
    at = np.arange(count + 1)
    rows = np.rint(np.linspace(row, to_row, count + 1)).astype(int) if count else at
    cols = np.rint(np.linspace(col, to_col, count + 1)).astype(int) if count else at
    value: Codes = _DIRECTION[np.diff(rows) + 1, np.diff(cols) + 1]
    return value


_DIRECTION = np.zeros((3, 3), np.uint8)
_DIRECTION[ROW_STEP + 1, COL_STEP + 1] = np.arange(8)
