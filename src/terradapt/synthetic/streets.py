"""Cars and trees along the streets; everything that belongs to one block."""

from __future__ import annotations

import numpy as np

from terradapt.synthetic.block import CityBlock
from terradapt.synthetic.city import ISLAND, RING, City
from terradapt.synthetic.things import Things, Tree
from terradapt.synthetic.uses import FILLERS


def things_of_block(city: City, i: int, j: int) -> Things:
    """Return what stands on a block, and on the streets at its lower u and v sides."""
    block = CityBlock(city, i, j)
    if block.width > 12 and block.depth > 12:
        FILLERS[block.kind](block)
    _street_life(block, 0, i, j)
    _street_life(block, 1, j, i)
    _arterial_cars(block)
    if city.roundabout(i, j):
        _roundabout(block)
    return block.things


def _street_life(block: CityBlock, axis: int, index: int, part: int) -> None:
    """Cars and trees along one stretch of a street."""
    city, style = block.city, block.style
    if not city.present(axis, index, part):
        return
    line, half = city.street(axis, index), city.half_width(axis, index)
    low, high = city.street(1 - axis, part) + 9, city.street(1 - axis, part + 1) - 9
    main = city.is_main(axis, index)
    along = np.pi / 2 if axis == 0 else 0.0

    def at(offset: float, run: float) -> tuple[float, float]:
        return (line + offset, run) if axis == 0 else (run, line + offset)

    for run in np.arange(low, high, 7.0).tolist():
        for side in (-1, 1):
            if block.often((0.16 if main else 0.07) * style.cars):
                u, v = at(side * half * 0.5, run + block.uniform(-2, 2))
                if not _near_ring(city, u, v):
                    block.car(u, v, along + block.rng.normal(0, 0.03))
            elif half > 2.9 and block.often((0.3 if not main else 0.12) * style.cars):
                u, v = at(side * (half - 1.05), run)
                if not _near_ring(city, u, v):
                    block.car(u, v, along + block.rng.normal(0, 0.02))
    lined = block.often(0.55 if main else 0.35)
    for run in np.arange(low, high, block.uniform(8, 13)).tolist():
        for side in (-1, 1):
            if lined and block.often(0.75 * min(style.trees, 1.1)):
                u, v = at(side * (half + 1.3), run + block.uniform(-1, 1))
                block.tree(u, v, block.uniform(2.2, 4.4), overhang=True)


def _arterial_cars(block: CityBlock) -> None:
    city = block.city
    low, high = city.street(1, block.j), city.street(1, block.j + 1)
    first, last = city.street(0, block.i) + 6, city.street(0, block.i + 1) - 6
    along = np.linspace(first, last, max(1, int((last - first) / 8)))
    ways = zip(along.tolist(), city.arterial(along), city.arterial(along + 0.5), strict=True)
    for u, v, ahead in ways:
        for side in (-1, 1):
            if not block.often(0.2 * block.style.cars) or not low + 6 < v < high - 6:
                continue
            turn = np.arctan2(ahead - v, 0.5)
            off = side * city.arterial_half * 0.5
            block.car(u - off * np.sin(turn), v + off * np.cos(turn), turn)


def _near_ring(city: City, u: float, v: float) -> bool:
    i = round(u / city.style.block[0])
    j = round(v / city.style.block[1])
    away = np.hypot(u - city.street(0, i), v - city.street(1, j))
    return bool(city.roundabout(i, j) and away < RING + 3)


def _roundabout(block: CityBlock) -> None:
    u, v = block.city.street(0, block.i), block.city.street(1, block.j)
    for turn in np.linspace(0, 2 * np.pi, 4)[:-1]:
        x, y, _ = block.place(u + 2.5 * np.cos(turn), v + 2.5 * np.sin(turn))
        radius = block.uniform(1.6, ISLAND * 0.45)
        block.things.trees.append(Tree(x, y, radius, radius * 2 + 1, 1.0, 0.0, False))
