"""The pieces of all blocks put together: the same graph however the scene was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from terradapt.vector.lattice.directions import COL_STEP, ROW_STEP
from terradapt.vector.lattice.graph import Bools, Chains, Floats, Graph, spans
from terradapt.vector.lattice.trace import Codes, Ints, Lattice, Pieces, components

_CORNER = 3  # steps of a loop around the corner of a thick spot


@dataclass(frozen=True)
class Part:
    """The pieces of one block and what was measured along them.

    Args:
        pieces: Chains and nodes.
        sums: (P, S) integers summed over a piece's pixels.
        radius: (N,) half width at each node, m.
    """

    pieces: Pieces
    sums: Ints
    radius: Floats


def join(parts: Sequence[Part], lattice: Lattice) -> Graph:
    """Join the blocks' pieces at their cuts and number everything by pixels.

    Args:
        parts: All blocks of the scene, in any order.
        lattice: The scene's pixel numbers.
    """
    return _Joiner(parts, lattice).graph()


class _Joiner:
    def __init__(self, parts: Sequence[Part], lattice: Lattice) -> None:
        self.lattice = lattice
        counts = [len(p.pieces.node_pixel) for p in parts]
        shift = np.cumsum([0, *counts[:-1]]) if counts else np.zeros(0, int)
        pieces = [p.pieces for p in parts]
        self.ends = _stack(
            [np.where(p.ends < 0, -1, p.ends + s) for p, s in zip(pieces, shift, strict=True)], 2
        )
        self.keys = _stack([p.keys for p in pieces], 2)
        self.first = _stack([p.first for p in pieces])
        self.sizes = _stack([p.sizes for p in pieces])
        self.codes: Codes = np.concatenate([np.empty(0, np.uint8), *(p.codes for p in pieces)])
        self.sums = _stack([p.sums for p in parts], 4)
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        self._unite(parts, shift)

    def _unite(self, parts: Sequence[Part], shift: Ints) -> None:
        """Make one node of junction pixels that touch across a border."""
        pieces = [p.pieces for p in parts]
        pixel = _stack([p.node_pixel for p in pieces])
        border = _stack(
            [p.border + np.array([0, s]) for p, s in zip(pieces, shift, strict=True)], 2
        )
        border = border[np.argsort(border[:, 0], kind="stable")]
        touching = _stack([p.touching for p in pieces], 2)
        at = np.searchsorted(border[:, 0], touching)
        at[at == len(border)] = 0
        known = (border[at, 0] == touching).all(axis=1) if len(border) else np.zeros(0, bool)
        group = components(len(pixel), border[at[known], 1] if len(border) else touching)
        count = int(group.max(initial=-1)) + 1
        least = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(least, group, pixel)
        rank = np.empty(count, np.int64)
        rank[np.argsort(least)] = np.arange(count)
        node = rank[group]
        self.sums_of_node = np.zeros((count, 3), np.int64)
        np.add.at(self.sums_of_node, node, _stack([p.node_sums for p in pieces], 3))
        self.radius = np.zeros(count)
        np.maximum.at(self.radius, node, np.concatenate([np.zeros(0), *(p.radius for p in parts)]))
        self.ends = np.where(self.ends < 0, -1, node[self.ends] if count else -1)

    def graph(self) -> Graph:
        """Return the graph: whole pieces as they are, cut ones joined."""
        whole = np.flatnonzero((self.keys < 0).all(axis=1))
        joined = self._joined()
        place = self.sums_of_node[:, :2] / np.maximum(self.sums_of_node[:, 2:], 1)
        extra, fixed = self._extra_nodes(joined)
        chains = _concatenate(
            Chains(*self.lattice.place(self.first), self.sizes, self.codes).take(whole),
            [(j.first, j.codes) for j in joined],
            self.lattice,
        )
        ends = np.concatenate([self.ends[whole], _stack([np.array([j.ends]) for j in joined], 2)])
        sums = np.concatenate([self.sums[whole], _stack([j.sums[None] for j in joined], 4)])
        graph = Graph(
            np.concatenate([place, extra]),
            np.concatenate([self.radius, np.zeros(len(extra))]),
            np.concatenate([np.zeros(len(place), bool), fixed]),
            ends,
            chains,
            sums,
        )
        corner = (chains.sizes <= _CORNER) & (ends[:, 0] == ends[:, 1]) | (chains.sizes == 0)
        return _canonical(graph.without(corner).compact(), self.lattice)

    def _extra_nodes(self, joined: list[_Joined]) -> tuple[Floats, Bools]:
        """Give nodes to rings that cross blocks, and to ends at the scene's edge."""
        places: list[int] = []
        fixed: list[bool] = []
        for edge in joined:
            stop = edge.stop(self.lattice)
            for side, pixel in ((0, edge.first), (1, stop)):
                if edge.ends[side] < 0 and not (side and edge.ring):
                    edge.ends[side] = len(self.radius) + len(places)
                    places.append(pixel)
                    fixed.append(not edge.ring)
            if edge.ring:
                edge.ends[1] = edge.ends[0]
        row, col = self.lattice.place(np.array(places, np.int64))
        return np.stack([row, col], axis=1).astype(float), np.array(fixed, bool)

    def _joined(self) -> list[_Joined]:
        piece, side = np.nonzero(self.keys >= 0)
        key = self.keys[piece, side]
        order = np.argsort(key)
        partner = self._across(key)
        at = np.minimum(np.searchsorted(key[order], partner), max(len(key) - 1, 0))
        found = key[order][at] == partner if len(key) else np.zeros(0, bool)
        meets = np.where(found, order[at], -1) if len(key) else at
        links = {
            (int(piece[i]), int(side[i])): None if m < 0 else (int(piece[m]), int(side[m]))
            for i, m in enumerate(meets)
        }
        return self._follow(links)

    def _across(self, key: Ints) -> Ints:
        """Return the key of the same cut seen from the other block."""
        pixel, way = key // 8, key % 8
        value: Ints = (pixel + ROW_STEP[way] * self.lattice.stride + COL_STEP[way]) * 8 + (way ^ 4)
        return value

    def _follow(self, links: _Links) -> list[_Joined]:
        left = dict.fromkeys(p for p, _ in links)
        begins = [
            (p, s) for p in left for s in (0, 1) if (p, s) not in links or links[p, s] is None
        ]
        found = []
        for piece, side in begins:
            if piece in left:
                found.append(self._one(piece, side, links, left))
        while left:
            found.append(self._one(next(iter(left)), 0, links, left, ring=True))
        return found

    def _one(
        self, piece: int, side: int, links: _Links, left: dict[int, None], *, ring: bool = False
    ) -> _Joined:
        """Follow cut pieces from one end, entering ``piece`` at ``side``, to the other."""
        codes, sums = [], np.zeros(self.sums.shape[1], np.int64)
        first = self._pixel(piece, side)
        start = int(self.ends[piece, side])
        while True:
            del left[piece]
            codes.append(self._steps(piece, side))
            sums += self.sums[piece]
            exit_ = (piece, 1 - side)
            onward = links.get(exit_)
            if onward is not None:
                codes.append(np.array([self.keys[exit_] % 8], np.uint8))
            if onward is None or onward[0] not in left:
                break
            piece, side = onward
        ends = [start, int(self.ends[exit_])]
        joined = _Joined(ends, first, np.concatenate(codes), sums, ring)
        return joined.least_first(self.lattice) if ring else joined

    def _pixel(self, piece: int, side: int) -> int:
        """Return the pixel at one end of a piece."""
        codes = self.codes[self.offsets[piece] : self.offsets[piece + 1]]
        return (
            _end_pixel(int(self.first[piece]), codes, self.lattice)
            if side
            else int(self.first[piece])
        )

    def _steps(self, piece: int, side: int) -> Codes:
        codes = self.codes[self.offsets[piece] : self.offsets[piece + 1]]
        return codes[::-1] ^ np.uint8(4) if side else codes


