"""The encoder that a config names, built with its weights, and the pixels that these want."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import timm

from terradapt.config import EncoderConfig
from terradapt.errors import ConfigError
from terradapt.models import sam2_weights
from terradapt.models.encoder import (
    HUB,
    MIT_ENCODERS,
    STRIDES,
    Encoder,
    MitEncoder,
    Sam2Encoder,
    TimmEncoder,
    VitEncoder,
    is_sam2,
    is_vit,
)
from terradapt.weights import load_backbone, read_metadata

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


def build_encoder(
    name: str,
    weights: str | None = None,
    adapters: bool = True,
    *,
    in_channels: int = 3,
    strides: tuple[int, ...] = STRIDES,
    adapter_width: int = 32,
    adapter_activation: str = "gelu",
    freeze: bool | None = None,
    checkpointing: bool = False,
    context: int = 0,
    film: bool = False,
    **args: Any,
) -> Encoder:
    """Build an encoder and load its weights.

    Args:
        name: A timm backbone or plain transformer, ``mit_b0`` .. ``mit_b5``, or one of
            :data:`SAM2_TRUNKS`.
        weights: A local file (timm's or SAM2's official state dict), ``"hub"`` for the library's
            hub, or None for random weights. MiT's weights are NVIDIA's, for research only.
        adapters: Adapters before every block; SAM2 trunks only.
        in_channels: Bands; the first convolution is adapted to them when weights are loaded.
        strides: Of the maps; other than 4, 8, 16, 32 only from timm's backbones.
        adapter_width: Hidden width of the adapters.
        adapter_activation: ``"gelu"`` or ``"relu"``.
        freeze: Whether the backbone's own weights train not. None: only a trunk with adapters.
        checkpointing: Recompute activations in the backward pass.
        context: The second half of the bands shows the ground around, so many times as wide:
            see :meth:`Encoder.add_context`; 0: none.
        film: The last of ``in_channels`` scales the maps: see :meth:`Encoder.add_film`.
        args: Further arguments of ``timm.create_model``, for example ``pad_type="same"``.

    Raises:
        ConfigError: No such encoder, or it cannot be built.
        CheckpointError: The weight file cannot be read or does not fit.
    """
    pretrained, in_channels = weights == HUB, in_channels - film
    if context and in_channels % 2:
        raise ConfigError(
            f"{in_channels} bands are not those of a window and as many of the ground around",
            "give model.in_channels twice the bands, or set encoder.context=0",
        )
    in_channels //= 2 if context else 1
    encoder: Encoder
    if strides != STRIDES and (is_sam2(name) or is_vit(name) or name in MIT_ENCODERS):
        raise ConfigError(
            f"encoder '{name}' has maps at strides {STRIDES}, not {strides}",
            "use a timm backbone, for example resnet18 or resnet50",
        )
    if is_sam2(name):
        encoder = Sam2Encoder(
            name,
            in_channels,
            adapters=adapters,
            width=adapter_width,
            activation=adapter_activation,
            pretrained=pretrained,
            checkpointing=checkpointing,
            args=args,
        )
        frozen = adapters if freeze is None else freeze
    else:
        kind: Any = VitEncoder if is_vit(name) else MitEncoder
        if not is_vit(name) and name not in MIT_ENCODERS:
            kind = partial(TimmEncoder, strides=strides)
        encoder = kind(
            name, in_channels, pretrained=pretrained, checkpointing=checkpointing, args=args
        )
        frozen = bool(freeze)
    encoder.in_channels = in_channels
    if weights is not None and not pretrained:
        load_weights(encoder, weights)
    if frozen:
        encoder.freeze()
    if context:
        encoder.add_context(context)
    if film:
        encoder.add_film()
    return encoder


def load_weights(encoder: Encoder, path: str) -> None:
    """Load a local weight file into an encoder; nothing is loaded when it does not fit.

    Raises:
        CheckpointError: The file cannot be read or does not fit; names the first missing key.
    """
    if isinstance(encoder, Sam2Encoder):
        sam2_weights.load_trunk(encoder.trunk, path)
    else:
        load_backbone(encoder.get_submodule("body"), path)


def resolve_encoder(config: EncoderConfig) -> EncoderConfig:
    """Complete a config with what its weight file says of itself (``pad_type``).

    A run stores the resolved config, so that its checkpoint needs the file no more.

    Raises:
        CheckpointError: The weight file cannot be read.
    """
    if config.weights in (None, HUB):
        return config
    said = read_metadata(str(config.weights))
    if "pad_type" in said and not is_sam2(config.name):
        return config.model_copy(update={"args": {"pad_type": said["pad_type"], **config.args}})
    return config


def from_config(
    config: EncoderConfig, in_channels: int = 3, strides: tuple[int, ...] = STRIDES
) -> Encoder:
    """Build the encoder of a config, resolved first; see :func:`build_encoder`."""
    config = resolve_encoder(config)
    return build_encoder(
        config.name,
        config.weights,
        config.adapters,
        in_channels=in_channels,
        strides=strides,
        adapter_width=config.adapter_width,
        adapter_activation=config.adapter_activation,
        freeze=config.freeze,
        checkpointing=config.checkpointing,
        context=config.context,
        film=config.film,
        **config.args,
    )


def encoder_normalization(config: EncoderConfig, in_channels: int = 3) -> Normalization:
    """Return the (mean, std) of pixels in 0..1 that an encoder's weights were trained with.

    A weight file's own metadata goes first (``mean``, ``std``, comma-separated), then timm's entry
    for the backbone, then ImageNet's. Bands beyond the third repeat the mean of the first three.

    Raises:
        CheckpointError: The weight file cannot be read.
    """
    mean: Iterable[float]
    std: Iterable[float]
    mean, std = IMAGENET
    if config.weights is not None:
        cfg = timm.get_pretrained_cfg(config.name, allow_unregistered=True)
        mean, std = (cfg.mean, cfg.std) if cfg is not None else IMAGENET
        if config.weights != HUB:
            said = read_metadata(config.weights)
            mean, std = _floats(said.get("mean"), mean), _floats(said.get("std"), std)
    return _for_bands(mean, in_channels), _for_bands(std, in_channels)


def _floats(text: str | None, default: Iterable[float]) -> Iterable[float]:
    return [float(v) for v in text.split(",")] if text else default


def _for_bands(values: Iterable[float], count: int) -> tuple[float, ...]:
    known = [float(v) for v in values]
    if count == 1:
        return (sum(known) / len(known),)
    more = [sum(known) / len(known)] * max(0, count - len(known))
    return tuple((known + more)[:count])
