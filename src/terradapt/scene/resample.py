"""Let the model see its own metres per pixel while windows stay on the scene's grid."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import ConfigError
from terradapt.raster import Scene
from terradapt.scene.options import PredictOptions
from terradapt.scene.predictor import Predictor, Wrapped, on_host

TOLERANCE = 0.05
"""Magnifications this share beyond those of the training are taken as seen."""
_LIMITS = (1 / 16, 16.0)


class Resampled(Wrapped):
    """A predictor that shrinks or stretches each window to the wrapped one's window, and back.

    Both ways are matrices whose rows sum to 1, so the partition of unity holds as before.

    Args:
        predictor: Takes windows of ``inner`` px.
        outer: Side of a window on the scene's grid, px.
        inner: Side of a window that the model sees, px.
    """

    def __init__(self, predictor: Predictor, outer: int, inner: int) -> None:
        super().__init__(predictor)
        self.inner, self.window, self.multiple = inner, outer, 1

    def predict(self, images: NDArray[np.uint8], /) -> Any:
        """Return scores at the size of the images."""
        size = images.shape[-1]
        inner = self.inner_side(size)
        shrink, grow = resize_matrix(size, inner), resize_matrix(inner, size)
        x = shrink @ images.astype(np.float32) @ shrink.T
        small = np.clip(np.rint(x), 0, 255).astype(np.uint8)
        scores, put = self.predictor.predict(small), self.asarray
        if on_host(self):
            return put(grow @ self.numpy(scores) @ grow.T)
        return put(grow) @ scores @ put(np.ascontiguousarray(grow.T))

    def inner_side(self, size: int) -> int:
        """Return the model's side of a window, which may be cut down to a small scene, px."""
        if size == self.window:
            return self.inner
        multiple = max(1, self.predictor.multiple)
        wished = size * self.inner / self.window
        return int(max(1, -(-wished // multiple)) * multiple)


class Levelled(Wrapped):
    """A predictor that tells the wrapped one the metres per pixel of a scene, as a channel.

    Args:
        predictor: Takes one channel more; where it resamples, it knows by how much.
        metres: Per pixel of the scene; None: those of the training are taken.
    """

    def __init__(self, predictor: Predictor, metres: float | None) -> None:
        super().__init__(predictor)
        seen = metres
        if metres and isinstance(predictor, Resampled):
            seen = metres * predictor.window / predictor.inner
        self.level = self.spec.level(seen)

    def predict(self, images: NDArray[np.uint8], /) -> Any:
        """Return the inner one's scores for images (B, C, H, W) without that channel."""
        return self.predictor.predict(with_level(images, self.level))


def levelled(predictor: Predictor, metres: float | None) -> Predictor:
    """Wrap a predictor whose model is told the scale; any other as it is."""
    return Levelled(predictor, metres) if predictor.spec.film else predictor


def with_level(images: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """Return images (..., C, H, W) with one more channel of one value."""
    plane = np.full_like(images[..., :1, :, :], level)
    return np.concatenate([images, plane], -3)


@lru_cache(maxsize=8)
def resize_matrix(source: int, target: int) -> NDArray[np.float32]:
    """Return the (target, source) matrix of an antialiased linear resize; its rows sum to 1.

    A triangle of the larger of both pixel sizes, as Pillow's and torch's antialiased bilinear.
    """
    scale = source / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(source)[None] - centres[:, None]) / reach
    weights = np.maximum(0.0, 1.0 - distance)
    weights /= weights.sum(1, keepdims=True)
    matrix: NDArray[np.float32] = weights.astype(np.float32)
    return matrix


def fitted(predictor: Predictor, options: PredictOptions, have: float | None) -> Predictor:
    """Wrap a predictor for a scene whose resolution is not the model's.

    ``auto`` leaves a scene as it is while its magnification lies within those of the training's
    random resized crops (a predictor's ``scales``): there the model reads the
    pixels themselves better than resampled ones.

    Args:
        predictor: The model.
        options: ``resolution`` says what the model should see.
        have: Metres per pixel of the scene, or None.

    Returns:
        The predictor itself where nothing is to be done.
    """
    wish = "auto" if options.resolution == "search" else options.resolution
    low, high = predictor.scales if wish == "auto" else (1.0, 1.0)
    want = predictor.spec.resolution if wish == "auto" else None if wish == "native" else wish
    if want is None or have is None or not isinstance(want, (int, float)):
        return predictor
    factor = min(max(want / have, _LIMITS[0]), _LIMITS[1])
    inner = options.window or predictor.window
    outer = max(1, round(inner * factor))
    seen = low * (1 - TOLERANCE) <= factor <= high * (1 + TOLERANCE)
    return predictor if seen or outer == inner else Resampled(predictor, outer, inner)


def magnified(predictor: Predictor, options: PredictOptions, factor: float) -> Predictor:
    """Wrap a predictor so that ``factor`` pixels of the scene are one of the model's."""
    inner = options.window or predictor.window
    outer = max(1, round(inner * factor))
    return predictor if outer == inner else Resampled(predictor, outer, inner)


def scale_notes(scene: Scene, predictor: Predictor, options: PredictOptions) -> list[str]:
    """Return what a reader of the map should know of the scales of scene and model.

    Raises:
        ConfigError: A resolution is asked for, and the scene does not say its own.
    """
    trained, have = predictor.spec.resolution, scene.resolution
    state = "georeference it (CRS and pixel size), or resample it to the model's pixel size"
    if have is None and isinstance(options.resolution, (int, float)):
        raise ConfigError(
            f"{scene.path}: does not say its metres per pixel, so that it cannot be resampled to "
            f"{options.resolution:g}",
            f"{state}; or use --resolution search, which looks for the scale",
        )
    if options.resolution not in ("auto", "search"):
        return []
    if have is None and options.resolution == "auto" and trained is not None:
        return [
            f"{scene.path}: does not say its metres per pixel and is read as it is, the model was "
            f"trained at {trained:.3g}; where the scales differ, the map suffers: {state}, or add "
            "--resolution search"
        ]
    if have is not None and trained is None:
        return [
            f"{scene.path}: nothing is resampled, for the model does not say the metres per pixel "
            "of its training; where the scales differ, the map suffers"
        ]
    return []
