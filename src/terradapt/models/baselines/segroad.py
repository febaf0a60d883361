"""Seg-Road: SegFormer's encoder and head, and two branches that learn which pixels are connected.

Tao, Chen, Sun, Guo, Leng, Yu, Wang, He, Lei, Yang 2023, "Seg-Road: A Segmentation Network for Road
Extraction Based on Transformer and CNN with Connectivity Structures", Remote Sensing 15(6) 1602,
doi 10.3390/rs15061602. On MiT-B2 with 768 channels in the head.

The branches train with ``losses.connectivity`` and take no part in prediction, so they do not run
in evaluation. Counts with one logit at 1024 px: 28,684,479 parameters, 314.411 GMACs with the
branches, as the row of SAM2MS has them. The release's GELU is the tanh form, here it is exact.

Licence: MiT's code (in segmentation_models_pytorch) and its weights are NVIDIA's, for research
only; no weights are loaded unless ``encoder.weights`` asks for them. ``encoder.name=pvt_v2_b2`` has
the same channels under Apache-2.0.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.contract import Prediction, SegmentationModel, two_classes
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv
from terradapt.models.sam2ms import up_to

NEIGHBOURS = 9


class SegRoadOptions(ConfigPart):
    """Width of the head."""

    embed: int = Field(768, ge=1)  # channels; 256 for MiT-B0 and -B1


class StripGate(nn.Module):
    """Squeeze and excitation over the nine neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Linear(NEIGHBOURS, NEIGHBOURS // 3, bias=False)
        self.up = nn.Linear(NEIGHBOURS // 3, NEIGHBOURS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated map, of the same shape."""
        gate = self.up(self.down(x.mean((2, 3))).relu()).sigmoid()
        out: Tensor = x * gate[:, :, None, None]
        return out


def branch(channels: int, dilation: int) -> nn.Sequential:
    """Return a connectivity branch: 9 logits a pixel, one for each neighbour in row order."""
    return nn.Sequential(
        conv(channels, 64, bias=True),
        nn.ReLU(inplace=True),
        conv(64, NEIGHBOURS, dilation=dilation, bias=True),
        StripGate(),
    )


class SegRoad(SegmentationModel):
    """Binary roads on any encoder with maps at strides 4, 8, 16, 32.

    Args:
        encoder: Its channels are asked for.
        num_classes: 2; the road's logit z stands as (0, z).
        options: Width of the head.
    """

    Options = SegRoadOptions
    training_only = ("near", "far")

    def __init__(self, encoder: Encoder, num_classes: int, options: SegRoadOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        width = options.embed
        self.embed = nn.ModuleList(nn.Linear(c, width) for c in encoder.channels)
        self.fuse = nn.Sequential(
            conv(4 * width, width, 1),
            nn.BatchNorm2d(width, eps=1e-3, momentum=0.03),
            nn.ReLU(inplace=True),
        )
        self.near, self.far = branch(width, dilation=1), branch(width, dilation=3)
        self.head = nn.Sequential(
            conv(width, 64, bias=True),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(64, 1, 1),
        )
        for part in (self.near, self.far, self.head):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, 2, H, W); in training also the connectivity of near and far pixels."""
        features = self.encoder(x)
        embedded = [
            up_to(linear(f.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), features[0])
            for linear, f in zip(self.embed, features, strict=True)
        ]
        fused = self.fuse(torch.cat(embedded[::-1], 1))
        branches = (self.near, self.far) if self.training else ()
        z, *connectivity = (
            F.interpolate(part(fused), size=x.shape[2:], mode="bilinear", align_corners=True)
            for part in (self.head, *branches)
        )
        return Prediction(two_classes(z), (), features, connectivity=tuple(connectivity))
