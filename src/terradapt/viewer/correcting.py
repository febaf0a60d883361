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
from terradapt.viewer.asking import (
    FEW,
    Accuracy,
    accuracy,
    class_areas,
    class_weights,
    next_places,
)
from terradapt.viewer.conflict import ConflictError
from terradapt.viewer.corrections import CORRECTIONS, CorrectionLog
from terradapt.viewer.events import PageEvents
from terradapt.viewer.mapping import ModelMap, Worker
from terradapt.viewer.pyramid import TILE
from terradapt.viewer.scenes import as_feature
from terradapt.viewer.strokes import (
    EDITED,
    POLYGON,
    RIGHT,
    Stroke,
    check_drawing,
    drawn,
    pixels_of,
    squared,
)
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
            values: As the page sends them; ``place`` for a place that is right, ``square`` for a
                polygon with right angles, ``replaces`` for the stroke whose vertices were moved.
            model: Hash of the model whose map is corrected.

        Raises:
            ConflictError: The map there is not ready yet.
            DataError: No drawing, no class, or outside the scene.
            OutputError: The disk is full.
        """
        georef = view.any.scene.georef
        checked = check_drawing(values, georef.height, georef.width)
        if values.get("square") is True and checked["kind"] == POLYGON:
            values = {**values, "points": squared(checked["points"], georef).tolist()}
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
            old = values.get("replaces")
            if old is not None and (not isinstance(old, int) or isinstance(old, bool)):
                raise DataError("a correction is called by its number", "reload the page")
            stroke = self.log.add(view.name, values, name, model=model, before=before, replaces=old)
        self._derive_soon()
        self._tell(view.number, stroke)
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
            before = None if stroke.replaces is None else self.log.stroke(stroke.replaces)
            if before is not None and scene is not None:
                self._tell(scene, before)
        return stroke

    def features(self, view: View, box: Any) -> list[dict[str, Any]]:
        """Return the strokes in force that touch a shape in pixels, as the page draws them."""
        found = [s for s in self.log.strokes(view.name) if s.area().intersects(box)]
        return [self._feature(s) for s in found]

    def _tell(self, scene: int, stroke: Stroke) -> None:
        feature = self._feature(stroke)
        self._events.publish("stroke", scene=scene, stroke=feature, replaces=stroke.replaces)

    def _feature(self, stroke: Stroke) -> dict[str, Any]:
        """A stroke as the page draws it, with its vertices where they can be moved."""
        about: dict[str, Any] = {"class": stroke.name, "kind": stroke.kind}
        about["rank"] = self.log.rank(stroke.number)
        if stroke.kind in EDITED:
            about |= {"points": stroke.points.tolist(), "width": stroke.width}
        return {**as_feature(stroke.area(), about), "id": stroke.number}

    def queue(self, view: View, count: int = 5) -> list[dict[str, Any]]:
        """Return the places to look at next."""
        if view.map is None:
            return []
        facts = view.map.store.facts
        weights = self._weights(view.map)
        doubts = {
            place: sum(weights[int(k)] * v for k, v in f["doubt"].items())
            for place, f in facts.items()
        }
        asked = sorted(self.log.answered(view.name))
        found = next_places(doubts, asked, view.held, count)
        self._worker.also([(view.map, *place) for place, chance in found if chance])
        return [
            {
                "place": list(place),
                "random": chance,
                "uncertainty": facts[place]["uncertainty"] if place in facts else None,
                "ready": place in view.map.store,
            }
            for place, chance in found
        ]

    def figures(self) -> dict[str, Any]:
        """Return how good the map is on the places that were drawn by chance; the new one too."""
        truths = [(view, place) for view in self._views for place in self._judges(view)]
        classes = self.log.classes
        found: dict[str, Any] = {"places": len(truths), "classes": list(classes.names)}
        for title in ("map", "new"):
            accurate, missing = self._accuracy(title)
            if missing:
                self._worker.also(missing)
            if title == "map" or any(view.predicted(title) for view, _ in truths):
                found[title] = {**_figure(accurate), "waiting": len(missing)}
        return found

    def areas(self, view: View) -> dict[str, Any] | None:
        """Return how much of each class the places drawn by chance speak for, and how surely.

        Strata are the map's classes; of a map that is not whole the classes of the places alone
        speak, so that what happens to be predicted does not matter.

        Returns:
            ``places``, ``weak``, ``by_map``, and for each class ``area`` and ``reach`` (None with
            fewer than two places), m2; None without answers.
        """
        shown, places = view.map, self._judges(view)
        if shown is None or not places:
            return None
        classes, georef, store = self.log.classes, view.any.scene.georef, shown.store
        by_map = len(store) == len(shown.pyramid.all_blocks)
        table = _table(shown.model.predictor.classes, classes)
        strata = len(classes) if by_map else 1
        totals = np.zeros(strata)
        if by_map:
            for facts in store.facts.values():
                for key, area in facts["areas"].items():
                    totals[table[int(key)]] += area
        else:
            corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]])
            ring = corners * [georef.height, georef.width] - 0.5
            totals[0] = georef.ring_areas(ring, np.array([5]))[0]
        counts = np.zeros((len(places), strata, len(classes)))
        sizes = np.zeros((len(places), strata))
        for at, place in enumerate(places):
            block = shown.pyramid.block(*place)
            truth, area = self.log.burnt(view.name, block), georef.pixel_areas(block)
            known, stratum = truth < len(classes), np.zeros(truth.shape, np.intp)
            if by_map:
                ready = store.get(*place)
                if ready is None:  # damaged meanwhile
                    return None
                stratum = table[ready.classes].astype(np.intp)
                known &= stratum < strata
            cells = stratum[known] * len(classes) + truth[known]
            sums = np.bincount(cells, area[known], minlength=counts[at].size)
            counts[at] = sums.reshape(counts[at].shape)
            sizes[at] = counts[at].sum(1) if by_map else area.sum()
        found = class_areas(counts, sizes, totals)
        reach = [None] * len(classes) if found.reach is None else found.reach.tolist()
        each = zip(classes.names, found.areas.tolist(), reach, strict=True)
        return {
            "places": found.places,
            "weak": found.places < FEW,
            "by_map": by_map,
            "classes": {name: {"area": a, "reach": r} for name, a, r in each},
        }

    def _judges(self, view: View) -> list[tuple[int, int]]:
        """The answered places of a scene that were drawn by chance."""
        return [] if view.map is None else sorted(self.log.answered(view.name) & set(view.held))

    def _accuracy(self, title: str) -> tuple[Accuracy, list[tuple[ModelMap, int, int]]]:
        """How good a layer is on those places, and which of them it has not predicted yet."""
        pairs, missing = [], []
        for view in self._views:
            shown = view.predicted(title)
            if shown is None:
                continue
            for place in self._judges(view):
                block = shown.store.get(*place)
                if block is None:
                    missing.append((shown, *place))
                    continue
                table = _table(shown.model.predictor.classes, self.log.classes)
                truth = self.log.burnt(view.name, shown.pyramid.block(*place))
                pairs.append((truth, table[block.classes]))
        return accuracy(pairs, len(self.log.classes)), missing

    def _weights(self, shown: ModelMap) -> NDArray[np.float64]:
        """Weights of the map's classes: by the places drawn by chance, or the run's validation."""
        names = shown.model.predictor.classes.names
        if sum(len(self._judges(view)) for view in self._views) >= FEW:
            known = dict(zip(self.log.classes.names, self._accuracy("map")[0].iou, strict=True))
        else:
            meta = shown.model.predictor.meta
            per_class = (meta.metrics if meta else {}).get("per_class", {})
            known = {name: said.get("iou") for name, said in per_class.items()}
        return class_weights([known.get(name) for name in names])

    def _as_it_is(self, view: View, shape: Any) -> tuple[Window, NDArray[np.uint8]]:
        """The map's ids within a shape, under the page's classes; corrected pixels are left out."""
        window, inside = pixels_of(shape)
        ids = None if view.map is None else view.map.store.window(window)
        if view.map is None or ids is None:
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
