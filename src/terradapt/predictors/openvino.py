"""OpenVinoPredictor: an exported model run by OpenVINO, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import CheckpointError, MissingExtraError
from terradapt.machine import cpu_threads
from terradapt.predictors.exported import ExportedPredictor, normalize, run_failure
from terradapt.predictors.onnx_file import REWRITE

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
KINDS = {"f32": "tensor(float)"}
MAX_COMPILED = 8  # shapes kept compiled


class OpenVinoPredictor(ExportedPredictor):
    """An exported model on the CPU through OpenVINO; each batch shape is compiled once.

    Args:
        path: A ``model.onnx`` that ``terradapt export`` wrote.
        threads: Threads; None takes the physical cores at hand.
        precision: ``fp32``, or ``bf16`` on processors that have it.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        CheckpointError: See :class:`ExportedPredictor`.
    """

    def __init__(
        self, path: str | Path, *, threads: int | None = None, precision: str = "fp32"
    ) -> None:
        openvino = _import_openvino()
        super().__init__(path)
        self.engine = "openvino"
        if precision != "fp32":
            self.engine, self.precision = f"openvino-{precision}", precision
        self._core = openvino.Core()
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or cpu_threads(),
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        }
        try:
            self._model = self._core.read_model(self._data)
        except Exception as error:  # OpenVINO raises bare RuntimeErrors of many kinds
            reason = str(error).strip().splitlines()[-1]
            raise CheckpointError(
                f"{self.path}: OpenVINO cannot load it ({reason})", REWRITE
            ) from error
        self._data = b""
        self._check_borders(
            [_border(i) for i in self._model.inputs], [_border(o) for o in self._model.outputs]
        )
        self._compiled: dict[tuple[int, ...], Any] = {}

    def predict(self, images: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Return softmax scores (B, K, H, W) float32 for pixels (B, C, H, W).

        Raises:
            SceneError: The images' bands or sides do not fit the model.
            MemoryError: The batch does not fit into memory.
        """
        self._check_images(images)
        x = normalize(images, self.spec)
        try:
            scores = self._request(x.shape).infer({0: x})[0]
        except Exception as error:  # as above
            raise run_failure(error, self.path) from error
        return self._checked(np.asarray(scores, np.float32), images)

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._compiled:
            while len(self._compiled) >= MAX_COMPILED:
                self._compiled.pop(next(iter(self._compiled)))
            model = self._model.clone()
            model.reshape(list(shape))
            compiled = self._core.compile_model(model, "CPU", self._options)
            self._compiled[shape] = compiled.create_infer_request()
        return self._compiled[shape]


def _border(port: Any) -> tuple[str, str, list[Any]]:
    kind = port.get_element_type().get_type_name()
    shape = [dim.get_length() if dim.is_static else str(dim) for dim in port.get_partial_shape()]
    return port.get_any_name(), KINDS.get(kind, kind), shape


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("the engine openvino", "openvino") from error
    return openvino
