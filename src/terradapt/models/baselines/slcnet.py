"""SLCNet: attention along columns and rows of every skip, beside small networks on the image.

Paper: Yu, Ji 2023, "Long-Range Correlation Supervision for Land-Cover Classification From Remote
Sensing Images", IEEE TGRS 61. At 6 classes and 512 px: 186,039,686 parameters (1,108,248 more for
the four side heads of training), 340.975 GMACs by thop (the released forward runs the side heads in
evaluation too: 350.090), 315.059 in truth. The code weighs each side loss by 0.05.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import ConcatUp, upsample
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn, conv_bn_relu


class LineAttention(nn.Module):
    """Single-head attention among the tokens of each line; no biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )

    def forward(self, x_BLNC: Tensor) -> Tensor:
        """Return (B, lines, N, C) for lines of N tokens."""
        q, k, v = self.query(x_BLNC), self.key(x_BLNC), self.value(x_BLNC)
        weights = (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3)
        out: Tensor = self.out(weights @ v)
        return out


class LongRangeCorrelation(nn.Module):
    """LRCS: attention along every column, then along every row, each added and convolved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.columns, self.rows = LineAttention(channels), LineAttention(channels)
        self.conv_columns, self.conv_rows = _cvr(channels, channels), _cvr(channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the attended map, of the same shape."""
        y = self.columns(x_BCHW.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
        x_BCHW = self.conv_columns(y + x_BCHW)
        y = self.rows(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: Tensor = self.conv_rows(y + x_BCHW)
        return out


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn_relu(channels, channels), *conv_bn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return F.relu(self.body(x) + x)


class AdaptiveReceptiveField(nn.Module):
    """ARFE: the image at one level's size; a gate mixes a small and a dilated view of it."""

    def __init__(self, in_channels: int, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _cvr(in_channels, width), *(ResidualUnit(width) for _ in range(3))
        )
        self.small = _cvr(width, width)
        self.large = conv_bn_relu(width, width, dilation=3, bias=True)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), *conv_bn(width, width, 1, bias=True), nn.Sigmoid()
        )
        self.mix = conv_bn_relu(width, width, 1, bias=True)

    def forward(self, image: Tensor, like: Tensor) -> Tensor:
        """Return (B, 64, H, W) of the other map's size."""
        x = self.body(F.interpolate(image, like.shape[2:]))
        gate = self.gate(x)
        out: Tensor = self.mix(self.small(x) * gate + self.large(x) * (1 - gate))
        return out


class SLCNet(SegmentationModel):
    """A U-Net on a ResNet50 and its stem, its skips attended, logits at full resolution.

    Args:
        encoder: Its stem's map at 1/2 and all four others.
        num_classes: K.
        options: None.
    """

    strides = (2, 4, 8, 16, 32)
    training_only = ("sides",)

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        *skips, deep = encoder.channels  # at 1/2, 1/4, 1/8, 1/16; 1/32
        widths = [max(16, skips[1] // 2), *skips[1:]]  # of the decoder, as finely ordered
        self.encoder = encoder
        self.num_classes = num_classes
        self.correlations = nn.ModuleList(map(LongRangeCorrelation, skips))
        self.fields = nn.ModuleList(AdaptiveReceptiveField(encoder.in_channels) for _ in skips)
        self.bridge = nn.Sequential(_cvr(deep, deep), _cvr(deep, deep))
        self.ups = nn.ModuleList(
            ConcatUp(cin, skip + 64, cout, bias=True)
            for cin, skip, cout in zip([*widths[1:], deep], skips, widths, strict=True)
        )
        self.last = ConcatUp(widths[0], 0, 64, bias=True)
        self.head = nn.Conv2d(64, num_classes, 1)
        self.sides = nn.ModuleList(
            nn.Sequential(_cvr(width, 64), nn.Conv2d(64, num_classes, 1)) for width in widths
        )

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W); those of the four side heads in training only."""
        *skips, deep = self.encoder(x)
        out = self.bridge(deep)
        sides = []
        for i in (3, 2, 1, 0):
            skip = skips[i]
            out = self.ups[i](out, self.correlations[i](skip), self.fields[i](x, skip))
            if self.training:
                sides.append(upsample(self.sides[i](out), x))
        return Prediction(self.head(self.last(out)), tuple(sides), (*skips[1:], deep))


def _cvr(cin: int, cout: int) -> nn.Sequential:
    return conv_bn_relu(cin, cout, bias=True)
