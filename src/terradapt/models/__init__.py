"""Models, one file per paper, found by name.

To add a model: one file with a ``SegmentationModel`` and its ``Options``, and one line here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from terradapt.config import EncoderConfig, ModelConfig
from terradapt.errors import ConfigError, first_error, one_of

if TYPE_CHECKING:
    from terradapt.models.contract import SegmentationModel


OWN_ENCODER = "own"
"""The encoder's name in the config of a model whose encoder and decoder are one network."""


@dataclass(frozen=True)
class ModelEntry:
    """A line of the registry.

    Attributes:
        module: Below ``terradapt.models``; imported when the model is built.
        name: The class, a ``SegmentationModel`` with ``Options``.
        encoder: The encoder of the paper; :data:`OWN_ENCODER` where the model takes no other.
        summary: One line for the tables.
        options: Values of the model's own options that differ from its class's defaults.
        binary: Whether the model has one logit for roads and so takes two classes only.
        dates: Images that it takes at once, one after the other in its bands.
    """

    module: str
    name: str
    encoder: str
    summary: str
    options: tuple[tuple[str, Any], ...] = ()
    binary: bool = False
    dates: int = 1

    def load(self) -> Any:
        """Import the class."""
        return getattr(importlib.import_module(f"terradapt.models.{self.module}"), self.name)


MODELS: dict[str, ModelEntry] = {
    "sam2-arafnet": ModelEntry(
        "arafnet",
        "ARAFNet",
        "sam2_hiera_large",
        "SAM2-ARAFNet: land cover, frozen SAM2 trunk with adapters, the teacher",
        (("aux", True),),
    ),
    "kd-arafnet": ModelEntry(
        "arafnet",
        "ARAFNet",
        "efficientnet_b0",
        "KD-ARAFNet: land cover, the same decoder on a small backbone, the student",
    ),
    "sam2ms": ModelEntry(
        "sam2ms",
        "SAM2MS",
        "sam2_hiera_large",
        "SAM2MS: roads, multi-scale subtraction on a frozen SAM2 trunk with adapters",
        binary=True,
    ),
    "sam2-unet": ModelEntry(
        "sam2unet",
        "SAM2UNet",
        "sam2_hiera_large",
        "SAM2-UNet: binary masks, the base of both papers",
        binary=True,
    ),
    "siamese": ModelEntry(
        "siamese",
        "Siamese",
        "sam2_hiera_large",
        "Siamese: change between two dates, SAM2MS's subtraction on one trunk",
        dates=2,
    ),
    "smp-unet": ModelEntry(
        "baselines.smp_decoders",
        "SmpUnet",
        "resnet18",
        "U-Net of segmentation_models_pytorch: the baseline",
    ),
    "smp-upernet": ModelEntry(
        "baselines.smp_decoders",
        "SmpUPerNet",
        "resnet18",
        "UPerNet of segmentation_models_pytorch: pooling above a feature pyramid",
    ),
    "smp-deeplabv3plus": ModelEntry(
        "baselines.smp_decoders",
        "SmpDeepLabV3Plus",
        "resnet18",
        "DeepLabV3+ of segmentation_models_pytorch: dilated convolutions",
    ),
    "smp-segformer": ModelEntry(
        "baselines.smp_decoders",
        "SmpSegformer",
        "resnet18",
        "SegFormer's decoder of segmentation_models_pytorch: linear layers",
    ),
    "smp-fpn": ModelEntry(
        "baselines.smp_decoders",
        "SmpFPN",
        "resnet18",
        "FPN of segmentation_models_pytorch: a feature pyramid",
    ),
    "pspnet": ModelEntry(
        "baselines.pspnet", "PSPNet", "resnet18", "PSPNet: pyramid pooling on a dilated encoder"
    ),
    "bisenet": ModelEntry(
        "baselines.bisenet", "BiSeNet", "resnet18", "BiSeNet: a spatial and a context path"
    ),
    "banet": ModelEntry(
        "baselines.banet", "BANet", "resnet18", "BANet: a texture and a dependency path"
    ),
    "a2fpn": ModelEntry(
        "baselines.a2fpn", "A2FPN", "resnet18", "A2-FPN: linear attention on a feature pyramid"
    ),
    "manet": ModelEntry(
        "baselines.manet", "MANet", "resnet50", "MANet: kernel and channel attention on the skips"
    ),
    "maresunet": ModelEntry(
        "baselines.maresunet", "MAResUNet", "resnet18", "MAResU-Net: linear attention on the skips"
    ),
    "unetformer": ModelEntry(
        "baselines.unetformer", "UNetFormer", "resnet18", "UNetFormer: global-local attention"
    ),
    "slcnet": ModelEntry(
        "baselines.slcnet", "SLCNet", "resnet50", "SLCNet: supervised long-range correlation"
    ),
    "cmtfnet": ModelEntry(
        "baselines.cmtfnet", "CMTFNet", "resnet50", "CMTFNet: multiscale transformer fusion"
    ),
    "sfanet": ModelEntry(
        "baselines.sfanet", "SFANet", "efficientnet_b3", "SFA-Net: feature adjustment"
    ),
    "mifnet": ModelEntry(
        "baselines.mifnet", "MIFNet", "resnext50_32x4d", "MIFNet: frequency-aware fusion"
    ),
    "stunet": ModelEntry(
        "baselines.stunet", "STUNet", OWN_ENCODER, "ST-UNet: a CNN and a Swin encoder in one"
    ),
    "unet": ModelEntry("baselines.unet", "UNet", OWN_ENCODER, "U-Net (2015): plain, padded, BN"),
    "unet++": ModelEntry(
        "baselines.unetplusplus", "UNetPlusPlus", OWN_ENCODER, "UNet++ (2018): nested skip paths"
    ),
    "d-linknet": ModelEntry(
        "baselines.dlinknet", "DLinkNet", "resnet50", "D-LinkNet (2018): roads, dilated centre"
    ),
    "msnet": ModelEntry(
        "baselines.msnet", "MSNet", "res2net50d", "MSNet (2021): multi-scale subtraction"
    ),
    "m2snet": ModelEntry(
        "baselines.m2snet", "M2SNet", "res2net50d", "M2SNet (2023): MSNet over windows too"
    ),
    "seg-road": ModelEntry(
        "baselines.segroad",
        "SegRoad",
        "mit_b2",
        "Seg-Road (2023): roads, MiT with connectivity branches in training",
        binary=True,
    ),
    "swin-unet": ModelEntry(
        "baselines.swinunet",
        "SwinUnet",
        "swin_tiny_patch4_window7_224",
        "Swin-Unet (2022): shifted-window transformers in a U",
    ),
    "sgcnnet": ModelEntry(
        "baselines.sgcnnet", "SGCNNet", OWN_ENCODER, "SGCN (2022): roads, graph convolutions"
    ),
    "msmdffnet": ModelEntry(
        "baselines.msmdffnet", "MSMDFFNet", OWN_ENCODER, "MSMDFF-Net (2024): roads, strips"
    ),
}


