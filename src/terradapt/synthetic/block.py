"""Block: a place in a city, with helpers that put things up and keep them off the streets."""

from __future__ import annotations

import numpy as np

from terradapt.synthetic.city import City
from terradapt.synthetic.style import FLAT_ROOFS, RGB, ROOFS
from terradapt.synthetic.things import Building, Car, Patch, Things, Tree

CAR_COLOURS: tuple[RGB, ...] = (
    (0.86, 0.87, 0.88),
    (0.66, 0.67, 0.69),
    (0.42, 0.43, 0.45),
    (0.14, 0.14, 0.16),
    (0.58, 0.14, 0.13),
    (0.16, 0.24, 0.46),
    (0.72, 0.62, 0.28),
)
CAR_WEIGHTS = np.array((0.25, 0.22, 0.16, 0.17, 0.09, 0.08, 0.03))


class CityBlock:
    """One block in lattice metres, with helpers that place things and keep off the streets."""

    def __init__(self, city: City, i: int, j: int) -> None:
        self.city, self.i, self.j = city, i, j
        self.style = city.style
        self.rng = np.random.default_rng([city.seed, 17, i + 2**20, j + 2**20])
        self.things = Things()
        self.kind = city.kind(i, j)
        self.u0, self.u1 = self._side(0, i, j, 1), self._side(0, i + 1, j, -1)
        self.v0, self.v1 = self._side(1, j, i, 1), self._side(1, j + 1, i, -1)

    def _side(self, axis: int, index: int, part: int, sign: int) -> float:
        line = self.city.street(axis, index)
        if not self.city.present(axis, index, part):
            return line + sign * 0.5
        return line + sign * (self.city.half_width(axis, index) + self.style.pavement)

    @property
    def width(self) -> float:
        """Extent along u, m."""
        return self.u1 - self.u0

    @property
    def depth(self) -> float:
        """Extent along v, m."""
        return self.v1 - self.v0

    def uniform(self, low: float, high: float) -> float:
        """Draw a number; ``low`` where the range is empty."""
        return float(self.rng.uniform(low, max(low, high)))

    def often(self, share: float) -> bool:
        """Draw a yes or no."""
        return bool(self.rng.random() < share)

    def clear(self, u: float, v: float, length: float, width: float, turn: float = 0) -> float:
        """Return the least distance in m from a rectangle to a kerb; below 0 on a road."""
        side = np.linspace(-0.5, 0.5, 5 if length > 16 else 3)
        a, b = (p.ravel() for p in np.meshgrid(side * length, side * width))
        c, s = np.cos(turn), np.sin(turn)
        return float(self.city.roads_at(u + a * c - b * s, v + a * s + b * c).edge.min())

    def place(self, u: float, v: float, turn: float = 0) -> tuple[float, float, float]:
        """Carry a lattice point and an angle to city metres."""
        x, y = self.city.position(np.array((u,)), np.array((v,)))
        return float(x[0]), float(y[0]), self.city.heading(u, v) + turn

    def patch(self, u: float, v: float, length: float, width: float, kind: str) -> None:
        """Cover a rectangle of the ground."""
        x, y, angle = self.place(u, v)
        self.things.patches.append(Patch(x, y, angle, length, width, kind))

    def building(
        self,
        u: float,
        v: float,
        length: float,
        width: float,
        eave: float,
        roof: str,
        colour: RGB | None = None,
        turn: float = 0,
    ) -> bool:
        """Put up a building where it stays off the streets; the ridge runs along ``length``."""
        if self.clear(u, v, length, width, turn) < 0.8 + self.style.pavement * 0.5:
            return False
        x, y, angle = self.place(u, v, turn)
        colour = colour or self.roof_colour(roof == "flat")
        slope = self.uniform(0.5, 0.9) if roof in ("gable", "hip") else 0.12
        seed = int(self.rng.integers(2**31))
        self.things.buildings.append(
            Building(x, y, angle, length, width, eave, roof, slope, colour, seed)
        )
        return True

    def roof_colour(self, flat: bool) -> RGB:
        """Draw a roof's colour from the city's materials."""
        table, weights = (FLAT_ROOFS, self.style.flat_roofs) if flat else (ROOFS, self.style.roofs)
        base = np.array(list(table.values())[int(self.rng.choice(len(table), p=weights))])
        r, g, b = np.clip(
            base * self.uniform(0.82, 1.15) + self.rng.normal(0, 0.015, 3), 0.05, 0.95
        )
        return float(r), float(g), float(b)

    def pitched(self) -> str:
        """Draw a pitched roof's form."""
        return "hip" if self.often(self.style.hipped) else "gable"

    def tree(self, u: float, v: float, radius: float | None = None, overhang: bool = False) -> None:
        """Plant a tree; its trunk keeps off the carriageway, its crown may hang over it."""
        radius = radius if radius is not None else self.uniform(1.6, 4.2)
        need = 0.5 if overhang else min(radius, 1.5)
        if self.city.roads_at(np.array((u,)), np.array((v,))).edge[0] < need:
            return
        x, y, _ = self.place(u, v)
        height = radius * self.uniform(1.5, 2.4) + 1.0
        self.things.trees.append(
            Tree(
                x, y, radius, height, self.uniform(0.75, 1.3), self.uniform(-1, 1), self.often(0.15)
            )
        )

    def scatter(
        self, count: float, box: tuple[float, float, float, float], big: float = 4.0
    ) -> None:
        """Plant trees in clumps over the lattice rectangle (u0, v0, u1, v1)."""
        u0, v0, u1, v1 = box
        for _ in range(int(self.rng.poisson(max(count, 0) * self.style.trees))):
            u, v = self.uniform(u0, u1), self.uniform(v0, v1)
            for _ in range(int(self.rng.integers(1, 4))):
                du, dv = self.rng.normal(0, 2.6, 2)
                if u0 < u + du < u1 and v0 < v + dv < v1:
                    self.tree(u + du, v + dv, self.uniform(1.5, big))

    def car(self, u: float, v: float, turn: float) -> None:
        """Park a car at a lattice point."""
        x, y, angle = self.place(u, v, turn)
        self.things.cars.append(make_car(self.rng, x, y, angle))

    def lot(self, u: float, v: float, length: float, width: float, full: float) -> None:
        """Lay a car park: rows of bays along u, a lane between them."""
        if min(length, width) < 11 or self.clear(u, v, length, width) < 0.5:
            return
        self.patch(u, v, length, width, "lot")
        rows = int(width // 8.5)
        pitch = width / rows
        for row in range(rows):
            centre = v - width / 2 + (row + 0.5) * pitch + (1.4 if row % 2 == 0 else -1.4)
            for bay in range(int((length - 3) // 2.7)):
                at = u - length / 2 + 2.8 + bay * 2.7
                self.patch(at - 1.35, centre, 0.16, 4.8, "line")
                if self.often(full):
                    self.car(
                        at + self.rng.normal(0, 0.1),
                        centre + self.rng.normal(0, 0.2),
                        np.pi / 2 + np.pi * int(self.rng.integers(2)) + self.rng.normal(0, 0.03),
                    )


def make_car(rng: np.random.Generator, x: float, y: float, angle: float) -> Car:
    """Draw a car, now and then a van."""
    van = bool(rng.random() < 0.1)
    length = float(rng.uniform(5.2, 6.6) if van else rng.uniform(3.9, 4.9))
    width = float(rng.uniform(2.0, 2.2) if van else rng.uniform(1.75, 1.95))
    colour = CAR_COLOURS[0 if van else int(rng.choice(len(CAR_COLOURS), p=CAR_WEIGHTS))]
    r, g, b = np.clip(np.array(colour) * rng.uniform(0.85, 1.12), 0.05, 0.97)
    return Car(x, y, angle, length, width, 2.4 if van else 1.5, (float(r), float(g), float(b)))
