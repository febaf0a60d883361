"""Clipped: a scene within an area of interest, polygons or a mask raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_geom

from terradapt.errors import MissingExtraError, SceneError
from terradapt.grid import Window
from terradapt.raster.reader import SceneReader
from terradapt.raster.scene import Scene
from terradapt.raster.shapes import rasterize

_VECTOR = frozenset({".gpkg", ".geojson", ".json", ".shp", ".fgb", ".kml"})


class Clipped(Scene):
    """A scene whose pixels are valid only inside an area; their values stay, for context.

    Args:
        scene: The scene; closed with this.
        area: A vector file of polygons, or a raster of the scene's size, not 0 inside.

    Raises:
        SceneError: A file that cannot be read, has no polygons, or does not lie on the scene.
    """

    def __init__(self, scene: Scene, area: Path) -> None:
        self.path, self.files, self.georef = scene.path, scene.files, scene.georef
        self.dtype, self.block_height = scene.dtype, scene.block_height
        self._scene = scene
        self._shapes: list[Any] = []
        self._mask: SceneReader | None = None
        if area.suffix.lower() in _VECTOR:
            self._shapes = _polygons(area, scene.crs)
            return
        self._mask = SceneReader(area)
        if (self._mask.height, self._mask.width) != (scene.height, scene.width):
            self._mask.close()
            raise SceneError(
                f"{area}: is {self._mask.width} x {self._mask.height} px, the scene "
                f"{scene.width} x {scene.height}",
                "use a mask on the scene's own grid, or polygons",
            )

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window; outside the area no pixel is valid."""
        pixels, valid = self._scene.read(window)
        return pixels, valid & self.inside(window) if valid.any() else valid

    def close(self) -> None:
        """Close the scene and the mask."""
        self._scene.close()
        if self._mask is not None:
            self._mask.close()

    @property
    def resolution(self) -> float | None:
        """Metres per pixel, as the scene says."""
        return self._scene.resolution

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """Return the (H, W) mask of the area."""
        if self._mask is not None:
            values, good = self._mask.read(window)
            marked: NDArray[np.bool_] = good & (values != 0).any(0)
            return marked
        here = self.georef.crop(window)
        pairs = [(s, 1) for s in self._shapes]
        burnt = rasterize(pairs, height=here.height, width=here.width, transform=here.transform)
        inside: NDArray[np.bool_] = burnt > 0
        return inside


def _polygons(path: Path, crs: CRS | None) -> list[Any]:
    """Read polygons with the scene's CRS as GeoJSON mappings."""
    import shapely

    try:
        from pyogrio import list_layers
        from pyogrio.raw import read
    except ImportError as error:
        raise MissingExtraError("--aoi with polygons", "vector") from error
    if not path.exists():
        raise SceneError(f"{path}: no such file", "check the path of --aoi")
    try:
        layers = [name for name, kind in list_layers(path) if kind is not None]  # no styles
        meta, _, geometry, _ = read(path, columns=[], layer=next(iter(layers), None))
    except Exception as error:
        raise SceneError(
            f"{path}: cannot be read as polygons ({' '.join(str(error).split())})",
            "use a GeoPackage, GeoJSON or Shapefile",
        ) from error
    shapes = [s for s in shapely.from_wkb(geometry) if s is not None and s.area > 0]
    if not shapes:
        raise SceneError(f"{path}: has no polygons", "draw the area of interest as polygons")
    mappings = [shapely.geometry.mapping(s) for s in shapes]
    if meta["crs"] and crs is not None and CRS.from_user_input(meta["crs"]) != crs:
        mappings = [transform_geom(meta["crs"], crs, m) for m in mappings]
    return mappings
