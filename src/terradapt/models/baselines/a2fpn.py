"""A2-FPN: linear attention on the merged levels of a feature pyramid.

Paper: Li, Wang, Zhang, Duan, Zheng 2022, "A2-FPN for semantic segmentation of fine-resolution
remotely sensed images", International Journal of Remote Sensing 43(3), 1131-1155. SAM2-ARAFNet
cites a namesake for instance segmentation instead (Hu et al., arXiv 2105.03186): a slip. At 6
classes and 512 px: 11,646,983 parameters, 13.253 GMACs by thop. The released object keeps the whole
classifier beside its stages, hence the 22.8 M and 41.8 G of some tables: not reproduced.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import LinearAttention, double, upsample
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv, conv_bn_relu

WIDTH = 64


class SemanticBranch(nn.ModuleList):
    """3x3 convolutions with group norm, each followed by a doubling; a single one without any.

    Args:
        doublings: From the level's size to 1/4 of the image's.
    """

    def __init__(self, doublings: int) -> None:
        super().__init__(
            nn.Sequential(conv(WIDTH, WIDTH), nn.GroupNorm(32, WIDTH), nn.ReLU(inplace=True))
            for _ in range(max(1, doublings))
        )
        self.doublings = doublings

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 64, H/4, W/4)."""
        for unit in self:
            x = double(unit(x), align_corners=True) if self.doublings else unit(x)
        return x


class AttentionAggregation(nn.Module):
    """The four levels side by side, a 1x1 convolution, linear attention added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn_relu(4 * WIDTH, 4 * WIDTH, 1)
        self.attention = LinearAttention(4 * WIDTH)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return (B, 256, H/4, W/4) for four maps of that size, coarsest first."""
        z = self.conv(torch.cat(levels, 1))
        out: Tensor = z + self.attention(z)
        return out


class A2FPN(SegmentationModel):
    """A pyramid of 64 channels, each level brought to 1/4, their aggregation.

    Args:
        encoder: All four maps are used.
        num_classes: K.
        options: None.
    """

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        self.lateral = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in encoder.channels)
        self.branches = nn.ModuleList(map(SemanticBranch, range(4)))
        self.aggregation = AttentionAggregation()
        self.head = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(4 * WIDTH, num_classes, 1))

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        features = self.encoder(x)
        levels = [f(m) for f, m in zip(self.lateral, features, strict=True)]
        for i in (2, 1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], scale_factor=2.0)
        branches = [f(p) for f, p in zip(self.branches, levels, strict=True)]
        logits = self.head(self.aggregation(branches[::-1]))
        return Prediction(upsample(logits, x, align_corners=True), (), features)
