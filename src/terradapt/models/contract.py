"""What every model answers: Prediction out, named parameter groups, its input's multiple."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from terradapt.config import ConfigPart, ModelConfig


class Prediction(NamedTuple):
    """A model's answer to a batch (B, C, H, W).

    Attributes:
        logits: (B, K, H, W), K >= 2, unnormalised. A one-logit road head z stands as (0, z).
        aux: Further logits (B, K, H, W) at the input's size, in training only; may be empty.
        features: Encoder maps at the encoder's strides (4, 8, 16, 32 unless it is dilated), finest
            first; may be empty.
        relations: In training only, attention among the pixels of one line, rows that sum to 1:
            (B, W, H, H) of every column or (B, H, W, W) of every row, in the order columns, rows,
            columns, rows; may be empty.
        connectivity: Logits (B, 9, H, W) of "this pixel and its neighbour are both road", the near
            neighbours, then the far ones, in training only; may be empty.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()
    features: tuple[Tensor, ...] = ()
    relations: tuple[Tensor, ...] = ()
    connectivity: tuple[Tensor, ...] = ()


class SegmentationModel(nn.Module):
    """Base of the registry's models: ``forward(x_BCHW) -> Prediction``.

    A subclass has ``self.encoder`` and a decoder; its input sides must be multiples of
    ``size_multiple``. Parameters of the encoder (adapters included) form the backbone group of
    the optimiser, everything else that trains is the decoder group. ``training_only`` names the
    submodules that take no part in prediction, ``strides`` the encoder maps that it takes;
    ``min_batch`` images train together on a device, 2 where a batch norm sees single pixels.
    ``config`` is set by ``models.build``: the model's config as it was built.
    """

    Options: type[ConfigPart] = ConfigPart  # none of its own
    encoder: nn.Module
    num_classes: int
    config: ModelConfig
    size_multiple: int = 32
    min_batch: int = 1
    strides: tuple[int, ...] = (4, 8, 16, 32)
    training_only: tuple[str, ...] = ()

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> SegmentationModel:
        """Build the model on its config's encoder; ``options`` are the class's own."""
        from terradapt.models.building import from_config

        make: Any = cls
        model: SegmentationModel = make(
            from_config(config.encoder, config.in_channels, cls.strides), num_classes, options
        )
        return model

    def forward(self, x: Tensor) -> Prediction:
        """Return the prediction for normalised pixels (B, C, H, W) float."""
        raise NotImplementedError

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters as ``backbone`` and ``decoder``."""
        backbone = [p for p in self.encoder.parameters() if p.requires_grad]
        inside = {id(p) for p in self.encoder.parameters()}
        decoder = [p for p in self.parameters() if p.requires_grad and id(p) not in inside]
        return {"backbone": backbone, "decoder": decoder}


def two_classes(z_B1HW: Tensor) -> Tensor:
    """Return (0, z): two logits whose softmax is the sigmoid of z and whose CE is its BCE."""
    return torch.cat([torch.zeros_like(z_B1HW), z_B1HW], 1)


def head_channels(num_classes: int) -> int:
    """Return the channels of a head: the papers' one logit for two classes, else one a class."""
    return 1 if num_classes == 2 else num_classes


def class_logits(z: Tensor) -> Tensor:
    """Return logits (B, K, H, W), K >= 2, of a head with :func:`head_channels` channels."""
    return two_classes(z) if z.shape[1] == 1 else z
