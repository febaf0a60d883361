"""Predictor: pixels in, class scores out. The waist between models and scenes."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import ClassMap
from terradapt.config import InputSpec
from terradapt.grid import Grid


class Predictor(Protocol):
    """What a scene is predicted with: torch, ONNX Runtime, OpenVINO, an ensemble, a test double.

    An array may live anywhere as long as it can be sliced, multiplied, added in place and asked
    for ``argmax(0)`` and ``max(0)``; NumPy's and torch's can.

    Attributes:
        classes: Names and colours of the K classes.
        spec: The bands and stretch that the model was trained on.
        window: Preferred side of a window, px.
        multiple: Sides of a window must be multiples of this.

    A predictor may have two more: ``streams``, how many calls of :meth:`predict` pay at once, each
    in a thread of its own; and ``share(count)``, which tells it in each of those threads that it
    is one of ``count``, and afterwards, with 1, that it is alone again.
    """

    classes: ClassMap
    spec: InputSpec
    window: int
    multiple: int

    def predict(self, images: NDArray[np.uint8]) -> Any:
        """Return scores (B, K, H, W), softmaxed, for pixels (B, C, H, W).

        The caller may change the scores in place.

        Raises:
            MemoryError: The batch does not fit; the caller tries half of it.
        """

    def asarray(self, array: NDArray[np.float32]) -> Any:
        """Bring blending weights to where the scores are."""

    def numpy(self, array: Any) -> NDArray[Any]:
        """Bring a result back."""


def told(predictor: Predictor, name: str, default: Any) -> Any:
    """Return an optional attribute of a predictor, or of the one that it wraps."""
    inner: Any = predictor
    while not hasattr(inner, name) and hasattr(inner, "predictor"):
        inner = inner.predictor
    return getattr(inner, name, default)


def device_of(predictor: Predictor) -> str:
    """Return the device that a predictor says it runs on."""
    return str(told(predictor, "device", "cpu"))


def on_host(predictor: Predictor) -> bool:
    """Tell whether scores lie in this machine's main memory, where NumPy sees them for free."""
    return device_of(predictor).startswith("cpu")


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
    return max(1, min(int(told(predictor, "streams", 1)), _MOST_STREAMS, fit))
