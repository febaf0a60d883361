"""The classic U-Net of segmentation_models_pytorch, on any timm or MiT encoder: a baseline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from terradapt.config import ConfigPart, ModelConfig
from terradapt.errors import ConfigError
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import HUB, MIT_ENCODERS, is_sam2
from terradapt.weights import from_hub, load_backbone


class UnetOptions(ConfigPart):
    """Options of ``smp.Unet``'s decoder."""

    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    decoder_attention_type: Literal["scse"] | None = None


class SmpUnet(SegmentationModel):
    """``smp.Unet`` behind this package's contract; its state dict keeps smp's names.

    Args:
        net: The U-Net.
        num_classes: K.
    """

    Options = UnetOptions

    def __init__(self, net: Any, num_classes: int) -> None:
        super().__init__()
        self.encoder = net.encoder
        self.decoder: nn.Module = net.decoder
        self.segmentation_head: nn.Module = net.segmentation_head
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> SmpUnet:
        """Build the U-Net and load its encoder's weights."""
        encoder = config.encoder
        if is_sam2(encoder.name):
            raise ConfigError(
                f"smp-unet has no encoder '{encoder.name}'", "use a timm backbone or mit_b0..b5"
            )
        mit = encoder.name in MIT_ENCODERS
        hub = encoder.weights == HUB
        make = partial(
            smp.Unet,
            encoder.name if mit else f"tu-{encoder.name}",
            in_channels=config.in_channels,
            classes=num_classes,
            **options.model_dump(),
            **encoder.args,
        )
        net = _random(make, encoder.name)
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


def _random(make: Callable[..., Any], name: str) -> Any:
    try:
        return make(encoder_weights=None)
    except (TypeError, RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"smp-unet on encoder '{name}' cannot be built: {error}",
            "check encoder.name, encoder.args and model.options",
        ) from error
