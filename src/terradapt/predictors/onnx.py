"""OnnxPredictor: an exported model behind the Predictor protocol, without torch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from terradapt.config import InputSpec
from terradapt.errors import CheckpointError, SceneError
from terradapt.machine import cpu_threads
from terradapt.predictors.onnx_file import REWRITE, OnnxInfo, read_onnx

RANK = 4
LARGEST_COPY = 1 << 28
"""Bytes of a model that is kept in memory to be opened again."""
OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "out of memory")


def normalize(images: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Return ``(x / 255 - mean) / std`` of uint8 pixels (B, C, H, W) as float32, per band."""
    shape = (1, -1, 1, 1)
    mean = np.asarray(spec.mean, np.float32).reshape(shape) * np.float32(255)
    std = np.asarray(spec.std, np.float32).reshape(shape) * np.float32(255)
    x = images.astype(np.float32)
    x -= mean
    x /= std
    return x


class OnnxPredictor:
    """An exported model run by ONNX Runtime: uint8 pixels in, softmax scores out.

    Args:
        path: A ``model.onnx`` that ``terradapt export`` wrote.
        threads: Threads of one operator; None takes the physical cores at hand.
        providers: ONNX Runtime's execution providers, best first.

    Attributes:
        streams: Calls of :meth:`predict` that pay at once; on a CPU a core each.

    Raises:
        CheckpointError: No such model: see :func:`terradapt.predictors.onnx_file.read_onnx`; or a
            graph whose input and output do not fit what its metadata says.
    """

    engine = "onnxruntime"

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        self.path = Path(path)
        self._data, self.info = read_onnx(self.path)
        self.classes, self.spec = self.info.classes, self.info.spec
        self.window, self.multiple = self.info.window, self.info.multiple
        self._providers = list(providers)
        self._threads = self._held = self._wanted = threads or cpu_threads()
        self._lock = threading.Lock()
        self._session = self._open(self._threads)
        self.streams = self._threads
        if providers[0] != "CPUExecutionProvider" or len(self._data) > LARGEST_COPY:
            self.streams, self._data = 1, b""
        self._input, self.size = check_borders(
            [(i.name, i.type, i.shape) for i in self._session.get_inputs()],
            [(o.name, o.type, o.shape) for o in self._session.get_outputs()],
            self.info,
            self.path,
        )

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return softmax scores (B, K, H, W) float32 for pixels (B, C, H, W).

        Raises:
            SceneError: The images' bands or sides do not fit the model.
            MemoryError: The batch does not fit into memory.
        """
        check_images(images, self.info, self.size, self.path)
        x, session = normalize(images, self.spec), self._opened()
        try:
            (scores,) = session.run(None, {self._input: x})
        except Exception as error:  # as above
            raise run_failure(error, self.path) from error
        return check_scores(scores, images, self.info, self.path)

    def share(self, count: int) -> None:
        """Give each call its part of the cores from the next one on, as one of ``count``."""
        if self.streams > 1:
            self._wanted = max(1, self._threads // count)

    def asarray(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the array: scores live in main memory."""
        return array

    def numpy(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array."""
        return array

    def _opened(self) -> ort.InferenceSession:
        """Return the session; one with other threads takes its place when they are wanted."""
        with self._lock:
            if self._held != self._wanted:
                self._session = self._open(self._wanted)
                self._held = self._wanted
            return self._session

    def _open(self, threads: int) -> ort.InferenceSession:
        try:
            return ort.InferenceSession(self._data, session_options(threads), self._providers)
        except Exception as error:  # ORT's exceptions share no public base
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{self.path}: ONNX Runtime cannot load it ({reason})", REWRITE
            ) from error


def check_borders(
    inputs: list[tuple[str, str, list[Any]]],
    outputs: list[tuple[str, str, list[Any]]],
    info: OnnxInfo,
    path: Path,
) -> tuple[str, int | None]:
    """Compare a graph's input and output with its metadata.

    Args:
        inputs: (name, type, shape) of each; a dimension is an integer or a name.
        outputs: As the inputs.
        info: What the file says of itself.
        path: The file, for the errors.

    Returns:
        The input's name and the fixed side in px, None when any side will do.

    Raises:
        CheckpointError: They do not fit.
    """
    bands, count = len(info.spec.bands), len(info.classes)
    kinds = [k for _, k, _ in (*inputs, *outputs)]
    if len(inputs) != 1 or len(outputs) != 1 or set(kinds) != {"tensor(float)"}:
        raise _misfit(path, f"{len(inputs)} inputs and {len(outputs)} outputs, {kinds}")
    (name, _, shape), (_, _, answer) = inputs[0], outputs[0]
    if len(shape) != RANK or shape[1] != bands:
        raise _misfit(path, f"an input of {shape} for {bands} bands")
    if len(answer) != RANK or (isinstance(answer[1], int) and answer[1] != count):
        raise _misfit(path, f"an output of {answer} for {count} classes")
    fixed = [side for side in (*shape[2:], *answer[2:]) if isinstance(side, int)]
    if any(side != info.window for side in fixed):
        raise _misfit(path, f"sides of {fixed} px for a window of {info.window} px")
    return name, info.window if fixed else None


def check_images(images: NDArray[np.uint8], info: OnnxInfo, size: int | None, path: Path) -> None:
    """Refuse images (B, C, H, W) that the model cannot take.

    Raises:
        SceneError: Bands or sides do not fit.
    """
    height, width = images.shape[2:]
    if images.shape[1] != len(info.spec.bands):
        raise SceneError(
            f"{path} takes {len(info.spec.bands)} bands, the images have {images.shape[1]}",
            "give imagery with the bands that it was trained on",
        )
    if size is not None and (height, width) != (size, size):
        raise SceneError(
            f"{path} takes windows of {size} x {size} px, not {height} x {width}",
            f"use a window of {size} px",
        )
    if height % info.multiple or width % info.multiple:
        raise SceneError(
            f"{path} takes sides that are multiples of {info.multiple} px, not {height} x {width}",
            f"use a window that is a multiple of {info.multiple} px",
        )


def check_scores(
    scores: NDArray[np.float32], images: NDArray[np.uint8], info: OnnxInfo, path: Path
) -> NDArray[np.float32]:
    """Return scores (B, K, H, W) that fit images (B, C, H, W).

    Raises:
        CheckpointError: They do not fit.
    """
    expected = (images.shape[0], len(info.classes), *images.shape[2:])
    if scores.shape != expected:
        raise _misfit(path, f"scores of {scores.shape}, not {expected}")
    return scores


def run_failure(error: Exception, path: Path) -> Exception:
    """Say why a run failed: out of memory, or a graph that cannot run."""
    text = str(error)
    if any(sign.lower() in text.lower() for sign in OUT_OF_MEMORY):
        return MemoryError(text)
    return CheckpointError(f"{path}: its graph cannot run ({text.splitlines()[0]})", REWRITE)


def _misfit(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: its graph does not fit its metadata: {what}", REWRITE)


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Return options for a small machine: one operator at a time on the physical cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cpu_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # failures come as exceptions
    return options
