"""What stands on a block, by land use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from terradapt.synthetic.block import CityBlock
from terradapt.synthetic.style import RGB
from terradapt.synthetic.things import Building

CONTAINERS: tuple[RGB, ...] = (
    (0.20, 0.36, 0.56),
    (0.62, 0.27, 0.17),
    (0.23, 0.46, 0.34),
    (0.76, 0.72, 0.62),
)


def _houses(block: CityBlock) -> None:
    """Detached houses with gardens, two rows back to back."""
    count = max(1, int(block.width // block.uniform(16, 23)))
    plot, half = block.width / count, block.depth / 2
    for k in range(count):
        for side in (-1, 1):
            street = block.v0 if side < 0 else block.v1
            _house(block, block.u0 + (k + 0.5) * plot, street, -side, plot, half)


def _house(
    block: CityBlock, u: float, street: float, inward: int, plot: float, depth: float
) -> None:
    length = block.uniform(8.5, min(14.0, plot - 3.5)) if plot > 13 else plot - 4
    width = block.uniform(7.5, min(11.0, depth * 0.5))
    setback = block.uniform(2.5, max(3.0, min(7.0, depth - width - 6)))
    shift = block.uniform(-1, 1) * (plot - length) * 0.3
    v = street + inward * (setback + width / 2)
    across = block.often(0.35)
    dims = (width, length) if across else (length, width)
    turn = np.pi / 2 if across else 0.0
    colour = block.roof_colour(False)
    roof = "flat" if block.often(0.08) else block.pitched()
    if roof == "flat":
        colour = block.roof_colour(True)
    built = block.building(
        u + shift, v, dims[0], dims[1], block.uniform(3, 6.2), roof, colour, turn
    )
    if not built:
        block.scatter(
            1.5,
            (
                u - plot / 2,
                min(street, street + inward * depth),
                u + plot / 2,
                max(street, street + inward * depth),
            ),
            3.0,
        )
        return
    if block.often(0.35):  # a wing makes it an L
        block.building(
            u + shift + length * 0.22,
            v + inward * width * 0.55,
            width * 0.85,
            length * 0.45,
            2.8,
            roof,
            colour,
            np.pi / 2,
        )
    _plot(block, u, street, inward, plot, depth, setback, width, shift)


def _plot(
    block: CityBlock,
    u: float,
    street: float,
    inward: int,
    plot: float,
    depth: float,
    setback: float,
    width: float,
    shift: float,
) -> None:
    edge = u + (plot / 2 - 2.0) * (-1 if shift > 0 else 1)
    reach = setback + block.uniform(1.5, width)
    if block.often(0.75):
        kind = "drive" if block.often(0.6) else "paving"
        block.patch(edge, street + inward * reach / 2, 2.9, reach, kind)
        if block.often(0.45 * block.style.cars):
            at = street + inward * min(reach - 2.6, block.uniform(2.6, 4.5))
            block.car(edge, at, np.pi / 2 + block.rng.normal(0, 0.04))
    back = setback + width
    if block.often(0.55):
        block.patch(u + shift, street + inward * (back + 1.8), block.uniform(4, 8), 3.6, "paving")
    if depth - back > 9 and block.often(0.14):
        block.patch(
            u + block.uniform(-3, 3),
            street + inward * (back + 6.5),
            block.uniform(6, 9),
            block.uniform(3, 4.2),
            "pool",
        )
    elif depth - back > 8 and block.often(0.45):
        block.building(
            u - np.sign(shift) * (plot / 2 - 2.6),
            street + inward * (depth - 2.8),
            block.uniform(2.6, 4.5),
            block.uniform(2.4, 3.4),
            2.3,
            "mono",
        )
    low, high = sorted((street + inward * (back + 1), street + inward * depth))
    block.scatter(1.3, (u - plot / 2 + 0.5, low, u + plot / 2 - 0.5, high), 3.6)
    low, high = sorted((street, street + inward * setback))
    block.scatter(0.35, (u - plot / 2, low, u + plot / 2, high), 2.4)
    if block.often(0.3):  # a hedge towards the neighbour
        for step in np.arange(1.0, depth - 1, 1.5).tolist():
            block.tree(u + plot / 2, street + inward * step, block.uniform(0.8, 1.2))


def _perimeter(block: CityBlock) -> None:
    """Closed rows along the streets around a court."""
    thick = block.uniform(10, 13)
    height = block.uniform(9, 14)
    for side in (-1, 1):
        v = block.v0 + thick / 2 + 0.6 if side < 0 else block.v1 - thick / 2 - 0.6
        _row(block, block.u0 + 0.6, block.u1 - 0.6, v, thick, height, False)
    for side in (-1, 1):
        u = block.u0 + thick / 2 + 0.6 if side < 0 else block.u1 - thick / 2 - 0.6
        _row(block, block.v0 + thick + 0.6, block.v1 - thick - 0.6, u, thick, height, True)
    inner = (block.u0 + thick + 2, block.v0 + thick + 2, block.u1 - thick - 2, block.v1 - thick - 2)
    if inner[2] - inner[0] < 8 or inner[3] - inner[1] < 8:
        return
    mid_u, mid_v = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    if block.often(0.55):
        block.patch(
            mid_u, mid_v, (inner[2] - inner[0]) * 0.6, (inner[3] - inner[1]) * 0.9, "paving"
        )
        for _ in range(int(block.rng.integers(0, 4))):
            block.building(
                block.uniform(inner[0] + 4, inner[2] - 4),
                block.uniform(inner[1] + 3, inner[3] - 3),
                block.uniform(5, 9),
                block.uniform(3, 5),
                3.0,
                "flat",
            )
    block.scatter((inner[2] - inner[0]) * (inner[3] - inner[1]) / 110, inner, 4.2)


def _row(
    block: CityBlock, low: float, high: float, at: float, thick: float, height: float, upright: bool
) -> None:
    """Adjoining houses between two lattice coordinates."""
    while high - low > 6:
        length = min(block.uniform(12, 24), high - low)
        if high - low - length < 6:
            length = high - low
        middle = low + length / 2
        u, v = (at, middle) if upright else (middle, at)
        roof = "flat" if block.often(0.22) else "gable"
        turn = np.pi / 2 if upright else 0.0
        if not block.often(0.05):
            block.building(u, v, length, thick, height * block.uniform(0.85, 1.1), roof, None, turn)
        low += length


def _slabs(block: CityBlock) -> None:
    """Long apartment houses on lawns, with car parks."""
    upright = block.often(0.5)
    run, extent = (block.depth, block.width) if upright else (block.width, block.depth)
    lanes = max(1, int(extent // 30))
    for k in range(lanes):
        at = (k + 0.36) * extent / lanes
        length = min(run - 8, block.uniform(28, 60))
        shift = block.uniform(-1, 1) * (run - length - 6) / 2
        u = block.u0 + (at if upright else block.width / 2 + shift)
        v = block.v0 + (block.depth / 2 + shift if upright else at)
        roof = "flat" if block.often(0.72) else "hip"
        turn = np.pi / 2 if upright else 0.0
        block.building(u, v, length, block.uniform(11, 14), block.uniform(9, 19), roof, None, turn)
        beside = at + extent / lanes * 0.5
        if block.often(0.55):
            size = (min(run - 10, 40), 17.0)
            if not upright:
                block.lot(block.u0 + block.width / 2, block.v0 + beside, *size, 0.6)
            else:
                block.lot(block.u0 + beside, block.v0 + block.depth / 2, 17, size[0], 0.6)
        path = (2.0, run) if upright else (run, 2.0)
        off = at + 9.5
        block.patch(
            block.u0 + (off if upright else run / 2),
            block.v0 + (run / 2 if upright else off),
            path[0],
            path[1],
            "path",
        )
    block.scatter(block.width * block.depth / 260, _box(block), 4.6)


def _commercial(block: CityBlock) -> None:
    """Halls, yards, car parks, containers."""
    block.patch(
        (block.u0 + block.u1) / 2,
        (block.v0 + block.v1) / 2,
        block.width - 2,
        block.depth - 2,
        "yard",
    )
    hall_u = block.width * block.uniform(0.42, 0.6)
    hall_v = block.depth * block.uniform(0.5, 0.78)
    u = block.u0 + 3 + hall_u / 2
    v = block.v0 + 3 + hall_v / 2
    block.building(u, v, hall_u, hall_v, block.uniform(5, 10), "flat")
    rest = block.u1 - (u + hall_u / 2)
    block.lot(block.u1 - rest / 2 - 0.5, block.v0 + block.depth / 2, rest - 5, block.depth - 8, 0.5)
    strip = block.v1 - (v + hall_v / 2)
    if strip > 8:
        for k in range(int(block.rng.integers(1, 7))):
            _container(
                block, block.u0 + 8 + k * 7.2, block.v1 - strip / 2 + block.rng.normal(0, 0.6)
            )
    for _ in range(int(block.rng.integers(2, 8))):
        block.tree(block.uniform(block.u0, block.u1), block.v1 - 1.5)


def _container(block: CityBlock, u: float, v: float) -> None:
    if not block.u0 + 4 < u < block.u1 - 4 or block.clear(u, v, 6, 2.5) < 1:
        return
    x, y, angle = block.place(u, v, float(block.rng.normal(0, 0.08)))
    colour = CONTAINERS[int(block.rng.integers(len(CONTAINERS)))]
    seed = int(block.rng.integers(2**31))
    block.things.buildings.append(
        Building(x, y, angle, 6.1, 2.45, 2.6, "plain", 0.0, colour, seed, True)
    )


def _park(block: CityBlock) -> None:
    """Lawns, paths, a pond, groups of trees."""
    box = _box(block)
    mid_u, mid_v = (block.u0 + block.u1) / 2, (block.v0 + block.v1) / 2
    block.patch(mid_u, mid_v, block.width, 2.4, "path")
    block.patch(
        block.uniform(*sorted((block.u0 + 10, block.u1 - 10))), mid_v, 2.4, block.depth, "path"
    )
    if block.often(0.6):
        block.patch(
            mid_u + block.uniform(-12, 12),
            mid_v + block.uniform(6, 14),
            block.uniform(16, 30),
            block.uniform(10, 17),
            "pond",
        )
    if block.often(0.4):
        block.patch(mid_u - 16, mid_v - 12, 9, 7, "sand")
    block.scatter(block.width * block.depth / 105, box, 5.4)


def _field(block: CityBlock) -> None:
    """A crop or bare ground with a line of trees."""
    for step in np.arange(block.u0, block.u1, 6.0).tolist():
        if block.often(0.4 * block.style.trees):
            block.tree(step, block.v1 - 1.5, block.uniform(2, 4.2))
    if block.often(0.4):
        block.building(block.u0 + 14, block.v0 + 12, 18, 11, 5.0, "gable")


def _site(block: CityBlock) -> None:
    """A building site or waste ground."""
    mid_u, mid_v = (block.u0 + block.u1) / 2, (block.v0 + block.v1) / 2
    block.patch(mid_u, mid_v, block.width * 0.8, block.depth * 0.75, "rubble")
    for _ in range(int(block.rng.integers(3, 10))):
        u, v = block.uniform(block.u0, block.u1), block.uniform(block.v0, block.v1)
        _container(block, u, v)
    if block.often(0.6):
        block.building(
            mid_u, mid_v, block.width * 0.4, block.depth * 0.35, 4.0, "flat", (0.62,) * 3
        )
    block.scatter(6, _box(block), 3.0)


def _box(block: CityBlock) -> tuple[float, float, float, float]:
    return block.u0, block.v0, block.u1, block.v1


FILLERS: dict[str, Callable[[CityBlock], None]] = {
    "houses": _houses,
    "perimeter": _perimeter,
    "slabs": _slabs,
    "commercial": _commercial,
    "park": _park,
    "field": _field,
    "site": _site,
}
"""How a block of each land use is filled."""
