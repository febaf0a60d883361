"""A checkpoint becomes an exported model: the graph, what it says of itself, and the proof."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt import checkpoint
from terradapt.checkpoint import Meta
from terradapt.errors import CheckpointError, DataError
from terradapt.export.metadata import Exported, mlm_item, properties, write_item
from terradapt.export.onnx import OPSET, export_onnx, fixed_size
from terradapt.export.parity import EQUAL_CLASSES, Parity, compare, patches
from terradapt.export.windows import scene_windows
from terradapt.models.contract import SegmentationModel
from terradapt.predictors.onnx import OnnxPredictor
from terradapt.predictors.torch import TorchPredictor

PARITY_WINDOWS = 4


@dataclass(frozen=True)
class Result:
    """An exported file.

    Attributes:
        path: The ONNX file.
        facts: What was exported.
        meta: The checkpoint's metadata.
        parity: Agreement with the checkpoint; None when it was not asked for.
    """

    path: Path
    facts: Exported
    meta: Meta
    parity: Parity | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the report."""
        return {
            "file": self.path.name,
            "bytes": self.path.stat().st_size,
            "opset": OPSET,
            "model": self.meta.config.model.name,
            "encoder": self.meta.config.model.encoder.name,
            "classes": list(self.meta.classes.names),
            "parameters": self.facts.parameters,
            "precision": self.facts.precision,
            "window": self.facts.window,
            "fixed_size": self.facts.window == self.facts.multiple,
            "parity": self.parity and self.parity.to_dict(),
        }


def export_checkpoint(
    source: str | Path,
    path: str | Path,
    *,
    window: int | None = None,
    trunk: str | Path | None = None,
) -> Result:
    """Export a checkpoint, without proof and without an item beside it.

    Args:
        source: ``.safetensors`` that terradapt wrote.
        path: ``.onnx`` to write.
        window: Side of a window, px; the training crop's by default.
        trunk: Weights of a frozen trunk that the checkpoint only names.

    Raises:
        CheckpointError: The checkpoint cannot be trusted, read or fitted.
        OutputError: The file cannot be written.
    """
    model, meta = checkpoint.load(source, trunk=trunk)
    return export_model(model, meta, Path(path), window=window)


def export_model(
    model: SegmentationModel,
    meta: Meta,
    path: Path,
    *,
    window: int | None = None,
) -> Result:
    """Export a model with what its checkpoint says; see :func:`export_checkpoint`."""
    facts = describe(model, meta, window)
    export_onnx(
        model,
        path,
        channels=len(meta.spec.bands),
        window=facts.window,
        fixed=facts.window == facts.multiple,
        metadata=properties(meta, facts),
    )
    return Result(path, facts, meta)


def describe(model: SegmentationModel, meta: Meta, window: int | None = None) -> Exported:
    """Return the facts of a model that is to be exported in float32."""
    side = window or -(-meta.window // model.size_multiple) * model.size_multiple
    fixed = fixed_size(meta.config.model.encoder.name)
    return Exported(
        window=side,
        multiple=side if fixed else model.size_multiple,
        precision="fp32",
        parameters=sum(
            p.numel()
            for name, p in model.named_parameters()
            if name.split(".")[0] not in model.training_only
        ),
    )


def export_with_proof(
    source: str | Path,
    path: str | Path,
    *,
    images: NDArray[np.uint8] | None = None,
    shown: str = "coloured patches",
    window: int | None = None,
    trunk: str | Path | None = None,
) -> Result:
    """Export a checkpoint, compare the file with it, and write the STAC item beside it.

    Args:
        source: ``.safetensors`` that terradapt wrote.
        path: ``.onnx`` to write.
        images: Windows (N, C, S, S) to compare on; made up when None.
        shown: What the windows show, for the report.
        window: Side of a window, px; the training crop's by default.
        trunk: Weights of a frozen trunk that the checkpoint only names.

    Raises:
        CheckpointError: As :func:`export_checkpoint`, or more than 0.1 % of the pixels change
            their class; then no file is left.
    """
    path = Path(path)
    model, meta = checkpoint.load(source, trunk=trunk)
    result = export_model(model, meta, path, window=window)
    if images is None:
        images = patches(len(meta.spec.bands), result.facts.window, PARITY_WINDOWS)
    torch = TorchPredictor(model, meta.classes, meta.spec, result.facts.window)
    parity = compare(torch, OnnxPredictor(path), images, shown)
    if parity.equal_classes < EQUAL_CLASSES:
        path.unlink()
        raise CheckpointError(
            f"{source}: the exported model gives another class at "
            f"{1 - parity.equal_classes:.2%} of the pixels",
            "its weights amplify rounding: train longer, or predict with the checkpoint",
        )
    write_item(path, mlm_item(path, meta, result.facts))
    return Result(path, result.facts, meta, parity)


def parity_windows(
    source: str | Path, scene: Path, window: int | None = None, count: int = PARITY_WINDOWS
) -> dict[str, Any]:
    """Return ``images`` and ``shown`` of :func:`export_with_proof` from a scene.

    Raises:
        SceneError: The scene cannot be read, or does not fit the model.
        DataError: It has no valid pixels.
    """
    meta = checkpoint.read_meta(source)
    side = window or -(-meta.window // 32) * 32
    images = scene_windows(scene, meta.spec, side, count)
    if not images:
        raise DataError(f"{scene}: has no valid pixels", "give a scene with imagery")
    return {"images": np.stack(images), "shown": scene.name}
