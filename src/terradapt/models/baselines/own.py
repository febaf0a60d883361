"""Baselines whose encoder is part of the paper's network, so that none can be chosen."""

from __future__ import annotations

from typing import Any

from terradapt.config import ModelConfig
from terradapt.models.contract import SegmentationModel


class OwnEncoderModel(SegmentationModel):
    """Base of the models with an encoder of their own; ``__init__(in_channels, K, options)``."""

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> SegmentationModel:
        """Build the model; its encoder is its own."""
        make: Any = cls
        model: SegmentationModel = make(config.in_channels, num_classes, options)
        return model
