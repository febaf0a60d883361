"""UNet++: nested skip paths, every node with its own learned upsampling.

Zhou, Rahman Siddiquee, Tajbakhsh, Liang 2018, "UNet++: A Nested U-Net Architecture for Medical
Image Segmentation", DLMIA, doi 10.1007/978-3-030-00889-5_1. The variant of SAM2MS's row (47.19 M,
3202.89 G) is the one of the UNet 3+ code family: 4x4 transposed convolutions, four heads whose mean
is the answer, here with batch norm in encoder and decoder.

Counts with one logit at 1024 px: 47,182,788 parameters, 3197.570 GMACs. The row's 0.007 M and
5.32 G above them are not explained by any reading that was tried. Two classes have one logit, K > 2
classes have K.
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

DEPTH = 5


class UNetPlusPlusOptions(ConfigPart):
    """Width and supervision."""

    width: int = Field(64, ge=1)  # channels at full size, doubled at each stage
    deep_supervision: bool = False  # in training the four heads are auxiliary logits too


def biased_pair(cin: int, cout: int) -> nn.Sequential:
    """Return twice a biased 3x3 convolution with BN and ReLU."""
    return nn.Sequential(conv_bn_relu(cin, cout, bias=True), conv_bn_relu(cout, cout, bias=True))


class Column(Encoder):
    """The network's first column, X(0..4, 0)."""

    strides = (1, 2, 4, 8, 16)
    size_multiple = 16

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(width * 2**i for i in range(DEPTH))
        pairs = zip((in_channels, *self.channels), self.channels, strict=False)
        self.stages = nn.ModuleList(biased_pair(i, o) for i, o in pairs)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the five maps, finest first."""
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(self.pool(x) if maps else x)
            maps.append(x)
        return tuple(maps)


class Node(nn.Module):
    """X(i, j): the deeper node, upsampled, beside the j nodes to its left."""

    def __init__(self, channels: int, left: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1)
        self.convs = biased_pair((left + 1) * channels, channels)

    def forward(self, deep: Tensor, left: list[Tensor]) -> Tensor:
        """Return (B, C, H, W) of the nodes to the left."""
        out: Tensor = self.convs(torch.cat([self.up(deep), *left], 1))
        return out


class UNetPlusPlus(OwnEncoderModel):
    """The nested U-Net.

    Args:
        in_channels: Bands.
        num_classes: K.
        options: Width and supervision.
    """

    Options = UNetPlusPlusOptions
    size_multiple = 16

    def __init__(self, in_channels: int, num_classes: int, options: UNetPlusPlusOptions) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.deep_supervision = options.deep_supervision
        self.encoder = Column(in_channels, options.width)
        nodes = [(i, j) for j in range(1, DEPTH) for i in range(DEPTH - j)]
        widths = self.encoder.channels
        self.nodes = nn.ModuleDict({f"{i}{j}": Node(widths[i], j) for i, j in nodes})
        head = head_channels(num_classes)
        self.heads = nn.ModuleList(nn.Conv2d(options.width, head, 1) for _ in range(1, DEPTH))

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W), the mean of four heads."""
        rows = [[node] for node in self.encoder(x)]
        for j in range(1, DEPTH):
            for i in range(DEPTH - j):
                rows[i].append(self.nodes[f"{i}{j}"](rows[i + 1][j - 1], rows[i][:j]))
        sides = [head(node) for head, node in zip(self.heads, rows[0][1:], strict=True)]
        aux = sides if self.training and self.deep_supervision else []
        logits = class_logits(torch.stack(sides).mean(0))
        return Prediction(logits, tuple(class_logits(side) for side in aux))
