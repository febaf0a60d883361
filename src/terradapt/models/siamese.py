"""Change between two dates: one encoder for both, and SAM2MS's subtraction units between them.

Ours, of the parts of "SAM2MS: An Efficient Framework for HRSI Road Extraction Powered by SAM2": its
dimensional reduction blocks and its unit ``conv(|a - b|)``, which here takes the same level of two
dates instead of two levels of one. Shapes: B batch, C1..C4 encoder channels.

::

    A -- encoder -- F1..F4 -- DRB --+
                                    +-- conv(|a - b|) at each level -- top-down sum -- head
    B -- encoder -- F1..F4 -- DRB --+

The two dates come as one image of twice the bands, the earlier first: so datasets, tiles, engines
and ONNX files keep one input.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from terradapt.config import ConfigPart, ModelConfig
from terradapt.errors import ConfigError
from terradapt.models.building import from_config
from terradapt.models.contract import Prediction, SegmentationModel, class_logits, head_channels
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn_relu
from terradapt.models.sam2ms import WIDTH, reduction, up_to


class SiameseOptions(ConfigPart):
    """Switches of the decoder."""

    drb: Literal["paper", "release", "none"] = "paper"  # SAM2MS's reduction; none: 1x1
    signed: bool = False  # a - b instead of |a - b|: new and gone are told apart


class Siamese(SegmentationModel):
    """Differences of two dates on any encoder with maps at strides 4, 8, 16, 32.

    Args:
        encoder: Of one date; its channels are asked for.
        num_classes: K, for example unchanged and changed.
        options: Switches of the decoder.
    """

    Options = SiameseOptions

    def __init__(self, encoder: Encoder, num_classes: int, options: SiameseOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        self.signed = options.signed
        self.drb = nn.ModuleList(reduction(options.drb, c) for c in encoder.channels)
        self.subtract = nn.ModuleList(conv_bn_relu(WIDTH, WIDTH, bias=True) for _ in self.drb)
        self.conv3 = conv_bn_relu(WIDTH, WIDTH, bias=True)
        self.conv2 = conv_bn_relu(WIDTH, WIDTH, bias=True)
        self.conv1 = conv_bn_relu(WIDTH, WIDTH, bias=True)
        self.head = nn.Conv2d(WIDTH, head_channels(num_classes), 3, padding=1)

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> Siamese:
        """Build the model; its encoder has half the config's bands.

        Raises:
            ConfigError: The bands are no two dates.
        """
        if config.in_channels % 2:
            raise ConfigError(
                f"siamese takes two dates, and {config.in_channels} bands are not twice as many",
                "set model.in_channels=6 and data.bands=[1,2,3,4,5,6]",
            )
        encoder = from_config(config.encoder, config.in_channels // 2, cls.strides)
        return cls(encoder, num_classes, options)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W) of normalised pixels (B, 2 C, H, W), the earlier date first.

        The prediction's features are the four differences.
        """
        maps = self.encoder(torch.cat(x.chunk(2, 1)))
        differences = []
        for drb, subtract, both in zip(self.drb, self.subtract, maps, strict=True):
            first, second = drb(both).chunk(2)
            apart = second - first
            differences.append(subtract(apart if self.signed else apart.abs()))
        out = self.conv3(up_to(differences[3], differences[2]) + differences[2])
        out = self.conv2(up_to(out, differences[1]) + differences[1])
        out = self.conv1(up_to(out, differences[0]) + differences[0])
        return Prediction(class_logits(up_to(self.head(out), x)), (), tuple(differences))
