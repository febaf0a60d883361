"""Procedural aerial photographs: covers and heights on a canvas, lit by the sun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terradapt.data.synthetic_city import BLOCK_KINDS, Building, Car, City, Patch, RoadField, Tree

Plane = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

IMPERVIOUS, BUILDING, LOW, TREE, CAR, CLUTTER = range(6)
COARSE = 8  # px between the points where the lattice is solved
PAVED_KINDS = ("perimeter", "commercial")

COVERS: dict[str, tuple[int, tuple[float, float, float] | None, float]] = {
    "drive": (IMPERVIOUS, (0.47, 0.46, 0.44), 0.05),
    "paving": (IMPERVIOUS, None, 0.06),
    "lot": (IMPERVIOUS, (0.36, 0.36, 0.365), 0.05),
    "yard": (IMPERVIOUS, (0.50, 0.49, 0.47), 0.07),
    "line": (IMPERVIOUS, (0.78, 0.78, 0.76), 0.05),
    "path": (IMPERVIOUS, (0.60, 0.55, 0.46), 0.05),
    "sand": (CLUTTER, (0.74, 0.67, 0.52), 0.04),
    "rubble": (CLUTTER, (0.56, 0.50, 0.43), 0.16),
    "pool": (CLUTTER, (0.22, 0.56, 0.66), 0.05),
    "pond": (CLUTTER, (0.12, 0.17, 0.16), 0.04),
}
"""Cover of a patch: class, colour (None: the city's paving) and roughness."""


@dataclass
class Canvas:
    """A window of a city, in pixels, with a margin around it.

    Args:
        x0: City metres of the left border of the window, margin included.
        y0: City metres of the top border.
        step: Metres per pixel.
        height: Rows, margin included.
        width: Columns.
    """

    city: City
    x0: float
    y0: float
    step: float
    height: int
    width: int

    def __post_init__(self) -> None:
        shape = (self.height, self.width)
        self.label = np.full(shape, LOW, np.uint8)
        self.albedo = np.zeros((*shape, 3), np.float32)
        self.tall = np.zeros(shape, np.float32)  # m above the ground
        self.facing = np.full(shape, np.sin(self.city.style.sun_elevation), np.float32)
        rows = round(self.y0 / self.step) + np.arange(self.height)
        cols = round(self.x0 / self.step) + np.arange(self.width)
        self.speckle = _hashed(self.city.seed * 31 + 4, rows[:, None], cols[None, :])
        self.fine = self.clouds(1.1, 1) + 0.5 * self.speckle
        self.mid = self.clouds(4.5, 2)
        self.wide = self.clouds(23.0, 3)

    @property
    def sun(self) -> tuple[float, float, float]:
        """Unit vector towards the sun: east, south, up."""
        style = self.city.style
        flat = np.cos(style.sun_elevation)
        return (
            float(np.sin(style.sun_azimuth) * flat),
            float(-np.cos(style.sun_azimuth) * flat),
            float(np.sin(style.sun_elevation)),
        )

    def clouds(self, metres: float, key: int) -> Plane:
        """Smooth noise (H, W), about unit variance, grain ``metres``, the same in every window."""
        xs = (self.x0 + (np.arange(self.width) + 0.5) * self.step) / metres
        ys = (self.y0 + (np.arange(self.height) + 0.5) * self.step) / metres
        x, y = np.floor(xs).astype(np.int64), np.floor(ys).astype(np.int64)
        gx = np.arange(x[0], x[-1] + 2)
        gy = np.arange(y[0], y[-1] + 2)
        grid = _hashed(self.city.seed * 31 + key, gy[:, None], gx[None, :])
        fx, fy = _ease(xs - x), _ease(ys - y)
        rows = grid[y - gy[0]] * (1 - fy)[:, None] + grid[y - gy[0] + 1] * fy[:, None]
        out: Plane = rows[:, x - gx[0]] * (1 - fx) + rows[:, x - gx[0] + 1] * fx
        return out

    def local(
        self, x: float, y: float, reach: float, angle: float = 0.0
    ) -> tuple[tuple[slice, slice], Plane, Plane] | None:
        """Pixels within ``reach`` metres of a point: slices and turned offsets (a, b), metres."""
        r0 = max(int((y - reach - self.y0) / self.step), 0)
        r1 = min(int((y + reach - self.y0) / self.step) + 2, self.height)
        c0 = max(int((x - reach - self.x0) / self.step), 0)
        c1 = min(int((x + reach - self.x0) / self.step) + 2, self.width)
        if r0 >= r1 or c0 >= c1:
            return None
        dx = ((np.arange(c0, c1) + 0.5) * self.step + (self.x0 - x)).astype(np.float32)[None, :]
        dy = ((np.arange(r0, r1) + 0.5) * self.step + (self.y0 - y)).astype(np.float32)[:, None]
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return (slice(r0, r1), slice(c0, c1)), dx * c + dy * s, dy * c - dx * s


def _hashed(key: int, y: NDArray[np.int64], x: NDArray[np.int64]) -> Plane:
    """Hash lattice points to about unit variance, uniform."""
    with np.errstate(over="ignore"):
        h = x.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        h = h ^ (y.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F))
        h = h ^ np.uint64((key * 0x165667B19E3779F9) & 0xFFFFFFFFFFFFFFFF)
        h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        h = h ^ (h >> np.uint64(32))
    unit = (h & np.uint64(0xFFFFFF)).astype(np.float32) / np.float32(2**24)
    return (unit - np.float32(0.5)) * np.float32(3.46)


