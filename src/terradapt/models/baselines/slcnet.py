"""SLCNet: attention along columns and rows of every skip, beside small networks on the image.

Paper: Yu, Ji 2023, "Long-Range Correlation Supervision for Land-Cover Classification From Remote
Sensing Images", IEEE TGRS 61. At 6 classes and 512 px: 186,039,686 parameters (1,108,248 more for
the four side heads of training), 340.975 GMACs by thop (the released forward runs the side heads in
evaluation too: 350.090), 315.059 in truth. Training takes two images a batch or more.

The supervision of its name: attention among the pixels of a line is to be alike where classes are.
``objective.relation: 10`` and ``objective.aux: 0.05`` are the weights of the code, whose main loss
is Lovasz-softmax instead of cross-entropy and Dice; without the first it trains as any model.
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

    def forward(self, x_BLNC: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, lines, N, C) for lines of N tokens, and the attention (B, lines, N, N)."""
        q, k, v = self.query(x_BLNC), self.key(x_BLNC), self.value(x_BLNC)
        weights = (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3)
        return self.out(weights @ v), weights


class LongRangeCorrelation(nn.Module):
    """LRCS: attention along every column, then along every row, each added and convolved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.columns, self.rows = LineAttention(channels), LineAttention(channels)
        self.conv_columns, self.conv_rows = _cvr(channels, channels), _cvr(channels, channels)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the attended map, of the same shape, and the attention of columns and of rows."""
        y, columns = self.columns(x_BCHW.permute(0, 3, 2, 1))
        x_BCHW = self.conv_columns(y.permute(0, 3, 2, 1) + x_BCHW)
        y, rows = self.rows(x_BCHW.permute(0, 2, 3, 1))
        return self.conv_rows(y.permute(0, 3, 1, 2) + x_BCHW), (columns, rows)


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
    min_batch = 2
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
        """Return logits (B, K, H, W); in training those of the side heads and the attention too."""
        *skips, deep = self.encoder(x)
        out = self.bridge(deep)
        sides: list[Tensor] = []
        relations: list[Tensor] = []
        for i in (3, 2, 1, 0):
            correlated, attention = self.correlations[i](skips[i])
            out = self.ups[i](out, correlated, self.fields[i](x, skips[i]))
            if self.training:
                sides.append(upsample(self.sides[i](out), x))
                relations += attention
        features = (*skips[1:], deep)
        return Prediction(self.head(self.last(out)), tuple(sides), features, tuple(relations))


def _cvr(cin: int, cout: int) -> nn.Sequential:
    return conv_bn_relu(cin, cout, bias=True)
