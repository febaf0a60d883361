"""Session: the scenes, the model, the one on trial and the corrections of a ``terradapt view``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from terradapt.classes import IGNORE, ClassMap
from terradapt.errors import DataError, SceneError, TerradaptError
from terradapt.files import Closing
from terradapt.grid import Window
from terradapt.raster import ScenePath
from terradapt.viewer.asking import held_out
from terradapt.viewer.conflict import ConflictError
from terradapt.viewer.correcting import Correcting
from terradapt.viewer.events import PageEvents
from terradapt.viewer.mapping import Model, ModelMap, Worker
from terradapt.viewer.scenes import as_feature, class_at, lonlat
from terradapt.viewer.views import View, open_views

_HECTARE = 10_000.0  # m2
_ANSWER = 30.0  # s that a click waits for the block that is being predicted


class Session(Closing):
    """What a page shows and changes; may be used from several threads.

    Args:
        scenes: As ``predict`` takes them.
        model: The model; None to look only.
        folder: For corrections, models and maps; None to look only.
        labels: A vector file of corrections that were drawn elsewhere.
        also: Further rasters on the first scene's grid.
        vectors: Further vector files.
        maps: Class rasters to look at.

    Attributes:
        views: The scenes.
        model: The model in use.
        candidate: The one on trial, or None.
        correcting: The corrections; None to look only.
        events: What the pages hear.
        worker: Predicts.
        wanted: Set when the models are to be opened: a page shows the scene, or needs them.
        opened: Set when they are, or could not be.

    Raises:
        TerradaptError: Something cannot be read, or does not fit.
    """

    def __init__(
        self,
        scenes: Sequence[ScenePath],
        model: Model | None = None,
        folder: Path | None = None,
        *,
        labels: Path | None = None,
        also: Sequence[Path] = (),
        vectors: Sequence[Path] = (),
        maps: Sequence[Path] = (),
    ) -> None:
        self.events = PageEvents()
        self.folder, self.labels, self.model = folder, labels, model
        self.candidate: Model | None = None
        self.correcting: Correcting | None = None
        self.wanted, self.opened = threading.Event(), threading.Event()
        if model is None or model.is_open:
            self.opened.set()
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self.worker = self._stack.enter_context(Worker(self._ready, self._failed))
        try:
            spec = model.predictor.spec if model else None
            files = [*vectors, *([labels] if labels else [])]
            self.views = open_views(self._stack, scenes, maps, also, files, spec)
            if model is not None:
                self._begin(model)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop predicting, write the derived files, close all."""
        self.events.close()
        self.worker.close()
        if self.correcting is not None:
            with suppress(TerradaptError):
                self.correcting.close()
        for view in getattr(self, "views", ()):
            for shown in (view.map, view.candidate):
                if shown is not None:
                    shown.close()
        self._stack.close()

    @property
    def classes(self) -> ClassMap | None:
        """The classes of the page: the model's and those that were added, or the map's."""
        if self.correcting is not None:
            return self.correcting.log.classes
        if self.model is not None:
            return self.model.predictor.classes
        known = [c for v in self.views for _, c, _ in v.rasters.values() if c is not None]
        return known[0] if known else None

    def view(self, number: int) -> View:
        """Return a scene.

        Raises:
            DataError: There is no such scene.
        """
        if not 0 <= number < len(self.views):
            raise DataError("no such scene", "reload the page")
        return self.views[number]

    def pen(self, view: View | None = None) -> Correcting:
        """Return what corrects.

        Args:
            view: A scene that must be the one that was opened.

        Raises:
            ConflictError: There is nothing to correct, or the scene has changed on disk.
        """
        if self.correcting is None:
            raise ConflictError(
                "nothing can be corrected here", "start it with a model: terradapt view MODEL SCENE"
            )
        if view is not None:
            self._same(view)
        return self.correcting

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to begin."""
        with self._lock:
            classes = self.classes
            rows = zip(classes.names, classes.colours, strict=True) if classes else ()
            return {
                "model": _model(self.model),
                "opening": not self.opened.is_set(),
                "candidate": _model(self.candidate),
                "correcting": self.correcting is not None,
                "classes": [{"name": n, "colour": list(c)} for n, c in rows],
                "folder": None if self.folder is None else str(self.folder),
                "scenes": [v.describe() for v in self.views],
                "strokes": len(self.correcting.log.strokes()) if self.correcting else 0,
            }

    def pixel(self, number: int, row: int, col: int) -> dict[str, Any]:
        """Return what is known of a pixel: class, probabilities, coordinates.

        Raises:
            DataError: No such scene, or outside it.
            ConflictError: The model is busy, or the scene has changed.
            SceneError: The scene cannot be read there.
        """
        view = self.view(number)
        georef = view.any.scene.georef
        if not (0 <= row < georef.height and 0 <= col < georef.width):
            raise DataError("outside the scene", "click inside it")
        self.wait_open()
        x, y = georef.xy(np.array([[row, col]], np.float64))[0].tolist()
        maps: list[dict[str, Any]] = []
        for title, shown in (("map", view.map), ("new map", view.candidate)):
            if shown is None:
                continue
            scores, names = self._scores(shown, row, col), shown.model.predictor.classes.names
            maps.append(
                {
                    "title": title,
                    "model": shown.model.short,
                    "class": None if scores is None else names[int(np.argmax(scores))],
                    "scores": scores and dict(zip(names, scores, strict=True)),
                }
            )
        for raster, known, title in view.rasters.values():
            if known is not None:
                value = class_at(raster, row, col)
                maps.append({"title": title, "class": _name(known, value), "scores": None})
        answer: dict[str, Any] = {
            "row": row,
            "col": col,
            "place": None if georef.crs is None else [x, y],
            "lonlat": lonlat(georef, col + 0.5, row + 0.5),
            "maps": maps,
        }
        if self.correcting is not None:
            log = self.correcting.log
            value = int(log.burnt(view.name, Window(row, col, 1, 1))[0, 0])
            answer["corrected"] = _name(log.classes, None if value == IGNORE else value)
        return answer

    def features(self, number: int, title: str, window: Window) -> list[dict[str, Any]]:
        """Return features of a vector file, or the strokes, as GeoJSON in pixels, y upwards.

        Raises:
            DataError: No such scene or layer.
        """
        view = self.view(number)
        if title == "strokes":
            box = shapely.box(window.col, window.row, window.right, window.bottom)
            return self.correcting.features(view, box) if self.correcting else []
        if title not in view.features:
            raise DataError("no such layer", "reload the page")
        found = view.features[title]
        found.load()
        return [as_feature(shape, {"class": name}) for name, shape in found.within(window)]

    def look(self, number: int, window: Window, layers: Sequence[str]) -> int:
        """Predict what is in view; return how many blocks are to come.

        Raises:
            ConflictError: The scene has changed on disk.
        """
        view = self.view(number)
        self._same(view)
        shown = [view.map] if view.map is not None else []
        if view.candidate is not None and any(layer.startswith("new") for layer in layers):
            shown.append(view.candidate)
        return self.worker.look(shown, window)

    def hectares(self, number: int) -> dict[str, Any]:
        """Return hectares of each class in the blocks that are ready, and their share of all.

        ``estimate`` is what the places drawn by chance say of the whole scene, with half a 95 %
        interval, as :meth:`terradapt.viewer.correcting.Correcting.areas`; None without answers.
        """
        view = self.view(number)
        if view.map is None:
            return {"share": 0.0, "classes": {}, "unit": "ha", "estimate": None}
        store, areas = view.map.store, dict[str, float]()
        for facts in store.facts.values():
            for key, metres in facts["areas"].items():
                areas[key] = areas.get(key, 0.0) + metres
        placed = view.any.scene.crs is not None
        names, unit = store.classes.names, _HECTARE if placed else 1.0
        estimate = self.correcting.areas(view) if self.correcting else None
        for said in estimate["classes"].values() if estimate else ():
            said.update({k: v if v is None else v / unit for k, v in said.items()})
        return {
            "share": len(store) / len(store.pyramid.all_blocks),
            "unit": "ha" if placed else "px",
            "classes": {names[int(k)]: a / unit for k, a in areas.items()},
            "estimate": estimate,
        }

    def held(self) -> dict[str, list[tuple[int, int]]]:
        """Return the held-out places of each scene."""
        return {view.name: view.held for view in self.views}

    def wait_open(self) -> None:
        """Return when the models are open.

        Raises:
            ConflictError: It takes long, or the model cannot be opened.
        """
        self.wanted.set()
        if not self.opened.wait(_ANSWER):
            raise ConflictError("the model is still being opened", "try again in a moment")
        if self.model is not None and not self.model.is_open:
            raise ConflictError("the model cannot be opened", "look at the terminal")

    def take_model(self, model: Model) -> None:
        """Let the model that was announced predict.

        Args:
            model: The same, opened.

        Raises:
            SceneError: A scene does not fit it.
        """
        maps = self._maps(model)
        with self._lock:
            self.model = model
            for view, under in zip(self.views, maps, strict=True):
                view.map = under
        self.events.publish("session")

    def try_model(self, model: Model) -> None:
        """Show a new model beside the old one.

        Raises:
            SceneError: A scene does not fit it.
        """
        maps = self._maps(model)
        with self._lock:
            self.drop_candidate()
            self.candidate = model
            for view, shown in zip(self.views, maps, strict=True):
                view.candidate = shown
        self.events.publish("session")

    def drop_candidate(self) -> None:
        """Show the old model alone again."""
        with self._lock:
            dropped = [v.candidate for v in self.views if v.candidate is not None]
            for view in self.views:
                view.candidate = None
            self.candidate = None
        self._forget(dropped)

    def keep_candidate(self) -> None:
        """Let the new model take the old one's place.

        Raises:
            ConflictError: There is none.
        """
        with self._lock:
            if self.candidate is None:
                raise ConflictError("there is no new model", "retrain first")
            dropped = [v.map for v in self.views if v.map is not None]
            for view in self.views:
                view.map, view.candidate = view.candidate, None
            self.model, self.candidate = self.candidate, None
            if self.correcting is not None:
                self.correcting.log.learnt(self.model.predictor.classes)
        self._forget(dropped)

    def _begin(self, model: Model) -> None:
        placeless = [v.name for v in self.views if v.any.scene.crs is None]
        if placeless and len(placeless) < len(self.views):
            raise SceneError(
                f"{placeless[0]}: has no CRS, so its corrections cannot stand in one file with "
                "those of scenes that have one",
                "view scenes without a CRS apart, in a folder of their own (-o)",
            )
        for view in self.views:
            view.held = held_out(view.name, view.any.pyramid.all_blocks)
        if model.is_open:
            self.take_model(model)
        if self.folder is not None:
            classes = model.predictor.classes
            self.correcting = Correcting(self.folder, classes, self.views, self.worker, self.events)

    def _maps(self, model: Model) -> list[ModelMap]:
        assert self.folder is not None
        made: list[ModelMap] = []
        try:
            for view in self.views:
                made.append(ModelMap(model, view.given, self.folder / "blocks"))
        except BaseException:
            for shown in made:
                shown.close()
            raise
        return made

    def _forget(self, dropped: list[ModelMap]) -> None:
        for shown in dropped:
            self.worker.drop(shown)
            shown.close()
        if dropped:
            self.events.publish("session")

    def _same(self, view: View) -> None:
        if view.any.changed():
            where = f"; your corrections are safe in {self.folder}" if self.folder else ""
            raise ConflictError(
                f"{view.name} has changed on disk since it was opened{where}",
                "close terradapt view and start it again",
            )

    def _scores(self, shown: ModelMap, row: int, col: int) -> list[float] | None:
        """Class scores at a pixel; the worker computes them next."""
        future = self.worker.ask(lambda: shown.scores(row, col))
        try:
            scores: list[float] | None = future.result(_ANSWER)
        except TimeoutError as error:
            future.cancel()
            raise ConflictError("the model is busy", "click again in a moment") from error
        return scores

    def _ready(self, shown: ModelMap, row: int, col: int) -> None:
        view = next((v for v in self.views if shown in (v.map, v.candidate)), None)
        if view is not None:
            layer = "map" if shown is view.map else "new"
            at = {"row": row, "col": col, "waiting": self.worker.waiting}
            self.events.publish("block", scene=view.number, layer=layer, **at)

    def _failed(self, shown: ModelMap, error: TerradaptError) -> None:
        self.events.publish("problem", error=error.message, fix=error.fix)
        print(f"error: {error.message}\nfix: {error.fix}", flush=True)


def _model(model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    meta = model.predictor.meta
    return {
        "name": model.path.parent.name if model.path.stem == "checkpoint" else model.path.name,
        "hash": model.short,
        "look": model.quick,
        "confidence": meta.confidence if meta else "not calibrated",
        "resolution": model.predictor.spec.resolution,
    }


def _name(classes: ClassMap, value: int | None) -> str | None:
    if value is None:
        return None
    return classes.names[value] if value < len(classes) else f"class {value}"
