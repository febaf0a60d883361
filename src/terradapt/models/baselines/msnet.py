"""MSNet: differences of neighbouring maps, over and over, as the only skip connections.

Zhao, Zhang, Lu 2021, "Automatic Polyp Segmentation via Multi-scale Subtraction Network", MICCAI,
doi 10.1007/978-3-030-87193-2_12. On Res2Net-50 v1b 26w4s, which timm calls ``res2net50d``; the
release keeps its unused classifier, which is left out. The paper's loss is
``objective.name=structure`` with a lossnet on VGG16, weight 0.1.

Counts with one logit at 1024 px: 27,692,329 parameters, 143.905 GMACs (the row of SAM2MS, 143.91:
the release's first shortcut has a 1x1 average pool that thop counts). Two classes have one logit,
K > 2 classes have K.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart, ModelConfig
from terradapt.errors import ConfigError
from terradapt.models.building import from_config
from terradapt.models.contract import (
    Prediction,
    SegmentationModel,
    class_logits,
    head_channels,
)
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn_relu
from terradapt.models.sam2ms import up_to

WIDTH = 64
PAIRS = ("54", "43", "32", "21", "543", "432", "321", "5432", "4321", "54321")
"""The ten subtractions, by the levels whose maps meet in them."""


class MSNetOptions(ConfigPart):
    """No switches."""


class Difference(nn.Module):
    """``|a - b|``."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the difference of two maps (B, 64, H, W)."""
        return (a - b).abs()


class MSNet(SegmentationModel):
    """MSNet on any timm backbone whose stem has 64 channels at stride 2.

    Args:
        encoder: Maps at strides 2, 4, 8, 16, 32.
        num_classes: K.
        options: None to choose.
    """

    Options = MSNetOptions
    strides = (2, 4, 8, 16, 32)

    def __init__(self, encoder: Encoder, num_classes: int, options: MSNetOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.reduce = nn.ModuleList(self.conv(c) for c in encoder.channels[1:])
        self.difference: nn.Module = Difference()
        self.subtract = nn.ModuleDict({pair: self.conv() for pair in PAIRS})
        self.link = self.conv()
        self.level3, self.level2, self.level1 = self.conv(), self.conv(), self.conv()
        self.deep = self.conv(encoder.channels[-1])
        self.conv4, self.conv3, self.conv2 = self.conv(), self.conv(), self.conv()
        self.head = nn.Conv2d(WIDTH, head_channels(num_classes), 3, padding=1)

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> SegmentationModel:
        """Build the model on its config's encoder, which must have a stem as ResNet's.

        Raises:
            ConfigError: No such encoder, or its map at stride 2 has not 64 channels.
        """
        encoder = from_config(config.encoder, config.in_channels, cls.strides)
        if encoder.channels[0] != WIDTH:
            raise ConfigError(
                f"{config.name} needs {WIDTH} channels at stride 2, encoder "
                f"'{config.encoder.name}' has {encoder.channels[0]}",
                "use one of ResNet's family, for example: res2net50d, resnet18, resnet50",
            )
        return cls(encoder, num_classes, options)

    @staticmethod
    def conv(channels: int = WIDTH) -> nn.Module:
        """Return a biased 3x3 convolution to 64 channels with BN and ReLU."""
        return conv_bn_relu(channels, WIDTH, bias=True)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        stem, *features = self.encoder(x)
        x1 = self.pool(stem)
        r2, r3, r4, r5 = (conv(f) for conv, f in zip(self.reduce, features, strict=True))
        s54, s43 = self._sub("54", r5, r4), self._sub("43", r4, r3)
        s32, s21 = self._sub("32", r3, r2), self._sub("21", r2, x1)
        s543, s432 = self._sub("543", s54, s43), self._sub("432", s43, s32)
        s321 = self._sub("321", s32, s21)
        s5432, s4321 = self._sub("5432", s543, s432), self._sub("4321", s432, s321)
        s54321 = self._sub("54321", self.link(s5432), s4321)
        out = self.conv4(up_to(self.deep(features[-1]), s54) + s54)
        level = self.level3(s43 + s543)
        out = self.conv3(up_to(out, level) + level)
        level = self.level2(s32 + s432 + s5432)
        out = self.conv2(up_to(out, level) + level)
        level = self.level1(s21 + s321 + s4321 + s54321)
        z = F.interpolate(self.head(up_to(out, level) + level), size=x.shape[2:], mode="bilinear")
        return Prediction(class_logits(z), (), tuple(features))

    def _sub(self, pair: str, deep: Tensor, shallow: Tensor) -> Tensor:
        out: Tensor = self.subtract[pair](self.difference(up_to(deep, shallow), shallow))
        return out
