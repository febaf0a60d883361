"""Predictors: uint8 pixels in, class scores out. They alone normalise and apply the softmax."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from terradapt import hub
from terradapt.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from terradapt.scene import Predictor

KINDS = "give a checkpoint.safetensors or model.onnx"


def load(
    path: str | Path,
    *,
    engine: str = "own",
    device: str | None = None,
    precision: str = "fp32",
    trunk: str | Path | None = None,
) -> Predictor:
    """Open a checkpoint or an exported model for prediction.

    Args:
        path: ``.safetensors`` (torch), ``.onnx``, a run's folder, or
            ``hf://owner/name[@revision]``, a checkpoint on the Hugging Face Hub.
        engine: What runs it: ``own`` is torch or ONNX Runtime, as the file is; see
            :func:`terradapt.export.fastest.load` for more.
        device: A torch device such as ``cuda:0``; None takes a GPU when there is one.
        precision: ``fp32``, ``bf16`` or ``fp16``, torch only.
        trunk: Weights of a frozen trunk that the checkpoint only names.

    Raises:
        CheckpointError: Another kind of file, or one that cannot be trusted, read or fitted.
        MissingExtraError: The engine is not installed.
    """
    path = hub.local(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file", "give a checkpoint.safetensors or model.onnx"
        )
    if path.suffix == ".onnx":
        from terradapt.predictors.engines import load_onnx

        return load_onnx(path, engine=engine)
    if path.suffix not in {".safetensors", ".pt", ".pth", ".ckpt", ".bin"}:
        raise CheckpointError(
            f"{path}: neither a checkpoint nor an exported model",
            KINDS,
        )
    if find_spec("torch") is None:
        raise MissingExtraError(f"{path.name} (a torch checkpoint)", "train")
    from terradapt.predictors.checkpoints import load_torch

    return load_torch(path, engine=engine, device=device, precision=precision, trunk=trunk)
