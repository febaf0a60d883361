"""BANet: a texture path of convolutions and a dependency path with linear attention.

Paper: Wang, Li, Wang, Duan, Wang, Meng 2021, "Transformer Meets Convolution: A Bilateral Awareness
Network for Semantic Segmentation of Very Fine Resolution Urban Scene Images", Remote Sensing 13,
3065. The paper's dependency path is ResT-lite; the tables that name ResNet18 mean the dependency
path on ResNet18 built here. At 6 classes and 512 px: 13,910,466 parameters, 14.875 GMACs by thop.
As released, the aggregation's attention is a factor without a sigmoid, and the logits come from a
shuffle of pixels, not from interpolation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from terradapt.config import ConfigPart
from terradapt.models.baselines.bisenet import SpatialPath
from terradapt.models.baselines.layers import LinearAttention
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn_relu


class AttentionEmbedding(nn.Module):
    """The attended last map, shuffled to 1/16, weighs the map before it."""

    def __init__(self, c3: int, c4: int) -> None:
        super().__init__()
        self.attention = LinearAttention(c4)
        self.conv = conv_bn_relu(c4, c3)
        self.expand = nn.Conv2d(c3, 4 * c3, 1)
        self.shuffle = nn.PixelShuffle(2)
        nn.init.xavier_normal_(self.expand.weight)

    def forward(self, f3: Tensor, f4: Tensor) -> Tensor:
        """Return (B, C3, H/16, W/16)."""
        weight = self.shuffle(self.expand(self.conv(f4 + self.attention(f4))))
        out: Tensor = f3 * weight + f3
        return out


class FeatureAggregation(nn.Module):
    """Both paths through a 1x1 convolution, times its linear attention, plus itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn_relu(256, 256, 1)
        self.attention = LinearAttention(256)

    def forward(self, texture: Tensor, dependency: Tensor) -> Tensor:
        """Return (B, 256, H/8, W/8)."""
        z = self.conv(torch.cat([texture, dependency], 1))
        out: Tensor = z * (z + self.attention(z)) + z
        return out


class BANet(SegmentationModel):
    """The two paths, their aggregation, logits by a shuffle of 8 x 8 pixels.

    Args:
        encoder: The dependency path; its last two maps are used.
        num_classes: K.
        options: None.
    """

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        c3, c4 = encoder.channels[2:]
        self.encoder = encoder
        self.num_classes = num_classes
        self.texture = SpatialPath(encoder.in_channels)
        self.embedding = AttentionEmbedding(c3, c4)
        self.reduce = conv_bn_relu(c3, 128, 1).append(nn.Upsample(scale_factor=2))
        self.aggregation = FeatureAggregation()
        self.head = conv_bn_relu(256, 256).extend(
            [nn.Conv2d(256, 64 * num_classes, 1), nn.PixelShuffle(8)]
        )

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        features = self.encoder(x)
        dependency = self.reduce(self.embedding(features[2], features[3]))
        logits = self.head(self.aggregation(self.texture(x), dependency))
        return Prediction(logits, (), features)