_Links = dict[tuple[int, int], tuple[int, int] | None]


@dataclass
class _Joined:
    ends: list[int]
    first: int
    codes: Codes
    sums: Ints
    ring: bool

    def stop(self, lattice: Lattice) -> int:
        return _end_pixel(self.first, self.codes, lattice)

    def least_first(self, lattice: Lattice) -> _Joined:
        """Let a ring begin at its least pixel."""
        steps = ROW_STEP[self.codes] * lattice.stride + COL_STEP[self.codes]
        pixels = self.first + np.concatenate([[0], np.cumsum(steps[:-1])])
        least = int(np.argmin(pixels))
        codes = np.roll(self.codes, -least)
        return _Joined(self.ends, int(pixels[least]), codes, self.sums, self.ring)


def _end_pixel(first: int, codes: Codes, lattice: Lattice) -> int:
    return int(first + (ROW_STEP[codes] * lattice.stride + COL_STEP[codes]).sum())


def _concatenate(chains: Chains, more: list[tuple[int, Codes]], lattice: Lattice) -> Chains:
    row, col = lattice.place(np.array([f for f, _ in more], np.int64))
    sizes = np.array([len(c) for _, c in more], np.int64)
    return Chains(
        np.concatenate([chains.row, row]),
        np.concatenate([chains.col, col]),
        np.concatenate([chains.sizes, sizes]),
        np.concatenate([chains.codes, *(c for _, c in more)]),
    )


def _canonical(graph: Graph, lattice: Lattice) -> Graph:
    """Turn every edge to begin at its lesser half-edge, and sort nodes and edges by pixels."""
    chains = graph.chains
    if not len(chains):
        return graph
    offsets = chains.offsets
    start = lattice.number(chains.row, chains.col) * 8 + chains.codes[offsets[:-1]]
    stop = lattice.number(*chains.stops()) * 8 + (chains.codes[offsets[1:] - 1] ^ 4)
    back = stop < start
    ends = np.where(back[:, None], graph.ends[:, ::-1], graph.ends)
    order = np.argsort(np.minimum(start, stop))
    rank = np.empty(len(graph.place), np.int64)
    nodes = np.lexsort((graph.place[:, 1], graph.place[:, 0]))
    rank[nodes] = np.arange(len(nodes))
    return Graph(
        graph.place[nodes],
        graph.radius[nodes],
        graph.fixed[nodes],
        rank[ends[order]],
        chains.turned(back).take(order),
        graph.sums[order],
    )


def _stack(arrays: Sequence[Ints], columns: int | None = None) -> Ints:
    shape = (0,) if columns is None else (0, columns)
    value: Ints = np.concatenate([np.empty(shape, np.int64), *arrays]).astype(np.int64)
    return value


__all__ = ["Part", "join", "spans"]
