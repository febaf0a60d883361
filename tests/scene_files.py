"""Rasters of any kind and plain predictors for the tests of scenes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from terradapt.classes import ClassMap
from terradapt.config import InputSpec
from terradapt.grid import Window
from terradapt.raster import Georef, Scene
from terradapt.scene import Predictor

UTM = "EPSG:32633"
PLACE = Affine(0.3, 0.0, 500_000.0, 0.0, -0.3, 5_400_000.0)


def write_scene(
    path: Path,
    pixels: np.ndarray,
    *,
    crs: str | None = UTM,
    transform: Affine | None = PLACE,
    nodata: float | None = None,
    mask: np.ndarray | None = None,
    alpha: bool = False,
    names: tuple[str, ...] = (),
    **options: Any,
) -> Path:
    """Write (C, H, W) pixels as a GeoTIFF, with an internal mask or an alpha band if asked."""
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    profile |= {"dtype": pixels.dtype.name, "crs": crs, "nodata": nodata, **options}
    if transform is not None:
        profile["transform"] = transform
    if alpha:
        profile |= {"photometric": "RGB", "alpha": "YES"}
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile) as file,
    ):
        file.write(pixels)
        for index, name in enumerate(names, 1):
            file.set_band_description(index, name)
        if mask is not None:
            file.write_mask(mask)
    return path


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """Return (C, H, W) uint8 noise without zeros."""
    draw = np.random.default_rng(seed)
    return draw.integers(1, 256, (bands, height, width), dtype=np.uint8)


class ArrayScene(Scene):
    """A scene in memory: (C, H, W) uint8 pixels and (H, W) valid; no place unless one is given."""

    def __init__(
        self,
        pixels: np.ndarray,
        valid: np.ndarray | None = None,
        *,
        crs: str | None = None,
        block_height: int = 1,
    ) -> None:
        size = pixels.shape[1:]
        self.path, self.files, self.dtype = "memory", (), "uint8"
        self.georef = Georef(PLACE if crs else Affine.identity(), crs, *size)
        self.block_height = block_height
        self.pixels, self.valid = pixels, np.ones(size, bool) if valid is None else valid

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.zeros((len(self.pixels), window.height, window.width), np.uint8)
        valid = np.zeros((window.height, window.width), bool)
        inside = window.intersect(self.window)
        if inside is not None:
            place = (slice(None), *inside.shift(-window.row, -window.col).slices)
            valid[place[1:]] = self.valid[inside.slices]
            pixels[place] = self.pixels[(slice(None), *inside.slices)] * self.valid[inside.slices]
        return pixels, valid


class PlainPredictor(Predictor):
    """A NumPy predictor: scores from a function of float pixels (B, C, H, W) in 0..1."""

    multiple = 1

    def __init__(self, classes: int = 3, window: int = 32, bands: int = 3) -> None:
        self.classes = ClassMap(tuple(f"class {i}" for i in range(classes)))
        self.spec = InputSpec(bands=tuple(range(1, bands + 1)))
        self.window = window
        self.seen: list[tuple[int, ...]] = []

    def predict(self, images: np.ndarray, /) -> np.ndarray:
        self.seen.append(images.shape)
        return self.score(images.astype(np.float32) / 255)

    def score(self, x: np.ndarray) -> np.ndarray:
        """Scores that depend on the pixel and on its place in the window."""
        size = x.shape[-1]
        place = np.linspace(0, 1, size, dtype=np.float32)
        first = x.mean(1, keepdims=True)
        planes = [first * (i + 1) + place * (i % 2) for i in range(len(self.classes))]
        scores = np.concatenate([p % 1.0 for p in planes], 1).astype(np.float32)
        return scores / scores.sum(1, keepdims=True).clip(1e-6)


class ConstantPredictor(PlainPredictor):
    """Gives the same scores at every pixel."""

    def __init__(self, values: tuple[float, ...] = (0.2, 0.5, 0.3), window: int = 32) -> None:
        super().__init__(len(values), window)
        self.values = np.asarray(values, np.float32)

    def score(self, x: np.ndarray) -> np.ndarray:
        shape = (x.shape[0], len(self.values), *x.shape[2:])
        return np.broadcast_to(self.values[:, None, None], shape).copy()


class LinearPredictor(PlainPredictor):
    """A 3x3 mean of linear maps of the bands, zero padded: sees one pixel around."""

    radius = 1

    def score(self, x: np.ndarray) -> np.ndarray:
        weights = np.random.default_rng(1).random((len(self.classes), x.shape[1]), np.float32)
        planes = np.einsum("kc,bchw->bkhw", weights, x)
        padded = np.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1)))
        size = planes.shape[2:]
        shifts = [(r, c) for r in range(3) for c in range(3)]
        return sum(padded[:, :, r : r + size[0], c : c + size[1]] for r, c in shifts) / 9
