"""Buildings, cars and trees on the canvas."""

from __future__ import annotations

import numpy as np

from terradapt.synthetic.canvas import BUILDING, CAR, CLUTTER, TREE, Canvas, Mask, Plane
from terradapt.synthetic.things import Building, Car, Tree


def paint_building(canvas: Canvas, house: Building) -> None:
    """A box with its roof: colour, slope towards the sun, height."""
    found = canvas.local(
        house.x, house.y, np.hypot(house.length, house.width) / 2 + 0.5, house.angle
    )
    if found is None:
        return
    at, a, b = found
    to_end, to_side = house.length / 2 - np.abs(a), house.width / 2 - np.abs(b)
    inside = (to_end > 0) & (to_side > 0)
    if not inside.any():
        return
    rise, facing = _roof(canvas, house, a, b, to_end, to_side)
    top = house.eave + rise
    inside &= top >= canvas.tall[at] - 0.01
    rng = np.random.default_rng(house.seed)
    tone = 1 + _roof_texture(canvas, house, at, to_side, a, rng)
    colour = np.broadcast_to(np.array(house.colour, np.float32), (*tone.shape, 3)).copy()
    if house.roof == "flat":
        _parapet(colour, top, to_end, to_side)
    if house.roof in ("gable", "hip"):
        colour[np.abs(b) < 0.22] *= 1.12
    canvas.albedo[at][inside] = (colour * tone[..., None])[inside]
    canvas.tall[at][inside] = top[inside]
    canvas.facing[at][inside] = facing[inside]
    canvas.label[at][inside] = CLUTTER if house.clutter else BUILDING
    if not house.clutter:
        _rooftop(canvas, house, at, a, b, inside, rng)


def _roof(
    canvas: Canvas, house: Building, a: Plane, b: Plane, to_end: Plane, to_side: Plane
) -> tuple[Plane, Plane]:
    """Height above the eave and the cosine towards the sun, of every pixel."""
    sx, sy, sz = canvas.sun
    c, s = np.cos(house.angle), np.sin(house.angle)
    along, across = sx * c + sy * s, sy * c - sx * s
    tilt = 1 / np.sqrt(1 + house.slope**2)
    side = (sz + house.slope * np.sign(b) * across) * tilt
    if house.roof == "gable":
        rise = np.maximum(to_side, 0) * house.slope + 0 * a
        facing = side + 0 * a
    elif house.roof == "hip":
        rise = np.maximum(np.minimum(to_side, to_end), 0) * house.slope
        end = (sz + house.slope * np.sign(a) * along) * tilt
        facing = np.where(to_side < to_end, side, end)
    elif house.roof == "mono":
        rise = (house.width / 2 - b) * house.slope + 0 * a
        facing = np.full_like(rise, (sz + house.slope * across) * tilt)
    else:
        rise = np.zeros(np.broadcast_shapes(a.shape, b.shape), np.float32)
        facing = np.full_like(rise, sz)
    return rise.astype(np.float32), np.maximum(facing, 0.02).astype(np.float32)


def _roof_texture(
    canvas: Canvas,
    house: Building,
    at: tuple[slice, slice],
    to_side: Plane,
    a: Plane,
    rng: np.random.Generator,
) -> Plane:
    stain = 0.05 * canvas.mid[at] + 0.03 * canvas.fine[at]
    if house.roof == "plain":  # corrugated sheet
        return np.asarray(stain * 0.5 + 0.06 * np.sign(np.sin(a * 8)), np.float32)
    rows = rng.normal(0, 0.045, 64).astype(np.float32)
    if house.roof == "flat":
        sheet = np.abs(a / rng.uniform(3.5, 8)).astype(int) % 64
        return np.asarray(stain * 1.2 + rows[sheet] * 0.6, np.float32)
    return np.asarray(stain + rows[np.maximum(to_side / 0.75, 0).astype(int) % 64], np.float32)


def _parapet(colour: Plane, top: Plane, to_end: Plane, to_side: Plane) -> None:
    rim = np.minimum(to_end, to_side) < 0.55
    colour[rim] = np.clip(colour[rim] * 0.75 + 0.22, 0, 0.9)
    top[rim] += 0.5


