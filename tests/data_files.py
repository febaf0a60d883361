"""Folders of images and labels of any kind, for the tests of data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.transform import Affine
from scipy.spatial import KDTree

from terradapt.raster import write_raster

UTM = "EPSG:32633"


def place(row: int = 0, col: int = 0, resolution: float = 0.5) -> Affine:
    """Pixel to UTM 33N of a window at (row, col) of one endless grid."""
    east, north = 500_000 + col * resolution, 5_400_000 - row * resolution
    return Affine(resolution, 0, east, 0, -resolution, north)


def regions(height: int, width: int, classes: int, seed: int) -> np.ndarray:
    """(H, W) ids of blobs some 20 px wide; every class occurs."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 1, (6 * classes, 2)) * (height, width)
    places = np.indices((height, width)).reshape(2, -1).T
    nearest = KDTree(seeds).query(places)[1].reshape(height, width)
    return (nearest % classes).astype(np.uint8)


def picture(ids: np.ndarray, seed: int, bands: int = 3) -> np.ndarray:
    """(C, H, W) uint8 that shows the classes by colour, with noise."""
    rng = np.random.default_rng([seed, 7])
    colours = np.random.default_rng(3).integers(40, 200, (256, bands))
    noise = rng.normal(0, 12, (*ids.shape, bands))
    return np.clip(colours[ids] + noise, 1, 254).astype(np.uint8).transpose(2, 0, 1)


def write_folder(
    root: Path,
    count: int = 4,
    *,
    size: tuple[int, int] = (96, 128),
    classes: int = 3,
    suffix: str = ".tif",
    crs: str | None = UTM,
    home: str = "labels",
    values: Sequence[int] | None = None,
) -> Path:
    """Write ``images/s0.tif`` ... with label rasters; ``values`` are the labels' file values."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / home).mkdir(exist_ok=True)
    table = np.asarray(values if values is not None else range(classes), np.uint8)
    for n in range(count):
        ids = regions(*size, classes, n)
        where: dict[str, Any] = {}
        if suffix == ".tif" and crs:
            where = {"crs": crs, "transform": place(0, n * size[1] * 2)}
        write_raster(root / "images" / f"s{n}{suffix}", picture(ids, n), **where)
        end = ".tif" if suffix == ".tif" else ".png"
        write_raster(root / home / f"s{n}{end}", table[ids], **where)
    return root


def write_features(path: Path, features: Sequence[tuple[Any, dict[str, Any]]], crs: int) -> Path:
    """Write (GeoJSON geometry, properties) pairs as GeoJSON of an EPSG code."""
    name = f"urn:ogc:def:crs:EPSG::{crs}"
    values = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": name}},
        "features": [{"type": "Feature", "properties": p, "geometry": g} for g, p in features],
    }
    path.write_text(json.dumps(values), "utf-8")
    return path


def box(row: int, col: int, height: int, width: int) -> dict[str, Any]:
    """A polygon that covers these pixels of :func:`place`'s grid."""
    at = place()
    west, north = at.c + col * at.a, at.f + row * at.e
    east, south = west + width * at.a, north + height * at.e
    ring = [[west, north], [east, north], [east, south], [west, south], [west, north]]
    return {"type": "Polygon", "coordinates": [ring]}
