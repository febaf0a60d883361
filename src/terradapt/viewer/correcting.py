"""Correcting: strokes on scenes, the places to ask next, and what the answers say of a map."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap
from terradapt.errors import DataError, TerradaptError
from terradapt.files import Closing
from terradapt.grid import Window
from terradapt.viewer.asking import Accuracy, accuracy, next_places
from terradapt.viewer.conflict import ConflictError
from terradapt.viewer.corrections import CORRECTIONS, CorrectionLog
from terradapt.viewer.events import PageEvents
from terradapt.viewer.mapping import Worker
from terradapt.viewer.pyramid import TILE
from terradapt.viewer.scenes import as_feature
from terradapt.viewer.strokes import RIGHT, Stroke, check_drawing, drawn, pixels_of
from terradapt.viewer.views import View


class Correcting(Closing):
    """The corrections of a session, drawn on its views.

    Args:
        folder: Where the journal lies.
        classes: Of the model.
        views: The scenes.
        worker: Predicts the places that are asked.
        events: Tells the pages.

    Raises:
        DataError: The journal is damaged in its middle.
        OutputError: The folder cannot be written.
    """

    def __init__(
        self, folder: Path, classes: ClassMap, views: list[View], worker: Worker, events: PageEvents
    ) -> None:
        self._views, self._worker, self._events = views, worker, events
        self._writing, self._stale = threading.Lock(), threading.Event()
        self.log = CorrectionLog(folder, classes)
        try:
            for view in views:
                self.log.know(view.name, view.any.scene.georef)
        except BaseException:
            self.log.close()
            raise

    def close(self) -> None:
        """Write the derived file and close the journal."""
        with self._writing:
            self._stale.clear()
            try:
                self.log.write(self.log.folder / CORRECTIONS)
            finally:
                self.log.close()

    def stroke(self, view: View, values: Mapping[str, Any], model: str) -> Stroke:
        """Add a correction; the disk has it when this returns.

        Args:
            view: The scene.
            values: As the page sends them; ``place`` for a place that is right.
            model: Hash of the model whose map is corrected.

        Raises:
            ConflictError: The map there is not ready yet.
            DataError: No drawing, no class, or outside the scene.
            OutputError: The disk is full.
        """
        georef = view.any.scene.georef
        checked = check_drawing(values, georef.height, georef.width)
        size = shapely.box(0, 0, georef.width, georef.height)
        whole = drawn(checked["kind"], checked["points"], checked["width"])
        shape = shapely.intersection(whole, size)
        before = _before(view, shape)
        if checked["kind"] == RIGHT:
            place = _place(view, values.get("place"))
            window, ids = self._as_it_is(view, shape)
            stroke = self.log.add(
                view.name,
                values,
                "",
                model=model,
                before=before,
                place=place,
                window=window,
                ids=ids,
            )
        else:
            name = str(values.get("class", ""))
            stroke = self.log.add(view.name, values, name, model=model, before=before)
        self._derive_soon()
        self._events.publish("stroke", scene=view.number, stroke=stroke_feature(stroke))
        return stroke

    def undo(self, number: int | None) -> Stroke | None:
        """Take a correction back; the last one when none is named.

        Raises:
            DataError: It was taken back already.
            OutputError: The disk is full.
        """
        stroke = self.log.undo(number)
        if stroke is not None:
            self._derive_soon()
            scene = next((v.number for v in self._views if v.name == stroke.scene), None)
            self._events.publish("undo", scene=scene, stroke=stroke.number)
        return stroke

    def queue(self, view: View, count: int = 5) -> list[dict[str, Any]]:
        """Return the places to look at next."""
        if view.map is None:
            return []
        facts = view.map.store.facts
        doubts = {place: float(f["uncertainty"]) for place, f in facts.items()}
        asked = sorted(self.log.answered(view.name))
        found = next_places(doubts, asked, view.held, count)
        self._worker.also([(view.map, *place) for place, chance in found if chance])
        return [
            {
                "place": list(place),
                "random": chance,
                "uncertainty": doubts.get(place),
                "ready": place in view.map.store,
            }
            for place, chance in found
        ]

    def figures(self) -> dict[str, Any]:
        """Return how good the map is on the places that were drawn by chance; the new one too."""
        classes = self.log.classes
        truths = [
            (view, place, self.log.burnt(view.name, view.map.pyramid.block(*place)))
            for view in self._views
            if view.map is not None
            for place in sorted(self.log.answered(view.name) & set(view.held))
        ]
        found: dict[str, Any] = {"places": len(truths), "classes": list(classes.names)}
        for title in ("map", "new"):
            pairs, missing, there = [], [], title == "map"
            for view, place, truth in truths:
                shown = view.predicted(title)
                if shown is None:
                    continue
                there, block = True, shown.store.get(*place)
                if block is None:
                    missing.append((shown, *place))
                    continue
                table = _table(shown.model.predictor.classes, classes)
                pairs.append((truth, table[block.classes]))
            if missing:
                self._worker.also(missing)
            if there:
                figure = _figure(accuracy(pairs, len(classes)))
                found[title] = {**figure, "waiting": len(missing)}
        return found

    def _as_it_is(self, view: View, shape: Any) -> tuple[Window, NDArray[np.uint8]]:
        """The map's ids within a shape, under the page's classes; corrected pixels are left out."""
        if view.map is None:
            raise ConflictError("there is no map to be right", "open a model")
        window, inside = pixels_of(shape)
        ids = view.map.store.window(window)
        if ids is None:
            raise ConflictError("the map there is not ready yet", "wait until it is predicted")
        ids = _table(view.map.model.predictor.classes, self.log.classes)[ids]
        ids[~inside] = IGNORE
        ids[self.log.burnt(view.name, window) != IGNORE] = IGNORE
        return window, ids

    def _derive_soon(self) -> None:
        """Write the GeoPackage in a thread of its own: strokes do not wait for it."""
        if not self._stale.is_set():
            self._stale.set()
            threading.Thread(target=self._derive, name=CORRECTIONS, daemon=True).start()

    def _derive(self) -> None:
        with self._writing:
            if not self._stale.is_set():  # written when it was closed
                return
            self._stale.clear()  # what comes from here on is not in this one
            try:
                self.log.write(self.log.folder / CORRECTIONS)
            except TerradaptError as error:
                self._events.publish("problem", error=error.message, fix=error.fix)


def stroke_feature(stroke: Stroke) -> dict[str, Any]:
    """Return a stroke as the page draws it."""
    about = {"class": stroke.name, "kind": stroke.kind}
    return {**as_feature(stroke.area(), about), "id": stroke.number}


def _place(view: View, given: object) -> tuple[int, int] | None:
    if given is None:
        return None
    if (
        not isinstance(given, list)
        or len(given) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) for v in given)
        or not view.any.pyramid.blocks(Window(given[0] * TILE, given[1] * TILE, 1, 1))
    ):
        raise DataError("no such place", "reload the page")
    return given[0], given[1]


def _before(view: View, shape: Any) -> dict[str, Any]:
    """Class and confidence of the map below a shape, as far as its blocks are ready."""
    if view.map is None:
        return {}
    window, inside = pixels_of(shape)
    counts, sure = np.zeros(256), []
    for row, col in view.map.pyramid.blocks(window):
        block = view.map.store.get(row, col)
        if block is None:
            return {}
        area = view.map.pyramid.block(row, col)
        common = area.intersect(window)
        if common is None:
            continue
        kept = inside[common.shift(-window.row, -window.col).slices]
        here = common.shift(-area.row, -area.col).slices
        counts += np.bincount(block.classes[here][kept], minlength=256)
        values = block.confidence[here][kept]
        sure.append(values[values < IGNORE])
    names = view.map.model.predictor.classes.names
    if not counts[: len(names)].sum():
        return {}
    best = int(counts[: len(names)].argmax())
    return {
        "class": names[best],
        "share": round(float(counts[best] / counts[: len(names)].sum()), 4),
        "confidence": round(float(np.concatenate(sure).mean()) / 250, 4),
    }


def _table(source: ClassMap, target: ClassMap) -> NDArray[np.uint8]:
    """(256,) ids of one class map as those of another, by name; 255 where there is none."""
    table = np.full(256, IGNORE, np.uint8)
    place = {n.casefold(): i for i, n in enumerate(target.names)}
    for i, name in enumerate(source.names):
        table[i] = place.get(name.casefold(), IGNORE)
    return table


def _figure(found: Accuracy) -> dict[str, Any]:
    return {
        "places": found.places,
        "oa": found.oa,
        "reach": found.reach,
        "iou": [None if np.isnan(v) else v for v in found.iou],
        "weak": found.weak,
    }
