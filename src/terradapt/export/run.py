"""A checkpoint becomes an exported model: the graph, what it says of itself, and the proof."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt import checkpoint
from terradapt.errors import CheckpointError, ConfigError, DataError
from terradapt.export.metadata import mlm_item, properties, write_item
from terradapt.export.onnx import (
    OPSET,
    argmax_graph,
    export_onnx,
    fixed_size,
    import_onnx,
    write_proto,
)
from terradapt.export.parity import EQUAL_CLASSES, Parity, compare, patches, raw_output
from terradapt.export.windows import scene_windows
from terradapt.files import check_output, replacing
from terradapt.meta import MAX_WINDOW, Exported, Meta, read_meta
from terradapt.models.contract import SegmentationModel
from terradapt.owner import owned
from terradapt.predictors.onnx import OnnxPredictor
from terradapt.predictors.torch import TorchPredictor

PARITY_WINDOWS = 4


@dataclass(frozen=True)
class ExportResult:
    """An exported file.

    Attributes:
        path: The ONNX file.
        meta: What it says of itself.
        parity: Agreement of the scores with the checkpoint's; None when it was not asked for.
        argmax: Share of pixels whose class id is that of the highest score, in a file that ends in
            ids; else None.
    """

    path: Path
    meta: Exported
    parity: Parity | None = None
    argmax: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the report."""
        return {
            "file": self.path.name,
            "bytes": self.path.stat().st_size,
            "opset": OPSET,
            "model": self.meta.config.model.name,
            "encoder": self.meta.config.model.encoder.name,
            "classes": list(self.meta.classes.names),
            "parameters": self.meta.parameters,
            "precision": self.meta.precision,
            "confidence": self.meta.confidence,
            "window": self.meta.window,
            "fixed_size": self.meta.fixed,
            "output": "classes, uint8" if self.meta.argmax else "scores, float32",
            "parity": self.parity and self.parity.to_dict(),
            "argmax_equal": self.argmax,
        }


def export_checkpoint(
    source: str | Path,
    path: str | Path,
    *,
    window: int | None = None,
    trunk: str | Path | None = None,
) -> ExportResult:
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
    path = check_export(path, source, trunk)
    model, meta = checkpoint.load(source, trunk=trunk)
    return export_model(model, meta, path, window=window)


def check_export(path: str | Path, *reads: str | Path | None) -> Path:
    """Check that an exported model and what stands beside it can be written.

    Raises:
        OutputError: It cannot, or is one of the files that it is made from.
    """
    suffixes = (".stac.json", ".report.json", ".report.md")
    beside = [Path(path).with_suffix(s) for s in suffixes]
    return check_output(path, (".onnx",), reads=reads, beside=beside)


def export_model(
    model: SegmentationModel,
    meta: Meta,
    path: Path,
    *,
    window: int | None = None,
    fixed: bool = False,
) -> ExportResult:
    """Export a model with what its checkpoint says; see :func:`export_with_proof`."""
    told = exported_meta(model, meta, window, fixed)
    export_onnx(
        model,
        path,
        channels=len(told.spec.channels),
        window=told.window,
        fixed=told.fixed,
        metadata=properties(told),
        calibration=told.calibration,
    )
    return ExportResult(path, told)


