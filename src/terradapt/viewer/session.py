"""Session: the scenes, the model, its candidate and the corrections of one ``terradapt view``."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap
from terradapt.errors import DataError, SceneError, TerradaptError
from terradapt.files import Closing
from terradapt.grid import Window
from terradapt.raster import ScenePath, rasterize
from terradapt.raster.georef import crs_name
from terradapt.viewer.asking import Accuracy, accuracy, held_out, next_places
from terradapt.viewer.corrections import CORRECTIONS, Corrections
from terradapt.viewer.events import Events
from terradapt.viewer.mapping import Model, ModelMap, Worker
from terradapt.viewer.pyramid import TILE
from terradapt.viewer.scenes import (
    Features,
    Shown,
    class_at,
    lonlat,
    show_classes,
    show_image,
)
from terradapt.viewer.strokes import Stroke, check_drawing, drawn

_HECTARE = 10_000.0  # m2
_ANSWER = 30.0  # s that a click waits for the block that is being predicted


class ConflictError(TerradaptError):
    """What cannot be done now, though it could be at another time."""


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
    image: Shown | None
    rasters: dict[str, tuple[Shown, ClassMap | None, str]] = field(default_factory=dict)
    features: dict[str, Features] = field(default_factory=dict)
    map: ModelMap | None = None
    candidate: ModelMap | None = None
    held: list[tuple[int, int]] = field(default_factory=list)

    @property
    def any(self) -> Shown:
        """What gives size and place."""
        return self.image or next(iter(self.rasters.values()))[0]


class Session(Closing):
    """What a page shows and changes; may be used from several threads.

    Args:
        scenes: As ``predict`` takes them.
        model: The model; None to look only.
        folder: For corrections, models and maps; None to look only.
        labels: A vector file of corrections that were drawn elsewhere.
        also: Further rasters on the first scene's grid.
        vectors: Further vector files.

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
        self.events = Events()
        self.folder, self.labels, self.model = folder, labels, model
        self.candidate: Model | None = None
        self.views: list[View] = []
        self.corrections: Corrections | None = None
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self._writing = threading.Event()
        self._stale = threading.Event()
        try:
            self._open(scenes, maps, also, vectors)
            self.worker = Worker(self._ready, self._failed)
            self._stack.callback(self.worker.close)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Stop predicting, write the derived files, close all."""
        self.events.close()
        self.worker.close()
        if self.corrections is not None:
            with suppress(TerradaptError):
                self.write_corrections()
        for view in self.views:
            for shown in (view.map, view.candidate):
                if shown is not None:
                    shown.close()
        self._stack.close()

    # -- what there is -------------------------------------------------------------------------

    @property
    def classes(self) -> ClassMap | None:
        """The classes of the page: the model's and those that were added, or the map's."""
        if self.corrections is not None:
            return self.corrections.classes
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

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to begin."""
        with self._lock:
            classes = self.classes
            return {
                "model": _model(self.model),
                "candidate": _model(self.candidate),
                "correcting": self.corrections is not None,
                "classes": [
                    {"name": n, "colour": list(c)}
                    for n, c in zip(classes.names, classes.colours, strict=True)
                ]
                if classes
                else [],
                "folder": None if self.folder is None else str(self.folder),
                "labels": None if self.labels is None else self.labels.name,
                "scenes": [self._describe(v) for v in self.views],
                "strokes": len(self.corrections.strokes()) if self.corrections else 0,
            }

    def tile(
        self, number: int, layer: str, level: int, x: int, y: int
    ) -> tuple[bytes, bool] | None:
        """Return a tile's PNG and whether it is final; None where there is none.

        Raises:
            DataError: No such scene.
            SceneError: A part of the file cannot be read.
        """
        view = self.view(number)
        if layer == "scene" and view.image is not None:
            picture = view.image.tile(level, x, y)
            return None if picture is None else (picture, True)
        if layer in view.rasters:
            picture = view.rasters[layer][0].tile(level, x, y)
            return None if picture is None else (picture, True)
        shown = {"map": view.map, "confidence": view.map}.get(layer)
        shown = {"new": view.candidate, "new-confidence": view.candidate}.get(layer, shown)
        if shown is None:
            return None
        kind = "confidence" if layer.endswith("confidence") else "classes"
        return shown.store.tile(level, x, y, kind)

    def pixel(self, number: int, row: int, col: int) -> dict[str, Any]:
        """Return what is known of a pixel: class, probabilities, coordinates.

        Raises:
            DataError: No such scene, or outside it.
            SceneError: The scene cannot be read there.
        """
        view = self.view(number)
        georef = view.any.scene.georef
        if not (0 <= row < georef.height and 0 <= col < georef.width):
            raise DataError("outside the scene", "click inside it")
        x, y = georef.xy(np.array([[row, col]], np.float64))[0].tolist()
        answer: dict[str, Any] = {
            "row": row,
            "col": col,
            "place": None if georef.crs is None else [x, y],
            "lonlat": lonlat(georef, col + 0.5, row + 0.5),
            "maps": [],
        }
        for title, shown in (("map", view.map), ("new map", view.candidate)):
            if shown is not None:
                scores = self._scores(shown, row, col)
                classes = shown.model.predictor.classes
                best = None if scores is None else int(np.argmax(scores))
                answer["maps"].append(
                    {
                        "title": title,
                        "model": shown.model.short,
                        "class": None if best is None else classes.names[best],
                        "scores": scores and dict(zip(classes.names, scores, strict=True)),
                    }
                )
        for raster, known, title in view.rasters.values():
            if known is not None:
                value = class_at(raster, row, col)
                name = None if value is None else _name(known, value)
                answer["maps"].append({"title": title, "class": name, "scores": None})
        if self.corrections is not None:
            value = int(self.corrections.burnt(view.name, Window(row, col, 1, 1))[0, 0])
            names = self.corrections.classes.names
            answer["corrected"] = None if value == IGNORE else names[value]
        return answer

    def _scores(self, shown: ModelMap, row: int, col: int) -> list[float] | None:
        """Class scores at a pixel; the worker computes them next."""
        future = self.worker.ask(lambda: shown.scores(row, col))
        try:
            scores: list[float] | None = future.result(_ANSWER)
        except TimeoutError as error:
            future.cancel()
            raise ConflictError("the model is busy", "click again in a moment") from error
        return scores

    def features(self, number: int, title: str, window: Window) -> list[dict[str, Any]]:
        """Return features of a vector file, or the strokes, as GeoJSON in pixels, y upwards."""
        view = self.view(number)
        if title == "strokes":
            box = shapely.box(window.col, window.row, window.right, window.bottom)
            return [
                _stroke(s)
                for s in (self.corrections.strokes(view.name) if self.corrections else [])
                if s.area().intersects(box)
            ]
        if title not in view.features:
            raise DataError("no such layer", "reload the page")
        found = view.features[title]
        found.load()
        return [_feature(shape, {"class": name}) for name, shape in found.within(window)]

    # -- predicting ----------------------------------------------------------------------------

    def look(self, number: int, window: Window, layers: Sequence[str]) -> int:
        """Predict what is in view; return how many blocks are to come.

        Raises:
            ConflictError: The scene has changed on disk.
        """
        view = self.view(number)
        self._same(view)
        shown = [m for m in (view.map, view.candidate) if m is not None]
        if view.candidate is not None and not any(la.startswith("new") for la in layers):
            shown = shown[:1]
        return self.worker.look(shown, window)

    def hectares(self, number: int) -> dict[str, Any]:
        """Return hectares of each class in the blocks that are ready, and their share of all."""
        view = self.view(number)
        found: dict[str, Any] = {"share": 0.0, "classes": {}, "unit": "ha"}
        if view.map is None:
            return found
        store = view.map.store
        total = len(store.pyramid.blocks(Window(0, 0, store.pyramid.height, store.pyramid.width)))
        found["share"] = len(store) / total
        areas: dict[int, float] = {}
        for facts in store.facts.values():
            for key, metres in facts["areas"].items():
                areas[int(key)] = areas.get(int(key), 0.0) + metres
        placed = view.any.scene.crs is not None
        found["unit"] = "ha" if placed else "px"
        found["classes"] = {
            store.classes.names[k]: a / (_HECTARE if placed else 1.0) for k, a in areas.items()
        }
        return found

    # -- correcting ----------------------------------------------------------------------------

    def stroke(self, number: int, values: Mapping[str, Any]) -> Stroke:
        """Add a correction; the disk has it when this returns.

        Raises:
            ConflictError: Nothing can be corrected here, the scene has changed, or the map there
                is not ready yet.
            DataError: No drawing, no class, or outside the scene.
            OutputError: The disk is full.
        """
        view, corrections = self.view(number), self._correcting()
        self._same(view)
        georef = view.any.scene.georef
        checked = check_drawing(values, georef.height, georef.width)
        place = self._place(view, values.get("place"))
        name = str(values.get("class", ""))
        shape = drawn(checked["kind"], checked["points"], checked["width"])
        model = self.model.short if self.model else ""
        before = self._before(view, shape)
        if checked["kind"] == "right":
            window, ids = self._as_it_is(view, shape)
            stroke = corrections.add(
                view.name, values, "", model=model, before=before, place=place,
                window=window, ids=ids,
            )  # fmt: skip
        else:
            stroke = corrections.add(view.name, values, name, model=model, before=before)
        self._changed()
        self.events.publish("stroke", scene=number, stroke=_stroke(stroke))
        return stroke

    def undo(self, number: int | None) -> Stroke | None:
        """Take a correction back; the last one when none is named.

        Raises:
            DataError: It was taken back already.
            OutputError: The disk is full.
        """
        stroke = self._correcting().undo(number)
        if stroke is not None:
            self._changed()
            scene = next((v.number for v in self.views if v.name == stroke.scene), None)
            self.events.publish("undo", scene=scene, stroke=stroke.number)
        return stroke

    def add_class(self, name: str) -> None:
        """Add a class.

        Raises:
            DataError: No name, or one that is there.
            OutputError: The disk is full.
        """
        self._correcting().add_class(name)
        self.events.publish("session")

    def write_corrections(self) -> Path:
        """Write the derived GeoPackage of all strokes.

        Raises:
            OutputError: It cannot be written.
        """
        corrections = self._correcting()
        path = corrections.folder / CORRECTIONS
        corrections.write(path)
        return path

    # -- asking --------------------------------------------------------------------------------

    def queue(self, number: int, count: int = 5) -> list[dict[str, Any]]:
        """Return the places to look at next."""
        view, corrections = self.view(number), self._correcting()
        if view.map is None:
            return []
        facts = view.map.store.facts
        doubts = {place: float(f["uncertainty"]) for place, f in facts.items()}
        asked = sorted(corrections.answered(view.name))
        found = next_places(doubts, asked, view.held, count)
        rest = [(view.map, *place) for place, chance in found if chance]
        self.worker.also(rest)
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
        """Return how good the map is on the places that were drawn by chance; new model too."""
        corrections = self._correcting()
        classes = corrections.classes
        truths = [
            (view, place, corrections.burnt(view.name, view.map.pyramid.block(*place)))
            for view in self.views
            if view.map is not None
            for place in sorted(corrections.answered(view.name) & set(view.held))
        ]
        found: dict[str, Any] = {"places": len(truths), "classes": list(classes.names)}
        for title, on_trial in (("map", False), ("new", True)):
            pairs, missing = [], []
            for view, place, truth in truths:
                shown = view.candidate if on_trial else view.map
                if shown is None:
                    continue
                block = shown.store.get(*place)
                if block is None:
                    missing.append((shown, *place))
                    continue
                table = _table(shown.model.predictor.classes, classes)
                pairs.append((truth, table[block.classes]))
            if missing:
                self.worker.also(missing)
            if on_trial and self.candidate is None:
                continue
            found[title] = {**_figure(accuracy(pairs, len(classes))), "waiting": len(missing)}
        return found

    def held(self) -> dict[str, list[tuple[int, int]]]:
        """Return the held-out places of each scene."""
        return {view.name: view.held for view in self.views}

    # -- models --------------------------------------------------------------------------------

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
        for shown in dropped:
            self.worker.drop(shown)
            shown.close()
        if dropped:
            self.events.publish("session")

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
            if self.corrections is not None and self.folder is not None:
                self._reopen(self.folder)
        for shown in dropped:
            self.worker.drop(shown)
            shown.close()
        self.events.publish("session")

    # -- inside --------------------------------------------------------------------------------

    def _open(
        self,
        scenes: Sequence[ScenePath],
        maps: Sequence[Path],
        also: Sequence[Path],
        vectors: Sequence[Path],
    ) -> None:
        spec = self.model.predictor.spec if self.model else None
        for number, given in enumerate(scenes):
            image = self._stack.enter_context(show_image(given, spec))
            self.views.append(View(number, image.path.name, given, image))
        for path in maps:
            shown, classes = show_classes(path)
            self._stack.enter_context(shown)
            if not self.views:
                self.views.append(View(0, shown.path.name, path, None))
            view = self.views[0]
            view.rasters[f"map{len(view.rasters)}"] = (shown, classes, path.name)
            _on_one_grid(view.any, shown)
        for path in also:
            raster, classes_of = self._any_raster(path)
            self._stack.enter_context(raster)
            view = self.views[0]
            view.rasters[f"also{len(view.rasters)}"] = (raster, classes_of, path.name)
            _on_one_grid(view.any, raster)
        names = [v.name for v in self.views]
        if len(set(names)) < len(names):
            raise SceneError("two scenes have one name", "rename one of them")
        placeless = [v.name for v in self.views if v.any.scene.crs is None]
        if self.model is not None and len(self.views) > 1 and placeless:
            raise SceneError(
                f"{placeless[0]}: has no CRS, so its corrections cannot stand in one file with "
                "those of other scenes",
                "view one such scene at a time, each with a folder of its own (-o)",
            )
        files = [*vectors, *([self.labels] if self.labels else [])]
        for view in self.views:
            for path in files:
                view.features[path.name] = Features(path, view.any.scene.georef)
        if self.model is None:
            return
        for view, under in zip(self.views, self._maps(self.model), strict=True):
            view.map = under
            size = Window(0, 0, under.pyramid.height, under.pyramid.width)
            view.held = held_out(view.name, under.pyramid.blocks(size))
        if self.folder is not None:
            self._reopen(self.folder)

    def _reopen(self, folder: Path) -> None:
        """Read the corrections under the model's classes."""
        assert self.model is not None
        if self.corrections is not None:
            self.corrections.close()
        self.corrections = Corrections(folder, self.model.predictor.classes)
        self._stack.callback(self.corrections.close)
        for view in self.views:
            self.corrections.know(view.name, view.any.scene.georef)

    def _any_raster(self, path: Path) -> tuple[Shown, ClassMap | None]:
        try:
            return show_classes(path)
        except DataError:
            return show_image(path), None

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

    def _describe(self, view: View) -> dict[str, Any]:
        shown, georef = view.any, view.any.scene.georef
        layers = [{"id": "scene", "title": "Scene", "kind": "photo"}] if view.image else []
        for key, (_, classes, title) in view.rasters.items():
            layers.append({"id": key, "title": title, "kind": "classes" if classes else "photo"})
        if view.map is not None:
            layers.append({"id": "map", "title": "Map", "kind": "classes"})
            layers.append({"id": "confidence", "title": "Confidence", "kind": "confidence"})
        if view.candidate is not None:
            layers.append({"id": "new", "title": "New map", "kind": "classes"})
            title = "New confidence"
            layers.append({"id": "new-confidence", "title": title, "kind": "confidence"})
        keys = {"map": view.map, "confidence": view.map}
        keys |= {"new": view.candidate, "new-confidence": view.candidate}
        for layer in layers:
            under = keys.get(layer["id"])
            layer["key"] = under.store.folder.name[:12] if under else ""
        pyramid = shown.pyramid
        return {
            "number": view.number,
            "name": view.name,
            "height": georef.height,
            "width": georef.width,
            "levels": [[pyramid.side(n), pyramid.span(n)] for n in range(pyramid.levels)],
            "resolution": georef.resolution,
            "crs": crs_name(georef.crs) if georef.crs else None,
            "layers": layers,
            "vectors": [{"title": t, "count": len(f)} for t, f in view.features.items()],
            "held": [list(p) for p in view.held],
        }

    def _correcting(self) -> Corrections:
        if self.corrections is None:
            raise ConflictError(
                "nothing can be corrected here", "start it with a model: terradapt view MODEL SCENE"
            )
        return self.corrections

    def _same(self, view: View) -> None:
        if view.any.changed():
            where = f"; your corrections are safe in {self.folder}" if self.folder else ""
            raise ConflictError(
                f"{view.name} has changed on disk since it was opened{where}",
                "close terradapt view and start it again",
            )

    def _place(self, view: View, given: object) -> tuple[int, int] | None:
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

    def _before(self, view: View, shape: Any) -> dict[str, Any]:
        """Class and confidence of the map below a shape, as far as its blocks are ready."""
        if view.map is None:
            return {}
        window, inside = _mask(shape, view.map)
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

    def _as_it_is(self, view: View, shape: Any) -> tuple[Window, NDArray[np.uint8]]:
        """The map's ids within a shape, under the page's classes; corrected pixels are left out."""
        assert self.corrections is not None
        if view.map is None:
            raise ConflictError("there is no map to be right", "open a model")
        window, inside = _mask(shape, view.map)
        ids = view.map.store.window(window)
        if ids is None:
            raise ConflictError("the map there is not ready yet", "wait until it is predicted")
        ids = _table(view.map.model.predictor.classes, self.corrections.classes)[ids]
        ids[~inside] = IGNORE
        ids[self.corrections.burnt(view.name, window) != IGNORE] = IGNORE
        return window, ids

    def _changed(self) -> None:
        """Write the GeoPackage soon, in a thread of its own; strokes do not wait for it."""
        self._stale.set()
        if self._writing.is_set():
            return
        self._writing.set()
        threading.Thread(target=self._derive, name="corrections.gpkg", daemon=True).start()

    def _derive(self) -> None:
        try:
            while self._stale.is_set():
                self._stale.clear()
                self.write_corrections()
        except TerradaptError as error:
            self.events.publish("problem", error=error.message, fix=error.fix)
        finally:
            self._writing.clear()

    def _ready(self, shown: ModelMap, row: int, col: int) -> None:
        for view in self.views:
            if shown in (view.map, view.candidate):
                layer = "map" if shown is view.map else "new"
                self.events.publish(
                    "block", scene=view.number, layer=layer, row=row, col=col,
                    waiting=self.worker.waiting,
                )  # fmt: skip

    def _failed(self, shown: ModelMap, error: TerradaptError) -> None:
        self.events.publish("problem", error=error.message, fix=error.fix)
        print(f"error: {error.message}\nfix: {error.fix}", flush=True)


