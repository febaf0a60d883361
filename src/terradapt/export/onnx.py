"""A model as one ONNX file: opset 17, IR 8, no external data, softmax inside.

Opset 17 and IR 8 are what ONNX Runtime 1.17 inside QGIS still reads; the tracing exporter writes
them, the newer one cannot go below opset 18. The graph takes normalised floats, as Deepness feeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terradapt.errors import MissingExtraError, OutputError
from terradapt.files import check_output, write_together
from terradapt.models.contract import SegmentationModel
from terradapt.models.encoder import is_sam2

OPSET = 17
IR_VERSION = 8
INPUT, OUTPUT = "image", "scores"


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
) -> int:
    """Write a model as one ONNX file, beside its place and then renamed.

    Args:
        model: A model of the registry, on any device; it is not changed.
        path: File to write.
        channels: C, the model's bands.
        window: Side that is traced, px, a multiple of the model's; the only one when ``fixed``.
        fixed: Fix the sides; the batch is always dynamic.
        metadata: Texts to store in ``metadata_props``.

    Returns:
        The file's size in bytes.

    Raises:
        OutputError: The file cannot be written.
        MissingExtraError: The onnx package is not installed.
    """
    path = check_output(path)
    traced = path.with_name(f".{path.name}.traced")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _as_exportable(model):
            _trace(model, traced, torch.zeros(2, channels, window, window), fixed)
        proto = import_onnx().load(str(traced), load_external_data=False)
        side = window if fixed else None
        _shape(proto.graph.input[0], channels, side)
        _shape(proto.graph.output[0], model.num_classes, side)
        return write_proto(proto, path, metadata or {})
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error})", "check the folder's permissions and free space"
        ) from error
    finally:
        traced.unlink(missing_ok=True)


def fixed_size(encoder: str) -> bool:
    """Say whether a model is exported for one size: Hiera's position embedding is laid out once."""
    return is_sam2(encoder)


def write_proto(proto: Any, path: Path, metadata: Mapping[str, str]) -> int:
    """Stamp IR 8, prune unused operator sets, add metadata, check, and write a ModelProto.

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
    write_together({path: proto.SerializeToString()})
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
