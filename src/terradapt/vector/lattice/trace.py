"""Chains between nodes on a pixel lattice, one block at a time, all followed at once.

Touching junction pixels are one node; see ``directions`` for the pixels' links. Chains that leave
the block are cut there and carry keys by which ``join`` puts them together again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from terradapt.vector.lattice.directions import (
    BITS,
    CHAIN,
    END,
    JUNCTION,
    KIND,
    OUTSIDE,
)
from terradapt.vector.lattice.follow import Paths, Plane, Walks

Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Lattice:
    """Numbers for the pixels of a scene and of a margin around it.

    Args:
        height: Rows of the scene, px.
        width: Columns of the scene, px.
        margin: Pixels beyond each edge.
    """

    height: int
    width: int
    margin: int = 4

    @property
    def stride(self) -> int:
        """Numbers per row."""
        return self.width + 2 * self.margin

    def number(self, row: Ints, col: Ints) -> Ints:
        """Return the numbers of pixels; they grow row by row."""
        return (row + self.margin) * self.stride + col + self.margin

    def place(self, number: Ints) -> tuple[Ints, Ints]:
        """Return rows and columns of numbered pixels."""
        row, col = np.divmod(number, self.stride)
        return row - self.margin, col - self.margin


@dataclass(frozen=True)
class Pieces:
    """Chains of one block: P pieces, N nodes; pixels by their number on the lattice.

    Attributes:
        ends: (P, 2) node at the start and at the stop; -1 where the piece is cut.
        keys: (P, 2) ``8 * pixel + direction`` of the step out of the block at a cut end; else -1.
        first: (P,) first pixel.
        ring: (P,) rings without a node; their first pixel is their last one again.
        sizes: (P,) steps, pixels less one.
        codes: Directions of the steps of all pieces, one after the other.
        node_pixel: (N,) least pixel of a node.
        node_sums: (N, 3) rows, columns and pixels of a node, summed.
        border: (B, 2) junction pixels at the block's border and their node.
        touching: (U, 2) junction pixels of this and of a neighbouring block that are one node.
    """

    ends: Ints
    keys: Ints
    first: Ints
    ring: NDArray[np.bool_]
    sizes: Ints
    codes: Codes
    node_pixel: Ints
    node_sums: Ints
    border: Ints
    touching: Ints


def trace(links: Codes, row: int, col: int, lattice: Lattice, *, grouped: bool = True) -> Pieces:
    """Trace the chains of one block.

    Args:
        links: (h + 2, w + 2) link codes of the block and one pixel around it.
        row: The block's first row, px (not of the ring around it).
        col: The block's first column, px.
        lattice: The scene's pixel numbers.
        grouped: Make one node of touching junction pixels; else each is a node of its own.
    """
    return _Tracer(links, row, col, lattice, grouped).pieces()


class _Tracer:
    """Places within the block are flat indexes into ``links``; ``step[d]`` leads to a neighbour."""

    def __init__(self, links: Codes, row: int, col: int, lattice: Lattice, grouped: bool) -> None:
        self.grouped = grouped
        self.width = links.shape[1]
        self.links = np.ascontiguousarray(links).ravel()
        self.origin = (row - 1, col - 1)
        self.lattice = lattice
        self.places = np.flatnonzero(self.links != 0)
        self.kind = np.zeros(links.size, np.uint8)
        self.kind[self.places] = KIND.take(self.links.take(self.places))
        kind = self.kind.reshape(links.shape)
        kind[[0, -1]] |= OUTSIDE
        kind[1:-1, [0, -1]] |= OUTSIDE
        self.plane = Plane(self.links, self.kind, self.width)
        self.step = self.plane.step

    def pieces(self) -> Pieces:
        kinds = self.kind.take(self.places)
        ends, junctions, chain = (self.places[kinds == k] for k in (END, JUNCTION, CHAIN))
        group = self._groups(junctions)
        paths = Paths(self.plane, chain)
        walks = paths.walks(*self._starts(np.concatenate([ends, junctions])))
        rings, round_walks = self._rings(paths.rings())
        ends = np.concatenate([ends, rings])
        return self._collect([walks, round_walks], junctions, group, ends)

    def _groups(self, junctions: Ints) -> Ints:
        """Number the groups of touching junction pixels."""
        if not self.grouped:
            return np.arange(len(junctions))
        if len(junctions) > 100_000:
            shape = (len(self.kind) // self.width, self.width)
            image = label((self.kind == JUNCTION).reshape(shape), np.ones((3, 3)))[0]
            value: Ints = image.ravel()[junctions].astype(np.int64) - 1
            return value
        pairs = [self._touching(junctions, d) for d in (0, 5, 6, 7)]
        return components(len(junctions), np.concatenate(pairs))

    def _touching(self, places: Ints, direction: int) -> Ints:
        """(M, 2) indexes into ``places`` of those that touch in one direction."""
        target = places + self.step[direction]
        hit = np.flatnonzero(self.kind[target] == JUNCTION)
        return np.stack([hit, np.searchsorted(places, target[hit])], axis=1)

    def _starts(self, nodes: Ints) -> tuple[Ints, Ints]:
        """Return places and directions of all ways out of nodes, but for those within one node."""
        links, kind = self.links.take(nodes), self.kind.take(nodes)
        places, ways = [], []
        for d in range(8):
            out = np.flatnonzero((links >> d) & 1)
            target = self.kind.take(nodes[out] + self.step[d]) & (OUTSIDE - 1)
            if self.grouped:
                out = out[(kind[out] != JUNCTION) | (target != JUNCTION)]
            places.append(nodes[out])
            ways.append(np.full(len(out), d))
        return np.concatenate(places), np.concatenate(ways)

    def _rings(self, rest: Ints) -> tuple[Ints, Walks]:
        """Give each ring a node at its least pixel; follow it from there in its least direction."""
        rings = self._ring_starts(rest)
        self.kind[rings] = END
        paths = Paths(self.plane, rest[self.kind.take(rest) == CHAIN])
        return rings, paths.walks(rings, np.argmax(BITS[self.links[rings]], axis=1))

    def _ring_starts(self, rest: Ints) -> Ints:
        """Return the least pixel of each ring of chain pixels that no walk has met."""
        if not len(rest):
            return rest
        pairs = []
        for d in range(8):
            linked = np.flatnonzero((self.links[rest] >> d) & 1 == 1)
            target = np.searchsorted(rest, rest[linked] + self.step[d])
            pairs.append(np.stack([linked, target], axis=1))
        group = components(len(rest), np.concatenate(pairs))
        return rest[np.unique(group, return_index=True)[1]]

    def _collect(self, all_walks: list[Walks], junctions: Ints, group: Ints, ends: Ints) -> Pieces:
        number, groups = self._numbers(), int(group.max(initial=-1)) + 1
        order = np.argsort(ends)
        find_end = ends[order], groups + order
        start, end, half, key, entered, cut, sizes, codes = (
            np.concatenate([getattr(w, f.name) for w in all_walks]) for f in fields(Walks)
        )
        nodes = np.full((len(start), 2), -1)
        keys = np.full((len(start), 2), -1)
        for side, place, is_cut, out in ((0, start, entered, half), (1, end, cut, key)):
            keys[is_cut, side] = number(out[is_cut] // 8) * 8 + out[is_cut] % 8
            nodes[~is_cut, side] = _lookup(place[~is_cut], (junctions, group), find_end)
        pixel, sums = self._nodes(junctions, group, groups, ends)
        border, touching = self._border(junctions, group)
        ring = np.arange(len(start)) >= len(start) - len(all_walks[1].start)
        return Pieces(nodes, keys, number(start), ring, sizes, codes, pixel, sums, border, touching)

    def _numbers(self) -> Callable[[Ints], Ints]:
        def number(place: Ints) -> Ints:
            row, col = np.divmod(place, self.width)
            return self.lattice.number(row + self.origin[0], col + self.origin[1])

        return number

    def _nodes(self, junctions: Ints, group: Ints, groups: int, ends: Ints) -> tuple[Ints, Ints]:
        """Return the least pixel, and the sums of rows, columns and pixels, of every node."""
        places = np.concatenate([junctions, ends])
        node = np.concatenate([group, groups + np.arange(len(ends))])
        row, col = np.divmod(places, self.width)
        row, col = row + self.origin[0], col + self.origin[1]
        sums = np.zeros((groups + len(ends), 3), np.int64)
        for i, value in enumerate((row, col, np.ones_like(row))):
            np.add.at(sums[:, i], node, value)
        least = np.full(len(sums), np.iinfo(np.int64).max)
        np.minimum.at(least, node, self.lattice.number(row, col))
        return least, sums

    def _border(self, junctions: Ints, group: Ints) -> tuple[Ints, Ints]:
        """Return junction pixels at the border with their node, and pairs across it."""
        number = self._numbers()
        if not self.grouped:
            return np.empty((0, 2), np.int64), np.empty((0, 2), np.int64)
        border, pairs = [], []
        for d in range(8):
            target = junctions + self.step[d]
            hit = self.kind[target] == JUNCTION | OUTSIDE
            border.append(np.stack([number(junctions[hit]), group[hit]], axis=1))
            pairs.append(np.stack([number(junctions[hit]), number(target[hit])], axis=1))
        return np.unique(np.concatenate(border), axis=0), np.concatenate(pairs)


def _lookup(place: Ints, junctions: tuple[Ints, Ints], ends: tuple[Ints, Ints]) -> Ints:
    """Return the node of each place, which is a junction pixel or an end."""
    node = np.full(len(place), -1)
    for places, nodes in (junctions, ends):
        if len(places):
            at = np.minimum(np.searchsorted(places, place), len(places) - 1)
            hit = places[at] == place
            node[hit] = nodes[at[hit]]
    return node


def components(count: int, pairs: Ints) -> Ints:
    """Number the connected components of ``count`` things linked by ``pairs``."""
    ones = np.ones(len(pairs), np.int8)
    matrix = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    value: Ints = connected_components(matrix, directed=False)[1].astype(np.int64)
    return value