def _ease(t: NDArray[np.float64]) -> Plane:
    return (t * t * (3 - 2 * t)).astype(np.float32)


@dataclass
class Ground:
    """The lattice seen from every pixel, and the streets there; planes (H, W)."""

    u: Plane
    v: Plane
    edge: Plane  # m to the kerb, below 0 on the carriageway
    across: tuple[Plane, ...]  # as in RoadField
    inside: tuple[Plane, ...]
    half: tuple[Plane, ...]
    island: Mask

    @property
    def road(self) -> Mask:
        """The carriageway, trees or not."""
        return self.edge < 0


def survey(canvas: Canvas) -> Ground:
    """Solve the lattice on coarse points and measure the streets at every pixel."""
    step = canvas.step
    rows = np.arange(-1, canvas.height // COARSE + 3) * COARSE
    cols = np.arange(-1, canvas.width // COARSE + 3) * COARSE
    x, y = np.meshgrid(canvas.x0 + (cols + 0.5) * step, canvas.y0 + (rows + 0.5) * step)
    u, v = canvas.city.lattice(x, y)
    grow = tuple(np.hypot(*np.gradient(p, COARSE * step)) for p in (u, v))
    full = [_zoom(p, canvas.height, canvas.width) for p in (u, v, *grow)]
    field: RoadField = canvas.city.roads_at(full[0], full[1], (full[2], full[3]))

    def plane(values: NDArray[np.float64]) -> Plane:
        return values.astype(np.float32)

    return Ground(
        plane(full[0]),
        plane(full[1]),
        plane(field.edge),
        tuple(plane(p) for p in field.across),
        tuple(plane(p) for p in field.inside),
        tuple(plane(p) for p in field.half),
        field.island,
    )


def _zoom(coarse: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Interpolate linearly from every COARSE-th pixel; the grid starts one step before pixel 0."""
    r, c = np.arange(height) / COARSE + 1, np.arange(width) / COARSE + 1
    r0, c0 = r.astype(int), c.astype(int)
    fr, fc = (r - r0)[:, None], c - c0
    rows = coarse[r0] * (1 - fr) + coarse[r0 + 1] * fr
    out: NDArray[np.float64] = rows[:, c0] * (1 - fc) + rows[:, c0 + 1] * fc
    return out


def paint_ground(canvas: Canvas, ground: Ground) -> None:
    """Lawns, crops, soil, pavements and carriageways."""
    city, style = canvas.city, canvas.city.style
    us = city.span(0, float(ground.u.min()), float(ground.u.max()))
    vs = city.span(1, float(ground.v.min()), float(ground.v.max()))
    i = np.searchsorted([city.street(0, k) for k in us], ground.u) - 1
    j = np.searchsorted([city.street(1, k) for k in vs], ground.v) - 1
    kinds = np.array([[BLOCK_KINDS.index(city.kind(a, b)) for b in vs] for a in us])
    kind = kinds[np.clip(i, 0, len(us) - 1), np.clip(j, 0, len(vs) - 1)]
    plots = np.floor(ground.u / 18).astype(np.int64) * 7 + np.floor(ground.v / 27).astype(np.int64)
    plot = _hashed(city.seed + 5, plots, (i * 131 + j).astype(np.int64))
    dry = np.clip(0.25 * canvas.wide + 0.14 * plot + 0.12 * canvas.mid, -0.6, 0.9)[..., None]
    lush = np.array(style.grass, np.float32)
    straw = np.array((0.55, 0.49, 0.31), np.float32)
    tone = 1 + 0.06 * canvas.fine + 0.05 * canvas.mid + 0.035 * plot
    canvas.albedo[:] = (lush + np.maximum(dry, 0) * (straw - lush)) * tone[..., None]
    canvas.albedo *= 1 + np.minimum(dry, 0) * np.array((0.35, 0.2, 0.3), np.float32)
    _crops(canvas, ground, kind == BLOCK_KINDS.index("field"), (i * 17 + j).astype(np.int64))
    _bare(canvas, kind == BLOCK_KINDS.index("site"))
    paved = np.isin(kind, [BLOCK_KINDS.index(k) for k in PAVED_KINDS])
    _streets(canvas, ground, paved)
    _markings(canvas, ground)


def _crops(canvas: Canvas, ground: Ground, where: Mask, block: NDArray[np.int64]) -> None:
    if not where.any():
        return
    draw = _hashed(canvas.city.seed + 9, block[where], block[where] * 0)
    soil = np.array(canvas.city.style.soil, np.float32)
    crop = np.array((0.33, 0.40, 0.19), np.float32)
    share = np.clip(0.5 + draw * 0.45, 0, 1)[:, None]
    rows = np.sin(ground.u[where] * np.float32(2 * np.pi / 1.6)) * 0.06
    tone = 1 + rows + 0.05 * canvas.fine[where] + 0.07 * canvas.mid[where]
    canvas.albedo[where] = (soil + share * (crop - soil)) * tone[:, None]


def _bare(canvas: Canvas, where: Mask) -> None:
    soil = np.array(canvas.city.style.soil, np.float32)
    worn = where & (canvas.wide + 0.6 * canvas.mid > -0.3)
    tone = 1 + 0.07 * canvas.fine + 0.09 * canvas.mid
    canvas.albedo[worn] = soil * tone[worn][:, None]


def _streets(canvas: Canvas, ground: Ground, paved: Mask) -> None:
    style = canvas.city.style
    walk = (ground.edge >= 0) & (ground.edge < style.pavement) & ~ground.island
    verge = walk & ~paved & (canvas.wide > 0.9)
    slabs = 1 + 0.05 * canvas.speckle + 0.05 * canvas.mid
    stone = np.array(style.paving, np.float32)
    hard = (walk & ~verge) | (paved & (ground.edge >= 0) & (canvas.wide > 0.2))
    canvas.albedo[hard] = stone * slabs[hard][:, None]
    canvas.label[hard] = IMPERVIOUS
    road = ground.road
    nearest = np.where(ground.inside[0] < ground.inside[1], *ground.across[:2])
    half = np.where(ground.inside[0] < ground.inside[1], *ground.half[:2])
    wear = 0.04 * np.cos(np.clip(nearest / np.maximum(half, 1), -1, 1) * 4 * np.pi)
    patched = 0.10 * (canvas.mid > 1.25) + 0.07 * canvas.wide * 0.5
    tone = 1 + 0.035 * canvas.fine + wear - patched
    tar = np.array(style.asphalt, np.float32)
    canvas.albedo[road] = tar * tone[road][:, None]
    canvas.label[road] = IMPERVIOUS
    kerb = (ground.edge >= -0.1) & (ground.edge < 0.25) & ~ground.island
    canvas.albedo[kerb] = canvas.albedo[kerb] * 0.5 + 0.32


def _markings(canvas: Canvas, ground: Ground) -> None:
    """Dashed middle lines, edge lines of wide roads, zebra crossings."""
    for axis in range(3):
        across, inside, half = ground.across[axis], ground.inside[axis], ground.half[axis]
        crossing = np.minimum(ground.inside[axis - 1], ground.inside[axis - 2])
        along = ground.v if axis == 0 else ground.u
        open_road = ground.road & (inside < 0) & (crossing > 2.0)
        dash = (along % 9.0) < 4.0
        middle = _stroke(across) * (open_road & dash & (half > 2.9))
        borders = _stroke(np.abs(across) - (half - 0.5)) * (open_road & (half > 4.6))
        zebra = (inside < -0.3) & (crossing > 1.6) & (crossing < 4.4) & (half > 3.2) & (axis < 2)
        stripes = 0.8 * (zebra & ((across % 1.2) < 0.6) & ground.road)
        paint = np.maximum(np.maximum(middle, borders), stripes)
        worn = paint * np.clip(0.75 + 0.18 * canvas.mid, 0.2, 1)
        canvas.albedo += worn[..., None] * (np.float32(0.80) - canvas.albedo)


def _stroke(distance: Plane) -> Plane:
    line: Plane = np.clip(1.2 - np.abs(distance) / 0.16, 0, 1) * np.float32(0.85)
    return line


def paint_patch(canvas: Canvas, patch: Patch, ground: Ground) -> None:
    """Cover a rectangle of open ground."""
    found = canvas.local(patch.x, patch.y, np.hypot(patch.length, patch.width) / 2, patch.angle)
    if found is None:
        return
    at, a, b = found
    half_a, half_b = patch.length / 2, patch.width / 2
    klass, colour, rough = COVERS[patch.kind]
    if patch.kind in ("pond", "rubble", "sand"):
        wobble = 1 + 0.16 * canvas.mid[at]
        inside = (a / half_a) ** 2 + (b / half_b) ** 2 < wobble
    else:
        inside = (np.abs(a) < half_a) & (np.abs(b) < half_b)
    inside &= ground.edge[at] > 0
    if patch.kind == "line":
        inside &= canvas.label[at] == IMPERVIOUS
    if patch.kind == "rubble":
        inside &= canvas.wide[at] + canvas.mid[at] * 0.7 > -0.9
    tone = 1 + rough * (0.7 * canvas.fine[at] + 0.7 * canvas.mid[at])
    base = np.array(colour or canvas.city.style.paving, np.float32)
    if patch.kind == "pool":
        rim = inside & ((np.abs(a) > half_a - 0.6) | (np.abs(b) > half_b - 0.6))
        canvas.albedo[at][inside] = base * tone[inside][:, None]
        canvas.albedo[at][rim] = 0.72
    else:
        canvas.albedo[at][inside] = base * tone[inside][:, None]
    canvas.label[at][inside] = klass


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


def photograph(canvas: Canvas, margin: int) -> NDArray[np.uint8]:
    """Light the canvas, blur, colour and expose it: (H, W, 3) uint8 without the margin."""
    style = canvas.city.style
    lit = 1 - _shadow(canvas)
    facing = canvas.facing
    crown = canvas.label == TREE
    facing[crown] = _crown_light(canvas)[crown]
    direct = (lit * facing / np.sin(style.sun_elevation))[..., None]
    sky = np.array((0.27, 0.31, 0.37), np.float32)
    sunlight = np.array((0.80, 0.76, 0.69), np.float32)
    light = canvas.albedo * (sky * _open_sky(canvas)[..., None] + sunlight * direct)
    scene = light * np.array(style.cast, np.float32) * 0.92
    scene = ndimage.gaussian_filter(scene, (style.blur, style.blur, 0), truncate=3.0)
    scene = scene * (1 + 0.03 * canvas.wide[..., None])
    scene = np.clip(scene, 0, None) ** np.float32(0.78)
    scene = (scene - 0.45) * style.contrast + 0.47
    scene = scene * (1 - style.haze) + np.array((0.66, 0.70, 0.76), np.float32) * style.haze
    rng = np.random.default_rng([canvas.city.seed, 29, canvas.height, canvas.width])
    grain = rng.standard_normal(scene.shape, np.float32) * np.float32(style.noise)
    scene += grain * (0.6 + scene)
    inner = scene[margin : canvas.height - margin, margin : canvas.width - margin]
    image: NDArray[np.uint8] = np.rint(np.clip(inner, 0, 1) * 255).astype(np.uint8)
    return image


def _shadow(canvas: Canvas) -> Plane:
    """Cast shadows, 0 lit to 1 dark: the highest sun-ward silhouette by doubling the reach."""
    sx, sy, sz = canvas.sun
    flat = np.hypot(sx, sy)
    sx, sy, drop = sx / flat, sy / flat, sz / flat * canvas.step
    reach = max(1.0, float(canvas.tall.max()) / drop)
    silhouette = _shifted(canvas.tall, sx, sy, 1) - np.float32(drop)
    steps = 1
    while steps < reach:
        further = _shifted(silhouette, sx, sy, steps) - np.float32(drop * steps)
        silhouette = np.maximum(silhouette, further)
        steps *= 2
    over = (silhouette - canvas.tall - 0.15) / 0.5
    dark: Plane = np.clip(over, 0, 1) * np.float32(0.93)
    return dark


def _shifted(plane: Plane, sx: float, sy: float, steps: int) -> Plane:
    """Look ``steps`` pixels towards the sun; beyond the border there is level ground."""
    dr, dc = round(sy * steps), round(sx * steps)
    out = np.full_like(plane, -1e3)
    h, w = plane.shape
    if abs(dr) < h and abs(dc) < w:
        out[max(-dr, 0) : h - max(dr, 0), max(-dc, 0) : w - max(dc, 0)] = plane[
            max(dr, 0) : h + min(dr, 0), max(dc, 0) : w + min(dc, 0)
        ]
    return out


def _crown_light(canvas: Canvas) -> Plane:
    """Cosine towards the sun on leaves, from the slope of the canopy."""
    sx, sy, sz = canvas.sun
    smooth = ndimage.uniform_filter(canvas.tall, 3)
    dy, dx = np.gradient(smooth, canvas.step)
    dx, dy = np.clip(dx, -1.6, 1.6), np.clip(dy, -1.6, 1.6)
    cosine = (sz - dx * sx - dy * sy) / np.sqrt(1 + dx * dx + dy * dy)
    light: Plane = np.clip(cosine, 0.05, None).astype(np.float32)
    return light


def _open_sky(canvas: Canvas) -> Plane:
    """Share of the sky that is seen: darker beside walls and between crowns."""
    wide = ndimage.uniform_filter(canvas.tall, 15)
    sky: Plane = np.clip(1 - 0.055 * np.maximum(wide - canvas.tall, 0), 0.55, 1.0)
    return sky
