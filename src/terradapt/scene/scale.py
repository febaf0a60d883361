"""The scale of a scene that does not say its metres per pixel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import SceneError
from terradapt.grid import Window
from terradapt.raster import Scene
from terradapt.scene.predictor import Predictor
from terradapt.scene.resample import Resampled

STEPS = tuple(2.0 ** (k / 2) for k in range(-4, 5))
"""Pixels of the scene to one that the model sees: a quarter to four, half an octave apart."""
_PLACES = 9  # windows looked at for each
_LEAST_VALID = 0.5  # share of a window that must have data
_LEAST_SIDE = 64  # px that the model sees at least


def search_scale(scene: Scene, predictor: Predictor, inner: int) -> float:
    """Return how many pixels of a scene the model best sees as one.

    Looked for is the scale at which the scores say most: the mutual information of pixel and class,
    the entropy of the mean scores minus the mean of the entropies, over a few windows. The mean
    margin alone would choose a scale at which the model is sure that everything is background.

    Args:
        scene: Any, read with the predictor's spec.
        predictor: The model; its scores are best calibrated.
        inner: Side of the window that the model sees, px.

    Returns:
        One of :data:`STEPS`, the same for the same scene and model.

    Raises:
        SceneError: The scene is too small, or has no data where it is looked at.
    """
    told: dict[float, float] = {}
    for step in STEPS:
        side = min(round(inner * step), scene.height, scene.width)
        seen = int(side / step) // predictor.multiple * predictor.multiple
        if seen < min(_LEAST_SIDE, inner):
            continue
        suited = Resampled(predictor, side, seen)
        scores = [
            predictor.numpy(suited.predict(pixels[None]))[0] for pixels in _looks(scene, side)
        ]
        if scores:
            told[step] = information(scores)
    if not told:
        raise SceneError(
            f"{scene.path}: too small, or without data, to find its scale by looking at it",
            "georeference it (CRS and pixel size), or give --resolution native",
        )
    return max(told, key=told.__getitem__)


def information(scores: list[NDArray[np.float32]]) -> float:
    """Return the mutual information of pixel and class of scores (K, H, W), nats."""
    mean = np.mean([s.mean((1, 2)) for s in scores], axis=0)
    single = np.mean([_entropy(s, 0).mean() for s in scores])
    return float(_entropy(mean, 0) - single)


def _looks(scene: Scene, side: int) -> Iterator[NDArray[np.uint8]]:
    """Pixels (C, side, side) of places spread over the scene that have data."""
    count = round(_PLACES**0.5)
    rows, cols = (
        np.unique(np.linspace(0, n - side, count).round().astype(int))
        for n in (scene.height, scene.width)
    )
    for row in rows:
        for col in cols:
            pixels, valid = scene.read(Window(int(row), int(col), side, side))
            if valid.mean() >= _LEAST_VALID:
                yield pixels


def _entropy(p: NDArray[np.floating], axis: int) -> NDArray[np.floating]:
    logs = np.log(np.maximum(p, np.finfo(np.float32).tiny))
    entropy: NDArray[np.floating] = -(p * logs).sum(axis)
    return entropy
