"""One labelled image through a predictor, onto the label's own pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap
from terradapt.data.dataset import Dataset, Item
from terradapt.data.reading import ItemReader
from terradapt.evaluation.joining import JoinedClasses
from terradapt.evaluation.options import GEOSEG_PATCH, Protocol
from terradapt.evaluation.scoring import Scored, erode_labels
from terradapt.grid import Window
from terradapt.meta import Calibration
from terradapt.metrics.calibration import Reliability, without
from terradapt.metrics.per_image import grey_map
from terradapt.progress import Advance
from terradapt.raster import Scene
from terradapt.scene import PredictOptions, Predictor, predict_blocks
from terradapt.scene.stream import Block


@dataclass(frozen=True)
class Road:
    """The class with per-image figures: its id among the joined classes, and in the scores."""

    joined: int
    score: int


def score_item(
    dataset: Dataset,
    item: Item,
    predictor: Predictor,
    joined: JoinedClasses,
    protocol: Protocol,
    road: Road | None = None,
    full: Item | None = None,
    advance: Advance | None = None,
    trust: Trust | None = None,
) -> Scored:
    """Predict a whole image, blended as ``terradapt predict`` does, beside its label.

    Args:
        dataset: The item's dataset.
        item: The image and its label.
        predictor: The model.
        joined: Classes of labels and predictions.
        protocol: What is counted.
        road: Class whose probability is kept.
        full: The same image with its full label, where ``item`` has the eroded one.
        advance: Called with the pixels predicted.
        trust: Counts how far the scores can be believed.

    Raises:
        DataError: No label, one of another size, or unknown values in it.
        SceneError: The image cannot be read or does not fit the model.
    """
    with ItemReader(dataset, item, predictor.spec) as labelled:
        target = joined.labels[labelled.mask(labelled.window)]
        source: Scene = labelled
        target = erode_labels(target, protocol.erode)
        if protocol.geoseg_compat:
            source = PaddedReader(labelled, GEOSEG_PATCH)
            target = _padded(target, GEOSEG_PATCH)
        count = None if trust is None else partial(trust.add, target, joined)
        ids, grey = _predict(source, predictor, protocol, road, advance, count)
        ids = joined.predictions[ids]
        whole = None
        if full is not None:
            with ItemReader(dataset, full, predictor.spec) as reader:
                whole = joined.labels[reader.mask(reader.window)]
            whole = _padded(whole, GEOSEG_PATCH) if protocol.geoseg_compat else whole
            whole = _known(whole, ids)
        return Scored(
            item.id, _known(target, ids), ids, grey, labelled.resolution, whole, labelled.georef
        )


class Trust:
    """How far scores can be believed, beside what they would be without their calibration.

    Args:
        classes: The joined classes.
        calibration: The predictor's, if it has one.
    """

    def __init__(self, classes: ClassMap, calibration: Calibration | None) -> None:
        self.classes, self.calibration = classes, calibration
        self.after, self.before = Reliability(len(classes)), Reliability(len(classes))

    def add(self, target: NDArray[np.uint8], joined: JoinedClasses, block: Block) -> None:
        """Count a block against its image's label (H, W), joined ids."""
        assert block.scores is not None
        label = _known(target[block.window.slices], block.classes)
        self.after.update(label, self._joined(block.scores, joined))
        if self.calibration is not None:
            raw = without(block.scores, self.calibration)
            self.before.update(label, self._joined(raw, joined))

    def _joined(self, scores: NDArray[np.float32], joined: JoinedClasses) -> NDArray[np.float32]:
        spread = np.zeros((len(self.classes), *scores.shape[1:]), np.float32)
        spread[joined.predictions[: len(scores)]] = scores
        return spread

    def metrics(self) -> dict[str, Any]:
        """Return the figures, those before beside them where there is a calibration."""
        figures: dict[str, Any] = dict(self.after.figures())
        if self.calibration is not None:
            figures |= {f"{k}_before": v for k, v in self.before.figures().items()}
        return figures | {"ece_per_class": self.after.per_class(self.classes)}

    def tables(self) -> dict[str, list[dict[str, float | int]]]:
        """Return the reliability diagram's bins, by name."""
        if self.calibration is None:
            return {"not calibrated": self.after.table()}
        return {"before": self.before.table(), "after": self.after.table()}


class PaddedReader(Scene):
    """A scene that is continued to the right and below by black, valid pixels.

    Args:
        scene: The image; closed with this.
        multiple: Both sides become multiples of this, px.
    """

    def __init__(self, scene: Scene, multiple: int) -> None:
        self.path, self.files, self.dtype = scene.path, scene.files, scene.dtype
        self.block_height = scene.block_height
        height, width = (-(-n // multiple) * multiple for n in (scene.height, scene.width))
        self.georef = scene.georef.crop(Window(0, 0, height, width))
        self._scene = scene

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read (C, H, W) pixels and (H, W) valid."""
        pixels, valid = self._scene.read(window)
        rows = np.arange(window.row, window.bottom)[:, None]
        cols = np.arange(window.col, window.right)[None]
        outside = (rows >= self._scene.height) | (cols >= self._scene.width)
        inside = (rows < self.height) & (cols < self.width)
        return pixels, valid | (outside & inside)

    def close(self) -> None:
        """Close the image."""
        self._scene.close()

    @property
    def resolution(self) -> float | None:
        """Metres per pixel, as the image says."""
        return self._scene.resolution


def _predict(
    source: Scene,
    predictor: Predictor,
    protocol: Protocol,
    road: Road | None,
    advance: Advance | None,
    count: Callable[[Block], None] | None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    ids = np.full((source.height, source.width), IGNORE, np.uint8)
    grey = None if road is None else np.zeros(ids.shape, np.uint8)
    wanted = "float16" if count is not None or road is not None else None
    options = PredictOptions(scores=wanted, resolution=protocol.resolution)  # type: ignore[arg-type]
    for block in predict_blocks(source, predictor, options):
        ids[block.window.slices] = block.classes
        if count is not None:
            count(block)
        if grey is not None and road is not None:
            assert block.scores is not None
            probability = np.nan_to_num(block.scores[road.score])
            grey[block.window.slices] = grey_map(probability)
            if protocol.threshold != 0.5 and len(predictor.classes) == 2:
                chosen = np.where(probability > protocol.threshold, road.score, 1 - road.score)
                known = block.classes != IGNORE
                ids[block.window.slices] = np.where(known, chosen, IGNORE)
        if advance is not None:
            advance(block.window.height * block.window.width)
    return ids, grey


def _known(target: NDArray[np.uint8], ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(ids == IGNORE, np.uint8(IGNORE), target)


def _padded(target: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    below, right = (-n % multiple for n in target.shape)
    return np.pad(target, ((0, below), (0, right)))
