"""UNetFormer: a decoder of global-local attention in windows.

Paper: Wang, Li, Zhang, Fang, Duan, Meng, Atkinson 2022, "UNetFormer: A UNet-like transformer for
efficient semantic segmentation of remote sensing urban scene imagery", ISPRS Journal 190, 196-214.
Width 64, 8 heads, windows of 8 x 8. At 6 classes and 512 px: 11,687,518 parameters (37,376 more for
the auxiliary head of training), 11.742 GMACs by thop. The code weighs the auxiliary loss by 0.4.
The released padding needs multiples of 256 px; padded on the right and at the bottom with the same
values, every multiple of 32 works.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import Gate, conv_bn_relu6, double, reflect_pad, upsample
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv, conv_bn

WIDTH, HEADS, WINDOW = 64, 8, 8


def to_windows(x_BCHW: Tensor, heads: int) -> Tensor:
    """Cut a map into windows of 8 x 8: (windows, heads, 64 tokens, C / heads)."""
    b, c, h, w = x_BCHW.shape
    x = x_BCHW.reshape(b, heads, c // heads, h // WINDOW, WINDOW, w // WINDOW, WINDOW)
    return x.permute(0, 3, 5, 1, 4, 6, 2).reshape(-1, heads, WINDOW * WINDOW, c // heads)


def from_windows(x: Tensor, like_BCHW: Tensor) -> Tensor:
    """Put windows together again, a map with the batch, height and width of another one."""
    b, _, h, w = like_BCHW.shape
    _, heads, _, dim = x.shape
    x = x.reshape(b, h // WINDOW, w // WINDOW, heads, WINDOW, WINDOW, dim)
    return x.permute(0, 3, 6, 1, 4, 2, 5).reshape(b, heads * dim, h, w)


def relative_index(window: int) -> Tensor:
    """Return (N, N) indices into a table of (2 window - 1)^2 relative positions, as in Swin."""
    row, column = (
        torch.arange(window).repeat_interleave(window),
        torch.arange(window).repeat(window),
    )
    down, right = (v[:, None] - v[None] + window - 1 for v in (row, column))
    return down * (2 * window - 1) + right


class WindowAffinity(nn.Module):
    """Softmax attention weights of queries and keys in one window, relative positions added."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, HEADS))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", relative_index(WINDOW), persistent=False)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Return (windows, heads, N, N), rows that sum to 1, for (windows, heads, N, d) twice."""
        bias = self.table[self.index].permute(2, 0, 1)
        logits: Tensor = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3) + bias
        return logits.softmax(3)


class CrossMix(nn.Module):
    """What windows saw, averaged over a cross of 8 rows and 8 columns, meets what convolutions saw.

    The sum passes an 8x8 depthwise convolution, a batch norm and a 1x1 convolution.
    """

    def __init__(self) -> None:
        super().__init__()
        before = WINDOW // 2 - 1
        self.rows = nn.AvgPool2d((WINDOW, 1), 1, (before, 0))
        self.columns = nn.AvgPool2d((1, WINDOW), 1, (0, before))
        self.project = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, WINDOW, padding=before, groups=WIDTH, bias=False),
            nn.BatchNorm2d(WIDTH),
            conv(WIDTH, WIDTH, 1),
        )

    def forward(self, seen: Tensor, local: Tensor) -> Tensor:
        """Return (B, 64, H, W) for two maps of that shape."""
        crossed = self.rows(reflect_pad(seen, 1, 0)) + self.columns(reflect_pad(seen, 0, 1))
        out: Tensor = self.project(reflect_pad(crossed + local, 1, 1))
        return out


class GlobalLocalAttention(nn.Module):
    """Attention in windows of 8 x 8 beside a 3x3 and a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.local_3, self.local_1 = conv_bn(WIDTH, WIDTH, 3), conv_bn(WIDTH, WIDTH, 1)
        self.qkv = conv(WIDTH, 3 * WIDTH, 1)
        self.affinity = WindowAffinity()
        self.mix = CrossMix()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, 64, H, W)."""
        height, width = x_BCHW.shape[2:]
        padded = reflect_pad(x_BCHW, -height % WINDOW, -width % WINDOW)
        q, k, v = (to_windows(part, HEADS) for part in self.qkv(padded).chunk(3, 1))
        seen = from_windows(self.affinity(q, k) @ v, padded)[:, :, :height, :width]
        out: Tensor = self.mix(seen, self.local_3(x_BCHW) + self.local_1(x_BCHW))
        return out


class AttentionBlock(nn.Module):
    """Attention and an MLP of width 256, each on a batch norm and added.

    Args:
        attention: Takes and returns (B, 64, H, W).
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.BatchNorm2d(WIDTH), nn.BatchNorm2d(WIDTH)
        self.attention = attention
        self.mlp = nn.Sequential(
            conv(WIDTH, 4 * WIDTH, 1, bias=True), nn.ReLU6(), conv(4 * WIDTH, WIDTH, 1, bias=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 64, H, W)."""
        x = x + self.attention(self.norm_1(x))
        out: Tensor = x + self.mlp(self.norm_2(x))
        return out


class WeightedFusion(nn.Module):
    """Decoder map, doubled, and skip, weighed by two learned numbers that sum to 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip = conv(channels, WIDTH, 1)
        self.weights = nn.Parameter(torch.ones(2))
        self.conv = conv_bn_relu6(WIDTH, WIDTH)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, 64, H, W) of the skip's size."""
        weights = F.relu(self.weights)
        weights = weights / (weights.sum() + 1e-8)
        out: Tensor = self.conv(weights[0] * self.skip(skip) + weights[1] * double(x))
        return out


