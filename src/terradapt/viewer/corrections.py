"""Corrections: what the journal says, as strokes in force, classes, and the file that trains.

``corrections.gpkg`` has one feature a piece: class, kind, model, class and confidence before, time.
It is derived: remove it, and it is written again. Later features cover earlier ones, as strokes do.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from terradapt.classes import IGNORE, MAX_CLASSES, ClassMap, Colour, default_colours
from terradapt.config import DataConfig
from terradapt.errors import DataError, refusing
from terradapt.files import Closing, replacing
from terradapt.grid import Window
from terradapt.raster import CRS, Georef, names_image, read_layer, upright
from terradapt.raster.georef import move_points
from terradapt.viewer.journal import StrokeJournal
from terradapt.viewer.pyramid import TILE
from terradapt.viewer.scenes import from_pixels
from terradapt.viewer.strokes import (
    EDITED,
    Stroke,
    check_drawing,
    georef_record,
    pixels_of,
    read_georef,
    same_georef,
)

CORRECTIONS = "corrections.gpkg"
LONGEST_NAME = 60
"""Letters of a class's name."""
_EMPTY = np.empty(0, object)


class CorrectionLog(Closing):
    """The corrections of a folder.

    Args:
        folder: Where the journal lies.
        classes: Of the model.

    Attributes:
        folder: As given.
        classes: Those, then the ones that were added in the page.

    Raises:
        DataError: The journal is damaged in its middle, or names a class twice.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, classes: ClassMap) -> None:
        self.folder, self.classes = folder, classes
        self._lock = threading.RLock()
        self._strokes: dict[int, Stroke] = {}
        self._keys: dict[str, int] = {}
        self._undone: set[int] = set()
        self._pieces: dict[int, list[tuple[str, BaseGeometry]]] = {}
        self._pixels: dict[int, tuple[Window, NDArray[np.uint8]]] = {}
        self._places: dict[str, Georef] = {}
        self.journal = StrokeJournal(folder)
        try:
            for number, record in enumerate(self.journal.records, 1):
                where = f"{self.journal.path}: line {number}"
                with refusing(where, DataError, "mend or remove that line", "is no operation"):
                    self._take(record)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def know(self, scene: str, georef: Georef) -> None:
        """Say where a scene lies, before strokes of it are added.

        Raises:
            OutputError: The journal cannot be written.
        """
        with self._lock:
            known = self._places.get(scene)
            if known is None or not same_georef(known, georef):
                self.journal.append(georef_record(scene, georef))
            self._places[scene] = georef

    def add_class(self, name: str) -> ClassMap:
        """Add a class.

        Raises:
            DataError: No name for a class, or one that is there.
            OutputError: The journal cannot be written.
        """
        with self._lock:
            name = " ".join(name.split())
            if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
                raise DataError(f"a class's name has 1 to {LONGEST_NAME} letters", "choose another")
            if name.lstrip("-").isdecimal():
                raise DataError("a class's name is no number", "give it a word")
            if name.casefold() in {n.casefold() for n in self.classes.names}:
                raise DataError(f"there is a class '{name}' already", "choose another name")
            if len(self.classes) >= MAX_CLASSES - 1:
                raise DataError("there are as many classes as a map can hold", "use one of them")
            colours = default_colours((*self.classes.names, name))
            taken = set(self.classes.colours)
            offered = (colours[-1], *default_colours([""] * 64))
            colour = next((c for c in offered if c not in taken and c != (0, 0, 0)), colours[-1])
            record = {"op": "class", "class": name, "colour": list(colour)}
            self.journal.append(record)
            self._take(record)
            return self.classes

    def add(
        self,
        scene: str,
        drawing: Mapping[str, Any],
        name: str,
        *,
        model: str = "",
        before: Mapping[str, Any] | None = None,
        place: tuple[int, int] | None = None,
        window: Window | None = None,
        ids: NDArray[np.uint8] | None = None,
        replaces: int | None = None,
    ) -> Stroke:
        """Add a stroke; when this returns, the disk has it.

        Args:
            scene: Name of a scene that is known.
            drawing: As :func:`terradapt.viewer.strokes.check_drawing` takes it.
            name: The class; "" for the map as it is, which then needs ``window`` and ``ids``.
            model: Hash of the model whose map is corrected.
            before: Class and confidence below it.
            place: The block that it answers.
            window: Of ``ids``.
            ids: The map as it is, 255 outside.
            replaces: The stroke in force whose vertices were moved: the new one takes its class,
                and its place among the strokes.

        Returns:
            The stroke; the one that is there already when its key was sent before.

        Raises:
            DataError: No drawing, no such class, outside the scene, or nothing to be replaced.
            OutputError: The journal cannot be written.
        """
        with self._lock:
            georef = self._places[scene]
            checked = check_drawing(drawing, georef.height, georef.width)
            if checked["key"] in self._keys:
                return self._strokes[self._keys[checked["key"]]]
            if replaces is not None:
                name = self._replaced(replaces, scene, checked["kind"]).name
            if ids is None and name not in self.classes.names:
                raise DataError("no such class", f"use one of: {', '.join(self.classes.names)}")
            stroke = Stroke(
                number=max(self._strokes, default=0) + 1,
                key=checked["key"],
                scene=scene,
                georef=georef,
                kind=checked["kind"],
                name=name,
                points=checked["points"],
                width=checked["width"],
                model=model,
                before=before or {},
                time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                place=place,
                window=window,
                ids=ids,
                names=self.classes.names if ids is not None else (),
                replaces=replaces,
            )
            self.journal.append(stroke.to_record())
            self._strokes[stroke.number] = stroke
            self._keys[stroke.key] = stroke.number
            return stroke

    def undo(self, number: int | None = None) -> Stroke | None:
        """Take a stroke back, the last one when none is named.

        A stroke that it had replaced is in force again.

        Returns:
            The stroke; None where there is nothing to undo.

        Raises:
            DataError: It was undone already, or never drawn.
            OutputError: The journal cannot be written.
        """
        with self._lock:
            live = self._live()
            if number is None:
                if not live:
                    return None
                number = max(live)
            if number not in live:
                raise DataError("that correction is undone already", "reload the page")
            record = {"op": "undo", "of": number, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            self.journal.append(record)
            self._undone.add(number)
            return self._strokes[number]

    def learnt(self, classes: ClassMap) -> None:
        """Take the classes of another model; those that only the journal names come after them."""
        with self._lock:
            self.classes = classes
            self._pixels.clear()
            for record in self.journal.records:
                if record["op"] == "class":
                    self._take(record)

    def strokes(self, scene: str | None = None) -> list[Stroke]:
        """Return the strokes in force, from the lowest up; of one scene or of all."""
        with self._lock:
            live = [self._strokes[n] for n in sorted(self._live(), key=self.rank)]
            return [s for s in live if scene in (None, s.scene)]

    def stroke(self, number: int) -> Stroke | None:
        """Return a stroke in force; None where there is none of this number."""
        with self._lock:
            return self._strokes[number] if number in self._live() else None

    def rank(self, number: int) -> int:
        """Return what a stroke's place follows from: the first one that it stands for."""
        before = self._strokes[number].replaces
        while before is not None:
            number, before = before, self._strokes[before].replaces
        return number

    def burnt(self, scene: str, window: Window) -> NDArray[np.uint8]:
        """Return the (H, W) ids that strokes give a window of a scene, 255 where there are none."""
        index = {n: i for i, n in enumerate(self.classes.names)}
        burnt = np.full((window.height, window.width), IGNORE, np.uint8)
        for stroke in self.strokes(scene):
            if stroke.number not in self._pixels:
                self._pixels[stroke.number] = _pixels(stroke, index)
            area, ids = self._pixels[stroke.number]
            common = area.intersect(window)
            if common is not None:
                ids = ids[common.shift(-area.row, -area.col).slices]
                here = burnt[common.shift(-window.row, -window.col).slices]
                np.copyto(here, ids, where=ids != IGNORE)
        return burnt

    def answered(self, scene: str) -> set[tuple[int, int]]:
        """Return the blocks of a scene that were said to be right, or right after corrections."""
        return {s.place for s in self.strokes(scene) if s.place is not None}

    def write(
        self,
        path: Path,
        *,
        labels: Path | None = None,
        held: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> int:
        """Write a GeoPackage of all strokes in force, above further labels.

        Args:
            path: The file.
            labels: A vector file, drawn elsewhere, that lies below the strokes.
            held: Blocks (row, column) by scene, of which nothing is written.

        Returns:
            Number of features.

        Raises:
            DataError: The labels cannot be read, or name no classes.
            OutputError: The file cannot be written.
        """
        from terradapt.vector.geopackage import write_geopackage

        strokes = self.strokes()
        crs, rows = None, []
        for stroke in strokes:
            crs = crs or stroke.georef.crs
            cut = _blocks((held or {}).get(stroke.scene, ()))
            if stroke.number not in self._pieces:
                self._pieces[stroke.number] = stroke.pieces()
            for name, area in self._pieces[stroke.number]:
                kept = area if cut is None else shapely.difference(area, cut)
                for part in shapely.get_parts(kept):
                    if shapely.get_dimensions(part) == 2 and part.area > 0:
                        rows.append((stroke, name, part))
        shapes = _EMPTY
        if rows:
            placed = [_placed(part, s.georef, crs) for s, _, part in rows]
            shapes = np.array(placed, object)
        fields: dict[str, list[Any]] = {
            "class": [name for _, name, _ in rows],
            "kind": [s.kind for s, _, _ in rows],
            "scene": [s.scene for s, _, _ in rows],
            "image": [s.scene for s, _, _ in rows],
            "stroke": [s.number for s, _, _ in rows],
            "model": [s.model for s, _, _ in rows],
            "class_before": [str(s.before.get("class", "")) for s, _, _ in rows],
            "confidence_before": [float(s.before.get("confidence", -1)) for s, _, _ in rows],
            "time": [s.time for s, _, _ in rows],
        }
        if labels is not None:
            below, names = _drawn_elsewhere(labels, self.classes)
            crs = crs or below.crs
            images = below.images or [""] * len(names)
            lower = _without(below.geometries, images, below.crs, self._places, held or {})
            if below.crs is not None and crs is not None:
                lower = _moved(lower, below.crs, crs)
            count = len(lower)
            shapes = np.concatenate([lower, shapes])
            blank: dict[str, list[Any]] = {
                k: [0 if k == "stroke" else -1.0 if k == "confidence_before" else ""] * count
                for k in fields
            }
            blank |= {"class": names, "kind": ["file"] * count, "image": images}
            fields = {k: blank[k] + v for k, v in fields.items()}
        columns = {k: np.array(v, _KINDS.get(k, object)) for k, v in fields.items()}
        with replacing(path, sqlite3.Error) as part_file:
            layer = ("corrections", "Geometry", shapes, columns)
            write_geopackage(part_file, [layer], crs)
        return len(shapes)

    def _live(self) -> set[int]:
        """Numbers of the strokes that are neither undone nor replaced."""
        live = self._strokes.keys() - self._undone
        return live - {self._strokes[n].replaces for n in live}

    def _replaced(self, number: int, scene: str, kind: str) -> Stroke:
        old = self.stroke(number)
        if old is None:
            raise DataError("that correction is there no more", "reload the page")
        if old.scene != scene or old.kind != kind or kind not in EDITED:
            raise DataError("this correction cannot take that one's place", "draw it anew")
        return old

    def _take(self, record: Mapping[str, Any]) -> None:
        """Bring the state up to a record that was read."""
        match record["op"]:
            case "scene":
                name = str(record["scene"])
                self._places[name] = read_georef(record, self._places.get(name))
            case "class":
                name = str(record["class"])
                if name.casefold() in {n.casefold() for n in self.classes.names}:
                    return  # the model has learnt it since
                r, g, b = (int(v) for v in record["colour"])
                colours: tuple[Colour, ...] = (*self.classes.colours, (r, g, b))
                evaluated = (*self.classes.evaluated, len(self.classes))
                self.classes = ClassMap((*self.classes.names, name), colours, evaluated)
            case "stroke":
                stroke = Stroke.from_record(record, self._places[str(record["scene"])])
                if stroke.replaces is not None and stroke.replaces not in self._strokes:
                    raise ValueError("replaces no stroke")
                self._strokes[stroke.number] = stroke
                self._keys[stroke.key] = stroke.number
            case "undo":
                self._undone.add(int(record["of"]))


_KINDS: dict[str, Any] = {"stroke": np.int64, "confidence_before": np.float64}


def _pixels(stroke: Stroke, index: Mapping[str, int]) -> tuple[Window, NDArray[np.uint8]]:
    """The window around a stroke and its ids there, 255 beside it."""
    if stroke.ids is not None and stroke.window is not None:
        table = np.full(256, IGNORE, np.uint8)
        table[: len(stroke.names)] = [index.get(n, IGNORE) for n in stroke.names]
        return stroke.window, table[stroke.ids]
    window, inside = pixels_of(stroke.area())
    ids = np.where(inside, np.uint8(index.get(stroke.name, IGNORE)), np.uint8(IGNORE))
    return window, ids


def _drawn_elsewhere(path: Path, classes: ClassMap) -> tuple[Any, list[str]]:
    """Return the features of a label file, and the class of each."""
    from terradapt.data.vector_files import class_keys, column_texts

    layer = read_layer(path)
    column, _ = class_keys(path, DataConfig())
    if column is None:
        if len(classes) > 2:
            raise DataError(
                f"{path}: no column says which of {', '.join(classes.names)} a feature is",
                "name the column 'class'",
            )
        return layer, [classes.names[1]] * len(layer.geometries)
    names = {n.casefold(): n for n in classes.names}
    texts = column_texts(layer, column, path)
    return layer, ["" if t is None else names.get(t.strip().casefold(), t.strip()) for t in texts]


def _without(
    shapes: NDArray[Any],
    images: Sequence[str],
    crs: CRS | None,
    places: Mapping[str, Georef],
    held: Mapping[str, Sequence[tuple[int, int]]],
) -> NDArray[Any]:
    """Cut the held-out blocks out of shapes of a CRS, or of the pixels of the images they name."""
    shapes = shapely.make_valid(shapes)
    for scene, blocks in held.items():
        cut = _blocks(blocks)
        if cut is None or scene not in places:
            continue
        georef = places[scene]
        ground = from_pixels(np.array([shapely.segmentize(cut, TILE / 8)], object), georef)
        if crs is not None and georef.crs is not None:
            ground = _moved(ground, georef.crs, crs)
        own = np.ones(len(shapes), bool)
        if georef.crs is None:
            own = np.array([not text or names_image(text, Path(scene)) for text in images], bool)
            shapes[own] = upright(shapes[own], georef)
        shapes[own] = shapely.difference(shapes[own], shapely.make_valid(ground[0]))
    return np.asarray(shapes, object)


def _blocks(blocks: Sequence[tuple[int, int]]) -> BaseGeometry | None:
    boxes = [shapely.box(c * TILE, r * TILE, (c + 1) * TILE, (r + 1) * TILE) for r, c in blocks]
    return shapely.union_all(boxes) if boxes else None


def _placed(shape: BaseGeometry, georef: Georef, crs: CRS | None) -> BaseGeometry:
    """A shape of a scene's pixels in a CRS."""
    placed = from_pixels(np.array([shape], object), georef)
    if crs is not None and georef.crs is not None and not georef.same_place(crs):
        placed = _moved(placed, georef.crs, crs)
    result: BaseGeometry = placed[0]
    return result


def _moved(shapes: NDArray[Any], source: CRS, target: CRS) -> NDArray[Any]:
    moved = shapely.transform(shapes, lambda points: move_points(points, source, target))
    return np.asarray(moved, object)
