"""Layers that several models share. Shapes: B batch, C channels, H W pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(
    cin: int, cout: int, kernel: int | tuple[int, int] = 3, *, dilation: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Return a stride-1 convolution that keeps the size (odd kernels)."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (sides[0] // 2), dilation * (sides[1] // 2))
    return nn.Conv2d(cin, cout, sides, padding=padding, dilation=dilation, bias=bias)


def conv_bn(
    cin: int, cout: int, kernel: int | tuple[int, int] = 3, *, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """Return a size-keeping convolution and a batch norm."""
    return nn.Sequential(
        conv(cin, cout, kernel, dilation=dilation, bias=bias), nn.BatchNorm2d(cout)
    )


def conv_bn_relu(
    cin: int, cout: int, kernel: int | tuple[int, int] = 3, *, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """Return a size-keeping convolution, a batch norm and a ReLU."""
    return conv_bn(cin, cout, kernel, dilation=dilation, bias=bias).append(nn.ReLU(inplace=True))


class ChannelAttention(nn.Module):
    """CBAM's channel gate: one MLP on the average and the maximum of each channel.

    Args:
        channels: C.
        ratio: The MLP's hidden width is C / ratio, at least 1.
    """

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // ratio)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the gated map, of the same shape."""
        mean = self.mlp(self.pool(x_BCHW))
        peak = self.mlp(x_BCHW.amax((2, 3), keepdim=True))
        return x_BCHW * torch.sigmoid(mean + peak)


class SpatialAttention(nn.Module):
    """CBAM's spatial gate: a 7x7 convolution on [channel mean, channel maximum]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(2, 1, 7)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the gated map, of the same shape."""
        pooled = torch.cat([x_BCHW.mean(1, keepdim=True), x_BCHW.amax(1, keepdim=True)], 1)
        return x_BCHW * torch.sigmoid(self.conv(pooled))


class CBAM(nn.Module):
    """Channel, then spatial attention (Woo et al. 2018): 2 C^2 / ratio + 98 parameters."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, ratio)
        self.spatial = SpatialAttention()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the attended map, of the same shape."""
        out: Tensor = self.spatial(self.channel(x_BCHW))
        return out


def attention(channels: int, enabled: bool = True) -> nn.Module:
    """Return a CBAM, or nothing at all for an ablation."""
    return CBAM(channels) if enabled else nn.Identity()
