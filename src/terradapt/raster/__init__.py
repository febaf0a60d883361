"""Raster files in and out: the only importer of rasterio's input and output."""

from terradapt.raster.area import AreaOfInterest
from terradapt.raster.files import read_label, write_raster
from terradapt.raster.mosaic import Mosaic, open_scene
from terradapt.raster.reader import SceneReader
from terradapt.raster.shapes import polygonize, rasterize
from terradapt.raster.tiles import Layer
from terradapt.raster.writer import SceneWriter, part_folder, signature_of

__all__ = [
    "AreaOfInterest",
    "Layer",
    "Mosaic",
    "SceneReader",
    "SceneWriter",
    "open_scene",
    "part_folder",
    "polygonize",
    "rasterize",
    "read_label",
    "signature_of",
    "write_raster",
]
