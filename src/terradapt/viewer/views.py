"""Views: the scenes of a session, opened and described for the page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terradapt.classes import ClassMap
from terradapt.config import InputSpec
from terradapt.errors import DataError, SceneError
from terradapt.raster import ScenePath
from terradapt.raster.georef import crs_name
from terradapt.viewer.mapping import ModelMap
from terradapt.viewer.scenes import Features, ShownRaster, show_classes, show_image


@dataclass
class View:
    """A scene of the session.

    Attributes:
        number: How the page calls it.
        name: Of its file.
        given: As ``predict`` takes it.
        image: The picture; None where a map is shown without one.
        rasters: Further rasters by layer id, with their classes (None for a picture) and title.
        features: Vector files by title.
        map: Under the model.
        candidate: Under the model that is on trial.
        held: Places that are held out.
    """

    number: int
    name: str
    given: ScenePath
    image: ShownRaster | None
    rasters: dict[str, tuple[ShownRaster, ClassMap | None, str]] = field(default_factory=dict)
    features: dict[str, Features] = field(default_factory=dict)
    map: ModelMap | None = None
    candidate: ModelMap | None = None
    held: list[tuple[int, int]] = field(default_factory=list)

    @property
    def any(self) -> ShownRaster:
        """What gives size and place."""
        return self.image or next(iter(self.rasters.values()))[0]

    def describe(self) -> dict[str, Any]:
        """Return size, place and layers, as the page needs them."""
        shown, georef = self.any, self.any.scene.georef
        layers = [{"id": "scene", "title": "Scene", "kind": "photo"}] if self.image else []
        for key, (_, classes, title) in self.rasters.items():
            layers.append({"id": key, "title": title, "kind": "classes" if classes else "photo"})
        if self.map is not None:
            layers.append({"id": "map", "title": "Map", "kind": "classes"})
            layers.append({"id": "confidence", "title": "Confidence", "kind": "confidence"})
        if self.candidate is not None:
            layers.append({"id": "new", "title": "New map", "kind": "classes"})
            title = "New confidence"
            layers.append({"id": "new-confidence", "title": title, "kind": "confidence"})
        for layer in layers:
            under = self.predicted(layer["id"])
            layer["key"] = under.store.key if under else ""
        pyramid = shown.pyramid
        return {
            "number": self.number,
            "name": self.name,
            "height": georef.height,
            "width": georef.width,
            "levels": [[pyramid.side(n), pyramid.span(n)] for n in range(pyramid.levels)],
            "resolution": georef.resolution,
            "crs": crs_name(georef.crs) if georef.crs else None,
            "layers": layers,
            "vectors": [{"title": t, "count": len(f)} for t, f in self.features.items()],
            "held": [list(p) for p in self.held],
        }

    def predicted(self, layer: str) -> ModelMap | None:
        """Return what a layer of a model shows, None for other layers."""
        if layer in ("map", "confidence"):
            return self.map
        return self.candidate if layer in ("new", "new-confidence") else None

    def tile(self, layer: str, level: int, x: int, y: int) -> tuple[bytes, bool] | None:
        """Return a tile's PNG and whether it is final; None where there is none.

        Raises:
            SceneError: A part of the file cannot be read.
        """
        under = self.predicted(layer)
        if under is not None:
            kind = "confidence" if layer.endswith("confidence") else "classes"
            return under.store.tile(level, x, y, kind)
        shown = self.image if layer == "scene" else None
        if layer in self.rasters:
            shown = self.rasters[layer][0]
        picture = None if shown is None else shown.tile(level, x, y)
        return None if picture is None else (picture, True)


def open_views(
    stack: ExitStack,
    scenes: Sequence[ScenePath],
    maps: Sequence[Path],
    also: Sequence[Path],
    vectors: Sequence[Path],
    spec: InputSpec | None,
) -> list[View]:
    """Open the scenes of a session.

    Args:
        stack: Closes them.
        scenes: As ``predict`` takes them.
        maps: Class rasters; the first is a scene of its own where there is none.
        also: Further rasters on the first scene's grid, maps or pictures.
        vectors: Vector files, shown above every scene.
        spec: Of the model.

    Raises:
        SceneError: One cannot be read, has another one's name, or lies on another grid.
        DataError: A map without class ids, or a vector file that cannot be read.
    """
    views: list[View] = []
    for number, given in enumerate(scenes):
        image = stack.enter_context(show_image(given, spec))
        views.append(View(number, image.path.name, given, image))
    for kind, paths in (("map", maps), ("also", also)):
        for path in paths:
            raster, classes = _raster(path, kind == "also")
            stack.enter_context(raster)
            if not views:
                views.append(View(0, raster.path.name, path, None))
            first = views[0]
            first.rasters[f"{kind}{len(first.rasters)}"] = (raster, classes, path.name)
            _check_grid(first.any, raster)
    names = [v.name for v in views]
    if len(set(names)) < len(names):
        raise SceneError(
            f"{next(n for n in names if names.count(n) > 1)}: two scenes have this name",
            "rename one of them",
        )
    for view in views:
        for path in vectors:
            view.features[path.name] = Features(path, view.any.scene.georef, Path(view.name))
    return views


def _raster(path: Path, any_kind: bool) -> tuple[ShownRaster, ClassMap | None]:
    try:
        return show_classes(path)
    except DataError:
        if not any_kind:
            raise
        return show_image(path), None


def _check_grid(a: ShownRaster, b: ShownRaster) -> None:
    if (a.scene.height, a.scene.width) != (b.scene.height, b.scene.width):
        raise SceneError(
            f"{b.path}: is {b.scene.width} x {b.scene.height} px, {a.path.name} is "
            f"{a.scene.width} x {a.scene.height}",
            f"bring it to the grid of {a.path.name} first: gdalwarp -te -ts",
        )
