"""Layers that several baselines share. Shapes: B batch, C channels, H W pixels, N = H W."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.models.layers import conv_bn, conv_bn_relu


def conv_bn_relu6(cin: int, cout: int, kernel: int = 3, *, dilation: int = 1) -> nn.Sequential:
    """Return a size-keeping convolution without bias, a batch norm and a ReLU6."""
    return conv_bn(cin, cout, kernel, dilation=dilation).append(nn.ReLU6(inplace=True))


def upsample(x: Tensor, like: Tensor, *, align_corners: bool = False) -> Tensor:
    """Return a map at the height and width of another one, bilinear."""
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=align_corners)


def double(x: Tensor, *, align_corners: bool = False) -> Tensor:
    """Return a map at twice its height and width, bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align_corners)


def reflect_pad(x_BCHW: Tensor, bottom: int, right: int) -> Tensor:
    """Return a map with rows and columns added by reflection, again and again where it is small.

    It is ``F.pad(mode="reflect")`` without that function's limit of one reflection, so that maps
    of a single pixel can be padded; and an exported graph takes every size.
    """
    for dim, more in ((2, bottom), (3, right)):
        side = x_BCHW.shape[dim]
        there = torch.arange(side + more, device=x_BCHW.device)
        period = (2 * there[:side].amax()).clamp(min=1)  # 2 (side - 1), traced with the size
        there = there % period
        x_BCHW = x_BCHW.index_select(dim, torch.minimum(there, period - there))
    return x_BCHW


def adaptive_mean(x_BCHW: Tensor, side: int) -> Tensor:
    """Return adaptive average pooling to (side, side).

    ONNX has no such operator for sizes that are not fixed; there, two products with matrices of
    1 / length do the same.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.adaptive_avg_pool2d(x_BCHW, side)
    rows, columns = (_means(x_BCHW, dim, side) for dim in (2, 3))
    return rows @ x_BCHW @ columns.T


def _means(x: Tensor, dim: int, side: int) -> Tensor:
    """Return (side, n): row i averages from floor(i n / side) to ceil((i + 1) n / side)."""
    length = x.shape[dim]
    here = torch.arange(length, device=x.device)
    i = torch.arange(side, device=x.device)[:, None]
    inside = (here >= i * length // side) & (here < ((i + 1) * length + side - 1) // side)
    weights = inside.to(x.dtype)
    return weights / weights.sum(1, keepdim=True)


def full_precision(x: Tensor) -> torch.autocast:
    """Return a context without autocast: sums over all pixels leave the range of half floats."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def linear_attention(q_BcN: Tensor, k_BcN: Tensor, v_BCN: Tensor, *, unit: bool) -> Tensor:
    """Return attention whose similarity is a product, so that the cost is linear in N.

    ``out_n = sum_j (q_n . k_j) v_j / (q_n . (sum_j k_j + 1e-6))``; with ``unit``, q and k are of
    unit length and the similarity is ``1 + q_n . k_j``.

    Args:
        q_BcN: Queries.
        k_BcN: Keys.
        v_BCN: Values.
        unit: Whether 1 is added to the similarity, which then cannot be negative.

    Returns:
        (B, C, N) in float32.
    """
    with full_precision(v_BCN):
        q, k, v = q_BcN.float(), k_BcN.float(), v_BCN.float()
        summed = (k @ v.transpose(1, 2)).transpose(1, 2) @ q
        weight = (q * (k.sum(2, keepdim=True) + 1e-6)).sum(1, keepdim=True)
        if unit:
            return (v.sum(2, keepdim=True) + summed) / (v.shape[2] + weight)
        return summed / weight


class LinearAttention(nn.Module):
    """``gamma * attention(x)`` with 1 + cosine as similarity (Li et al. 2021), gamma = 0 at first.

    Queries and keys have C / 8 channels, so 1.25 C^2 + 1.25 C + 1 parameters. The released code
    divides by the plain norm, 0 / 0 for a zero vector: repaired by an epsilon of 1e-12.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return what is to be added to the map, of the same shape."""
        q, k = (F.normalize(f(x_BCHW).flatten(2).float(), dim=1) for f in (self.query, self.key))
        out = linear_attention(q, k, self.value(x_BCHW).flatten(2), unit=True)
        return self.gamma * out.reshape(x_BCHW.shape)


class Gate(nn.Module):
    """Squeeze and excitation by 1x1 convolutions: ``x * sigmoid(up(act(down(mean x))))``.

    Args:
        channels: C.
        hidden: Width between the two convolutions.
        bias: Whether they have one.
        act: The activation between them.
    """

    def __init__(
        self, channels: int, hidden: int, *, bias: bool, act: type[nn.Module] = nn.ReLU6
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1, bias=bias),
            act(),
            nn.Conv2d(hidden, channels, 1, bias=bias),
            nn.Sigmoid(),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the gated map, of the same shape."""
        out: Tensor = x_BCHW * self.mlp(x_BCHW)
        return out


class ConcatUp(nn.Module):
    """A transposed convolution, the skips beside it, two 3x3 convolutions.

    Args:
        cin: Channels of the map.
        skips: Those of all skips together; 0 for none.
        cout: Those of the result.
        bias: Whether the 3x3 convolutions have one.
    """

    def __init__(self, cin: int, skips: int, cout: int, *, bias: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(cin, cout, 2, stride=2)
        self.conv = nn.Sequential(
            *conv_bn_relu(cout + skips, cout, bias=bias), *conv_bn_relu(cout, cout, bias=bias)
        )

    def forward(self, x: Tensor, *skips: Tensor) -> Tensor:
        """Return (B, C, H, W) at twice the map's size, the skips'."""
        out: Tensor = self.conv(torch.cat([self.up(x), *skips], 1))
        return out