def default_config(name: str) -> ModelConfig:
    """Return a model's config with the encoder of its paper.

    Raises:
        ConfigError: No such model.
    """
    line = entry(name)
    encoder = EncoderConfig(name=line.encoder)
    return ModelConfig(name=name, encoder=encoder, in_channels=3 * line.dates)


def entry(name: str) -> ModelEntry:
    """Return a model's line of the registry.

    Raises:
        ConfigError: No such model.
    """
    if name not in MODELS:
        raise ConfigError(f"no model '{name}'", one_of(name, MODELS))
    return MODELS[name]


def build(config: ModelConfig, num_classes: int) -> SegmentationModel:
    """Build a model of the registry; ``model.config`` is the config as built.

    Args:
        config: Name, encoder, bands, the model's own options.
        num_classes: K, at least 2.

    Raises:
        ConfigError: No such model, encoder or option, or a number of classes it cannot have.
        CheckpointError: The encoder's weight file cannot be read or does not fit.
    """
    line = entry(config.name)
    if num_classes < 2 or (line.binary and num_classes != 2):
        wanted = "exactly 2" if line.binary else "at least 2"
        raise ConfigError(
            f"{config.name} cannot have {num_classes} classes",
            f"give {wanted} classes, background among them",
        )
    _check_encoder(config, line)
    options = parse_options(config)
    config = resolve(config)
    model: SegmentationModel = line.load().from_config(config, num_classes, options)
    if config.encoder.film and getattr(model.encoder, "film", None) is None:
        raise ConfigError(
            f"{config.name} has no encoder whose maps could be scaled", "set encoder.film=false"
        )
    if config.encoder.context:
        encoder: Any = model.encoder
        if not getattr(encoder, "context", 0):
            raise ConfigError(
                f"{config.name} has no encoder that could see the ground around",
                "set data.context=0, or take another model, for example kd-arafnet",
            )
        model.size_multiple = encoder.size_multiple
    model.config = config
    return model


def build_on_meta(config: ModelConfig, num_classes: int) -> SegmentationModel:
    """Build a model without storage, to count it or to run it on shapes; loads no weights.

    Raises:
        ConfigError: See :func:`build`.
    """
    import torch

    encoder = config.encoder.model_copy(update={"weights": None})
    config = config.model_copy(update={"encoder": encoder})
    with torch.device("meta"):
        return build(config, num_classes)


def _check_encoder(config: ModelConfig, line: ModelEntry) -> None:
    own, name = line.encoder == OWN_ENCODER, config.encoder.name
    if own != (name == OWN_ENCODER):
        fix = OWN_ENCODER if own else f"{line.encoder}, or another of timm's"
        raise ConfigError(
            f"{config.name} cannot be built on the encoder '{name}'", f"use encoder.name: {fix}"
        )
    given = config.encoder.model_fields_set & {"weights", "freeze", "checkpointing", "args"}
    changed = [k for k in sorted(given) if getattr(config.encoder, k) not in (None, False, {})]
    if own and changed:
        raise ConfigError(
            f"{config.name}'s own encoder does not take {', '.join(changed)}",
            f"leave out: {', '.join(f'encoder.{k}' for k in changed)}",
        )


def resolve(config: ModelConfig) -> ModelConfig:
    """Complete a config with what its encoder's weight file says of itself.

    A run starts with this, so that its checkpoints build the same model without the file.

    Raises:
        CheckpointError: The weight file cannot be read.
    """
    if config.encoder.weights is None:
        return config
    from terradapt.models.building import resolve_encoder as resolve_encoder

    return config.model_copy(update={"encoder": resolve_encoder(config.encoder)})


def parse_options(config: ModelConfig) -> Any:
    """Check a model's own options.

    Raises:
        ConfigError: No such option, or a value it cannot have.
    """
    line = entry(config.name)
    try:
        return line.load().Options.model_validate({**dict(line.options), **config.options})
    except ValidationError as error:
        where, why = first_error(error)
        known = line.load().Options.model_fields
        if (own := known.get(where.split(".")[0])) is not None:
            fix = f"give another value; its default is {own.default}"
        else:
            fix = one_of(where, known, "its options are: ") if known else "it has no options"
        raise ConfigError(f"model.options.{where} of {config.name}: {why}", fix) from error
