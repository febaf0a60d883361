"""City: a street lattice without end, and the land use of its blocks.

City coordinates are metres, x to the east and y to the south. A smooth warp carries the lattice
coordinates (u, v) to (x, y), so that streets bend. Everything that is placed depends on the seed
and on the block's index alone: two scenes of one city that touch, fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from terradapt.synthetic.style import BLOCK_KINDS, Floats, Style

FAR = 60.0  # m, "no road near"
CORNER = 5.0  # m, how far kerbs round at a junction
RING = 15.0  # m, outer radius of a roundabout
ISLAND = 7.0  # m, radius of its island


@dataclass(frozen=True)
class RoadField:
    """The streets seen from N points; arrays (N,) or of the points' shape, metres."""

    edge: Floats  # signed distance to the kerb, below 0 on the carriageway
    across: tuple[Floats, ...]  # to the nearest street along v, along u, to the curved main road
    inside: tuple[Floats, ...]  # signed distances to their kerbs
    half: tuple[Floats, ...]  # their half widths
    island: NDArray[np.bool_]


@dataclass(frozen=True)
class CityRoad:
    """A centreline in city metres (N, 2), its width in metres and its kind."""

    line: Floats
    width: float
    kind: str


def mix(*keys: int) -> int:
    """Return a 32-bit hash of integers (may be negative)."""
    value = 0x811C9DC5
    for key in keys:
        value = ((value ^ (key & 0xFFFFFFFF)) * 0x9E3779B1) & 0xFFFFFFFF
        value ^= value >> 15
        value = (value * 0x85EBCA6B) & 0xFFFFFFFF
        value ^= value >> 13
    return value


def chance(*keys: int) -> float:
    """Return a hash of integers as a float in [0, 1)."""
    return mix(*keys) / 2**32


