"""MAResU-Net: linear and channel attention on every level of a ResNet18.

Paper: Li, Zheng, Duan, Su, Zhang 2022, "Multistage Attention ResU-Net for Semantic Segmentation of
Fine-Resolution Remote Sensing Images", IEEE GRSL 19. The released network has a ResNet34
(26,276,510 parameters), the compared tables a ResNet18. At 6 classes and 512 px: 16,168,350
parameters, 25.416 GMACs by thop, which counts transposed convolutions at their output's size;
19.038 in truth.
"""

from __future__ import annotations

from torch import Tensor, nn

from terradapt.models.baselines.layers import LinearAttention
from terradapt.models.baselines.manet import ChannelAffinity, MANet


class MultistageAttention(nn.Module):
    """Linear and channel attention on a 3x3 convolution, each through a 1x1, and their sum too.

    No batch norms; a dropout before each 1x1, as released.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.position, self.channel = LinearAttention(channels), ChannelAffinity()
        self.mix_position, self.mix_channel = _mix(channels), _mix(channels)
        self.mix = _mix(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the attended map, of the same shape."""
        y = self.conv(x_BCHW)
        both = self.mix_position(y + self.position(y)) + self.mix_channel(self.channel(y))
        out: Tensor = self.mix(both)
        return out


class MAResUNet(MANet):
    """MANet's network with another attention; see there for the arguments."""

    attention = MultistageAttention


def _mix(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(channels, channels, 1), nn.ReLU())
