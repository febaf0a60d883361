"""One additive int64 confusion matrix and every figure that derives from it.

Windows, images, scenes and processes add up: ``Confusion(k) + Confusion(k)`` is exact, so the order
and the cutting of the pixels never change a figure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap
from terradapt.metrics.counting import CHUNK, counter_for


class Confusion:
    """Counts of (target, prediction) pairs; rows are targets, columns are predictions.

    Args:
        num_classes: K, 2..255.
        matrix: (K, K) counts to start from; zeros when missing.
    """

    def __init__(self, num_classes: int, matrix: NDArray[np.int64] | None = None) -> None:
        assert 2 <= num_classes <= IGNORE, f"{num_classes} classes"
        self.num_classes = num_classes
        if matrix is None:
            matrix = np.zeros((num_classes, num_classes), np.int64)
        assert matrix.shape == (num_classes, num_classes), matrix.shape
        self.matrix: NDArray[np.int64] = np.array(matrix, np.int64)

    def update(self, target: NDArray[Any], prediction: NDArray[Any]) -> Confusion:
        """Count the pixels of one target and its prediction.

        Args:
            target: Class ids of any shape; 255 is not counted.
            prediction: Class ids of the same shape; not looked at where the target is 255.

        Returns:
            Itself.

        Raises:
            ValueError: Shapes that differ, or an id that is no class.
        """
        if target.shape != prediction.shape:
            raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ")
        t, p = _as_bytes(target, "target"), _as_bytes(prediction, "prediction")
        count = counter_for(self.num_classes)
        for start in range(0, t.size, CHUNK):
            part = slice(start, start + CHUNK)
            self.matrix += count(t[part], p[part], self.num_classes)
        return self

    def __add__(self, other: Confusion) -> Confusion:
        assert self.num_classes == other.num_classes, (self.num_classes, other.num_classes)
        return Confusion(self.num_classes, self.matrix + other.matrix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Confusion) and bool(np.array_equal(self.matrix, other.matrix))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Confusion({self.num_classes}, pixels={self.pixels})"

    @property
    def pixels(self) -> int:
        """Number of counted pixels."""
        return int(self.matrix.sum())

    def metrics(self, classes: ClassMap) -> dict[str, Any]:
        """Return the figures of protocols.md section 2, fractions 0..1, never NaN.

        A class that is neither in the target nor in the prediction has no score: it is listed
        under ``absent``, stands with 0 in ``per_class`` and takes no part in the means. A class in
        the target that is never predicted, and the reverse, scores 0 and does take part. Means over
        nothing are 0.

        Args:
            classes: K names; the means run over ``classes.evaluated``.

        Returns:
            ``miou``, ``mf1``, ``precision``, ``recall``: means over the evaluated classes;
            ``oa``: share of all counted pixels that are right; ``oa_evaluated``: the same over the
            pixels whose target is an evaluated class (ISPRS without clutter); ``kappa``: Cohen's;
            ``pixels``: counted pixels; ``absent``: names; ``per_class``: name -> ``iou``, ``f1``,
            ``precision``, ``recall``, ``pixels`` (of the target), ``evaluated``, and ``absent``
            where it is so.
        """
        assert len(classes) == self.num_classes, (len(classes), self.num_classes)
        table = class_scores(self.matrix)
        present = table["support"] + table["predicted"] > 0
        used = [i for i in classes.evaluated if present[i]]
        keys = ("iou", "f1", "precision", "recall")
        means = {k: float(table[k][used].mean()) if used else 0.0 for k in keys}
        kept = list(classes.evaluated)
        hits = self.matrix.diagonal()
        return {
            "miou": means["iou"],
            "mf1": means["f1"],
            "precision": means["precision"],
            "recall": means["recall"],
            "oa": _share(hits.sum(), self.matrix.sum()),
            "oa_evaluated": _share(hits[kept].sum(), self.matrix[kept].sum()),
            "kappa": _kappa(self.matrix),
            "pixels": self.pixels,
            "absent": [classes.names[i] for i in classes.evaluated if not present[i]],
            "per_class": {
                name: {k: float(table[k][i]) for k in keys}
                | {"pixels": int(table["support"][i]), "evaluated": i in classes.evaluated}
                | ({} if present[i] else {"absent": True})
                for i, name in enumerate(classes.names)
            },
        }


def class_scores(matrix: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return per-class scores of (..., K, K) matrices; 0 where a denominator is 0.

    Returns:
        ``iou``, ``f1``, ``precision``, ``recall``: (..., K) float64, 0..1; ``support`` and
        ``predicted``: (..., K) pixels.
    """
    hits = matrix.diagonal(axis1=-2, axis2=-1).astype(np.float64)
    support, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    return {
        "iou": _shares(hits, support + predicted - hits),
        "f1": _shares(2 * hits, support + predicted),
        "precision": _shares(hits, predicted),
        "recall": _shares(hits, support),
        "support": support,
        "predicted": predicted,
    }


def _shares(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.zeros(part.shape, np.float64)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _kappa(matrix: NDArray[np.int64]) -> float:
    """Cohen's kappa; 0 for an empty matrix and where chance alone explains everything."""
    total = float(matrix.sum())
    if not total:
        return 0.0
    shares = matrix / total
    chance = float(shares.sum(axis=0) @ shares.sum(axis=1))
    return _share(float(np.trace(shares)) - chance, 1.0 - chance)


def _as_bytes(ids: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """Return ids as flat uint8; bool and wider integers are checked first."""
    flat = np.ascontiguousarray(ids).reshape(-1)
    if flat.dtype == np.uint8 or flat.size == 0:
        return flat.astype(np.uint8, copy=False)
    if flat.dtype.kind not in "biu":
        raise ValueError(f"{what} is {flat.dtype}, not class ids")
    if int(flat.min()) < 0 or int(flat.max()) > IGNORE:
        raise ValueError(f"{what} has ids outside 0..{IGNORE}: {flat.min()}..{flat.max()}")
    return flat.astype(np.uint8)
