"""One worker that predicts blocks: those in view first, from its centre outwards."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt import predictors
from terradapt.classes import IGNORE
from terradapt.errors import SceneError, TerradaptError
from terradapt.export import fastest
from terradapt.files import Closing, digest
from terradapt.grid import Window
from terradapt.meta import Meta
from terradapt.raster import ScenePath
from terradapt.scene import Block, PredictOptions, Predictor
from terradapt.scene.job import open_job
from terradapt.scene.predictor import Wrapped
from terradapt.scene.stream import quantized
from terradapt.viewer.conflict import ConflictError
from terradapt.viewer.pyramid import Pyramid
from terradapt.viewer.recent import Recent
from terradapt.viewer.store import BlockStore, Ready

REMEMBERED = 64 << 20
"""Bytes of scores that a session keeps: 10 windows of six classes, those of neighbouring blocks."""
_FACTS = "areas doubt"  # what blocks say of themselves: those that say less are other ones
LOOK = "look"
"""A file in the folder of a model that a look made."""
OPTIONS = PredictOptions(confidence=True, scores="float16")
"""What every block is made with: the same windows as ``terradapt predict`` takes."""


class Remembering(Wrapped):
    """A predictor that knows the scores of the windows it saw last: neighbouring blocks share some.

    Scores are kept as they are: rounded ones would not give the same map.

    Args:
        predictor: The inner one; its scores lie in main memory.
        recent: Where they are kept, under the name of the model.
        name: Of the model.
    """

    def __init__(
        self, predictor: Predictor, recent: Recent[NDArray[np.float32]], name: str
    ) -> None:
        super().__init__(predictor)
        self._recent, self._name = recent, name

    def predict(self, images: NDArray[np.uint8], /) -> Any:
        """Return the scores, which the caller may change."""
        seen = hashlib.blake2b(np.ascontiguousarray(images).data, digest_size=16).digest()
        key = self._name, images.shape, seen
        known = self._recent.get(key)
        if known is not None:
            return known.copy()
        scores = self.predictor.numpy(self.predictor.predict(images))
        self._recent.put(key, scores.copy(), scores.nbytes)
        return scores

    def asarray(self, array: NDArray[np.float32]) -> Any:
        """Return the array: scores are NumPy's from here on."""
        return array

    def numpy(self, array: Any) -> NDArray[Any]:
        """Return the array."""
        return np.asarray(array)


class Announced(Predictor):
    """A model that is not open yet: what its file says of itself.

    Args:
        meta: That.
    """

    def __init__(self, meta: Meta) -> None:
        self.meta = meta
        self.classes, self.spec, self.window = meta.classes, meta.spec, meta.window
        self.multiple = meta.window

    def predict(self, images: NDArray[np.uint8], /) -> Any:
        """Refuse: nothing can be predicted yet.

        Raises:
            ConflictError: Always.
        """
        raise ConflictError("the model is still being opened", "try again in a moment")


@dataclass(frozen=True)
class Model:
    """A model of the session.

    Attributes:
        path: Its file.
        sha256: Of the file.
        predictor: Opened, or :class:`Announced`.
    """

    path: Path
    sha256: str
    predictor: Predictor

    @classmethod
    def open(
        cls, path: Path, recent: Recent[NDArray[np.float32]] | None = None, **opening: Any
    ) -> Model:
        """Open a checkpoint or an exported model.

        Args:
            path: The file.
            recent: Where its scores of windows are kept for a while; its own without one.
            opening: As :func:`terradapt.export.fastest.load` takes it.

        Raises:
            CheckpointError: The file cannot be trusted, read or fitted.
        """
        predictor, sha256 = fastest.load(path, **opening), digest(path)
        if predictor.device.startswith("cpu"):
            predictor = Remembering(predictor, recent or Recent(REMEMBERED), sha256)
        return cls(path, sha256, predictor)

    @classmethod
    def announce(cls, path: Path) -> Model:
        """Return a model that is not open: at once, without torch.

        Raises:
            CheckpointError: The file cannot be trusted or read.
        """
        return cls(path, digest(path), Announced(predictors.announce(path)))

    @property
    def is_open(self) -> bool:
        """Whether it can predict."""
        return not isinstance(self.predictor, Announced)

    @property
    def quick(self) -> bool:
        """Whether a look made it: the next one takes its place."""
        return (self.path.parent / LOOK).is_file()

    @property
    def short(self) -> str:
        """The first digits of the hash."""
        return self.sha256[:12]