def _mask(shape: Any, shown: ModelMap) -> tuple[Window, NDArray[np.bool_]]:
    """The window around a shape, within the scene, and which of its pixels lie inside."""
    from affine import Affine

    left, top, right, bottom = shapely.bounds(shape).tolist()
    height, width = shown.pyramid.height, shown.pyramid.width
    row, col = max(0, int(top)), max(0, int(left))
    stop = min(height, int(np.ceil(bottom))), min(width, int(np.ceil(right)))
    window = Window(row, col, max(1, stop[0] - row), max(1, stop[1] - col))
    moved = shapely.transform(shape, lambda xy: xy - [col, row])
    inside = rasterize(
        [(moved, 1)], height=window.height, width=window.width, transform=Affine.identity()
    )
    return window, inside > 0


def _table(source: ClassMap, target: ClassMap) -> NDArray[np.uint8]:
    """(256,) ids of one class map as those of another, by name; 255 where there is none."""
    table = np.full(256, IGNORE, np.uint8)
    place = {n.casefold(): i for i, n in enumerate(target.names)}
    for i, name in enumerate(source.names):
        table[i] = place.get(name.casefold(), IGNORE)
    return table


def _on_one_grid(a: Shown, b: Shown) -> None:
    if (a.scene.height, a.scene.width) != (b.scene.height, b.scene.width):
        raise SceneError(
            f"{b.path}: is {b.scene.width} x {b.scene.height} px, {a.path.name} is "
            f"{a.scene.width} x {a.scene.height}",
            f"bring it to the grid of {a.path.name} first: gdalwarp -te -ts",
        )


def _model(model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    meta = model.predictor.meta
    return {
        "name": model.path.parent.name if model.path.stem == "checkpoint" else model.path.name,
        "hash": model.short,
        "confidence": meta.confidence if meta else "not calibrated",
        "resolution": model.predictor.spec.resolution,
    }


def _figure(found: Accuracy) -> dict[str, Any]:
    return {
        "places": found.places,
        "oa": found.oa,
        "reach": found.reach,
        "iou": [None if np.isnan(v) else v for v in found.iou],
        "weak": found.weak,
    }


def _name(classes: ClassMap, value: int) -> str:
    return classes.names[value] if value < len(classes) else f"class {value}"


def _stroke(stroke: Stroke) -> dict[str, Any]:
    return {
        **_feature(stroke.area(), {"class": stroke.name, "kind": stroke.kind}),
        "id": stroke.number,
    }


def _feature(shape: Any, properties: dict[str, Any]) -> dict[str, Any]:
    flipped = shapely.transform(shape, lambda xy: xy * [1, -1])
    geometry = shapely.geometry.mapping(flipped)
    return {"type": "Feature", "geometry": geometry, "properties": properties}
