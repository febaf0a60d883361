"""Points from one CRS to another, and a metric CRS near a place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.warp import transform as warp_points

from terradapt.errors import DataError
from terradapt.raster.opening import gdal_env


def parse_crs(text: Any, source: str) -> CRS:
    """Return the CRS of ``EPSG:n``, WKT or PROJ text.

    Args:
        text: The CRS.
        source: The file that says so, for the error.

    Raises:
        DataError: It is no CRS.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise DataError(
            f"{source}: its CRS is not understood ({str(text)[:60]})", "set a CRS with an EPSG code"
        ) from error


def move_points(points: NDArray[np.float64], source: CRS, target: CRS) -> NDArray[np.float64]:
    """Return (N, 2) points of ``source`` in ``target``; x or longitude first, inf if undefined."""
    if not len(points) or source == target:
        return points
    with gdal_env():
        xs, ys = warp_points(source, target, points[:, 0], points[:, 1])[:2]
    return np.column_stack([np.asarray(xs, np.float64), np.asarray(ys, np.float64)])


def metric_crs(crs: CRS, x: float, y: float) -> CRS:
    """Return the UTM zone (WGS 84) of a point of ``crs``; beyond 84 degrees a local projection.

    Lengths there are true within 0.1 %.
    """
    lon, lat = move_points(np.array([[x, y]], np.float64), crs, CRS.from_epsg(4326))[0]
    if not math.isfinite(lon) or abs(lat) > 84:
        return CRS.from_proj4(f"+proj=aeqd +lat_0={lat} +lon_0={lon} +datum=WGS84 +units=m")
    zone = min(60, max(1, math.floor((lon + 180) / 6) + 1))
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def locate_points(transform: Affine, points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Return the (N, 2) places of (column, row) points in pixels, by ``transform``."""
    pixels = np.asarray(points, np.float64).reshape(-1, 2)
    a, b, c, d, e, f = tuple(transform)[:6]
    return np.column_stack([pixels @ (a, b) + c, pixels @ (d, e) + f])


def move_origin(transform: Affine, row: int, col: int) -> Affine:
    """Return the pixel to CRS of a window that begins at ``row`` and ``col``."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return Affine(a, b, a * col + b * row + c, d, e, d * col + e * row + f)
