"""SAM2-UNet: the base of both papers.

Xiong et al. 2024, "SAM2-UNet: Segment Anything 2 makes strong encoder for natural and medical image
segmentation". Receptive field blocks (RFB) take four maps to 64 channels; three U-blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.contract import Prediction, SegmentationModel, two_classes
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn_relu
from terradapt.models.sam2ms import WIDTH, ReleaseDRB


class SAM2UNetOptions(ConfigPart):
    """No switches."""


class UpBlock(nn.Module):
    """Twice the size, concatenate with the shallower map, two 3x3 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.convs = nn.Sequential(conv_bn_relu(2 * WIDTH, WIDTH), conv_bn_relu(WIDTH, WIDTH))

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Return (B, 64, H, W) of the shallower map."""
        out: Tensor = self.convs(torch.cat([shallow, self.up(deep)], 1))
        return out


class SAM2UNet(SegmentationModel):
    """Binary masks on any encoder with maps at strides 4, 8, 16, 32.

    Args:
        encoder: Its channels are asked for.
        num_classes: 2; the logit z stands as (0, z).
        options: None to choose.
    """

    Options = SAM2UNetOptions

    def __init__(self, encoder: Encoder, num_classes: int, options: SAM2UNetOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        self.rfb = nn.ModuleList(ReleaseDRB(c) for c in encoder.channels)
        self.up3, self.up2, self.up1 = UpBlock(), UpBlock(), UpBlock()
        self.side3, self.side2 = nn.Conv2d(WIDTH, 1, 1), nn.Conv2d(WIDTH, 1, 1)
        self.head = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, 2, H, W); in training also those of strides 16 and 8."""
        features = self.encoder(x)
        x1, x2, x3, x4 = (rfb(f) for rfb, f in zip(self.rfb, features, strict=True))
        u3 = self.up3(x4, x3)
        u2 = self.up2(u3, x2)
        logits = _logits(self.head(self.up1(u2, x1)), 4)
        z3, z2 = self.side3(u3), self.side2(u2)  # the published MACs count them in evaluation too
        if not self.training:
            return Prediction(logits, (), features)
        return Prediction(logits, (_logits(z3, 16), _logits(z2, 8)), features)


def _logits(z: Tensor, scale: int) -> Tensor:
    return two_classes(F.interpolate(z, scale_factor=float(scale), mode="bilinear"))
