"""OnnxPredictor: an exported model behind the Predictor protocol, without torch."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from terradapt.errors import CheckpointError
from terradapt.machine import cpu_threads
from terradapt.predictors.exported import ExportedPredictor, normalize, run_failure
from terradapt.predictors.onnx_file import REWRITE

LARGEST_COPY = 1 << 28
"""Bytes of a model that is kept in memory to be opened again."""


class OnnxPredictor(ExportedPredictor):
    """An exported model run by ONNX Runtime: uint8 pixels in, softmax scores out.

    Args:
        path: A ``model.onnx`` that ``terradapt export`` wrote.
        threads: Threads of one operator; None takes the physical cores at hand.
        providers: ONNX Runtime's execution providers, best first.

    Attributes:
        streams: Calls of :meth:`predict` that pay at once; on a CPU a core each.

    Raises:
        CheckpointError: See :class:`ExportedPredictor`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        super().__init__(path)
        cpu = providers[0] == "CPUExecutionProvider"
        self.engine = "onnxruntime" if cpu else "onnxruntime-cuda"
        self._providers = list(providers)
        self._threads = self._held = self._wanted = threads or cpu_threads()
        self._lock = threading.Lock()
        self._session = self._open(self._threads)
        self.streams = self._threads
        if not cpu or len(self._data) > LARGEST_COPY:
            self.streams, self._data = 1, b""
        try:
            inputs = [(i.name, i.type, i.shape) for i in self._session.get_inputs()]
            outputs = [(o.name, o.type, o.shape) for o in self._session.get_outputs()]
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: has a name that is no text", REWRITE) from error
        self._input = self._check_borders(inputs, outputs)

    def predict(self, images: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Return softmax scores (B, K, H, W) float32 for pixels (B, C, H, W).

        Raises:
            SceneError: The images' bands or sides do not fit the model.
            MemoryError: The batch does not fit into memory.
        """
        self._check_images(images)
        x, session = normalize(images, self.spec), self._opened()
        try:
            (scores,) = session.run(None, {self._input: x})
        except Exception as error:  # as below
            raise run_failure(error, self.path) from error
        return self._checked(scores, images)

    def share(self, count: int) -> None:
        """Give each call its part of the cores from the next one on, as one of ``count``."""
        if self.streams > 1:
            self._wanted = max(1, self._threads // count)

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


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Return options for a small machine: one operator at a time on the physical cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cpu_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # failures come as exceptions
    return options
