"""A checkpoint opened as a predictor."""

from __future__ import annotations

from pathlib import Path

import torch

from terradapt import checkpoint
from terradapt.predictors.torch import TorchPredictor


def load_torch(
    path: Path,
    *,
    engine: str = "torch",
    device: str | None = None,
    precision: str = "fp32",
    trunk: str | Path | None = None,
) -> TorchPredictor:
    """Open a checkpoint; see :func:`terradapt.predictors.load`."""
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, meta = checkpoint.load(path, trunk=trunk, device=where)
    return TorchPredictor(
        model.to(memory_format=torch.channels_last),
        meta.classes,
        meta.spec,
        meta.window,
        device=where,
        precision=precision,  # type: ignore[arg-type]
        engine=engine,
        meta=meta,
    )
