"""PSPNet: pyramid pooling on a dilated encoder.

Paper: Zhao, Shi, Qi, Wang, Jia 2017, "Pyramid Scene Parsing Network", CVPR, 2881-2890. Its networks
are ResNet50 and 101 with a deep stem; on ResNet18 the design is kept: output stride 8, bins of 1,
2, 3, 6, a quarter of the channels each. At 6 classes and 512 px: 16,162,374 parameters (591,878
more for the auxiliary head of training), 67.597 GMACs by thop. ``output_stride: 32, bin_channels:
512`` is the undilated form of later tables of remote sensing: 24,029,766 parameters, 12.562 GMACs.
The paper weighs the auxiliary cross-entropy by 0.4. Training takes two images a batch or more.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from terradapt.config import ConfigPart, ModelConfig
from terradapt.models.baselines.layers import adaptive_mean, upsample
from terradapt.models.building import from_config
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn_relu

BINS = (1, 2, 3, 6)


class PSPNetOptions(ConfigPart):
    """Switches; the defaults are the paper's design."""

    output_stride: Literal[8, 16, 32] = 8
    bin_channels: int | None = Field(None, ge=1)  # None: a quarter of the encoder's last map


class PyramidPooling(nn.Module):
    """A map beside its means over 1, 4, 9 and 36 rectangles."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv_bn_relu(channels, width, 1) for _ in BINS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, C + 4 W, H, W)."""
        pooled = (f(adaptive_mean(x_BCHW, n)) for n, f in zip(BINS, self.branches, strict=True))
        return torch.cat([x_BCHW, *(upsample(p, x_BCHW, align_corners=True) for p in pooled)], 1)


class PSPNet(SegmentationModel):
    """Pyramid pooling, one 3x3 convolution, logits at 1/8.

    Args:
        encoder: Its last two maps are used.
        num_classes: K.
        options: Channels of a bin; the stride is the encoder's.
    """

    Options = PSPNetOptions
    min_batch = 2
    training_only = ("aux_head",)

    def __init__(self, encoder: Encoder, num_classes: int, options: PSPNetOptions) -> None:
        super().__init__()
        c3, c4 = encoder.channels[2:]
        width = options.bin_channels or c4 // len(BINS)
        self.encoder = encoder
        self.num_classes = num_classes
        self.pyramid = PyramidPooling(c4, width)
        self.head = _head(c4 + len(BINS) * width, 512, num_classes)
        self.aux_head = _head(c3, 256, num_classes)

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> PSPNet:
        """Build the model; its output stride is that of the encoder's dilation."""
        strides = tuple(min(s, options.output_stride) for s in (4, 8, 16, 32))
        return cls(from_config(config.encoder, config.in_channels, strides), num_classes, options)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W); auxiliary logits in training only."""
        features = self.encoder(x)
        logits = upsample(self.head(self.pyramid(features[3])), x, align_corners=True)
        if not self.training:
            return Prediction(logits, (), features)
        aux = upsample(self.aux_head(features[2]), x, align_corners=True)
        return Prediction(logits, (aux,), features)


def _head(channels: int, width: int, num_classes: int) -> nn.Sequential:
    return conv_bn_relu(channels, width).extend(
        [nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1)]
    )
