"""Raster files in and out: the only importer of rasterio's input and output."""

from terradapt.raster.files import read_label, write_raster
from terradapt.raster.reader import SceneReader
from terradapt.raster.shapes import polygonize, rasterize

__all__ = ["SceneReader", "polygonize", "rasterize", "read_label", "write_raster"]
