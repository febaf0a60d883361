"""Chains between nodes on a pixel lattice, one block at a time, all walked at once.

A link code is one byte per pixel: bit ``d`` is set where the pixel is linked to its neighbour in
direction ``d``. Directions run counterclockwise from east: E, NE, N, NW, W, SW, S, SE. A pixel with
two links is part of a chain; with one it is an end; with three or more it belongs to a junction,
and touching junction pixels are one node. Chains that leave the block are cut there and carry keys
by which :mod:`terradapt.vector.join` puts them together again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]

ROW_STEP = np.array([0, -1, -1, -1, 0, 1, 1, 1])
COL_STEP = np.array([1, 1, 0, -1, -1, -1, 0, 1])
_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1
_DEGREE = _BITS.sum(axis=1).astype(np.uint8)
_CHAIN, _END, _JUNCTION, _OUTSIDE = 1, 2, 3, 8
_KIND = np.choose(np.minimum(_DEGREE, 3), [0, _END, _CHAIN, _JUNCTION]).astype(np.uint8)
_KIND[0] = 0


def _next_table() -> Codes:
    """(256, 8) direction in which a chain goes on, by link code and direction of arrival."""
    table = np.zeros((256, 8), np.uint8)
    for code in np.flatnonzero(_DEGREE == 2):
        one, two = np.flatnonzero(_BITS[code])
        table[code, two ^ 4], table[code, one ^ 4] = one, two
    return table


_NEXT = _next_table()


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
        self.step = ROW_STEP * self.width + COL_STEP
        kind = _KIND[links]
        ring = np.ones(links.shape, bool)
        ring[1:-1, 1:-1] = False
        kind[ring] |= _OUTSIDE
        self.kind = kind.ravel()

    def pieces(self) -> Pieces:
        places = np.flatnonzero(self.links)
        places = places[self.kind[places] < _OUTSIDE]
        kinds = self.kind[places]
        junctions, chain = places[kinds == _JUNCTION], places[kinds == _CHAIN]
        group = self._groups(junctions)
        walks = self._walk(*self._starts(places[kinds == _END], junctions, chain))
        unseen = np.ones(len(self.kind), bool)
        unseen[walks.pixels] = False
        rings = self._ring_starts(chain[unseen[chain]])
        self.kind[rings] = _END
        round_walks = self._walk_rings(rings)
        ends = np.concatenate([places[kinds == _END], rings])
        return self._collect([walks, round_walks], junctions, group, ends)

    def _groups(self, junctions: Ints) -> Ints:
        """Number the groups of touching junction pixels."""
        if not self.grouped:
            return np.arange(len(junctions))
        if len(junctions) > 100_000:
            shape = (len(self.kind) // self.width, self.width)
            image = label((self.kind == _JUNCTION).reshape(shape), np.ones((3, 3)))[0]
            value: Ints = image.ravel()[junctions].astype(np.int64) - 1
            return value
        pairs = [self._touching(junctions, d) for d in (0, 5, 6, 7)]
        return components(len(junctions), np.concatenate(pairs))

    def _touching(self, places: Ints, direction: int) -> Ints:
        """(M, 2) indexes into ``places`` of those that touch in one direction."""
        target = places + self.step[direction]
        hit = np.flatnonzero(self.kind[target] == _JUNCTION)
        return np.stack([hit, np.searchsorted(places, target[hit])], axis=1)

    def _starts(self, ends: Ints, junctions: Ints, chain: Ints) -> tuple[Ints, ...]:
        """Return places and directions of all walks: out of nodes, and in from outside."""
        nodes = np.concatenate([ends, junctions])
        out_place, out_way, in_place, in_way = [], [], [], []
        for d in range(8):
            place = nodes[(self.links[nodes] >> d) & 1 == 1]
            target = self.kind[place + self.step[d]] & (_OUTSIDE - 1)
            inner = (self.kind[place] == _JUNCTION) & (target == _JUNCTION) & self.grouped
            out_place.append(place[~inner])
            out_way.append(np.full(int((~inner).sum()), d))
            place = chain[(self.links[chain] >> d) & 1 == 1]
            place = place[self.kind[place + self.step[d]] >= _OUTSIDE]
            in_place.append(place)
            in_way.append(np.full(len(place), d ^ 4))
        return tuple(np.concatenate(x) for x in (out_place, out_way, in_place, in_way))

    def _walk(self, out_place: Ints, out_way: Ints, in_place: Ints, in_way: Ints) -> _Walks:
        """Walk from all starts at once until each meets a node or leaves the block."""
        count = len(out_place) + len(in_place)
        start = np.concatenate([out_place, in_place])
        half = start * 8 + np.concatenate([out_way, in_way ^ 4])
        walks = _Walks(start, half, np.arange(count) >= len(out_place))
        beyond = self.kind[out_place + self.step[out_way]] >= _OUTSIDE
        gone = np.flatnonzero(beyond)
        walks.stop(gone, out_place[gone], half[gone], cut=True)
        going = np.flatnonzero(~beyond)
        walks.record(going, out_way[going])
        ids = np.concatenate([going, np.arange(len(out_place), count)])
        place = np.concatenate([(out_place + self.step[out_way])[going], in_place])
        way = np.concatenate([out_way[going], in_way])
        self._advance(walks, ids, place, way)
        return walks

    def _walk_rings(self, rings: Ints) -> _Walks:
        """Walk each ring once, from its least pixel in its least direction, back to it."""
        way = np.argmax(_BITS[self.links[rings]], axis=1)
        walks = _Walks(rings, rings * 8 + way, np.zeros(len(rings), bool))
        ids = np.arange(len(rings))
        walks.record(ids, way)
        self._advance(walks, ids, rings + self.step[way], way)
        return walks

    def _advance(self, walks: _Walks, ids: Ints, place: Ints, way: Ints) -> None:
        while len(ids):
            met = self.kind[place] != _CHAIN
            if met.any():
                walks.stop(ids[met], place[met], place[met] * 8 + (way[met] ^ 4), cut=False)
                ids, place, way = ids[~met], place[~met], way[~met]
            walks.visit(place)
            way = _NEXT[self.links[place], way].astype(np.int64)
            target = place + self.step[way]
            left = self.kind[target] >= _OUTSIDE
            if left.any():
                walks.stop(ids[left], place[left], place[left] * 8 + way[left], cut=True)
                ids, way, target = ids[~left], way[~left], target[~left]
            walks.record(ids, way)
            place = target

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

    def _collect(self, all_walks: list[_Walks], junctions: Ints, group: Ints, ends: Ints) -> Pieces:
        number, groups = self._numbers(), int(group.max(initial=-1)) + 1
        order = np.argsort(ends)
        find_end = ends[order], groups + order
        parts = [w.pieces() for w in all_walks]
        start, stop, half, key, entered, cut, sizes, codes = (
            np.concatenate([p[i] for p in parts]) for i in range(8)
        )
        nodes = np.full((len(start), 2), -1)
        keys = np.full((len(start), 2), -1)
        for side, place, is_cut, out in ((0, start, entered, half), (1, stop, cut, key)):
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
            hit = self.kind[target] == _JUNCTION | _OUTSIDE
            border.append(np.stack([number(junctions[hit]), group[hit]], axis=1))
            pairs.append(np.stack([number(junctions[hit]), number(target[hit])], axis=1))
        return np.unique(np.concatenate(border), axis=0), np.concatenate(pairs)


class _Walks:
    """What walks leave behind: where they began and stopped, and their steps in order."""

    def __init__(self, start: Ints, half: Ints, entered: NDArray[np.bool_]) -> None:
        self.start, self.half, self.entered = start, half, entered
        self.end, self.key = start.copy(), half.copy()
        self.cut = np.zeros(len(start), bool)
        self._ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        self._ways: list[Codes] = [np.empty(0, np.uint8)]
        self._seen: list[Ints] = [np.empty(0, np.int64)]

    def record(self, ids: Ints, way: Ints) -> None:
        self._ids.append(ids.astype(np.int32))
        self._ways.append(way.astype(np.uint8))

    def visit(self, place: Ints) -> None:
        self._seen.append(place)

    def stop(self, ids: Ints, place: Ints, key: Ints, *, cut: bool) -> None:
        self.end[ids], self.key[ids], self.cut[ids] = place, key, cut

    @property
    def pixels(self) -> Ints:
        return np.concatenate(self._seen)

    def pieces(self) -> tuple[NDArray[np.generic], ...]:
        """Keep each piece once: walked from both ends, it stays from the lesser half-edge."""
        keep = self.half <= self.key
        ids, ways = np.concatenate(self._ids), np.concatenate(self._ways)
        ids, ways = ids[keep[ids]], ways[keep[ids]]
        ways = ways[np.argsort(ids, kind="stable")]
        sizes = np.bincount(ids, minlength=len(keep))[keep]
        fields = (self.start, self.end, self.half, self.key, self.entered, self.cut)
        return *(f[keep] for f in fields), sizes, ways


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
