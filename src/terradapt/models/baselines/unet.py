"""U-Net as road papers compare with it: padded convolutions, batch norm, transposed convolutions.

Ronneberger, Fischer, Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI, doi 10.1007/978-3-319-24574-4_28. The paper's convolutions are not padded and have no batch
norm; SAM2MS's row (31.02 M, 875.81 G) is the usual variant that has both, as its MACs prove.

Counts with one logit at 1024 px: 31,037,633 parameters, 875.804 GMACs. Slip of the row: 31.02 are
the convolutions' weights alone. Two classes have one logit, K > 2 classes have K.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from terradapt.config import ConfigPart
from terradapt.models.baselines.own import OwnEncoderModel
from terradapt.models.contract import Prediction, class_logits, head_channels
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn_relu


class UNetOptions(ConfigPart):
    """Width of the network."""

    width: int = Field(64, ge=1)  # channels at full size, doubled at each stage


def double_conv(cin: int, cout: int) -> nn.Sequential:
    """Return twice a 3x3 convolution with BN and ReLU."""
    return nn.Sequential(conv_bn_relu(cin, cout), conv_bn_relu(cout, cout))


class UNetEncoder(Encoder):
    """Five double convolutions with 2x2 max-pooling between."""

    strides = (1, 2, 4, 8, 16)
    size_multiple = 16

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(width * 2**i for i in range(5))
        pairs = zip((in_channels, *self.channels), self.channels, strict=False)
        self.stages = nn.ModuleList(double_conv(i, o) for i, o in pairs)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the five maps, finest first."""
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(self.pool(x) if maps else x)
            maps.append(x)
        return tuple(maps)


class UNet(OwnEncoderModel):
    """The plain U-Net.

    Args:
        in_channels: Bands.
        num_classes: K.
        options: Its width.
    """

    Options = UNetOptions
    size_multiple = 16

    def __init__(self, in_channels: int, num_classes: int, options: UNetOptions) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = UNetEncoder(in_channels, options.width)
        widths = self.encoder.channels
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in reversed(widths[:-1])
        )
        self.convs = nn.ModuleList(double_conv(2 * c, c) for c in reversed(widths[:-1]))
        self.head = nn.Conv2d(widths[0], head_channels(num_classes), 1)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        *skips, out = self.encoder(x)
        for up, convs, skip in zip(self.ups, self.convs, reversed(skips), strict=True):
            out = convs(torch.cat([skip, up(out)], 1))
        return Prediction(class_logits(self.head(out)))
