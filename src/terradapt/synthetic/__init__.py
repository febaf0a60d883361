"""Procedural aerial scenes of cities, with land cover, roads and georeference.

A stand-in for aerial benchmarks that needs no download: 0.3 m pixels in UTM zone 33N, the six
ISPRS classes, street centrelines, cars, cast shadows, and trees over the roads. A seed is a city;
cities differ in layout, materials, sun, season and camera.
"""

from terradapt.synthetic.dates import Change, TwoDates, make_two_dates
from terradapt.synthetic.files import (
    prepare,
    road_labels,
    transform_at,
    write_city,
    write_dataset,
    write_large_scene,
)
from terradapt.synthetic.scene import CityScene, make_scene

__all__ = [
    "Change",
    "CityScene",
    "TwoDates",
    "make_scene",
    "make_two_dates",
    "prepare",
    "road_labels",
    "transform_at",
    "write_city",
    "write_dataset",
    "write_large_scene",
]
