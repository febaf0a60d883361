"""Predictors: uint8 pixels in, class scores out. They alone normalise and apply the softmax."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from terradapt import hub
from terradapt.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from terradapt.meta import Meta
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
    path = _model_file(path)
    if path.suffix == ".onnx":
        from terradapt.predictors.engines import load_onnx

        return load_onnx(path, engine=engine)
    from terradapt.predictors.lean import import_timm

    import_timm()
    from terradapt.predictors.checkpoints import load_torch

    return load_torch(path, engine=engine, device=device, precision=precision, trunk=trunk)


def announce(path: str | Path) -> Meta:
    """Return what a model's file says of itself, at once: neither torch nor an engine is loaded.

    Args:
        path: As :func:`load` takes it.

    Raises:
        CheckpointError: As :func:`load`, but for weights that are not those of the model.
        MissingExtraError: A checkpoint, and torch is not installed.
    """
    path = _model_file(path)
    if path.suffix == ".onnx":
        from terradapt.predictors.onnx_file import read_onnx

        return read_onnx(path)[1]
    from terradapt.meta import read_meta

    return read_meta(path)


def _model_file(path: str | Path) -> Path:
    """Return the file of a model that could be opened here."""
    path = hub.local(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", KINDS)
    if path.suffix not in {".onnx", ".safetensors", ".pt", ".pth", ".ckpt", ".bin"}:
        raise CheckpointError(f"{path}: neither a checkpoint nor an exported model", KINDS)
    if path.suffix != ".onnx" and find_spec("torch") is None:
        raise MissingExtraError(f"{path.name} (a torch checkpoint)", "train")
    return path
