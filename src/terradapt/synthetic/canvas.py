"""Canvas: a window of a city in pixels, its noise, and the lattice seen from every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.synthetic.city import City, RoadField

Plane = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

IMPERVIOUS, BUILDING, LOW, TREE, CAR, CLUTTER = range(6)
COARSE = 8  # px between the points where the lattice is solved


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
        self.speckle = hashed(self.city.seed * 31 + 4, rows[:, None], cols[None, :])
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
        grid = hashed(self.city.seed * 31 + key, gy[:, None], gx[None, :])
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


def hashed(key: int, y: NDArray[np.int64], x: NDArray[np.int64]) -> Plane:
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
