"""Raster files in and out: the only importer of rasterio's input and output."""

from terradapt.raster.files import read_label, write_raster
from terradapt.raster.reader import SceneReader
from terradapt.raster.shapes import polygonize, rasterize
from terradapt.raster.writer import Layer, SceneWriter

__all__ = [
    "Layer",
    "SceneReader",
    "SceneWriter",
    "polygonize",
    "rasterize",
    "read_label",
    "write_raster",
]
