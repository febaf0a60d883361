"""Geometries in longitude and latitude by RFC 7946: cut at the antimeridian, rings turned.

An outline that crosses the antimeridian is unrolled along its edges, so that its longitudes go on
beyond 180, and cut there. One that runs around a pole does not close so: it is closed along the
pole.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import affinity

from terradapt.raster import CRS
from terradapt.raster.georef import move_points, parse_crs
from terradapt.vector.lattice.graph import Floats

_FINEST = 64  # parts into which an edge is divided, one a degree
_POLES = np.array([[0.0, 90.0], [0.0, -90.0]])


def to_lonlat(geometries: NDArray[Any], crs: CRS | None) -> NDArray[Any]:
    """Return points, lines and polygons in WGS 84 degrees, longitudes from -180 to 180.

    What crosses the antimeridian has a part on either side (RFC 7946, 3.1.9); outlines turn
    counterclockwise, holes clockwise (3.1.6). Edges of more than a degree of longitude get a vertex
    at each, since they bend. Without a CRS only the rings are turned.

    Args:
        geometries: (N,) of one part each, in the CRS.
        crs: Their CRS, or None.
    """
    if crs is None or not len(geometries):
        return _turned(geometries)
    wgs84 = parse_crs("EPSG:4326", "WGS 84")
    coords, owner = shapely.get_coordinates(geometries, return_index=True)
    moved = move_points(coords, crs, wgs84)
    result: NDArray[Any] = shapely.set_coordinates(geometries.copy(), moved)
    west, east = shapely.bounds(result)[:, [0, 2]].T
    steps = np.where(np.diff(owner) == 0, np.abs(np.diff(moved[:, 0])), 0)
    bent = np.zeros(len(result), bool)
    bent[owner[:-1][steps > 1]] = crs != wgs84
    for i in np.flatnonzero(bent | (west < -180) | (east > 180) | (east - west >= 180)):
        result[i] = _cut(geometries[i], crs, wgs84)
    return _turned(result)


def _turned(geometries: NDArray[Any]) -> NDArray[Any]:
    turned: NDArray[Any] = shapely.orient_polygons(geometries, exterior_cw=False)
    return turned


def _cut(shape: Any, crs: CRS, wgs84: CRS) -> Any:
    if shape.geom_type == "Point":
        lon, lat = move_points(shapely.get_coordinates(shape), crs, wgs84)[0]
        return shapely.Point(lon - 360 * np.round(lon / 360), lat)
    if shape.geom_type == "LineString":
        return _cut_line(_unrolled(shapely.get_coordinates(shape), crs, wgs84))
    shell, *holes = (_cut_ring(ring, crs, wgs84) for ring in shapely.get_rings(shape))
    return shapely.difference(shell, shapely.union_all(holes)) if holes else shell


def _unrolled(points: Floats, crs: CRS, wgs84: CRS) -> Floats:
    """Return a line's vertices in degrees, longitudes going on beyond 180.

    Edges are divided by degrees of longitude, so that the way they run is known.
    """
    known = move_points(points, crs, wgs84)
    if crs == wgs84:
        return known
    parts = np.clip(np.ceil(np.abs(np.diff(known[:, 0]))), 1, _FINEST).astype(int)
    edge = np.repeat(np.arange(len(parts)), parts)
    along = (np.arange(len(edge)) - np.repeat(np.cumsum(parts) - parts, parts)) / parts[edge]
    fine = points[edge] + along[:, None] * (points[edge + 1] - points[edge])
    lonlat = np.concatenate([move_points(fine, crs, wgs84), known[-1:]])
    lonlat[np.cumsum(parts) - parts] = known[:-1]
    turns = np.cumsum(np.round(np.diff(lonlat[:, 0]) / 360))
    lonlat[1:, 0] -= 360 * turns
    return lonlat


def _cut_line(line: Floats) -> Any:
    """Cut an unrolled line where it passes 180 degrees and its like; parts in its order."""
    pieces = [[line[0]]]
    bands: list[float] = []
    for one, two in itertools.pairwise(line):
        low, high = sorted((one[0], two[0]))
        walls = 360 * np.arange(np.floor((low + 180) / 360), np.ceil((high + 180) / 360) + 1) - 180
        walls = walls[(walls > low) & (walls < high)]
        walls = walls if two[0] > one[0] else walls[::-1]
        at = (walls - one[0]) / (two[0] - one[0]) if len(walls) else walls
        crossings = np.column_stack([walls, one[1] + at * (two[1] - one[1])])
        for begin, end in zip([one, *crossings], [*crossings, two], strict=True):
            band = float(np.floor(((begin[0] + end[0]) / 2 + 180) / 360))
            if bands and band != bands[-1]:
                pieces.append([begin])
            if not bands or band != bands[-1]:
                bands.append(band)
            pieces[-1].append(end)
    parts = [np.array(p) - [360 * band, 0] for p, band in zip(pieces, bands, strict=True)]
    return shapely.LineString(parts[0]) if len(parts) == 1 else shapely.MultiLineString(parts)


def _cut_ring(ring: Any, crs: CRS, wgs84: CRS) -> Any:
    """Return what a ring encloses, within -180 to 180 degrees."""
    outline = _unrolled(shapely.get_coordinates(ring), crs, wgs84)
    if abs(outline[-1, 0] - outline[0, 0]) > 180:
        outline = _over_pole(outline, ring, crs, wgs84)
    shape = shapely.make_valid(shapely.Polygon(outline))
    west, south, east, north = shape.bounds
    pieces = []
    for band in range(int(np.floor((west + 180) / 360)), int(np.ceil((east + 180) / 360))):
        box = shapely.box(360 * band - 180, south, 360 * band + 180, north)
        piece = shapely.intersection(shape, box)
        pieces.append(affinity.translate(piece, -360 * band))
    parts = shapely.get_parts(shapely.union_all(pieces))
    parts = parts[shapely.get_type_id(parts) == 3]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(list(parts))


def _over_pole(outline: Floats, ring: Any, crs: CRS, wgs84: CRS) -> Floats:
    """Close an outline that runs around a pole along that pole, from the antimeridian on."""
    area = shapely.Polygon(ring)
    inside = [_holds(area, pole, crs, wgs84) for pole in _POLES]
    pole = 90.0 if inside[0] or (not inside[1] and outline[:, 1].mean() > 0) else -90.0
    lon = outline[:, 0]
    i = int(np.flatnonzero(np.diff(np.floor((lon + 180) / 360)))[0])
    wall = 360 * np.floor((max(lon[i], lon[i + 1]) + 180) / 360) - 180
    share = (wall - lon[i]) / (lon[i + 1] - lon[i])
    gate = np.array([wall, outline[i, 1] + share * (outline[i + 1, 1] - outline[i, 1])])
    around = np.array([360 * np.round((lon[-1] - lon[0]) / 360), 0])
    closed = [[gate], outline[i + 1 : -1], outline[: i + 1] + around, [gate + around]]
    top = [[gate[0] + around[0], pole], [gate[0], pole]]
    return np.concatenate([*closed, top])


def _holds(area: Any, pole: Floats, crs: CRS, wgs84: CRS) -> bool:
    try:
        return bool(shapely.contains_xy(area, move_points(pole[None], wgs84, crs)).any())
    except Exception:  # GDAL: the CRS has no such place
        return False
