"""All chains of a block followed at once, by pointer doubling instead of step by step.

A chain pixel can be left by either of its two links, so it has two states; each leads to a state of
the next pixel, or out of the chain. Doubling the moves gives, in as many rounds as a chain's length
has binary digits, how far every state is from its chain's last state, and which that is (Wyllie,
"The complexity of parallel computations", 1979). The states of the opposite direction tell how far
a pixel is from the chain's beginning: that is where its step is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from terradapt.vector.lattice.directions import BITS, CHAIN, COL_STEP, DEGREE, OUTSIDE, ROW_STEP

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.uint8]


def _leave_table() -> tuple[Ints, Ints]:
    """(256, 2) the two links of a code; (256, 8) which of them one takes, by arrival."""
    links = np.zeros((256, 2), np.int64)
    side = np.zeros((256, 8), np.int64)
    for code in np.flatnonzero(DEGREE == 2):
        links[code] = np.flatnonzero(BITS[code])
        side[code, links[code, 0] ^ 4] = 1
    return links, side


_LEAVE, _SIDE = _leave_table()


@dataclass(frozen=True)
class Plane:
    """The pixels of a block and of the ring around it, as flat arrays.

    Attributes:
        links: Link code of every pixel.
        kind: Kind of every pixel.
        width: Pixels per row.
    """

    links: Codes
    kind: Codes
    width: int

    @cached_property
    def step(self) -> Ints:
        """(8,) from a pixel to its neighbour in each direction."""
        value: Ints = ROW_STEP * self.width + COL_STEP
        return value


@dataclass(frozen=True)
class Walks:
    """W chains, each once: from the lesser of its half-edges, ``8 * place + direction``.

    Attributes:
        start: (W,) place at the start.
        end: (W,) place at the end.
        half: (W,) half-edge at the start.
        key: (W,) half-edge at the end.
        entered: (W,) the start is where the chain comes in from outside.
        cut: (W,) the end is where it leaves the block.
        sizes: (W,) steps.
        codes: Directions of all steps, one chain after the other.
    """

    start: Ints
    end: Ints
    half: Ints
    key: Ints
    entered: Bools
    cut: Bools
    sizes: Ints
    codes: Codes


class Paths:
    """The states of chain pixels: ``2 i + s`` leaves the pixel ``i`` by its link ``s``.

    Args:
        plane: The block.
        chain: Places of its chain pixels, ascending.
    """

    def __init__(self, plane: Plane, chain: Ints) -> None:
        self.plane = plane
        self._index = np.empty(plane.links.size, np.int32)
        self._index[chain] = np.arange(len(chain))
        self.place = np.repeat(chain, 2)
        self.way = _LEAVE[plane.links.take(chain)].ravel()
        target = self.place + plane.step.take(self.way)
        kind = plane.kind.take(target)
        self.beyond = kind >= OUTSIDE
        onward = np.arange(len(target))
        more = np.flatnonzero(kind == CHAIN)
        onward[more] = self.states(target[more], self.way[more])
        self.hops, self.last = _ends(onward)
        self.closed: Bools = (onward != np.arange(len(onward))).take(self.last)

    def states(self, place: Ints, way: Ints) -> Ints:
        """Return the states in which chain pixels are left that were reached in a direction."""
        side = _SIDE.ravel().take(self.plane.links.take(place).astype(np.int64) * 8 + way)
        value: Ints = 2 * self._index.take(place).astype(np.int64) + side
        return value

    def rings(self) -> Ints:
        """Return the places of chain pixels whose chain has no end."""
        value: Ints = self.place[::2][self.closed[::2]]
        return value

    def walks(self, place: Ints, way: Ints) -> Walks:
        """Follow the chains from nodes, and those that come in from outside.

        Args:
            place: (M,) places of nodes.
            way: (M,) directions in which they are left.
        """
        target = place + self.plane.step.take(way)
        kind = self.plane.kind.take(target)
        chain, beyond = kind == CHAIN, kind >= OUTSIDE
        inward = np.flatnonzero(self.beyond)
        first = np.full(len(place) + len(inward), -1)
        first[: len(place)][chain] = self.states(target[chain], way[chain])
        first[len(place) :] = inward ^ 1
        start = np.concatenate([place, self.place[inward]])
        half = start * 8 + np.concatenate([way, self.way[inward]])
        end, key, cut = start.copy(), half.copy(), np.zeros(len(start), bool)
        entered = np.arange(len(start)) >= len(place)
        near = np.flatnonzero(~chain & ~beyond)  # nodes beside nodes
        end[near], key[near] = target[near], target[near] * 8 + (way[near] ^ 4)
        cut[: len(place)] = beyond
        sizes = np.where(cut | entered, 0, 1)
        far = np.flatnonzero(first >= 0)
        end[far], key[far], cut[far] = self._ends_of(self.last[first[far]])
        sizes[far] += self.hops[first[far]] + ~cut[far]
        keep = half <= key
        codes = self._codes(first[keep], half[keep], entered[keep], sizes[keep])
        return Walks(
            start[keep],
            end[keep],
            half[keep],
            key[keep],
            entered[keep],
            cut[keep],
            sizes[keep],
            codes,
        )

    def _ends_of(self, last: Ints) -> tuple[Ints, Ints, Bools]:
        """Return place, half-edge, and whether it is a cut, at the ends of chains."""
        place, way, cut = self.place[last], self.way[last], self.beyond[last]
        stop = place + self.plane.step.take(way)
        key = np.where(cut, place * 8 + way, stop * 8 + (way ^ 4))
        return np.where(cut, place, stop), key, cut

    def _codes(self, first: Ints, half: Ints, entered: Bools, sizes: Ints) -> Codes:
        """Write every step to its place in its chain."""
        begin = np.cumsum(sizes) - sizes
        codes = np.empty(int(sizes.sum()), np.uint8)
        out = np.flatnonzero(~entered & (sizes > 0))
        codes[begin[out]] = half[out] % 8
        owner = np.full(len(self.place), -1)
        far = np.flatnonzero(first >= 0)
        owner[first[far] ^ 1] = far
        turned = np.arange(len(self.place)) ^ 1
        chain = owner.take(self.last.take(turned))
        written = np.flatnonzero((chain >= 0) & ~self.beyond)
        chain = chain[written]
        at = begin[chain] + ~entered[chain] + self.hops[written ^ 1]
        codes[at] = self.way[written]
        return codes


def _ends(onward: Ints) -> tuple[Ints, Ints]:
    """Return how many moves each state is from the last of its chain, and that last state."""
    hops = (onward != np.arange(len(onward))).astype(np.int64)
    last = onward
    for _ in range(len(onward).bit_length()):
        further = last.take(last)
        if np.array_equal(further, last):
            break
        hops += hops.take(last)
        last = further
    return hops, last
