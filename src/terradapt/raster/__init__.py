"""Raster files in and out: the only importer of rasterio's input and output."""

from rasterio.crs import CRS

from terradapt.raster.clipped import Clipped
from terradapt.raster.features import FeatureLayer, layer_names, names_image, read_layer, upright
from terradapt.raster.files import read_label, write_raster
from terradapt.raster.georef import Georef
from terradapt.raster.mosaic import (
    Compound,
    Mosaic,
    ScenePath,
    absolute_scene,
    open_scene,
    scene_files,
)
from terradapt.raster.reader import SceneReader
from terradapt.raster.scene import Scene
from terradapt.raster.shapes import polygonize, rasterize
from terradapt.raster.tiles import Layer
from terradapt.raster.writer import SceneWriter, part_folder, signature_of

__all__ = [
    "CRS",
    "Clipped",
    "Compound",
    "FeatureLayer",
    "Georef",
    "Layer",
    "Mosaic",
    "Scene",
    "ScenePath",
    "SceneReader",
    "SceneWriter",
    "absolute_scene",
    "layer_names",
    "names_image",
    "open_scene",
    "part_folder",
    "polygonize",
    "rasterize",
    "read_label",
    "read_layer",
    "scene_files",
    "signature_of",
    "upright",
    "write_raster",
]
