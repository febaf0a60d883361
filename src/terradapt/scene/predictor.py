"""Predictor: pixels in, class scores out. The waist between models and scenes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import ClassMap
from terradapt.config import InputSpec
from terradapt.errors import SceneError
from terradapt.grid import Grid
from terradapt.meta import Meta

RANK = 4


class Predictor(ABC):
    """What a scene is predicted with: torch, ONNX Runtime, OpenVINO, an ensemble, a test double.

    An array of scores may live anywhere as long as it can be sliced, multiplied and added in place;
    NumPy's and torch's can. The defaults are those of one that computes with NumPy.

    Attributes:
        classes: Names and colours of the K classes.
        spec: The bands and stretch that the model was trained on.
        window: Preferred side of a window, px.
        multiple: Sides of a window must be multiples of this.
        scales: Lowest and highest magnification of the training's crops.
        device: Where scores live, as torch names it; "cpu..." is this machine's main memory.
        engine: What runs the model, a name that :func:`terradapt.export.fastest.load` takes.
        precision: Of the arithmetic: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        streams: How many calls of :meth:`predict` pay at once, each in a thread of its own.
        parameters: Of the model, None where nobody counts them.
        meta: What the model's file says of itself, None without a file.
    """

    classes: ClassMap
    spec: InputSpec
    window: int
    multiple: int
    scales: tuple[float, float] = (1.0, 1.0)
    device: str = "cpu"
    engine: str = "own"
    precision: str = "fp32"
    streams: int = 1
    parameters: int | None = None
    meta: Meta | None = None

    @abstractmethod
    def predict(self, images: NDArray[np.uint8], /) -> Any:
        """Return scores (B, K, H, W), softmaxed, for pixels (B, C, H, W).

        The caller may change the scores in place.

        Raises:
            MemoryError: The batch does not fit; the caller tries half of it.
        """

    def check_images(self, images: Any, name: str = "the model") -> None:
        """Refuse what are no pixels of windows that the model can take.

        Args:
            images: What should be (B, C, H, W) uint8.
            name: What the error calls the model.

        Raises:
            SceneError: Another type, another number of axes or bands, or sides that do not fit.
        """
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
            raise SceneError(
                f"{name} takes pixels as NumPy arrays of uint8, 0 to 255, not {kind}",
                "give the pixels as the scene has them, np.uint8; the model itself normalises them",
            )
        if images.ndim != RANK or not images.size:
            raise SceneError(
                f"{name} takes images (B, C, H, W), not of shape {images.shape}",
                "add an axis for a single image: images[None]",
            )
        bands, height, width = images.shape[1:]
        if bands != len(self.spec.channels):
            takes, wide = len(self.spec.channels), self.spec.context
            raise SceneError(
                f"{name} takes {takes} bands, the images (B, C, H, W) have {bands}",
                "give imagery with the bands that it was trained on"
                + (f", and then those of the ground around, {wide} times as wide" if wide else "")
                + (", and last the metres per pixel as spec.level" if self.spec.film else ""),
            )
        if height % self.multiple or width % self.multiple:
            raise SceneError(
                f"{name} takes sides that are multiples of {self.multiple} px, "
                f"not {height} x {width}",
                f"use a window that is a multiple of {self.multiple} px",
            )

    def asarray(self, array: NDArray[np.float32]) -> Any:
        """Bring an array, such as blending weights, to where the scores are."""
        return array

    def numpy(self, array: Any) -> NDArray[Any]:
        """Bring a result back."""
        return np.asarray(array)

    def fetch(self, array: Any) -> Callable[[], NDArray[Any]]:
        """Begin to bring a result back without waiting for it; the call waits and returns it."""
        return lambda: self.numpy(array)

    def label(self, scores: Any) -> tuple[Any, Any]:
        """Return uint8 ids and float32 values (H, W) of the highest of (K, H, W) scores.

        They stay where the scores live. Of equal scores the first class counts.
        """
        return argmax(scores)

    def share(self, count: int) -> None:  # noqa: B027  one stream has nothing to share
        """Take the calling thread as one of ``count`` streams; with 1 it is alone again."""


class Wrapped(Predictor):
    """A predictor around another one, which speaks for it until a subclass says otherwise.

    Args:
        predictor: The inner one.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        for name in Predictor.__annotations__:
            setattr(self, name, getattr(predictor, name))

    def predict(self, images: NDArray[np.uint8], /) -> Any:
        """Return the inner one's scores."""
        return self.predictor.predict(images)

    def asarray(self, array: NDArray[np.float32]) -> Any:
        """Put an array where the inner one's scores live."""
        return self.predictor.asarray(array)

    def numpy(self, array: Any) -> NDArray[Any]:
        """Bring an array back."""
        return self.predictor.numpy(array)

    def fetch(self, array: Any) -> Callable[[], NDArray[Any]]:
        """Begin to bring an array back."""
        return self.predictor.fetch(array)

    def label(self, scores: Any) -> tuple[Any, Any]:
        """Label where the inner one's scores live."""
        return self.predictor.label(scores)

    def share(self, count: int) -> None:
        """Let the inner one share the cores."""
        self.predictor.share(count)


def argmax(scores: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return (H, W) ids and values of the highest of (K, H, W) scores; the first of equal ones.

    One pass per class over contiguous planes: an order of magnitude faster than NumPy's along the
    first axis.
    """
    best = scores[0].copy()
    classes = np.zeros(best.shape, np.uint8)
    for k in range(1, len(scores)):
        better = (scores[k] > best).view(np.uint8)
        np.multiply(better, np.uint8(k), out=better)
        np.maximum(classes, better, out=classes)
        np.maximum(best, scores[k], out=best)
    return classes, best


def on_host(predictor: Predictor) -> bool:
    """Tell whether scores lie in this machine's main memory, where NumPy sees them for free."""
    return predictor.device.startswith("cpu")


_HOST_PIXELS = 1 << 20  # in flight, all streams together
_MOST_STREAMS = 4


def default_batch(predictor: Predictor, window: int) -> int:
    """Return the windows per batch to begin with: by pixels, more on an accelerator.

    On the host a window of 512 px fills the caches alone. The batch depends on the window and the
    kind of device alone, so that a run can be repeated bit for bit.
    """
    pixels = _HOST_PIXELS // _MOST_STREAMS if on_host(predictor) else (1 << 23)
    return max(1, min(64, pixels // (window * window)))


def streams_for(predictor: Predictor, grid: Grid, batch: int) -> int:
    """Return how many batches the model works on at once: as many as memory and windows allow."""
    return max(1, min(most_streams(predictor, grid.window, batch), len(grid) // batch))


def most_streams(predictor: Predictor, window: int, batch: int) -> int:
    """Return how many batches of windows of a side (px) a large scene is predicted with at once."""
    fit = _HOST_PIXELS // (batch * window**2)
    return max(1, min(predictor.streams, _MOST_STREAMS, fit))