def _rooftop(
    canvas: Canvas,
    house: Building,
    at: tuple[slice, slice],
    a: Plane,
    b: Plane,
    inside: Mask,
    rng: np.random.Generator,
) -> None:
    """Chimneys, roof lights, solar panels, air conditioning."""
    flat = house.roof == "flat"
    count = int(
        rng.integers(1, 3) + (house.length * house.width / 130 if flat else house.length / 9)
    )
    for _ in range(min(count, 14)):
        u = rng.uniform(-0.42, 0.42) * house.length
        v = rng.uniform(-0.38, 0.38) * house.width
        draw = rng.random()
        size = (0.8, 0.6) if not flat else (rng.uniform(1, 3.2), rng.uniform(1, 2.4))
        tall, colour = (0.9 if not flat else 1.2), (0.40, 0.33, 0.30)
        if flat:
            colour = (0.66, 0.67, 0.68) if draw < 0.6 else (0.42, 0.42, 0.43)
        elif draw > 0.45:
            size, tall, colour = (1.0, 1.3), 0.0, (0.22, 0.26, 0.31)
        if draw > 0.88 and house.length > 8:
            size, tall, colour = (rng.uniform(3, 6), rng.uniform(1.6, 3.0)), 0.0, (0.11, 0.13, 0.21)
            v = np.sign(v) * house.width * 0.24
        hit = inside & (np.abs(a - u) < size[0] / 2) & (np.abs(b - v) < size[1] / 2)
        canvas.albedo[at][hit] = colour
        canvas.tall[at][hit] += tall


def paint_car(canvas: Canvas, car: Car) -> None:
    """Body, glass, height; no car stands on a building or in water."""
    found = canvas.local(car.x, car.y, car.length / 2 + 0.6, car.angle)
    if found is None:
        return
    at, a, b = found
    ends, sides = car.length / 2, car.width / 2
    inside = (np.abs(a / ends) ** 6 + np.abs(b / sides) ** 6 < 1) & (canvas.tall[at] < 0.5)
    colour = np.broadcast_to(np.array(car.colour, np.float32), (*inside.shape, 3)).copy()
    t = a / ends + 0 * b
    if car.height < 2:
        glass = ((t > 0.12) & (t < 0.42)) | ((t < -0.48) & (t > -0.74))
        colour[glass & (np.abs(b) < sides * 0.85)] = (0.10, 0.12, 0.14)
    else:
        colour[(t > 0.62) & (t < 0.86) & (np.abs(b) < sides * 0.85)] = (0.10, 0.12, 0.14)
    canvas.albedo[at][inside] = colour[inside]
    body = np.where(np.abs(t) < 0.5, car.height, car.height * 0.72)
    canvas.tall[at][inside] = body[inside].astype(np.float32)
    canvas.label[at][inside] = CAR


def paint_tree(canvas: Canvas, tree: Tree) -> None:
    """A ragged, lumpy crown."""
    found = canvas.local(tree.x, tree.y, tree.radius * 1.35)
    if found is None:
        return
    at, a, b = found
    lumps = canvas.fine[at] * 0.10 + canvas.mid[at] * 0.10
    away = np.hypot(a, b) / tree.radius * (1 - lumps)
    inside = away < 1
    dome = np.sqrt(np.clip(1 - away * away, 0, 1))
    if tree.conifer:
        dome = np.clip(1 - away, 0, 1)
    crown = tree.radius * (1.5 if tree.conifer else 0.95)
    top = (tree.height - crown + crown * dome + 0.35 * canvas.fine[at]).astype(np.float32)
    inside &= top > canvas.tall[at]
    base = np.array(canvas.city.style.tree, np.float32) * tree.tone
    base = base * np.array((1 + 0.16 * tree.warm, 1 + 0.05 * tree.warm, 1 - 0.1 * tree.warm))
    if tree.conifer:
        base = base * np.array((0.72, 0.8, 0.95))
    shade = 1 + 0.16 * canvas.fine[at] + 0.25 * (dome - 0.6)
    canvas.albedo[at][inside] = (base.astype(np.float32) * shade[..., None])[inside]
    canvas.tall[at][inside] = top[inside]
    canvas.label[at][inside] = TREE