class City:
    """A city without end.

    Args:
        seed: Draws the style, the streets and everything on the blocks.
        style: Another one, of a later date; that of the seed when None.
        date: Draws the camera's noise, 0 of the first date.
    """

    def __init__(self, seed: int, style: Style | None = None, date: int = 0) -> None:
        self.seed, self.date = seed, date
        self.style = style or Style.of(seed)
        c, s = np.cos(self.style.theta), np.sin(self.style.theta)
        self._rotation = np.array(((c, -s), (s, c)))
        # What the hashes say is asked for again and again.
        self.street = cache(self._street)
        self.half_width = cache(self._half_width)
        self.present = cache(self._present)
        self._existing = cache(self._existing_parts)
        self._streets = cache(self._street_lines)

    def position(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Carry lattice coordinates to city metres (x, y), shapes kept."""
        wx, wy = self._warp(u, v)
        (a, b), (c, d) = self._rotation
        return a * u + b * v + wx, c * u + d * v + wy

    def lattice(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Carry city metres to lattice coordinates: the inverse of :meth:`position`."""
        (a, b), (c, d) = self._rotation
        wx, wy = np.zeros_like(x), np.zeros_like(y)
        for _ in range(12):  # the warp contracts: the error falls to below a millimetre
            u, v = a * (x - wx) + c * (y - wy), b * (x - wx) + d * (y - wy)
            wx, wy = self._warp(u, v)
        return a * (x - wx) + c * (y - wy), b * (x - wx) + d * (y - wy)

    def _warp(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        wx, wy = np.zeros_like(u), np.zeros_like(u)
        for ax, ay, ku, kv, px, py in self.style.warp:
            phase = ku * u + kv * v
            wx = wx + ax * np.sin(phase + px)
            wy = wy + ay * np.sin(phase + py)
        return wx, wy

    def heading(self, u: float, v: float) -> float:
        """Return the angle of the u axis at a point, radians from x towards y."""
        x, y = self.position(np.array((u - 1.0, u + 1.0)), np.array((v, v)))
        return float(np.arctan2(y[1] - y[0], x[1] - x[0]))

    def _street(self, axis: int, index: int) -> float:
        """Return the lattice coordinate of a street of family 0 (u) or 1 (v)."""
        size = self.style.block[axis]
        return size * (index + 0.36 * (chance(self.seed, 1, axis, index) - 0.5))

    def is_main(self, axis: int, index: int) -> bool:
        """Tell whether a street is a main road."""
        return (index + self.style.main_offset[axis]) % self.style.main_every == 0

    def _half_width(self, axis: int, index: int) -> float:
        """Return half the carriageway of a street, m."""
        wobble = 0.88 + 0.24 * chance(self.seed, 2, axis, index)
        width = self.style.main_width if self.is_main(axis, index) else self.style.side_width
        return width * wobble / 2

    def _present(self, axis: int, index: int, part: int) -> bool:
        """Tell whether a street exists between crossings ``part`` and ``part + 1``."""
        if self.is_main(axis, index):
            return True
        return chance(self.seed, 3, axis, index, part) >= self.style.drop

    def roundabout(self, i: int, j: int) -> bool:
        """Tell whether the crossing of streets i and j is a roundabout."""
        mains = self.is_main(0, i) and self.is_main(1, j)
        return mains and chance(self.seed, 4, i, j) < self.style.roundabouts

    def span(self, axis: int, low: float, high: float) -> range:
        """Return the indexes of the streets that enclose [low, high], one more at each end."""
        size = self.style.block[axis]
        return range(int(np.floor(low / size)) - 1, int(np.ceil(high / size)) + 2)

    def arterial(self, u: Floats) -> Floats:
        """Return v of the curved main road at u; it repeats every 11 blocks."""
        amplitude = 0.9 * self.style.block[1]
        phase = 2 * np.pi * self.style.arterial
        wave = 2 * np.pi / (5.5 * self.style.block[0])
        curve: Floats = amplitude * np.sin(wave * u + phase) + 0.12 * u
        return curve

    @property
    def arterial_half(self) -> float:
        """Half the width of the curved main road, m."""
        return self.style.main_width / 2

    def roads_at(
        self, u: Floats, v: Floats, grow: tuple[Floats, Floats] | None = None
    ) -> RoadField:
        """Measure the streets from points of the lattice.

        Args:
            u: First lattice coordinate, any shape.
            v: Second, same shape.
            grow: Gradients (per metre) of u and v there, which turn lattice into metres.
        """
        gu, gv = grow if grow is not None else (np.ones_like(u), np.ones_like(v))
        us = self.span(0, float(u.min()), float(u.max()))
        vs = self.span(1, float(v.min()), float(v.max()))
        lines = [self._streets(0, us), self._streets(1, vs)]
        across_u, inside_u, half_u = self._family(0, us, vs, lines, u, v, gu)
        across_v, inside_v, half_v = self._family(1, vs, us, lines[::-1], v, u, gv)
        edge = smooth_min(inside_u, inside_v, CORNER)
        slope = (self.arterial(u + 1) - self.arterial(u - 1)) / 2
        across = (v - self.arterial(u)) / (np.hypot(1, slope) * gv)
        bend = np.abs(across) - self.arterial_half
        edge = smooth_min(edge, bend, CORNER)
        island = np.zeros(u.shape, bool)
        for i in us:
            for j in vs:
                if self.roundabout(i, j):
                    away = np.hypot((u - self.street(0, i)) / gu, (v - self.street(1, j)) / gv)
                    edge = smooth_min(edge, away - RING, CORNER)
                    edge = np.maximum(edge, ISLAND - away)
                    island |= away < ISLAND
        half = np.full_like(u, self.arterial_half)
        return RoadField(
            edge,
            (across_u, across_v, across),
            (inside_u, inside_v, bend),
            (half_u, half_v, half),
            island,
        )

    def _family(
        self,
        axis: int,
        own: range,
        other: range,
        lines: list[Floats],
        along: Floats,
        beside: Floats,
        grow: Floats,
    ) -> tuple[Floats, Floats, Floats]:
        """Signed distances to the centre and the kerb of a family's nearest street."""
        nearest = np.searchsorted((lines[0][1:] + lines[0][:-1]) / 2, along)
        part = np.clip(np.searchsorted(lines[1], beside) - 1, 0, len(other) - 1)
        exists, halves = self._existing(axis, own, other)
        across = (along - lines[0][nearest]) / grow
        half = halves[nearest]
        inside = np.where(exists[nearest, part], np.abs(across) - half, FAR)
        return across, inside, half

    def _street_lines(self, axis: int, own: range) -> Floats:
        return np.array([self.street(axis, i) for i in own])

    def _existing_parts(
        self, axis: int, own: range, other: range
    ) -> tuple[NDArray[np.bool_], Floats]:
        exists = np.array([[self.present(axis, i, j) for j in other] for i in own])
        return exists, np.array([self.half_width(axis, i) for i in own])

    def centrelines(self, bounds: tuple[float, float, float, float]) -> list[CityRoad]:
        """Return the streets near the lattice rectangle (u0, v0, u1, v1)."""
        u0, v0, u1, v1 = bounds
        us, vs = self.span(0, u0, u1), self.span(1, v0, v1)
        roads = [*self._lines(0, us, vs), *self._lines(1, vs, us)]
        first, last = self.street(0, us[0]), self.street(0, us[-1])
        along = np.linspace(first, last, int((last - first) / 4))
        x, y = self.position(along, self.arterial(along))
        roads.append(CityRoad(np.stack((x, y), 1), 2 * self.arterial_half, "arterial"))
        turn = np.linspace(0, 2 * np.pi, 49)
        mid = (RING + ISLAND) / 2
        for i in us:
            for j in vs:
                if self.roundabout(i, j):
                    x, y = self.position(
                        self.street(0, i) + mid * np.cos(turn),
                        self.street(1, j) + mid * np.sin(turn),
                    )
                    roads.append(CityRoad(np.stack((x, y), 1), RING - ISLAND, "roundabout"))
        return roads

    def _lines(self, axis: int, own: range, other: range) -> Iterator[CityRoad]:
        for i in own:
            here = self.street(axis, i)
            kind = "main" if self.is_main(axis, i) else "side"
            for first, last in self._runs(axis, i, other):
                low, high = self.street(1 - axis, first), self.street(1 - axis, last)
                low += self._ring_gap(axis, i, first)
                high -= self._ring_gap(axis, i, last)
                if high - low < 1:
                    continue
                along = np.linspace(low, high, max(2, int((high - low) / 4)))
                fixed = np.full_like(along, here)
                x, y = self.position(fixed, along) if axis == 0 else self.position(along, fixed)
                yield CityRoad(np.stack((x, y), 1), 2 * self.half_width(axis, i), kind)

    def _runs(self, axis: int, index: int, other: range) -> Iterator[tuple[int, int]]:
        """Unbroken stretches of a street, as first and last crossing."""
        start: int | None = None
        for part in other[:-1]:
            if self.present(axis, index, part):
                start = part if start is None else start
                crossing = (index, part + 1) if axis == 0 else (part + 1, index)
                if self.roundabout(*crossing):
                    yield start, part + 1
                    start = None
            elif start is not None:
                yield start, part
                start = None
        if start is not None:
            yield start, other[-1]

    def _ring_gap(self, axis: int, index: int, crossing: int) -> float:
        where = (index, crossing) if axis == 0 else (crossing, index)
        return (RING + ISLAND) / 2 if self.roundabout(*where) else 0.0

    def kind(self, i: int, j: int) -> str:
        """Return the land use of a block."""
        rank = np.searchsorted(np.cumsum(self.style.kinds), chance(self.seed, 5, i, j))
        return BLOCK_KINDS[min(int(rank), len(BLOCK_KINDS) - 1)]


def smooth_min(a: Floats, b: Floats, radius: float) -> Floats:
    """Return the smaller of two distances, with corners rounded over ``radius`` metres."""
    mixing = np.maximum(radius - np.abs(a - b), 0) / radius
    smooth: Floats = np.minimum(a, b) - mixing * mixing * radius / 4
    return smooth
