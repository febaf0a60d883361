"""Rasters to vectors: road networks and land-cover polygons, for scenes of any size."""

from terradapt.vector.files import vectorize_polygons, vectorize_roads
from terradapt.vector.polygons.extract import PolygonOptions, Polygons, polygonize_labels
from terradapt.vector.roads.extract import RoadOptions, road_network, roads_from_array
from terradapt.vector.roads.network import Network
from terradapt.vector.roads.source import ArraySource, RasterSource
from terradapt.vector.write import write_network, write_polygons

__all__ = [
    "ArraySource",
    "Network",
    "PolygonOptions",
    "Polygons",
    "RasterSource",
    "RoadOptions",
    "polygonize_labels",
    "road_network",
    "roads_from_array",
    "vectorize_polygons",
    "vectorize_roads",
    "write_network",
    "write_polygons",
]
