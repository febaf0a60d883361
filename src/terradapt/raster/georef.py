"""Georef: where the pixels of a raster lie and what they measure; points between CRSs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.warp import transform as warp_points

from terradapt.errors import DataError, SceneError, refusing
from terradapt.grid import Window
from terradapt.raster.ellipsoid import Floats, Ints, Surface, geocentric, short_steps
from terradapt.raster.opening import gdal_env

_NOMINAL = 0.01  # share by which a unit of a projected CRS may differ from that on the ground
_REACH = 100.0  # m, either way, over which the map to the ground is differentiated
_APART = 50_000.0  # m between places at which it is
_MOST, _LEAST = 128, 5  # such places along a side
_SAME = 0.01  # px


@dataclass(frozen=True)
class Georef:
    """Where the pixels of a raster lie. Places in it are (row, column), centres whole numbers.

    Areas and lengths are those on the WGS 84 ellipsoid, wherever the CRS has a way there, of
    geometries whose edges are straight in the CRS. Elsewhere they are the CRS's own units; without
    a CRS a unit is a metre.

    Args:
        transform: Pixel corners to CRS.
        crs: The CRS, or text that names it; None if unknown.
        height: Rows, px.
        width: Columns, px.

    Raises:
        DataError: Text that names no CRS.
    """

    transform: Affine
    crs: CRS | None
    height: int
    width: int

    def __post_init__(self) -> None:
        if isinstance(self.crs, str):
            object.__setattr__(self, "crs", parse_crs(self.crs, "the raster"))

    @property
    def unit(self) -> str:
        """What lengths are counted in: ``m``, ``px`` without CRS and transform, else ``units``."""
        if self.crs is not None:
            return "m"
        return "px" if self.transform == Affine.identity() else "units"

    def xy(self, places: Floats) -> Floats:
        """Return (M, 2) CRS coordinates of (M, 2) places."""
        t = self.transform
        row, col = places[:, 0] + 0.5, places[:, 1] + 0.5
        return np.stack([t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f], axis=1)

    def pixels(self, xy: Floats) -> Floats:
        """Return (M, 2) places of CRS coordinates."""
        t = ~self.transform
        x, y = xy[:, 0], xy[:, 1]
        return np.stack([t.d * x + t.e * y + t.f, t.a * x + t.b * y + t.c], axis=1) - 0.5

    def crop(self, window: Window) -> Georef:
        """Return the georeference of a window, which may reach beyond the raster."""
        t, row, col = self.transform, window.row, window.col
        moved = Affine(t.a, t.b, t.c + t.a * col + t.b * row, t.d, t.e, t.f + t.d * col + t.e * row)
        return Georef(moved, self.crs, window.height, window.width)

    def zoom(self, height: int, width: int) -> Georef:
        """Return the georeference of the same ground in another number of pixels."""
        t, rows, cols = self.transform, self.height / height, self.width / width
        scaled = Affine(t.a * cols, t.b * rows, t.c, t.d * cols, t.e * rows, t.f)
        return Georef(scaled, self.crs, height, width)

    def outline(self, parts: int = 1) -> Floats:
        """Return the (4 x parts, 2) CRS coordinates around the raster, from its first corner.

        Args:
            parts: Into which each side is divided, since it may bend in another CRS.
        """
        along, still = np.arange(parts) / parts, np.zeros(parts)
        rows = np.concatenate([still, along, still + 1, 1 - along]) * self.height
        cols = np.concatenate([along, still + 1, 1 - along, still]) * self.width
        return self.xy(np.stack([rows, cols], axis=1) - 0.5)

    @property
    def centre(self) -> tuple[float, float]:
        """The CRS coordinates of the raster's middle."""
        x, y = self.xy(np.array([[self.height, self.width]]) / 2 - 0.5)[0].tolist()
        return x, y

    def check(self, source: str | Path) -> None:
        """Refuse a place that is none.

        Args:
            source: The file that says so, for the error.

        Raises:
            SceneError: A transform that is not finite or maps all pixels to a line, or latitudes
                more than a pixel beyond a pole.
        """
        t, outline = self.transform, self.outline()
        area = t.determinant
        if not (np.isfinite(outline).all() and math.isfinite(area) and area):
            shown = ", ".join(f"{value:g}" for value in t[:6])
            raise SceneError(
                f"{source}: its transform places no pixel ({shown})",
                "give it its corners: gdal_translate -a_ullr LEFT TOP RIGHT BOTTOM",
            )
        if self.crs is None or not self.crs.is_geographic or self.crs.units_factor[0] != "degree":
            return
        furthest = float(np.abs(outline[:, 1]).max())
        if furthest > 90 + abs(t.d) + abs(t.e):
            raise SceneError(
                f"{source}: its georeference reaches {furthest:g} degrees of latitude",
                "correct its CRS or its corners: gdal_translate -a_srs, -a_ullr",
            )

    def same_place(self, other: CRS | None) -> bool:
        """Tell whether coordinates of another CRS mean the same places here, to 0.01 px.

        So they do where only the order of axes, a height system, a name or the form differ.
        """
        if self.crs is None or other is None or self.crs == other:
            return self.crs is other or self.crs == other
        here = self.outline(2)
        try:
            there = move_points(here, self.crs, other)
        except Exception:  # GDAL: no way from one to the other, or not here
            return False
        return bool((np.abs(self.pixels(there) - self.pixels(here)) <= _SAME).all())

    @cached_property
    def resolution(self) -> float | None:
        """Metres per pixel at the centre, the geometric mean of both axes; None without a CRS.

        What a grid is called by: a projected CRS gives its nominal scale unless that is more than
        1 % off the ground, as in Web Mercator.
        """
        if self.crs is None:
            return None
        ground = self._ground_steps
        true = None if ground is None else math.sqrt(abs(float(np.linalg.det(ground[:2])))) or None
        if self.crs.is_geographic:
            return true
        nominal = math.sqrt(abs(self.transform.determinant)) * self._unit
        return nominal if true is None or abs(true / nominal - 1) <= _NOMINAL else true

    @cached_property
    def matrix(self) -> Floats:
        """(2, 2) metres for one pixel right (column 0) and down (column 1), at the centre.

        Sizes in metres become pixels by it. Nominal like :attr:`resolution`, if all directions are.
        """
        nominal = self._centre_steps(self._unit)
        ground = self._ground_steps
        if ground is None or self.crs is None:
            return nominal[:2].T
        ratio = np.linalg.norm(ground, axis=1) / np.linalg.norm(nominal, axis=1)
        close = not self.crs.is_geographic and bool((np.abs(ratio - 1) <= _NOMINAL).all())
        return (nominal if close else ground)[:2].T

    def pixel_areas(self, window: Window) -> Floats:
        """Return the (H, W) square metres of a window's pixels."""
        return self._surface.pixel_areas(window)

    def pixel_area(self, rows: Ints, cols: Ints) -> Floats:
        """Return the (M,) square metres of single pixels."""
        return self._surface.pixel_area(rows, cols)

    def ring_areas(self, places: Floats, sizes: Ints) -> Floats:
        """Return the (R,) square metres within closed rings, whichever way they turn.

        Args:
            places: (M, 2) vertices of one ring after the other.
            sizes: (R,) vertices of each, the first again at the end.
        """
        return self._surface.ring_areas(places + 0.5, sizes)

    def line_lengths(self, places: Floats, sizes: Ints) -> Floats:
        """Return the (E,) metres of lines.

        Args:
            places: (M, 2) vertices of one line after the other.
            sizes: (E,) vertices of each.
        """
        return self._surface.line_lengths(places + 0.5, sizes)

    @property
    def _unit(self) -> float:
        """Nominal metres of a unit of the CRS."""
        if self.crs is None:
            return 1.0
        try:
            return float(self.crs.linear_units_factor[1])
        except CRSError:  # degrees, or an engineering CRS
            return 1.0

    def _centre_ends(self) -> tuple[Floats, Floats]:
        """The centre, four times, and its neighbours right, down and on both diagonals."""
        centre = np.array([[(self.height - 1) / 2, (self.width - 1) / 2]])
        ends = self.xy(centre + np.array([[0, 1], [1, 0], [1, 1], [1, -1]]))
        return np.repeat(self.xy(centre), 4, axis=0), ends

    def _centre_steps(self, unit: float) -> Floats:
        here, ends = self._centre_ends()
        return (ends - here) * unit

    @cached_property
    def _ground_steps(self) -> Floats | None:
        """(4, 2) metres on the ground of those steps; None where there is no way to the globe."""
        if self.crs is None:
            return None
        here, ends = (self._lonlat(points) for points in self._centre_ends())
        steps = short_steps(here, ends)
        return steps if np.isfinite(steps).all() else None

    @cached_property
    def _surface(self) -> Surface:
        """The ground under the raster, from a lattice of places that is as fine as it is large."""
        size = np.array([self.height, self.width])
        metres = np.maximum(np.linalg.norm(self.matrix, axis=0)[::-1], 1e-12)  # of a row, a column
        reach = np.minimum(_REACH / metres, np.maximum(size, 1))
        inset = np.minimum(reach, size / 4)  # so as not to leave the globe at its edge
        count = np.clip(np.ceil(size * metres / _APART), _LEAST, _MOST).astype(int)
        rows, cols = (np.linspace(i, n - i, k) for i, n, k in zip(inset, size, count, strict=True))
        form = self._form(rows, cols, reach)
        return Surface(rows, cols, form, self.height, self.width)

    def _form(self, rows: Floats, cols: Floats, reach: Floats) -> Floats:
        """(3, N, M) first fundamental form at corner-based rows and columns; see Surface."""
        t, unit = self.transform, self._unit
        right, down = np.array([t.a, t.d]) * unit, np.array([t.b, t.e]) * unit
        flat = np.array([right @ right, right @ down, down @ down])
        shape = (len(rows), len(cols))
        nominal = np.broadcast_to(flat[:, None, None], (3, *shape))
        if self.crs is None:
            return nominal
        places = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 1, 2) - 0.5
        ways = np.array([[0, reach[1]], [0, -reach[1]], [reach[0], 0], [-reach[0], 0]])
        lonlat = self._lonlat(self.xy((places + ways).reshape(-1, 2)))
        ends = geocentric(lonlat).reshape(*shape, 4, 3)
        right = (ends[..., 0, :] - ends[..., 1, :]) / (2 * reach[1])
        down = (ends[..., 2, :] - ends[..., 3, :]) / (2 * reach[0])
        form = np.stack([(a * b).sum(-1) for a, b in ((right, right), (right, down), (down, down))])
        known: NDArray[np.bool_] = np.isfinite(form).all(axis=0)
        if not known.any():
            return nominal
        if known.all():
            return form
        from scipy.ndimage import distance_transform_edt

        row, col = distance_transform_edt(~known, return_distances=False, return_indices=True)
        return np.asarray(form[:, row, col])

    def _lonlat(self, xy: Floats) -> Floats:
        """(M, 2) degrees of CRS coordinates, NaN where they lie beyond the globe."""
        try:
            moved = move_points(xy, self.crs, parse_crs("EPSG:4326", "WGS 84"))
            return np.where(np.isfinite(moved).all(axis=1, keepdims=True), moved, np.nan)
        except Exception:  # GDAL: one of the points has no place, or the CRS has none
            if len(xy) == 1:
                return np.full((1, 2), np.nan)
            half = len(xy) // 2
            return np.concatenate([self._lonlat(xy[:half]), self._lonlat(xy[half:])])


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


def crs_name(crs: CRS | None) -> str:
    """Return ``EPSG:n``, or the name that a CRS without a code has, or ``unknown``."""
    if crs is None:
        return "unknown"
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_dict(projjson=True).get("name", "unnamed"))


def warp_to(crs: CRS | None, like: str | Path) -> str:
    """Return the command that brings rasters to the CRS of another file, for remedies."""
    code = None if crs is None else crs.to_epsg()
    if code:
        return f"gdalwarp -t_srs EPSG:{code}"
    return f"gdalsrsinfo -o wkt {like} > crs.wkt, then gdalwarp -t_srs crs.wkt"


def move_points(points: NDArray[np.float64], source: CRS, target: CRS) -> NDArray[np.float64]:
    """Return (N, 2) points of ``source`` in ``target``; x or longitude first, inf if undefined."""
    if not len(points) or source == target:
        return points
    way = f"coordinates of {crs_name(source)}"
    fix = "give both a CRS on the globe"
    with gdal_env(), refusing(way, DataError, fix, f"have no place in {crs_name(target)}"):
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
