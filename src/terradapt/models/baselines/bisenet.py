"""BiSeNet: a shallow spatial path and a deep context path.

Paper: Yu, Wang, Peng, Gao, Yu, Sang 2018, "BiSeNet: Bilateral Segmentation Network for Real-time
Semantic Segmentation", ECCV, 325-341. The first version in its authors' layout on ResNet18: each
doubling comes before its refining convolution, so the two context maps lie at 1/16 and 1/8. At 6
classes and 512 px: 12,893,318 parameters (593,932 more for the two auxiliary heads of training),
13.048 GMACs by thop. Paper and code weigh both auxiliary losses by 1. Training takes two images a
batch or more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import Gate, double, upsample
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn, conv_bn_relu


class SpatialPath(nn.Sequential):
    """Three convolutions of stride 2 and a 1x1: the image to 128 channels at 1/8."""

    def __init__(self, in_channels: int) -> None:
        layers: list[nn.Module] = []
        for cin, kernel in ((in_channels, 7), (64, 3), (64, 3)):
            layers += [
                nn.Conv2d(cin, 64, kernel, stride=2, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(64),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, *conv_bn_relu(64, 128, 1))


class AttentionRefinement(nn.Module):
    """ARM: a 3x3 convolution to 128 channels, gated by its own global mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(channels, 128)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn(128, 128, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 128, H, W)."""
        z = self.conv(x)
        out: Tensor = z * self.gate(z)
        return out


class FeatureFusion(nn.Module):
    """FFM: both paths through a 1x1 convolution, plus its gated self."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn_relu(256, 256, 1)
        self.gate = Gate(256, 256, bias=False, act=nn.ReLU)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Return (B, 256, H/8, W/8)."""
        z = self.conv(torch.cat([spatial, context], 1))
        out: Tensor = z + self.gate(z)
        return out


class BiSeNet(SegmentationModel):
    """The two paths, their fusion, logits at 1/8.

    Args:
        encoder: The context path; its last two maps are used.
        num_classes: K.
        options: None.
    """

    min_batch = 2
    training_only = ("aux_16", "aux_8")

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        c3, c4 = encoder.channels[2:]
        self.encoder = encoder
        self.num_classes = num_classes
        self.spatial = SpatialPath(encoder.in_channels)
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(c4, 128, 1))
        self.arm_32, self.arm_16 = AttentionRefinement(c4), AttentionRefinement(c3)
        self.refine_16, self.refine_8 = conv_bn_relu(128, 128), conv_bn_relu(128, 128)
        self.fusion = FeatureFusion()
        self.head = conv_bn_relu(256, 64).append(nn.Conv2d(64, num_classes, 1))
        self.aux_16 = conv_bn_relu(128, 256).append(nn.Conv2d(256, num_classes, 1))
        self.aux_8 = conv_bn_relu(128, 256).append(nn.Conv2d(256, num_classes, 1))

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W); auxiliary logits of both context maps in training only."""
        features = self.encoder(x)
        _, _, f3, f4 = features
        at_16 = self.refine_16(double(self.arm_32(f4) + self.whole(f4), align_corners=True))
        at_8 = self.refine_8(double(self.arm_16(f3) + at_16, align_corners=True))
        fused = self.fusion(self.spatial(x), at_8)
        logits = upsample(self.head(fused), x, align_corners=True)
        if not self.training:
            return Prediction(logits, (), features)
        aux = (self.aux_16(at_16), self.aux_8(at_8))
        return Prediction(logits, tuple(upsample(a, x, align_corners=True) for a in aux), features)
