"""TtaPredictor: the mean over turned and mirrored copies of each window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.scene.predictor import Predictor, Wrapped

View = tuple[int, bool]  # quarter turns, then mirrored columns
FLIPS: tuple[View, ...] = ((0, False), (0, True), (2, False), (2, True))
DIHEDRAL: tuple[View, ...] = tuple((turns, flip) for flip in (False, True) for turns in range(4))


class TtaPredictor(Wrapped):
    """Another predictor's mean score over views of each window (test-time augmentation).

    Turning the window turns the scores: with all eight views the prediction of a turned scene is
    the turned prediction, up to rounding.

    Args:
        predictor: What predicts one view.
        views: (quarter turns, mirrored) of each view; views with odd turns need square windows.
    """

    def __init__(self, predictor: Predictor, views: Sequence[View] = DIHEDRAL) -> None:
        assert views, "no views"
        super().__init__(predictor)
        self.views = tuple(views)

    def predict(self, images: NDArray[np.uint8], /) -> Any:
        """Return mean scores (B, K, H, W) on the wrapped predictor's device."""
        total: NDArray[np.float32] | None = None
        for view in self.views:
            turned = np.ascontiguousarray(apply(images, view))
            scores = undo(self.predictor.numpy(self.predictor.predict(turned)), view)
            total = scores.astype(np.float32) if total is None else total + scores
        assert total is not None
        return self.predictor.asarray(total / np.float32(len(self.views)))


def apply(array: NDArray[Any], view: View) -> NDArray[Any]:
    """Turn, then mirror, the last two axes of an array."""
    turned = np.rot90(array, view[0], axes=(-2, -1))
    return turned[..., ::-1] if view[1] else turned


def undo(array: NDArray[Any], view: View) -> NDArray[Any]:
    """Invert :func:`apply`."""
    mirrored = array[..., ::-1] if view[1] else array
    return np.rot90(mirrored, -view[0], axes=(-2, -1))
