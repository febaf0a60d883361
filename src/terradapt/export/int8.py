"""INT8 by ONNX Runtime: static QDQ, one scale per weight channel, calibrated on real windows.

Not every layer stands 8 bits. Each is quantized alone and the change of the scores is measured; the
worst stay in float until enough pixels keep their class, within a budget of bytes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.config import InputSpec
from terradapt.errors import MissingExtraError
from terradapt.export.onnx import INPUT, import_onnx
from terradapt.predictors.exported import normalize
from terradapt.progress import Advance

LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
TARGET = 0.99
"""Share of pixels that should keep their class."""
SMALLER = 3.55
"""The file shall be this many times smaller than the float one."""
TRIES = (0, 1, 2, 4, 8, 12, 16, 24, 32, 48)
"""Layers left in float, as they are tried."""
PROBES, PROBE_SIDE = 6, 256
"""Windows on which each layer alone is measured, and their side in px at most."""

INPUTS_WITH_ZERO_POINT = 3


def has_vnni() -> bool:
    """Say whether the processor multiplies 8-bit integers without a 16-bit saturation."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "asimddp"))


@dataclass
class Quantizer:
    """Quantizes one float file again and again with the same measured ranges.

    Args:
        source: The float model.
        folder: A folder for its working files.
        spec: Normalisation of the windows.
        images: Windows (N, C, S, S) to calibrate on.
    """

    source: Path
    folder: Path
    spec: InputSpec
    images: NDArray[np.uint8]
    layers: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        graph = import_onnx().load(str(self.source)).graph
        constants = {i.name: i.dims for i in graph.initializer}
        self.layers = tuple(
            node.name
            for node in graph.node
            if node.op_type in LAYERS and any(i in constants for i in node.input)
        )
        self.sizes = {
            node.name: int(sum(np.prod(constants[i]) for i in node.input if i in constants))
            for node in graph.node
            if node.name in self.layers
        }

    def quantize(self, path: Path, layers: Sequence[str]) -> Path:
        """Write the model with some layers in INT8; ranges are measured at the first call."""
        quantization = _quantization()
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it warns about each unused option
        try:
            quantization.quantize_static(
                str(self.source),
                str(path),
                _Reader(self.images, self.spec),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=not has_vnni(),
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=list(LAYERS),
                nodes_to_quantize=list(layers),
                calibration_cache_path=str(self.folder / "ranges.json"),
                extra_options={"CalibMovingAverage": True},
            )
        finally:
            root.setLevel(level)
        return path


class _Reader:
    """Feeds normalised windows to the calibration, one at a time."""

    def __init__(self, images: NDArray[np.uint8], spec: InputSpec) -> None:
        self._windows = iter(images)
        self._spec = spec

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._windows, None)
        return None if image is None else {INPUT: normalize(image[None], self._spec)}


def sensitivity(
    quantizer: Quantizer, run: Callable[[Path], NDArray[np.float32]], advance: Advance
) -> dict[str, float]:
    """Return the mean change of the scores when one layer alone is in INT8, the worst first.

    Args:
        quantizer: Of the float model.
        run: Opens a model file and returns its scores of the probes.
        advance: Called with 1 for each layer.
    """
    reference = run(quantizer.source)
    # the ranges of all layers are measured once, before a call that asks for one layer's only
    quantizer.quantize(quantizer.folder / "all.onnx", quantizer.layers)
    change = {}
    for layer in quantizer.layers:
        file = quantizer.quantize(quantizer.folder / "one.onnx", [layer])
        change[layer] = float(np.abs(run(file) - reference).mean())
        advance(1)
    return dict(sorted(change.items(), key=lambda pair: -pair[1]))


def choose(
    quantizer: Quantizer,
    change: dict[str, float],
    agreement: Callable[[Path], float],
    budget: int,
    advance: Advance,
) -> tuple[Path, tuple[str, ...], float]:
    """Leave the most sensitive layers in float, as few as reach the target within the budget.

    Args:
        quantizer: Of the float model.
        change: Layers, the most sensitive first.
        agreement: Share of pixels to which a file gives the float model's class.
        budget: Parameters that may stay in float.
        advance: Called with the tries that are done, or no longer needed.

    Returns:
        The best file, its float layers, and its agreement.
    """
    ranked = list(change)
    best: tuple[Path, tuple[str, ...], float] | None = None
    for done, number in enumerate(TRIES):
        kept = within(ranked[:number], quantizer.sizes, budget)
        file = quantizer.folder / f"float{number}.onnx"
        quantizer.quantize(file, [name for name in quantizer.layers if name not in kept])
        share = agreement(file)
        if best is None or share > best[2]:
            best = (file, kept, share)
        if share >= TARGET or number >= len(ranked):
            advance(len(TRIES) - done)
            break
        advance(1)
    assert best is not None
    return best


def within(names: Sequence[str], sizes: dict[str, int], budget: int) -> tuple[str, ...]:
    """Return the names, in their order, whose parameters together fit a budget; large ones drop."""
    kept, spent = [], 0
    for name in names:
        if spent + sizes[name] <= budget:
            kept.append(name)
            spent += sizes[name]
    return tuple(kept)


def slim(proto: Any) -> Any:
    """Drop zero points of 0, share equal scalars, shorten the tensors' names: dead weight.

    Vectors are not shared: OpenVINO would run the convolutions that read them in float.
    """
    _drop_zero_points(proto.graph)
    names = _share_scalars(proto.graph)
    _shorten(proto.graph, names)
    return proto


def _drop_zero_points(graph: Any) -> None:
    """Leave out the zero points of constants that are all 0, which is what none means."""
    numpy_helper = import_onnx().numpy_helper
    constants = {i.name: i for i in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < INPUTS_WITH_ZERO_POINT:
            continue
        point = constants.get(node.input[2])
        quantized = node.input[0] in constants and point is not None
        if quantized and not numpy_helper.to_array(point).any():
            del node.input[2]
    used = {name for node in graph.node for name in node.input}
    kept = [i for i in graph.initializer if i.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _share_scalars(graph: Any) -> dict[str, str]:
    """Keep one of equal scalars; return the new names of all constants."""
    first: dict[bytes, str] = {}
    names: dict[str, str] = {}
    kept = []
    for constant in graph.initializer:
        name, constant.name = constant.name, ""
        key = constant.SerializeToString() if not constant.dims else name.encode()
        if key not in first:
            first[key] = constant.name = f"c{len(first)}"
            kept.append(constant)
        names[name] = first[key]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return names


def _shorten(graph: Any, names: dict[str, str]) -> None:
    """Rename tensors in place, constants by ``names``; drop what only people read."""
    outer = {v.name for v in (*graph.input, *graph.output)}
    del graph.value_info[:]
    for number, node in enumerate(graph.node):
        for index, name in enumerate(node.output):
            if name and name not in outer:
                names[name] = f"t{number}_{index}"
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.name, node.doc_string = "", ""


def _quantization() -> Any:
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtraError("terradapt export --int8", "export") from error
    if "calibration_cache_path" not in inspect.signature(quantization.quantize_static).parameters:
        raise MissingExtraError("terradapt export --int8 (a newer onnxruntime)", "export")
    return quantization
