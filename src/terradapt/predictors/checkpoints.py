"""A checkpoint opened as a predictor."""

from __future__ import annotations

from pathlib import Path

import torch

from terradapt import checkpoint
from terradapt.errors import ConfigError, one_of, refusing
from terradapt.predictors.torch import DTYPES, TorchPredictor


def load_torch(
    path: Path,
    *,
    engine: str = "torch",
    device: str | None = None,
    precision: str = "fp32",
    trunk: str | Path | None = None,
) -> TorchPredictor:
    """Open a checkpoint; see :func:`terradapt.predictors.load`."""
    if precision not in DTYPES:
        raise ConfigError(f"no precision '{precision}'", one_of(precision, DTYPES))
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with refusing(f"device '{where}'", ConfigError, "use cpu, cuda or cuda:0", "is none here"):
        torch.empty(1, device=where)
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