def exported_meta(
    model: SegmentationModel, meta: Meta, window: int | None = None, fixed: bool = False
) -> Exported:
    """Return what a model says of itself once it is exported in float32.

    Args:
        model: The model.
        meta: Its checkpoint's words.
        window: Side of a window, px; the training crop's by default.
        fixed: The graph takes windows of that side only, whatever the model could.

    Raises:
        ConfigError: A window that the model cannot take.
    """
    multiple = model.size_multiple
    side = window or -(-meta.window // multiple) * multiple
    if side % multiple or not 1 <= side <= MAX_WINDOW:
        best = min(max(1, -(-side // multiple)) * multiple, MAX_WINDOW // multiple * multiple)
        raise ConfigError(
            f"a window of {side} px does not fit a model that takes multiples of {multiple}",
            f"use --window {best}",
        )
    fixed = fixed or fixed_size(meta.config.model.encoder.name)
    own = {
        "window": side,
        "multiple": side if fixed else multiple,
        "parameters": sum(
            p.numel()
            for name, p in model.named_parameters()
            if name.split(".")[0] not in model.training_only
        ),
    }
    return Exported(**vars(meta.portable()) | own)


def export_with_proof(
    source: str | Path,
    path: str | Path,
    *,
    images: NDArray[np.uint8] | None = None,
    shown: str = "coloured patches",
    window: int | None = None,
    fixed: bool = False,
    argmax: bool = False,
    trunk: str | Path | None = None,
) -> ExportResult:
    """Export a checkpoint, compare the file with it, and write the STAC item beside it.

    Args:
        source: ``.safetensors`` that terradapt wrote.
        path: ``.onnx`` to write.
        images: Windows (N, C, S, S) to compare on; made up when None.
        shown: What the windows show, for the report.
        window: Side of a window, px; the training crop's by default.
        fixed: The file takes windows of that side only, as QGIS Deepness asks.
        argmax: The graph ends in class ids, for other programs; the scores are compared before.
        trunk: Weights of a frozen trunk that the checkpoint only names.

    Raises:
        CheckpointError: As :func:`export_checkpoint`, or more than 0.1 % of the pixels change
            their class; then nothing is written.
    """
    path = check_export(path, source, trunk)
    model, meta = checkpoint.load(source, trunk=trunk)
    with owned(path):
        with replacing(path) as part:
            result = export_model(model, meta, part, window=window, fixed=fixed)
            told = result.meta
            if images is None:
                images = patches(len(meta.spec.channels), told.window, PARITY_WINDOWS)
            torch = TorchPredictor(model, meta.classes, meta.spec, told.window, meta=meta)
            parity = compare(torch, OnnxPredictor(part), images, shown)
            if parity.equal_classes < EQUAL_CLASSES:
                raise CheckpointError(
                    f"{source}: the exported model gives another class at "
                    f"{1 - parity.equal_classes:.2%} of the pixels",
                    "its weights amplify rounding: train longer, or predict with the checkpoint",
                )
            if argmax:
                result = end_in_classes(result, images)
        write_item(path, mlm_item(path, result.meta))
    return replace(result, path=path, parity=parity)


def end_in_classes(result: ExportResult, images: NDArray[np.uint8]) -> ExportResult:
    """Rewrite an exported file so that it gives class ids (B, H, W) uint8, and say how equal.

    Args:
        result: A file that gives scores; it is replaced where it lies.
        images: Windows (N, C, S, S) on which ids and scores are compared.

    Raises:
        CheckpointError: More than 0.1 % of the ids are not those of the highest score.
    """
    path, told = result.path, replace(result.meta, argmax=True)
    best = raw_output(path, told, images).argmax(1)
    proto = import_onnx().load(str(path))
    argmax_graph(proto)
    del proto.metadata_props[:]
    write_proto(proto, path, properties(told))
    equal = float((raw_output(path, told, images) == best).mean())
    if equal < EQUAL_CLASSES:
        raise CheckpointError(
            f"{path}: {1 - equal:.2%} of the class ids are not those of the highest score",
            "export it without --argmax",
        )
    return replace(result, meta=told, argmax=equal)


def parity_windows(
    source: str | Path, scene: Path, window: int | None = None, count: int = PARITY_WINDOWS
) -> dict[str, Any]:
    """Return ``images`` and ``shown`` of :func:`export_with_proof` from a scene.

    Raises:
        SceneError: The scene cannot be read, or does not fit the model.
        DataError: It has no valid pixels.
    """
    meta = read_meta(source)
    side = window or -(-meta.window // 32) * 32
    images = scene_windows(scene, meta.spec, side, count)
    if not images:
        raise DataError(f"{scene}: has no valid pixels", "give a scene with imagery")
    return {"images": np.stack(images), "shown": scene.name}
