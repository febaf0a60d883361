"""Clipped: a scene within an area of interest, polygons or a mask raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform_geom

from terradapt.errors import SceneError, refusing
from terradapt.grid import Window
from terradapt.raster.features import read_layer
from terradapt.raster.reader import SceneReader
from terradapt.raster.scene import Scene
from terradapt.raster.shapes import rasterize
from terradapt.raster.vectors import VECTOR_SUFFIXES


class Clipped(Scene):
    """A scene whose pixels are valid only inside an area; their values stay, for context.

    Args:
        scene: The scene; closed with this.
        area: A vector file of polygons, or a raster of the scene's size, not 0 inside.

    Raises:
        SceneError: A file that cannot be read, has no polygons, or does not lie on the scene.
    """

    def __init__(self, scene: Scene, area: Path) -> None:
        self.path, self.georef = scene.path, scene.georef
        self.files = (*scene.files, area)
        self.dtype, self.block_height = scene.dtype, scene.block_height
        self._scene = scene
        self._shapes: list[Any] = []
        self._mask: SceneReader | None = None
        if area.suffix.lower() in VECTOR_SUFFIXES:
            self._shapes = _polygons(area, scene)
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

    def cells(self, window: Window, side: int) -> NDArray[np.uint8]:
        """Read the scene's: what lies outside the area is ground around it."""
        return self._scene.cells(window, side)

    def close(self) -> None:
        """Close the scene and the mask."""
        self._scene.close()
        if self._mask is not None:
            self._mask.close()

    def remarks(self) -> list[str]:
        """Return the scene's."""
        return self._scene.remarks()

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


def _polygons(path: Path, scene: Scene) -> list[Any]:
    """Read polygons that meet a scene, in its CRS; without a CRS they are in the scene's."""
    import shapely

    found = read_layer(path, columns=False, error=SceneError)
    shapes = found.geometries[shapely.area(found.geometries) > 0]
    if not len(shapes):
        raise SceneError(f"{path}: has no polygons", "draw the area of interest as polygons")
    if found.crs is not None and scene.crs is not None and not scene.georef.same_place(found.crs):
        with refusing(path, SceneError, "save it in the scene's CRS", "cannot be placed"):
            mappings = [shapely.geometry.mapping(s) for s in shapes]
            moved = [transform_geom(found.crs, scene.crs, m) for m in mappings]
            shapes = np.array([shapely.geometry.shape(m) for m in moved], object)
    whole = shapely.Polygon(scene.georef.outline())
    if not shapely.intersects(shapes, whole).any():
        raise SceneError(
            f"{path}: none of its polygons lies on {Path(str(scene.path)).name}",
            "check the CRS and the place of the area of interest",
        )
    return list(shapes)
