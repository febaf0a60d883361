"""Boundary F1 at a tolerance in metres, additive over images.

A pixel is on the boundary of its class when one of its four neighbours is labelled with another
class; ignored pixels and the image's edge make no boundary. Precision is the share of predicted
boundary pixels within the tolerance of a target boundary pixel of the same class, recall the
reverse (Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013,
here with counts summed over the images).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from terradapt.classes import IGNORE, ClassMap


class BoundaryF1:
    """Counts of boundary pixels, per class: predicted, of them near, target, of them near.

    Args:
        num_classes: K.
        tolerance: Metres between pixel centres; below one pixel only exact hits count.
    """

    def __init__(self, num_classes: int, tolerance: float) -> None:
        assert tolerance >= 0, tolerance
        self.num_classes = num_classes
        self.tolerance = tolerance
        self.counts = np.zeros((4, num_classes), np.int64)

    def update(
        self, target: NDArray[np.uint8], prediction: NDArray[np.uint8], resolution: float
    ) -> BoundaryF1:
        """Count one image.

        Args:
            target: (H, W) ids; 255 is not counted.
            prediction: (H, W) ids.
            resolution: Metres per pixel of both.

        Returns:
            Itself.
        """
        assert target.shape == prediction.shape and target.ndim == 2, target.shape
        reach = self.tolerance / resolution + 1e-6  # 0.3 m at 0.1 m/px is 3 px
        masked = np.where(target == IGNORE, np.uint8(IGNORE), prediction)
        wanted, said = boundary(target), boundary(masked)
        for k in range(self.num_classes):
            t, p = np.argwhere(wanted & (target == k)), np.argwhere(said & (masked == k))
            self.counts[:, k] += len(p), _near(p, t, reach), len(t), _near(t, p, reach)
        return self

    def __add__(self, other: BoundaryF1) -> BoundaryF1:
        assert (self.num_classes, self.tolerance) == (other.num_classes, other.tolerance)
        total = BoundaryF1(self.num_classes, self.tolerance)
        total.counts = self.counts + other.counts
        return total

    def metrics(self, classes: ClassMap) -> dict[str, Any]:
        """Return boundary scores, fractions 0..1, never NaN.

        A class without a boundary in target and prediction is left out of the mean and stands
        with 0; means over nothing are 0.

        Returns:
            ``boundary_f1``: mean over the evaluated classes; ``boundary_tolerance_m``;
            ``per_class``: name -> ``boundary_f1``, ``boundary_precision``, ``boundary_recall``.
        """
        predicted, right, wanted, found = self.counts.astype(np.float64)
        zero = np.zeros(self.num_classes)
        precision = np.divide(right, predicted, out=zero.copy(), where=predicted > 0)
        recall = np.divide(found, wanted, out=zero.copy(), where=wanted > 0)
        both = precision + recall
        f1 = np.divide(2 * precision * recall, both, out=zero.copy(), where=both > 0)
        used = [i for i in classes.evaluated if predicted[i] + wanted[i] > 0]
        return {
            "boundary_f1": float(f1[used].mean()) if used else 0.0,
            "boundary_tolerance_m": self.tolerance,
            "per_class": {
                name: {
                    "boundary_f1": float(f1[i]),
                    "boundary_precision": float(precision[i]),
                    "boundary_recall": float(recall[i]),
                }
                for i, name in enumerate(classes.names)
            },
        }


def boundary(ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where (H, W) ids touch another class, both sides of the border, 255 left out."""
    edges = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        a, b = np.moveaxis(ids, axis, 0)[:-1], np.moveaxis(ids, axis, 0)[1:]
        differ = (a != b) & (a != IGNORE) & (b != IGNORE)
        moved = np.moveaxis(edges, axis, 0)
        moved[:-1] |= differ
        moved[1:] |= differ
    return edges


def _near(points: NDArray[np.int64], others: NDArray[np.int64], reach: float) -> int:
    """Count the (N, 2) points with one of the others within ``reach`` px, centre to centre."""
    if not len(points) or not len(others):
        return 0
    distance, _ = cKDTree(others).query(points, distance_upper_bound=reach, workers=-1)
    return int(np.count_nonzero(np.isfinite(distance)))
