"""ExportedPredictor: what the engines that run an exported model share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.config import InputSpec
from terradapt.errors import CheckpointError, SceneError
from terradapt.predictors.onnx_file import REWRITE, read_onnx
from terradapt.scene import Predictor
from terradapt.scene.predictor import RANK

OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "out of memory")
Border = tuple[str, str, list[Any]]
"""Name, type and shape of an input or output; a dimension is an integer or a name."""


class ExportedPredictor(Predictor):
    """An exported model that speaks for its checkpoint; it is refused where its graph disagrees.

    Args:
        path: A ``model.onnx`` that ``terradapt export`` wrote.

    Raises:
        CheckpointError: No such model: see :func:`terradapt.predictors.onnx_file.read_onnx`; or a
            graph whose input and output do not fit what its metadata says; or one that ends in
            class ids: windows are blended by their scores.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._data, self.meta = read_onnx(self.path)
        if self.meta.argmax:
            raise CheckpointError(
                f"{self.path}: ends in class ids (--argmax), for other programs; terradapt blends "
                "its windows by their scores",
                "export it without --argmax: terradapt export CHECKPOINT -o model.onnx",
            )
        self.classes, self.spec, self.scales = self.meta.classes, self.meta.spec, self.meta.scales
        self.window, self.multiple = self.meta.window, self.meta.multiple
        self.precision, self.parameters = self.meta.precision, self.meta.parameters
        self.fixed = False

    def _check_borders(self, inputs: list[Border], outputs: list[Border]) -> str:
        """Compare a graph's input and output with the metadata; return the input's name."""
        bands, count = len(self.spec.bands), len(self.classes)
        kinds = [k for _, k, _ in (*inputs, *outputs)]
        if len(inputs) != 1 or len(outputs) != 1 or set(kinds) != {"tensor(float)"}:
            raise self._misfit(f"{len(inputs)} inputs and {len(outputs)} outputs, {kinds}")
        (name, _, shape), (_, _, answer) = inputs[0], outputs[0]
        if len(shape) != RANK or shape[1] != bands:
            raise self._misfit(f"an input of {shape} for {bands} bands")
        if len(answer) != RANK or (isinstance(answer[1], int) and answer[1] != count):
            raise self._misfit(f"an output of {answer} for {count} classes")
        sides = [side for side in (*shape[2:], *answer[2:]) if isinstance(side, int)]
        if any(side != self.window for side in sides):
            raise self._misfit(f"sides of {sides} px for a window of {self.window} px")
        self.fixed = bool(sides)
        return name

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        """Refuse what are no images (B, C, H, W) that the graph can take."""
        self.check_images(images, str(self.path))
        height, width = images.shape[2:]
        if self.fixed and (height, width) != (self.window, self.window):
            raise SceneError(
                f"{self.path} takes windows of {self.window} x {self.window} px, "
                f"not {height} x {width}",
                f"use a window of {self.window} px",
            )

    def _checked(
        self, scores: NDArray[np.float32], images: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Return scores (B, K, H, W) that fit images (B, C, H, W)."""
        expected = (images.shape[0], len(self.classes), *images.shape[2:])
        if scores.shape != expected:
            raise self._misfit(f"scores of {scores.shape}, not {expected}")
        return scores

    def _misfit(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: its graph does not fit its metadata: {what}", REWRITE)


def normalize(images: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Return ``(x / 255 - mean) / std`` of uint8 pixels (B, C, H, W) as float32, per band."""
    shape = (1, -1, 1, 1)
    mean = np.asarray(spec.mean, np.float32).reshape(shape) * np.float32(255)
    std = np.asarray(spec.std, np.float32).reshape(shape) * np.float32(255)
    x = images.astype(np.float32)
    x -= mean
    x /= std
    return x


def run_failure(error: Exception, path: Path) -> Exception:
    """Say why a run failed: out of memory, or a graph that cannot run."""
    text = str(error)
    if any(sign.lower() in text.lower() for sign in OUT_OF_MEMORY):
        return MemoryError(text)
    return CheckpointError(f"{path}: its graph cannot run ({text.splitlines()[0]})", REWRITE)
