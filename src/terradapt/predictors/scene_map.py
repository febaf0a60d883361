"""SceneMap: a mapped scene; what ``Mapper.predict`` gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from terradapt.classes import ClassMap
from terradapt.errors import ConfigError, one_of
from terradapt.grid import Window
from terradapt.notebook import html_image, html_table
from terradapt.options import chosen, keywords
from terradapt.progress import Track, silent, text_bar
from terradapt.raster import Georef, SceneReader
from terradapt.raster.files import png_bytes
from terradapt.raster.georef import crs_name
from terradapt.scene.job import Job
from terradapt.scene.sidecars import count, statistics
from terradapt.vector import ArraySource, Network, Polygons, polygonize_labels, road_network
from terradapt.vector.files import into_file, polygons_of, roads_of
from terradapt.vector.options import VectorizeChoices, VectorizeOptions
from terradapt.vector.polygons.extract import ArrayLabels

_SIDE = 512  # px of the picture's longer side
_CACHE = 64 << 20  # bytes: a row of tiles of a wide raster, so that none is decoded twice


class SceneMap(NDArrayOperatorsMixin):
    """A mapped scene, in memory or in its files, which are then read when they are asked for.

    It stands for its array of classes: ``numpy.asarray(map)``, ``map == 2``, ``map[:10]``. A
    notebook shows the picture and the areas.

    Attributes:
        class_map: Names and colours of the classes.
        georef: Size, transform and CRS.
        figures: Pixels, share and hectares of each class, model, notes: the map's JSON.
        path: The class raster, None in memory.
    """

    def __init__(
        self,
        class_map: ClassMap,
        georef: Georef,
        figures: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any] | None],
        path: Path | None = None,
        scored: Sequence[str] = (),
    ) -> None:
        self.class_map, self.georef, self.figures, self.path = class_map, georef, figures, path
        self._arrays, self._scored = dict(arrays), scored or class_map.names

    @classmethod
    def of_job(cls, job: Job, model: str, track: Track = silent) -> SceneMap:
        """Map a scene in memory.

        Args:
            job: The scene and the model.
            model: Name of the model.
            track: Progress.
        """
        total = len(job.grid)
        with track(total, Path(str(job.source.path)).name, "windows") as advance:
            blocks = list(job.blocks(advance=advance))
        notes = [count(job, block) for block in blocks]
        arrays: dict[str, NDArray[Any] | None] = {
            "classes": np.concatenate([block.classes for block in blocks]),
            "confidence": None,
            "scores": None,
        }
        if job.wanted.confidence:
            parts = [b.confidence for b in blocks if b.confidence is not None]
            arrays["confidence"] = np.concatenate(parts)
        if job.wanted.scores:
            planes = [_shares(b.scores, b.scores != 255) for b in blocks if b.scores is not None]
            arrays["scores"] = np.concatenate(planes, axis=1)
        classes = job.predictor.classes
        scored = [classes.names[i] for i in job.wanted.subset]
        figures = statistics(job, notes, Path(), model)
        return cls(classes, job.source.georef, figures, arrays, scored=scored)

    @classmethod
    def of_file(cls, path: Path, class_map: ClassMap, figures: Mapping[str, Any]) -> SceneMap:
        """Return the map that a prediction has written."""
        with SceneReader(path) as reader:
            georef = reader.georef
        held = figures.get("files", {})
        absent = {k: None for k in ("confidence", "scores") if _beside(path, k).name not in held}
        with_scores = None if "scores" in absent else _beside(path, "scores")
        return cls(class_map, georef, figures, absent, path, _band_names(with_scores))

    @property
    def classes(self) -> NDArray[np.uint8]:
        """(H, W) class ids, 255 without data."""
        found = self._array("classes")
        assert found is not None
        return found

    @property
    def confidence(self) -> NDArray[np.float32] | None:
        """(H, W) the winning class's probability, NaN without data; asked for by ``confidence``."""
        return self._array("confidence")

    @property
    def scores(self) -> NDArray[np.float32] | None:
        """(K, H, W) probabilities of the classes, NaN without data; asked for by ``scores``."""
        return self._array("scores")

    @property
    def areas(self) -> dict[str, float]:
        """Hectares of each class on the ellipsoid; NaN where the scene has no CRS."""
        rows = self.figures["classes"]
        return {r["name"]: math.nan if r["hectares"] is None else r["hectares"] for r in rows}

    @keywords(VectorizeOptions)
    def polygons(
        self,
        out: str | Path | None = None,
        *,
        progress: bool = False,
        **options: Unpack[VectorizeChoices],
    ) -> Polygons:
        """Return the classes as polygons that share their borders.

        Args:
            out: ``.gpkg``, ``.geojson`` or ``.shp`` to write too.
            progress: Show a line of progress.
            options: Fields of :class:`VectorizeOptions`.

        Raises:
            ConfigError: No such class or option, or a size that is none.
            OutputError: The file cannot be written.
        """
        given, track = chosen(VectorizeOptions, options), text_bar if progress else silent
        if self.path is not None:
            return polygons_of(self.path, out, given, track)
        square = None if given.buildings is None else self._id(given.buildings)
        how, labels = given.polygons(square), ArrayLabels(self.classes, self.georef)

        def make() -> Polygons:
            with track(self._blocks(how.block), "polygons", "blocks") as advance:
                found = polygonize_labels(labels, how, advance)
            names, colours = self.class_map.names, self.class_map.colours
            return found.named(dict(enumerate(names)), dict(enumerate(colours)))

        return into_file(out, make, overwrite=given.overwrite)

    @keywords(VectorizeOptions)
    def roads(
        self,
        road: str | int | None = None,
        out: str | Path | None = None,
        *,
        progress: bool = False,
        **options: Unpack[VectorizeChoices],
    ) -> Network:
        """Return one class as a road network; scores, where they were kept, help to close gaps.

        Args:
            road: Class (name or id); None is the class ``road``, or the second of two.
            out: ``.gpkg``, ``.geojson``, ``.shp`` or ``.graphml`` to write too.
            progress: Show a line of progress.
            options: Fields of :class:`VectorizeOptions`.

        Raises:
            ConfigError: No such class or option, or a size that is none.
            OutputError: The file cannot be written.
        """
        given, track = chosen(VectorizeOptions, options), text_bar if progress else silent
        second = "road" if len(self.class_map) > 2 else 1
        value = self._id(second if road is None else road)
        if self.path is not None:
            scored = self.class_map.names[value] in self._scored
            if given.scores is None and scored and self._arrays.get("scores", 0) is not None:
                given = replace(given, scores=_beside(self.path, "scores"))
            return roads_of(self.path, value, out, given, track)
        if given.scores is not None:
            raise ConfigError(
                "a map in memory takes no raster of scores", "keep its own: predict(scores=True)"
            )
        name, how, planes = self.class_map.names[value], given.roads, self.scores
        plane = None
        if planes is not None and name in self._scored:
            plane = np.nan_to_num(planes[self._scored.index(name)])
        source = ArraySource(self.classes, self.georef, value, scores=plane)

        def make() -> Network:
            with track(self._blocks(how.block), "roads", "blocks") as advance:
                return road_network(source, how, advance)

        return into_file(out, make, roads=True, overwrite=given.overwrite)

    def picture(self, side: int = _SIDE) -> bytes:
        """Return the classes in their colours as a PNG; what has no data is transparent.

        Args:
            side: Longest side, px; larger maps are thinned, not blurred.
        """
        step = max(1, -(-max(self.georef.height, self.georef.width) // max(side, 1)))
        if self.path is None or "classes" in self._arrays:
            return png_bytes(self.classes[::step, ::step], self.class_map.colours)
        rows = range(step // 2 if step < self.georef.height else 0, self.georef.height, step)
        with SceneReader(self.path, cache=_CACHE) as reader:
            lines = [_ids(reader, Window(row, 0, 1, reader.width))[:, ::step] for row in rows]
        return png_bytes(np.concatenate(lines), self.class_map.colours)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy:
            return np.array(self.classes, dtype=dtype, copy=True)
        return np.asarray(self.classes, dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [x.classes if isinstance(x, SceneMap) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self.classes[key]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W), px."""
        return self.georef.height, self.georef.width

    def __repr__(self) -> str:
        size, scale = f"{self.georef.height} x {self.georef.width} px", self.georef.resolution
        each = f", {scale:.3g} m per pixel" if scale else ""
        rows = sorted(self.figures["classes"], key=lambda row: -row["share"])
        seen = ", ".join(f"{row['name']} {row['share']:.1%}" for row in rows if row["pixels"])
        where = "in memory" if self.path is None else str(self.path)
        crs = crs_name(self.georef.crs)
        return f"<SceneMap {where}: {size}{each}, {crs}: {seen or 'no valid pixel'}>"

    def _repr_html_(self) -> str:
        rows = [
            (
                row["name"],
                f"{row['share']:.2%}" if row["pixels"] else "absent",
                f"{row['hectares']:.4f}" if row["hectares"] is not None else "unknown",
            )
            for row in self.figures["classes"]
        ]
        picture = html_image(self.picture(), "the map in the classes' colours")
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.figures["notes"])
        table = html_table(("class", "share", "ha"), rows, self.class_map.css)
        return f"{picture}{table}{notes}"

    def _array(self, name: str) -> NDArray[Any] | None:
        if name not in self._arrays:
            assert self.path is not None
            path = self.path if name == "classes" else _beside(self.path, name)
            with SceneReader(path) as reader:
                whole = reader.window
                if name == "classes":
                    self._arrays[name] = _ids(reader, whole)
                else:
                    self._arrays[name] = _shares(*reader.read(whole), one=name == "confidence")
        return self._arrays[name]

    def _id(self, given: str | int) -> int:
        names = self.class_map.names
        if isinstance(given, int) and 0 <= given < len(names):
            return given
        folded = [name.casefold() for name in names]
        if str(given).casefold() in folded:
            return folded.index(str(given).casefold())
        raise ConfigError(f"the map has no class '{given}'", one_of(given, names))

    def _blocks(self, block: int) -> int:
        return -(-self.georef.height // block) * -(-self.georef.width // block)


def _beside(path: Path, layer: str) -> Path:
    return path.with_name(f"{path.stem}_{layer}.tif")


def _band_names(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    with SceneReader(path) as reader:
        return reader.band_names


def _ids(reader: SceneReader, window: Window) -> NDArray[np.uint8]:
    pixels, valid = reader.read(window)
    return np.where(valid, pixels[0], 255).astype(np.uint8)


def _shares(
    pixels: NDArray[Any], valid: NDArray[np.bool_], one: bool = False
) -> NDArray[np.float32]:
    """Probabilities of what a raster holds: float16, or uint8 in steps of 0.004."""
    unit = np.float32(0.004 if pixels.dtype == np.uint8 else 1)
    found: NDArray[np.float32] = np.where(valid, pixels.astype(np.float32) * unit, np.nan)
    return found[0] if one else found
