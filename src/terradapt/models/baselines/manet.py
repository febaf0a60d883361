"""MANet: kernel attention and channel attention on every level of a ResNet50.

Paper: Li, Zheng, Zhang, Duan, Su, Wang, Atkinson 2022, "Multiattention Network for Semantic
Segmentation of Fine-Resolution Remote Sensing Images", IEEE TGRS 60. The tables of SAM2-ARAFNet
cite Fan et al. 2020 (MA-Net, liver) instead: a slip, another network. At 6 classes and 512 px:
35,860,622 parameters, 77.757 GMACs by thop, which counts transposed convolutions at their output's
size; 54.019 in truth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import full_precision, linear_attention
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn_relu


class KernelAttention(nn.Module):
    """``x + gamma * attention(x)``, similarity softplus(q) . softplus(k), gamma = 0 at first.

    Linear in the number of pixels; queries and keys have C / 8 channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the attended map, of the same shape."""
        q, k = (F.softplus(f(x_BCHW).flatten(2).float()) for f in (self.query, self.key))
        out = linear_attention(q, k, self.value(x_BCHW).flatten(2), unit=False)
        return x_BCHW + self.gamma * out.reshape(x_BCHW.shape)


class ChannelAffinity(nn.Module):
    """DANet's channel attention: ``x + gamma * softmax(max(E) - E) x``, E = x x^T, (C, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the attended map, of the same shape."""
        with full_precision(x_BCHW):
            x = x_BCHW.flatten(2).float()
            energy = x @ x.transpose(1, 2)
            out = (energy.amax(2, keepdim=True) - energy).softmax(2) @ x
        return x_BCHW + self.gamma * out.reshape(x_BCHW.shape)


class MultiAttention(nn.Module):
    """The sum of both attentions: 2 x at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position = KernelAttention(channels)
        self.channel = ChannelAffinity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the attended map, of the same shape."""
        out: Tensor = self.position(x_BCHW) + self.channel(x_BCHW)
        return out


class TransposedUp(nn.Sequential):
    """LinkNet's decoder block: a quarter of the channels, twice the size, the wanted channels."""

    def __init__(self, cin: int, cout: int) -> None:
        mid = cin // 4
        super().__init__(
            *conv_bn_relu(cin, mid, 1, bias=True),
            nn.ConvTranspose2d(mid, mid, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(mid),
            nn.ReLU(inplace=True),
            *conv_bn_relu(mid, cout, 1, bias=True),
        )


class TransposedHead(nn.Sequential):
    """LinkNet's head: a transposed convolution to the input's size and two 3x3 convolutions."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(channels, 32, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, num_classes, 3, padding=1),
        )


class MANet(SegmentationModel):
    """LinkNet's decoder, its skips through an attention.

    Args:
        encoder: All four maps are used.
        num_classes: K.
        options: None.
    """

    attention: type[nn.Module] = MultiAttention

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        c1, c2, c3, c4 = encoder.channels
        self.encoder = encoder
        self.num_classes = num_classes
        self.attended = nn.ModuleList(self.attention(c) for c in encoder.channels)
        self.up_4, self.up_3 = TransposedUp(c4, c3), TransposedUp(c3, c2)
        self.up_2, self.up_1 = TransposedUp(c2, c1), TransposedUp(c1, c1)
        self.head = TransposedHead(c1, num_classes)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        features = self.encoder(x)
        a1, a2, a3, a4 = (f(m) for f, m in zip(self.attended, features, strict=True))
        out = self.up_2(self.up_3(self.up_4(a4) + a3) + a2) + a1
        return Prediction(self.head(self.up_1(out)), (), features)
