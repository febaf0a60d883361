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
from scipy.ndimage import distance_transform_edt

from terradapt.classes import IGNORE, ClassMap

_ROWS = 2048  # rows of one strip; a strip reads its neighbours' rows within the tolerance


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
        halo = int(np.ceil(reach)) + 1
        masked = np.where(target == IGNORE, np.uint8(IGNORE), prediction)
        for top in range(0, target.shape[0], _ROWS):
            first, last = max(0, top - halo), min(target.shape[0], top + _ROWS + halo)
            own = slice(top - first, min(top + _ROWS, target.shape[0]) - first)
            self._strip(target[first:last], masked[first:last], own, reach)
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

    def _strip(
        self, target: NDArray[np.uint8], predicted: NDArray[np.uint8], own: slice, reach: float
    ) -> None:
        edges_t, edges_p = boundary(target), boundary(predicted)
        for k in range(self.num_classes):
            t, p = edges_t & (target == k), edges_p & (predicted == k)
            self.counts[0, k] += np.count_nonzero(p[own])
            self.counts[1, k] += np.count_nonzero((p & _near(t, reach))[own])
            self.counts[2, k] += np.count_nonzero(t[own])
            self.counts[3, k] += np.count_nonzero((t & _near(p, reach))[own])


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


def _near(edges: NDArray[np.bool_], reach: float) -> NDArray[np.bool_]:
    """Return the pixels whose centre lies within ``reach`` px of an edge pixel's centre."""
    if not edges.any():
        return np.zeros(edges.shape, bool)
    near: NDArray[np.bool_] = distance_transform_edt(~edges) <= reach
    return near