class FeatureRefinement(nn.Module):
    """FRH: a weighted fusion, refined by a pixel gate and a channel gate.

    Args:
        channels: Of the skip.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fusion = WeightedFusion(channels)
        self.short = conv_bn(WIDTH, WIDTH, 1)
        self.pixel = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.channel = Gate(WIDTH, WIDTH // 16, bias=False)
        self.project = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False),
            nn.BatchNorm2d(WIDTH),
            conv(WIDTH, WIDTH, 1),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, 64, H, W) of the skip's size."""
        y = self.fusion(x, skip)
        refined = self.project(y * torch.sigmoid(self.pixel(y)) + self.channel(y))
        return F.relu6(refined + self.short(y))


def segmentation_head(num_classes: int) -> nn.Sequential:
    """Return a 3x3 convolution, a dropout and logits (B, K, H, W) of 64 channels."""
    return conv_bn_relu6(WIDTH, WIDTH).extend([nn.Dropout2d(0.1), conv(WIDTH, num_classes, 1)])


class AuxiliaryHead(nn.Module):
    """Logits of the three decoder maps' sum at 1/8."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = conv_bn_relu6(WIDTH, WIDTH).extend(
            [nn.Dropout(0.1), conv(WIDTH, num_classes, 1)]
        )

    def forward(self, x4: Tensor, x3: Tensor, x2: Tensor, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of the image's size for maps at 1/32, 1/16, 1/8."""
        x4, x3 = (upsample(m, x2, align_corners=True) for m in (x4, x3))
        return upsample(self.head(x4 + x3 + x2), image)


class UNetFormer(SegmentationModel):
    """Three blocks of attention from 1/32 to 1/8, a refinement head at 1/4.

    Args:
        encoder: All four maps are used.
        num_classes: K.
        options: None.
    """

    training_only = ("aux_head",)

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        c1, c2, c3, c4 = encoder.channels
        self.encoder = encoder
        self.num_classes = num_classes
        self.reduce = conv_bn(c4, WIDTH, 1)
        self.block_4, self.block_3, self.block_2 = (
            AttentionBlock(GlobalLocalAttention()) for _ in range(3)
        )
        self.fusion_3, self.fusion_2 = WeightedFusion(c3), WeightedFusion(c2)
        self.refinement = FeatureRefinement(c1)
        self.head = segmentation_head(num_classes)
        self.aux_head = AuxiliaryHead(num_classes)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W); auxiliary logits in training only."""
        f1, f2, f3, f4 = features = self.encoder(x)
        x4 = self.block_4(self.reduce(f4))
        x3 = self.block_3(self.fusion_3(x4, f3))
        x2 = self.block_2(self.fusion_2(x3, f2))
        logits = upsample(self.head(self.refinement(x2, f1)), x)
        aux = (self.aux_head(x4, x3, x2, x),) if self.training else ()
        return Prediction(logits, aux, features)
