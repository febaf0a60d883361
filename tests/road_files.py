"""Random road scenes, drawn, and the files that tests of vectorization read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from terradapt.raster import Georef, rasterize, write_raster

UTM = "EPSG:32633"
METRE = Affine(1.0, 0, 500_000.0, 0, -1.0, 5_000_000.0)


def drawn(
    lines: list[list[tuple[float, float]]], size: tuple[int, int], width: float
) -> NDArray[np.bool_]:
    """Draw lines of (column, row) corners as roads of a width, px."""
    shapes = [(shapely.LineString(line).buffer(width / 2, cap_style="flat"), 1) for line in lines]
    burnt = rasterize(shapes, height=size[0], width=size[1], transform=Affine.identity())
    return burnt.astype(bool)


def random_roads(seed: int, size: tuple[int, int], count: int, width: float) -> NDArray[np.bool_]:
    """Draw random straight roads that cross the scene, and one ring."""
    rng = np.random.default_rng(seed)
    rows, cols = size
    lines = []
    for _ in range(count):
        a, b = rng.uniform(0, 1, (2, 2)) * [cols, rows]
        lines.append([tuple(a - (b - a)), tuple(b + (b - a))])
    mask = drawn(lines, size, width)
    y, x = np.mgrid[:rows, :cols]
    radius = min(size) / 4
    centre = rng.uniform(0.3, 0.7, 2) * [rows, cols]
    ring = np.abs(np.hypot(y - centre[0], x - centre[1]) - radius) <= width / 2
    gap = rng.random(size) < 0.001
    return (mask | ring) & ~gap


def random_mask(seed: int, size: tuple[int, int], smooth: float, share: float) -> NDArray[np.bool_]:
    """Draw blobs that cover about a share of the scene."""
    field = gaussian_filter(np.random.default_rng(seed).random(size), smooth)
    return np.asarray(field > np.quantile(field, 1 - share))


def random_labels(
    seed: int, size: tuple[int, int], classes: int, smooth: float
) -> NDArray[np.uint8]:
    """Draw areas of several classes, some pixels ignored."""
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.random((classes, *size)), (0, smooth, smooth))
    labels = fields.argmax(axis=0).astype(np.uint8)
    labels[gaussian_filter(rng.random(size), 2) > 0.6] = 255
    return labels


def in_metres(size: tuple[int, int]) -> Georef:
    """Place a scene in a UTM zone with pixels of one metre."""
    return Georef(METRE, UTM, *size)


def write_mask(
    path: Path, mask: NDArray[np.bool_], crs: str = UTM, transform: Affine = METRE
) -> Path:
    """Write a mask of 0 and 255."""
    write_raster(path, mask.astype(np.uint8) * 255, crs=crs, transform=transform)
    return path


def ring_with_arms() -> NDArray[np.bool_]:
    """A roundabout with two arms, one pixel wide: two parallel edges between two nodes."""
    mask = np.zeros((120, 230), bool)
    angle = np.linspace(0, 2 * np.pi, 2000)
    row, col = np.rint(60 + 40 * np.sin(angle)), np.rint(115 + 40 * np.cos(angle))
    mask[row.astype(int), col.astype(int)] = True
    mask[60, 5:76] = True
    mask[60, 155:226] = True
    return mask
