"""Baselines whose encoder is part of the paper's network, so that none can be chosen."""

from __future__ import annotations

from typing import Any

from terradapt.config import EncoderConfig, ModelConfig
from terradapt.errors import ConfigError
from terradapt.models.contract import SegmentationModel

OWN = "own"
"""The ``encoder.name`` of these models."""


class OwnEncoderModel(SegmentationModel):
    """Base of the models with an encoder of their own; ``__init__(in_channels, K, options)``."""

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> SegmentationModel:
        """Build the model, with random weights.

        Raises:
            ConfigError: An encoder, weights, arguments or recomputation are asked for.
        """
        refuse_choice(config.name, config.encoder)
        make: Any = cls
        model: SegmentationModel = make(config.in_channels, num_classes, options)
        if config.encoder.freeze:
            freeze: Any = model.encoder
            freeze.freeze()
        return model


def refuse_choice(model: str, encoder: EncoderConfig) -> None:
    """Refuse what an encoder of a model's own cannot do.

    Raises:
        ConfigError: The encoder's name is not :data:`OWN`, or it is given weights or arguments.
    """
    if encoder.name != OWN:
        raise ConfigError(
            f"{model} has an encoder of its own, not '{encoder.name}'",
            f"use encoder.name={OWN}",
        )
    for name in ("weights", "args", "checkpointing"):
        if getattr(encoder, name):
            raise ConfigError(
                f"{model} has an encoder of its own, which takes no encoder.{name}",
                f"leave encoder.{name} out",
            )
