"""MIFNet: windows that weigh dynamic filters instead of values, on a ResNeXt.

Paper: Fan, Li, Liu, Zhang 2024, "Frequency-aware robust multidimensional information fusion
framework for remote sensing image segmentation", Engineering Applications of Artificial
Intelligence 129, 107638. At 6 classes and 512 px: 25,358,919 parameters, 35.417 GMACs by thop. No
auxiliary output. Training takes two images a batch or more.

The released code reads one half of the attention with channels in (head, dim) order and the dynamic
filter in (dim, head) order: repaired, (head, dim) everywhere, the same counts; no weights are
published that would need the other. Its channel attention passes two sigmoids: reproduced. Its
padding needs multiples of 256 px: repaired, the filter is computed on the padded map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import (
    adaptive_mean,
    conv_bn_relu6,
    double,
    reflect_pad,
    upsample,
)
from terradapt.models.baselines.unetformer import (
    HEADS,
    WIDTH,
    WINDOW,
    AttentionBlock,
    CrossMix,
    FeatureRefinement,
    WindowAffinity,
    from_windows,
    segmentation_head,
    to_windows,
)
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv, conv_bn

SIDES = (1, 2, 3, 6)
BANDS = ((16, 3), (24, 5), (24, 7))  # channels (two heads, three, three) and their kernel


class DoubleGate(nn.Module):
    """CBAM with an MLP of its own for maximum and mean, and a second sigmoid on their sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.peak, self.mean = _mlp(channels, channels // 2), _mlp(channels, channels // 2)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended map, of the same shape."""
        peak = torch.sigmoid(self.peak(x.amax((2, 3))))
        mean = torch.sigmoid(self.mean(x.mean((2, 3))))
        x = x * torch.sigmoid(peak + mean)[:, :, None, None]
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(pooled))


class DynamicFilter(nn.Module):
    """``q * high + low``: high by depthwise convolutions of v, low by its means on coarse grids."""

    def __init__(self) -> None:
        super().__init__()
        self.high = nn.ModuleList(
            nn.Conv2d(c, c, kernel, padding=kernel // 2, groups=c) for c, kernel in BANDS
        )

    def forward(self, q: Tensor, v: Tensor) -> Tensor:
        """Return (B, 64, H, W) for two maps of that shape."""
        parts = v.split([c for c, _ in BANDS], 1)
        high = torch.cat([f(p) for f, p in zip(self.high, parts, strict=True)], 1)
        quarters = zip(v.chunk(len(SIDES), 1), SIDES, strict=True)
        low = torch.cat([upsample(adaptive_mean(p, side), v) for p, side in quarters], 1)
        return q * high + torch.relu(low)


class FrequencyAttention(nn.Module):
    """IFM: attention in windows over dynamic filters, beside a gated 1x1 pair."""

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Sequential(
            conv(WIDTH, 2 * WIDTH, 1), DoubleGate(2 * WIDTH), conv(2 * WIDTH, WIDTH, 1)
        )
        self.qkv = conv(WIDTH, 3 * WIDTH, 1)
        self.affinity = WindowAffinity()
        self.filter = DynamicFilter()
        self.mix = CrossMix()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, 64, H, W)."""
        height, width = x_BCHW.shape[2:]
        padded = reflect_pad(x_BCHW, -height % WINDOW, -width % WINDOW)
        q, k, v = self.qkv(padded).chunk(3, 1)
        weights = self.affinity(to_windows(q, HEADS), to_windows(k, HEADS))
        seen = from_windows(weights @ to_windows(self.filter(q, v), HEADS), padded)
        out: Tensor = self.mix(seen[:, :, :height, :width], self.local(x_BCHW))
        return out


class Exchange(nn.Module):
    """One side of RSAM: a map is gated by its own mean and by what both means have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn(WIDTH, WIDTH, 1))
        self.common = nn.Sequential(
            nn.Linear(256, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
        )
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, mean_BC11: Tensor, product_B256: Tensor) -> Tensor:
        """Return the gated map, of the same shape."""
        common = self.common(product_B256)[:, :, None, None]
        return x * torch.sigmoid(mean_BC11 + self.gamma * common)


class RelationFusion(nn.Module):
    """RSAM: skip and decoder map gate each other through the products of their means.

    Args:
        channels: Of the skip.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine, self.coarse = conv_bn_relu6(channels, WIDTH), conv_bn_relu6(WIDTH, WIDTH)
        self.exchange_fine, self.exchange_coarse = Exchange(), Exchange()
        self.align = conv_bn_relu6(WIDTH, WIDTH)
        self.out = conv_bn(WIDTH, WIDTH)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """Return (B, 64, H, W) of the skip's size."""
        fine, coarse = self.fine(skip), self.coarse(x)
        mean_f, mean_c = self.exchange_fine.mean(fine), self.exchange_coarse.mean(coarse)
        left, right = mean_f.reshape(-1, 16, 4), mean_c.reshape(-1, 16, 4)
        product = (left @ right.transpose(1, 2)).flatten(1)
        fine = self.exchange_fine(fine, mean_f, product)
        coarse = self.align(double(self.exchange_coarse(coarse, mean_c, product)))
        out: Tensor = self.out(fine + coarse)
        return out


class MIFNet(SegmentationModel):
    """Reduced maps, three blocks of frequency attention, logits at full resolution.

    Args:
        encoder: All four maps are used.
        num_classes: K.
        options: None.
    """

    min_batch = 2

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        widths = (WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH)
        self.reduce = nn.ModuleList(
            conv(c, w, 1) for c, w in zip(encoder.channels, widths, strict=True)
        )
        self.enter = conv_bn(8 * WIDTH, WIDTH, 1)
        self.block_4, self.block_3, self.block_2 = (
            AttentionBlock(FrequencyAttention()) for _ in range(3)
        )
        self.fusion_3, self.fusion_2 = RelationFusion(4 * WIDTH), RelationFusion(2 * WIDTH)
        self.refinement = FeatureRefinement(WIDTH)
        self.head = segmentation_head(num_classes)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        features = self.encoder(x)
        r1, r2, r3, r4 = (f(m) for f, m in zip(self.reduce, features, strict=True))
        out = self.block_4(self.enter(r4))
        out = self.block_3(self.fusion_3(r3, out))
        out = self.block_2(self.fusion_2(r2, out))
        return Prediction(self.head(upsample(self.refinement(out, r1), x)), (), features)


def _mlp(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
