"""terradapt adapts SAM2 to aerial and satellite imagery.

``terradapt.build`` makes a model, ``terradapt.load`` opens a checkpoint or an exported model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terradapt.models.contract import SegmentationModel
    from terradapt.scene import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "build", "load"]


def build(
    name: str, classes: int, *, encoder: str | None = None, **options: Any
) -> SegmentationModel:
    """Build a model of the registry with random or named weights.

    Args:
        name: A name of ``terradapt models``, for example ``"sam2-arafnet"``.
        classes: K, 2 or more.
        encoder: The encoder's name; the model's own default when missing.
        options: Further fields of ``ModelConfig``, for example ``in_channels=4``, or of its
            ``encoder`` as a mapping ``encoder_options``.

    Returns:
        A model: normalised pixels (B, C, H, W) in, ``Prediction`` out.

    Raises:
        ConfigError: No such model or option.
    """
    from terradapt.models import build_by_name

    return build_by_name(name, classes, encoder=encoder, **options)


def load(path: str | Path, **options: Any) -> Predictor:
    """Open a checkpoint or an exported model; see :func:`terradapt.predictors.load`."""
    from terradapt import predictors

    return predictors.load(path, **options)
