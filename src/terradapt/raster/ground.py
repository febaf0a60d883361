"""Metres on the ground, and places in pixels."""

from __future__ import annotations

import math

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as warp_points


def ground_resolution(crs: CRS | None, transform: Affine, width: int, height: int) -> float | None:
    """Return metres per pixel at the centre of a raster, whatever its CRS; None without one.

    The geometric mean of both axes. Projected CRS give their nominal scale unless it is more than
    1 % off the ground, as in Web Mercator.
    """
    if crs is None:
        return None
    area = abs(transform.determinant)
    nominal = None
    if not crs.is_geographic:
        try:
            nominal = math.sqrt(area) * float(crs.linear_units_factor[1])
        except Exception:  # no linear unit
            nominal = math.sqrt(area)
    true = local_scale(crs, transform, width, height)
    if nominal is None or true is None:
        return true or nominal
    return true if abs(true / nominal - 1) > 0.01 else nominal


def local_scale(crs: CRS, transform: Affine, width: int, height: int) -> float | None:
    """Metres per pixel from three neighbouring points on the WGS 84 ellipsoid."""
    x, y = width / 2, height / 2
    points = [locate(transform, *p) for p in ((x, y), (x + 1, y), (x, y + 1))]
    try:
        lon, lat = warp_points(crs, CRS.from_epsg(4326), *zip(*points, strict=True))[:2]
    except Exception:  # a local CRS has no way to the globe
        return None
    if not np.isfinite([*lon, *lat]).all():
        return None
    a, e2 = 6378137.0, 6.69437999014e-3
    phi = math.radians(lat[0])
    bend = 1 - e2 * math.sin(phi) ** 2
    north = math.radians(1) * a * (1 - e2) / bend**1.5
    east = math.radians(1) * a * math.cos(phi) / math.sqrt(bend)
    u, v = ((lon[i] - lon[0], lat[i] - lat[0]) for i in (1, 2))
    cross = abs(u[0] * v[1] - u[1] * v[0]) * east * north
    return math.sqrt(cross) or None


def locate(transform: Affine, col: float, row: float) -> tuple[float, float]:
    """Return the CRS coordinates of a place in pixels."""
    t = transform
    return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f


def zoomed(transform: Affine, rows: float, cols: float) -> Affine:
    """Return the transform of pixels that are ``rows`` and ``cols`` times as large."""
    t = transform
    return Affine(t.a * cols, t.b * rows, t.c, t.d * cols, t.e * rows, t.f)
