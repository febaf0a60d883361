"""Decoders of segmentation_models_pytorch on any timm or MiT encoder: the peers of this package.

Each state dict keeps that library's names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import segmentation_models_pytorch as smp
from pydantic import Field
from torch import Tensor, nn

from terradapt.config import ConfigPart, ModelConfig
from terradapt.errors import ConfigError
from terradapt.models.baselines.layers import adaptive_mean
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import HUB, MIT_ENCODERS, built_mit, is_sam2
from terradapt.weights import from_hub, load_backbone

Channels = Annotated[int, Field(ge=1)]


class SmpModel(SegmentationModel):
    """A network of segmentation_models_pytorch behind this package's contract.

    Args:
        net: The network; ``architecture`` made it.
        num_classes: K.
    """

    architecture: ClassVar[Any]

    def __init__(self, net: Any, num_classes: int) -> None:
        super().__init__()
        self.encoder = net.encoder
        self.decoder: nn.Module = net.decoder
        self.segmentation_head: nn.Module = net.segmentation_head
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> SmpModel:
        """Build the network and load its encoder's weights."""
        encoder = config.encoder
        if is_sam2(encoder.name):
            raise ConfigError(
                f"{config.name} has no encoder '{encoder.name}'",
                "use a timm backbone or mit_b0..b5",
            )
        mit = encoder.name in MIT_ENCODERS
        hub = encoder.weights == HUB
        architecture: Any = cls.architecture
        make = partial(
            partial(built_mit, architecture) if mit else architecture,
            encoder.name if mit else f"tu-{encoder.name}",
            in_channels=config.in_channels,
            classes=num_classes,
            **options.model_dump(),
            **encoder.args,
        )
        net = _random(make, config)
        if hub:
            weights = "imagenet" if mit else True
            net = from_hub(partial(make, encoder_weights=weights), encoder.name)
        if encoder.weights is not None and not hub:
            load_backbone(net.encoder if mit else net.encoder.model, encoder.weights)
        net.encoder.requires_grad_(not encoder.freeze)
        return cls(net, num_classes)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        features = self.encoder(x)
        logits = self.segmentation_head(self.decoder(features))
        return Prediction(logits, (), tuple(features[-4:]))


class UnetOptions(ConfigPart):
    """Options of ``smp.Unet``'s decoder."""

    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    decoder_attention_type: Literal["scse"] | None = None


class SmpUnet(SmpModel):
    """``smp.Unet``: the classic U-Net."""

    Options = UnetOptions
    architecture = smp.Unet


class UPerNetOptions(ConfigPart):
    """Options of ``smp.UPerNet``'s decoder."""

    decoder_channels: Channels = 256


class AdaptiveMean(nn.AdaptiveAvgPool2d):
    """Adaptive average pooling to a square, of any size of map in ONNX too."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, C, side, side)."""
        assert isinstance(self.output_size, int)
        return adaptive_mean(x_BCHW, self.output_size)


class SmpUPerNet(SmpModel):
    """``smp.UPerNet``: pyramid pooling above a feature pyramid."""

    Options = UPerNetOptions
    architecture = smp.UPerNet
    min_batch = 2

    def __init__(self, net: Any, num_classes: int) -> None:
        super().__init__(net, num_classes)
        for block in net.decoder.psp.blocks:
            block[0] = AdaptiveMean(block[0].output_size)


class DeepLabV3PlusOptions(ConfigPart):
    """Options of ``smp.DeepLabV3Plus``; the stride is what the encoder is dilated to."""

    encoder_output_stride: Literal[8, 16] = 16
    decoder_channels: Channels = 256
    decoder_atrous_rates: tuple[Channels, Channels, Channels] = (12, 24, 36)
    decoder_aspp_separable: bool = True
    decoder_aspp_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class SmpDeepLabV3Plus(SmpModel):
    """``smp.DeepLabV3Plus``: dilated convolutions beside a fine map."""

    Options = DeepLabV3PlusOptions
    architecture = smp.DeepLabV3Plus
    min_batch = 2


class SegformerOptions(ConfigPart):
    """Options of ``smp.Segformer``'s decoder."""

    decoder_segmentation_channels: Channels = 256


class SmpSegformer(SmpModel):
    """``smp.Segformer``: SegFormer's decoder of linear layers."""

    Options = SegformerOptions
    architecture = smp.Segformer


class FPNOptions(ConfigPart):
    """Options of ``smp.FPN``'s decoder."""

    decoder_pyramid_channels: Channels = 256
    decoder_segmentation_channels: Annotated[int, Field(ge=32, multiple_of=32)] = 128
    decoder_merge_policy: Literal["add", "cat"] = "add"
    decoder_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


class SmpFPN(SmpModel):
    """``smp.FPN``: a feature pyramid whose maps are summed."""

    Options = FPNOptions
    architecture = smp.FPN


def _random(make: Callable[..., Any], config: ModelConfig) -> Any:
    try:
        return make(encoder_weights=None)
    except (TypeError, RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise ConfigError(
            f"{config.name} on encoder '{config.encoder.name}' cannot be built: {error}",
            "check encoder.name, encoder.args and model.options",
        ) from error
