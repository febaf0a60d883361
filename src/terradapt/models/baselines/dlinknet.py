"""D-LinkNet: LinkNet with a cascade of dilated convolutions in its centre.

Zhou, Zhang, Wu 2018, "D-LinkNet: LinkNet with Pretrained Encoder and Dilated Convolution for High
Resolution Satellite Imagery Road Extraction", CVPR Workshops, doi 10.1109/CVPRW.2018.00034.
SAM2MS's row (217.64 M, 481.25 G) is the release's version on ResNet-50, whose centre has five
dilations; the paper's own network is ``encoder.name=resnet34`` with ``dilations: [1, 2, 4, 8]``
(31,096,129 parameters, 134.347 GMACs).

Counts with one logit at 1024 px: 217,645,089 parameters, 481.250 GMACs; the centre alone has 188.8
M. The release ends in a sigmoid, here are logits. The paper's loss is BCE + soft Dice over the
batch, which ``objective.name=supervised`` resembles. Two classes have one logit, K > 2 classes K.
"""

from __future__ import annotations

from torch import Tensor, nn

from terradapt.config import ConfigPart
from terradapt.models.contract import (
    Prediction,
    SegmentationModel,
    class_logits,
    head_channels,
)
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv


class DLinkNetOptions(ConfigPart):
    """The centre."""

    dilations: tuple[int, ...] = (1, 2, 4, 8, 16)


class DilatedCentre(nn.Module):
    """A chain of dilated convolutions; its links and its input are summed."""

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            conv(channels, channels, dilation=d, bias=True) for d in dilations
        )
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        total = x
        for layer in self.convs:
            x = layer(x).relu()
            total = total + x
        return total


class LinkBlock(nn.Module):
    """A quarter of the channels, a transposed convolution to twice the size, C channels."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        mid = cin // 4
        up = nn.ConvTranspose2d(mid, mid, 3, stride=2, padding=1, output_padding=1)
        layers = [(nn.Conv2d(cin, mid, 1), mid), (up, mid), (nn.Conv2d(mid, cout, 1), cout)]
        self.layers = nn.Sequential(
            *(nn.Sequential(layer, nn.BatchNorm2d(c), nn.ReLU(inplace=True)) for layer, c in layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, 2H, 2W)."""
        out: Tensor = self.layers(x)
        return out


class DLinkNet(SegmentationModel):
    """D-LinkNet on any encoder with maps at strides 4, 8, 16, 32.

    Args:
        encoder: Its channels are asked for.
        num_classes: K.
        options: The centre.
    """

    Options = DLinkNetOptions

    def __init__(self, encoder: Encoder, num_classes: int, options: DLinkNetOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        c1, c2, c3, c4 = encoder.channels
        self.centre = DilatedCentre(c4, options.dilations)
        self.block4, self.block3 = LinkBlock(c4, c3), LinkBlock(c3, c2)
        self.block2, self.block1 = LinkBlock(c2, c1), LinkBlock(c1, c1)
        self.head = nn.Sequential(
            nn.ConvTranspose2d(c1, 32, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            conv(32, 32, bias=True),
            nn.ReLU(inplace=True),
            conv(32, head_channels(num_classes), bias=True),
        )

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        features = self.encoder(x)
        e1, e2, e3, e4 = features
        out = self.block4(self.centre(e4)) + e3
        out = self.block3(out) + e2
        out = self.block1(self.block2(out) + e1)
        return Prediction(class_logits(self.head(out)), (), features)