class ModelMap(Closing):
    """A scene under a model: the job and the blocks that are ready.

    Args:
        model: The model.
        scene: As ``predict`` takes it.
        folder: Of all stores.

    Raises:
        SceneError: The scene cannot be read, or does not fit the model.
    """

    def __init__(self, model: Model, scene: ScenePath, folder: Path) -> None:
        self.model = model
        self._stack = ExitStack()
        name = f"{model.path.name} {model.short}"
        try:
            self.job = open_job(model.predictor, scene, OPTIONS, name, self._stack)
            self.pyramid = Pyramid(self.job.source.height, self.job.source.width)
            made = [_FACTS, self.job.signature, model.sha256, self.job.stamp]
            key = hashlib.sha256(repr(made).encode())
            self.store = BlockStore(
                folder, key.hexdigest()[:32], self.pyramid, model.predictor.classes
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the scene."""
        self._stack.close()

    def predict(self, row: int, col: int) -> Ready:
        """Predict a block: the same pixels as in the file that ``predict`` writes.

        Raises:
            SceneError: A part of the scene that cannot be read.
        """
        block = self._region(self.pyramid.block(row, col))
        assert block.confidence is not None and block.scores is not None
        areas = np.bincount(
            block.classes.ravel(),
            self.job.source.georef.pixel_areas(block.window).ravel(),
            minlength=256,
        )
        doubt = _doubt(block)
        facts = {
            "uncertainty": sum(doubt.values()),
            "doubt": doubt,
            "areas": {str(k): float(areas[k]) for k in np.flatnonzero(areas[:IGNORE])},
        }
        ready = Ready(block.classes, quantized(block.confidence), facts)
        self.store.put(row, col, ready)
        return ready

    def scores(self, row: int, col: int) -> list[float] | None:
        """Return the probability of each class at a pixel, None without data.

        Raises:
            SceneError: A part of the scene that cannot be read.
        """
        block = self._region(Window(row, col, 1, 1))
        assert block.scores is not None
        values = block.scores[:, 0, 0]
        return None if np.isnan(values).any() else [float(v) for v in values]

    def _region(self, window: Window) -> Block:
        job = replace(self.job, wanted=replace(self.job.wanted, scores=True, confidence=True))
        work = job.blocks(window)
        try:
            (block,) = list(work)
        finally:
            work.close()
        return block


def _doubt(block: Block) -> dict[str, float]:
    """1 - (highest - second highest score), summed by class id, over the number of valid pixels."""
    assert block.scores is not None
    best = np.partition(block.scores, len(block.scores) - 2, axis=0)[-2:]
    unsure = 1 - (best[1] - best[0]).astype(np.float64)
    known = ~np.isnan(unsure)
    sums = np.bincount(block.classes[known], unsure[known], minlength=1) / max(1, known.sum())
    return {str(k): float(sums[k]) for k in np.flatnonzero(sums)}


Place = tuple[ModelMap, int, int]
"""A map and (row, column) of a block."""
Tell = Callable[[dict[str, Any]], None]
"""Called, in the worker's thread, with what happened."""


class Worker(Closing):
    """Predicts what is asked for, one thing at a time.

    Args:
        ready: Called with (map, row, column) when a block is.
        failed: Called with an error in words, and the map.
    """

    def __init__(
        self,
        ready: Callable[[ModelMap, int, int], None],
        failed: Callable[[ModelMap, TerradaptError], None],
    ) -> None:
        self._ready, self._failed = ready, failed
        self._wake = threading.Condition()
        self._first: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._view: list[Place] = []
        self._rest: list[Place] = []
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="predict", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End after the block that is being predicted."""
        with self._wake:
            self._ends = True
            self._view, self._rest = [], []
            for _, future in self._first:
                future.cancel()
            self._first = []
            self._wake.notify()
        self._thread.join()

    def look(self, maps: list[ModelMap], window: Window, most: int = 400) -> int:
        """Predict what lies in a window before all else; what was in view before is dropped.

        Args:
            maps: Of one scene; their blocks are predicted in turn.
            window: Pixels in view.
            most: Blocks at most.

        Returns:
            How many blocks are to be predicted.
        """
        centre = window.row + window.height / 2, window.col + window.width / 2
        wanted: list[tuple[float, int, Place]] = []
        for turn, shown in enumerate(maps):
            for row, col in shown.pyramid.blocks(window):
                if (row, col) not in shown.store:
                    area = shown.pyramid.block(row, col)
                    down = area.row + area.height / 2 - centre[0]
                    right = area.col + area.width / 2 - centre[1]
                    wanted.append((float(np.hypot(down, right)), turn, (shown, row, col)))
        wanted.sort(key=lambda w: w[:2])
        with self._wake:
            self._view = [place for _, _, place in wanted[:most]]
            self._wake.notify()
            return len(self._view)

    def also(self, places: list[Place]) -> None:
        """Predict these when nothing is in view, instead of what was asked so before."""
        with self._wake:
            self._rest = [(m, r, c) for m, r, c in places if (r, c) not in m.store]
            self._wake.notify()

    def ask(self, function: Callable[[], Any]) -> Future[Any]:
        """Do something with the model before the next block."""
        future: Future[Any] = Future()
        with self._wake:
            if self._ends:
                future.cancel()
            else:
                self._first.append((function, future))
            self._wake.notify()
        return future

    def drop(self, shown: ModelMap) -> None:
        """Forget a map; return when nothing of it is being predicted."""
        with self._wake:
            self._view = [p for p in self._view if p[0] is not shown]
            self._rest = [p for p in self._rest if p[0] is not shown]
        with suppress(BaseException):
            self.ask(lambda: None).result()

    @property
    def waiting(self) -> int:
        """Number of blocks in view that are not ready."""
        with self._wake:
            return len(self._view)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (self._first or self._view or self._rest or self._ends):
                    self._wake.wait()
                if self._ends:
                    return
                task = self._first.pop(0) if self._first else None
                place = None
                if task is None:
                    place = (self._view or self._rest).pop(0)
            if task is not None:
                function, future = task
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(function())
                    except BaseException as error:
                        future.set_exception(error)
            elif place is not None:
                self._predict(place)

    def _predict(self, place: Place) -> None:
        shown, row, col = place
        if (row, col) in shown.store:
            return
        try:
            shown.predict(row, col)
        except TerradaptError as error:
            self._stop(shown, error)
        except MemoryError:
            self._stop(
                shown,
                SceneError(
                    "the memory does not suffice to predict this place", "close other programs"
                ),
            )
        except Exception as fault:  # a library's, or ours: the worker lives on, the page hears it
            what = f"predicting failed: {type(fault).__name__}: {fault}"
            self._stop(shown, SceneError(what, "report it, with the scene if you can"))
        else:
            self._ready(shown, row, col)

    def _stop(self, shown: ModelMap, error: TerradaptError) -> None:
        """Tell once, and try no more of this map until it is looked at again."""
        with self._wake:
            self._view = [p for p in self._view if p[0] is not shown]
            self._rest = [p for p in self._rest if p[0] is not shown]
        self._failed(shown, error)
