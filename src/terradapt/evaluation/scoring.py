"""Scorer: labels and predictions of whole images in, every figure of the protocol out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from terradapt.classes import IGNORE, ClassMap
from terradapt.evaluation.options import Protocol
from terradapt.metrics.boundary import BoundaryF1, boundary
from terradapt.metrics.confusion import Confusion, class_scores
from terradapt.metrics.per_image import ImageHistogram, PerImage, grey_map
from terradapt.raster import Georef


@dataclass(frozen=True)
class Scored:
    """One image as arrays.

    Args:
        id: Its name in the per-image table.
        target: (H, W) ids, 255 not counted.
        prediction: (H, W) ids.
        grey: (H, W) grey levels of the road class's probability, or None.
        resolution: Metres per pixel, or None when unknown.
        full: (H, W) ids of the label with its borders, where ``target`` is eroded.
        georef: Where its pixels lie, or None.
    """

    id: str
    target: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    grey: NDArray[np.uint8] | None = None
    resolution: float | None = None
    full: NDArray[np.uint8] | None = None
    georef: Georef | None = None


class Scorer:
    """Adds up the figures of many images.

    Args:
        classes: K names.
        protocol: What is counted.
        road: Id of the class with per-image figures, or None.
    """

    def __init__(self, classes: ClassMap, protocol: Protocol, road: int | None = None) -> None:
        self.classes, self.protocol, self.road = classes, protocol, road
        self.confusion = Confusion(len(classes))
        self.per_image = PerImage(protocol.threshold, protocol.stretch)
        self.boundary = (
            None if protocol.boundary is None else BoundaryF1(len(classes), protocol.boundary)
        )
        self.full = Confusion(len(classes))
        self.rows: list[dict[str, Any]] = []
        self.matrices: dict[str, NDArray[np.int64]] = {}
        self.unmeasured: list[str] = []

    def add(self, image: Scored) -> dict[str, Any]:
        """Count one image and return its row of the per-image table."""
        one = Confusion(len(self.classes)).update(image.target, image.prediction)
        self.confusion = self.confusion + one
        self.matrices[image.id] = one.matrix
        row = {"id": image.id, **_image_figures(one, self.classes)}
        if self.road is not None and image.grey is not None:
            row |= self._road(image.target, image.grey)
        if self.boundary is not None:
            self._boundary(image)
        if image.full is not None:
            self.full.update(image.full, image.prediction)
        self.rows.append(row)
        return row

    def metrics(self) -> dict[str, Any]:
        """Return all figures; the per-class ones of the boundary stand beside the others."""
        figures = self.confusion.metrics(self.classes)
        if self.per_image.rows:
            figures |= self.per_image.metrics()
        if self.boundary is not None and len(self.unmeasured) < len(self.rows):
            edges = self.boundary.metrics(self.classes)
            for name, values in edges.pop("per_class").items():
                figures["per_class"][name] |= values
            figures |= edges
        if self.full.pixels:
            full = self.full.metrics(self.classes)
            figures |= {f"{k}_full_labels": full[k] for k in ("miou", "mf1", "oa")}
        return {k: v for k, v in figures.items() if k != "per_class"} | {
            "per_class": figures["per_class"]
        }

    def _road(self, target: NDArray[np.uint8], grey: NDArray[np.uint8]) -> dict[str, float]:
        binary = np.where(target == IGNORE, np.uint8(IGNORE), (target == self.road).view(np.uint8))
        scores = self.per_image.add(ImageHistogram().update(binary, grey))
        return {k: scores[k] for k in ("dice", "iou", "rlod", "mae") if k in scores}

    def _boundary(self, image: Scored) -> None:
        assert self.boundary is not None
        if image.resolution is None:
            self.unmeasured.append(image.id)
        else:
            self.boundary.update(image.target, image.prediction, image.resolution)


def score_images(
    pairs: Iterable[tuple[NDArray[np.uint8], NDArray[Any]]],
    classes: ClassMap,
    protocol: Protocol | None = None,
    *,
    resolution: float | None = None,
) -> dict[str, Any]:
    """Return the figures of arrays that are already at hand.

    Args:
        pairs: (target (H, W) ids with 255 ignored, prediction) per image. A prediction is (H, W)
            ids, or with two classes the (H, W) probability 0..1 of the second, as floats.
        classes: K names.
        protocol: What is counted; all labelled pixels when missing.
        resolution: Metres per pixel, for the boundary F1.
    """
    protocol = protocol or Protocol()
    road = road_class(classes, protocol.road)
    scorer = Scorer(classes, protocol, road)
    for index, (label, prediction) in enumerate(pairs):
        target = erode_labels(label, protocol.erode)
        if prediction.dtype.kind == "f":
            grey: NDArray[np.uint8] | None = grey_map(prediction)
            ids = (prediction > protocol.threshold).astype(np.uint8)
        else:
            ids = prediction.astype(np.uint8)
            grey = None if road is None else (ids == road).astype(np.uint8) * np.uint8(255)
        scorer.add(Scored(str(index), target, ids, grey, resolution))
    return scorer.metrics()


def road_class(classes: ClassMap, name: str | None) -> int | None:
    """Return the id of the class with per-image figures.

    Raises:
        DataError: No class has this name.
    """
    if name is not None:
        return classes.index(name)
    return 1 if len(classes) == 2 else None


def erode_labels(target: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Return a copy in which labels within ``pixels`` of another class are 255.

    As the ISPRS benchmark's disc: the pixels on both sides of a class border go, and all within
    ``pixels - 1`` of them.
    """
    edges = boundary(target) if pixels else np.zeros((1, 1), bool)
    if not edges.any():
        return target
    eroded = target.copy()
    eroded[distance_transform_edt(~edges) <= pixels - 1] = IGNORE
    return eroded


def _image_figures(confusion: Confusion, classes: ClassMap) -> dict[str, float]:
    table = class_scores(confusion.matrix)
    present = table["support"] + table["predicted"] > 0
    used = [i for i in classes.evaluated if present[i]]
    hits, total = confusion.matrix.trace(), confusion.matrix.sum()
    return {
        "miou": float(table["iou"][used].mean()) if used else 0.0,
        "oa": float(hits / total) if total else 0.0,
        "pixels": int(total),
    }
