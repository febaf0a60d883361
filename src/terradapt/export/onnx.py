"""A model as one ONNX file: opset 17, IR 8, no external data, softmax inside.

Opset 17 and IR 8 are what ONNX Runtime 1.17 inside QGIS still reads; the tracing exporter writes
them, the newer one cannot go below opset 18. The graph takes normalised floats, as Deepness feeds.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from terradapt.errors import MissingExtraError
from terradapt.files import replacing
from terradapt.meta import Calibration
from terradapt.models.contract import SegmentationModel
from terradapt.models.encoder import VitEncoder, is_sam2, is_vit

OPSET = 17
IR_VERSION = 8
INPUT, OUTPUT = "image", "scores"
CLASSES = "classes"
"""The output of a graph that ends in class ids."""


class ScoresOnly(nn.Module):
    """A model from normalised pixels (B, C, H, W) to softmax scores (B, K, H, W)."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K, H, W), which sum to 1 at each pixel."""
        scores: Tensor = self.model(x).logits.softmax(1)
        return scores


def export_onnx(
    model: SegmentationModel,
    path: str | Path,
    *,
    channels: int,
    window: int,
    fixed: bool,
    metadata: Mapping[str, str] | None = None,
    calibration: Calibration | None = None,
) -> int:
    """Write a model as one ONNX file, beside its place and then renamed.

    Args:
        model: A model of the registry, on any device; it is not changed.
        path: File to write.
        channels: C, the model's bands.
        window: Side that is traced, px, a multiple of the model's; the only one when ``fixed``.
        fixed: Fix the sides; the batch is always dynamic.
        metadata: Texts to store in ``metadata_props``.
        calibration: Put into the graph, so that any runtime gives probabilities.

    Returns:
        The file's size in bytes.

    Raises:
        ConfigError: The model has no form in opset 17.
        OutputError: The file cannot be written.
        MissingExtraError: The onnx package is not installed.
    """
    with replacing(path) as part:
        traced = part.with_name("traced.onnx.part")
        if isinstance(model.encoder, VitEncoder):
            model = copy.deepcopy(model)
            cast(VitEncoder, model.encoder).settle(window)
        with _as_exportable(model):
            _trace(model, traced, torch.zeros(2, channels, window, window), fixed)
        proto = import_onnx().load(str(traced), load_external_data=False)
        side = window if fixed else None
        _shape(proto.graph.input[0], channels, side)
        _shape(proto.graph.output[0], model.num_classes, side)
        if calibration is not None:
            calibrate_graph(proto, calibration)
        return write_proto(proto, part, metadata or {})


def fixed_size(encoder: str) -> bool:
    """Say whether a model is exported for one size.

    Position embeddings of transformers and the masks of Swin's shifted windows are laid out once.
    """
    return is_sam2(encoder) or is_vit(encoder) or encoder.startswith("swin_")


def calibrate_graph(proto: Any, calibration: Calibration) -> None:
    """Put a temperature, and a bias if there is one, before the softmax of a ModelProto."""
    onnx = import_onnx()
    graph, softmax = proto.graph, _last_softmax(proto.graph)
    factors: dict[str, tuple[str, Any]] = {
        "temperature": ("Div", np.full((), calibration.temperature, np.float32))
    }
    if calibration.bias:
        factors["bias"] = ("Add", np.asarray(calibration.bias, np.float32).reshape(1, -1, 1, 1))
    chain, at = softmax.input[0], list(graph.node).index(softmax)
    for name, (operator, value) in factors.items():
        constant, result = f"calibration_{name}", f"calibrated_by_{name}"
        graph.initializer.append(onnx.numpy_helper.from_array(value, constant))
        graph.node.insert(at, onnx.helper.make_node(operator, [chain, constant], [result]))
        chain, at = result, at + 1
    softmax.input[0] = chain


def argmax_graph(proto: Any) -> None:
    """Let a ModelProto end in class ids (B, H, W) uint8 in place of its scores.

    The softmax goes: the highest score is that of the highest logit.
    """
    onnx = import_onnx()
    graph, softmax = proto.graph, _last_softmax(proto.graph)
    graph.node.remove(softmax)
    graph.node.extend(
        [
            onnx.helper.make_node("ArgMax", [softmax.input[0]], ["best"], axis=1, keepdims=0),
            onnx.helper.make_node("Cast", ["best"], [CLASSES], to=onnx.TensorProto.UINT8),
        ]
    )
    (output,) = graph.output
    output.name = CLASSES
    output.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    del output.type.tensor_type.shape.dim[1]


def _last_softmax(graph: Any) -> Any:
    (softmax,) = [n for n in graph.node if n.op_type == "Softmax" and n.output[0] == OUTPUT]
    return softmax


def write_proto(proto: Any, path: Path, metadata: Mapping[str, str]) -> int:
    """Stamp IR 8, prune unused operator sets, add metadata, check, and write a part.

    Returns:
        The file's size in bytes.
    """
    onnx = import_onnx()
    proto.ir_version = IR_VERSION
    proto.producer_name = "terradapt"
    used = {node.domain for node in proto.graph.node} | {""}
    kept = [o for o in proto.opset_import if ("" if o.domain == "ai.onnx" else o.domain) in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    onnx.helper.set_model_props(
        proto, {**{p.key: p.value for p in proto.metadata_props}, **metadata}
    )
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    return path.stat().st_size


def import_onnx() -> Any:
    """Return the onnx package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("terradapt export", "export") from error
    return onnx


def _trace(model: SegmentationModel, path: Path, x: Tensor, fixed: bool) -> None:
    import_onnx()
    axes = {0: "batch"} if fixed else {0: "batch", 2: "height", 3: "width"}
    with torch.no_grad(), warnings.catch_warnings():
        # the tracing exporter announces its own end and every shape that it takes as a constant
        warnings.simplefilter("ignore")
        torch.onnx.export(
            ScoresOnly(model),
            (x,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes},
        )


def _shape(value: Any, channels: int, side: int | None) -> None:
    """Say (batch, channels, height, width) of a border; the tracer leaves some of it unsaid."""
    dims = value.type.tensor_type.shape.dim
    dims[0].dim_param, dims[1].dim_value = "batch", channels
    for dim, name in zip(dims[2:], ("height", "width"), strict=True):
        if side is None:
            dim.dim_param = name
        else:
            dim.dim_value = side


@contextmanager
def _as_exportable(model: SegmentationModel) -> Iterator[None]:
    """Put the model on the CPU in evaluation mode and float32, then back as it was."""
    reference = next(model.parameters())
    device, dtype, training = reference.device, reference.dtype, model.training
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval().to("cpu", torch.float32)
        yield
    finally:
        model.to(device, dtype)
        for module, mode in modes:
            module.training = mode
        assert model.training == training
