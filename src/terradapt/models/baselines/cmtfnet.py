"""CMTFNet: a decoder whose attention asks pooled multiscale maps.

Paper: Wu, Huang, Zhang, Tang, Yu 2023, "CMTFNet: CNN and Multiscale Transformer Fusion Network for
Remote-Sensing Image Semantic Segmentation", IEEE TGRS 61. At 6 classes and 512 px: 30,070,649
parameters, 33.070 GMACs by thop. No auxiliary output. As released: the query is the map itself,
attention has no output projection, its norm comes after it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import Gate, adaptive_mean, conv_bn_relu6, double, upsample
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv, conv_bn

HEADS = 16
TOKENS = 16  # side of the pooled map


class MultiscaleConv(nn.Module):
    """A quarter of the channels seen at three dilations; what they see together weighs the map."""

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        mid = channels // 4
        self.reduce = _biased(channels, mid)
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(mid, mid, 3, padding=d, dilation=d, groups=mid),
                nn.BatchNorm2d(mid),
                nn.ReLU6(),
                *_biased(mid, channels),
            )
            for d in dilations
        )
        self.mix = _biased(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighed map, of the same shape."""
        t = self.reduce(x)
        first, *rest = (f(t) for f in self.scales)
        out: Tensor = self.mix(sum(rest, first)) * x
        return out


class MultiscaleAttention(nn.Module):
    """Every pixel asks the 16 x 16 pooled pixels of the multiscale map; a channel gate is added.

    16 heads, fewer on encoders whose channels they do not divide.
    """

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.heads = math.gcd(HEADS, channels)
        self.multiscale = MultiscaleConv(channels, dilations)
        self.kv = conv(channels, 2 * channels, 1)
        self.gate = Gate(channels, channels // 4, bias=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        pooled = adaptive_mean(self.multiscale(x_BCHW), TOKENS)
        q, k, v = (self._split(m) for m in (x_BCHW, *self.kv(pooled).chunk(2, 1)))
        weights = (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3)
        seen = (weights @ v).transpose(2, 3).reshape(x_BCHW.shape)
        out: Tensor = seen + self.gate(x_BCHW)
        return out

    def _split(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, heads, H W, C / heads)."""
        b, c, _, _ = x_BCHW.shape
        return x_BCHW.reshape(b, self.heads, c // self.heads, -1).transpose(2, 3)


class DepthwisePair(nn.Module):
    """The feed-forward part: 5x5 and 3x3 depthwise convolutions in a quarter of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        mid = channels // 4
        self.reduce = conv_bn_relu6(channels, mid, 1)
        self.wide, self.narrow = _depthwise(mid, 5), _depthwise(mid, 3)
        self.expand = conv_bn(mid, channels, 1).append(nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        t = self.reduce(x)
        out: Tensor = self.expand(F.relu6(self.wide(t)) + F.relu6(self.narrow(t)))
        return out


class MultiscaleBlock(nn.Module):
    """Attention, normed, and the depthwise pair, each added."""

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.attention = MultiscaleAttention(channels, dilations)
        self.norm = nn.BatchNorm2d(channels)
        self.feed_forward = DepthwisePair(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        x = x + self.norm(self.attention(x))
        out: Tensor = x + self.feed_forward(x)
        return out


class DepthwiseFusion(nn.Module):
    """Decoder map, doubled, and skip, weighed by two learned numbers that sum to 1, mixed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))
        self.mix = nn.Sequential(
            *_depthwise(channels, 5), conv(channels, channels, 1), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, C, H, W) of the skip's size."""
        weights = F.relu6(self.weights)
        weights = weights / (weights.sum() + 1e-8)
        return F.relu6(self.mix(weights[0] * skip + weights[1] * double(x)))


class MultiscaleAggregation(nn.Module):
    """MAF: the multiscale map, a channel gate and a spatial gate, summed and mixed, then logits."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.multiscale = MultiscaleConv(channels, (7, 9, 11))
        self.channel = Gate(channels, channels // 4, bias=True)
        self.spatial = nn.Conv2d(2, 1, 5, padding=2)
        self.mix = nn.Sequential(
            *_depthwise(channels, 3), conv(channels, channels, 1), nn.BatchNorm2d(channels)
        )
        self.head = nn.Sequential(nn.Dropout2d(0.1), conv(channels, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K, H, W)."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        gated = x * torch.sigmoid(self.spatial(pooled))
        y = self.multiscale(x) + self.channel(x) + gated
        out: Tensor = self.head(F.relu6(self.mix(y)))
        return out


class CMTFNet(SegmentationModel):
    """Three multiscale blocks from 1/32 to 1/8 in the second map's width, logits at 1/4.

    Args:
        encoder: All four maps are used.
        num_classes: K.
        options: None.
    """

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        c1, width, c3, c4 = encoder.channels
        self.encoder = encoder
        self.num_classes = num_classes
        self.reduce_4, self.reduce_3 = conv_bn_relu6(c4, width, 1), conv_bn_relu6(c3, width, 1)
        self.block_4 = MultiscaleBlock(width, (1, 3, 5))
        self.block_3 = MultiscaleBlock(width, (3, 5, 7))
        self.block_2 = MultiscaleBlock(width, (5, 7, 9))
        self.fusion_3, self.fusion_2 = DepthwiseFusion(width), DepthwiseFusion(width)
        self.reduce_1 = conv_bn(width, c1, 1)
        self.fusion_1 = DepthwiseFusion(c1)
        self.head = MultiscaleAggregation(c1, num_classes)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        f1, f2, f3, f4 = features = self.encoder(x)
        out = self.block_4(self.reduce_4(f4))
        out = self.block_3(self.fusion_3(out, self.reduce_3(f3)))
        out = self.block_2(self.fusion_2(out, f2))
        out = self.fusion_1(self.reduce_1(out), f1)
        return Prediction(upsample(self.head(out), x), (), features)


def _biased(cin: int, cout: int) -> nn.Sequential:
    return conv_bn(cin, cout, 1, bias=True).append(nn.ReLU6())


def _depthwise(channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )
