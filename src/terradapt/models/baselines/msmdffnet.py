"""MSMDFF-Net: strip convolutions in four directions, and the image again at every stage.

Wang, Tong, Luo, Xiao, Yang 2024, "A Multiscale and Multidirection Feature Fusion Network for Road
Detection from Satellite Imagery", IEEE TGRS 62, doi 10.1109/TGRS.2024.3379988. The release has two
ways to make a strip diagonal: to rotate the map (the paper's) or to shear it. SAM2MS's row (39.26
M, 603.21 G, printed in each other's column) has the rotation in the first block and the shear in
the decoder, which is the default; ``decoder: rotation`` is the paper's (598.408 G).

Slip of the release, reproduced: with the shear both diagonal strips look along the same diagonal;
``fix_diagonal`` mirrors the map for the second one. Rotations cut the corners of the canvas. The
release takes square images only; the shear here takes any.

Counts with one logit at 1024 px: 39,256,881 parameters, 603.204 GMACs. The release's loss, BCE +
Dice for each image, resembles ``objective.name=supervised``. Two classes have one logit, K > 2
classes have K.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.baselines.own import OwnEncoderModel
from terradapt.models.contract import Prediction, class_logits, head_channels
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv, conv_bn, conv_bn_relu

STRIP = 9  # px
Diagonal = Literal["rotation", "shear"]


class MSMDFFNetOptions(ConfigPart):
    """How diagonal strips are made."""

    init: Diagonal = "rotation"  # of the first block
    decoder: Diagonal = "shear"
    fix_diagonal: bool = False  # the shear's second strip looks along the other diagonal


def rotate(x: Tensor, degrees: float) -> Tensor:
    """Rotate maps (B, C, H, W) counter-clockwise about their centre, zeros from outside."""
    height, width = x.shape[2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    down = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] - (height - 1) / 2
    across = torch.arange(width, device=x.device, dtype=x.dtype)[None] - (width - 1) / 2
    grid = torch.stack(
        [2 * (cos * across - sin * down) / width, 2 * (sin * across + cos * down) / height], 2
    )
    return F.grid_sample(
        x, grid[None].expand(x.shape[0], -1, -1, -1), mode="bilinear", align_corners=False
    )


def shear(x: Tensor) -> Tensor:
    """Move row r of maps (B, C, H, W) right by r, zeros elsewhere: (B, C, H, W + H - 1)."""
    batch, channels, height, width = x.shape
    flat = F.pad(x, (0, height)).flatten(2)[:, :, : height * (width + height - 1)]
    return flat.reshape(batch, channels, height, width + height - 1)


def unshear(x: Tensor) -> Tensor:
    """Undo :func:`shear`."""
    batch, channels, height, wide = x.shape
    flat = F.pad(x.flatten(2), (0, height))
    return flat.reshape(batch, channels, height, wide + 1)[..., : wide + 1 - height]


class Strips(nn.Module):
    """Strip convolutions of 9 px: across, down and along two diagonals.

    Args:
        cin: Channels.
        cout: Channels of each direction.
        stride: 1 or 2.
        diagonal: How the diagonal strips are made.
        fix_diagonal: Whether the shear's second one looks along the other diagonal.
    """

    def __init__(
        self, cin: int, cout: int, stride: int, diagonal: Diagonal, fix_diagonal: bool
    ) -> None:
        super().__init__()
        self.diagonal = diagonal
        self.fix_diagonal = fix_diagonal
        across, down = (1, STRIP), (STRIP, 1)
        # a diagonal strip of the turned map: the two ways, and the two blocks, differ
        turned = across if stride == 2 else down
        kernels = (across, down, *((turned, turned) if diagonal == "rotation" else (down, across)))
        self.convs = nn.ModuleList(
            nn.Conv2d(cin, cout, k, stride=stride, padding=(k[0] // 2, k[1] // 2)) for k in kernels
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the four directions' maps."""
        across, down, first, second = self.convs
        out = [across(x), down(x)]
        if self.diagonal == "rotation":
            return [*out, rotate(first(rotate(x, 45)), -45), rotate(second(rotate(x, 135)), -135)]
        wide = out[0].shape[2] + out[0].shape[3] - 1  # a strided map has one column more
        out.append(unshear(first(shear(x))[..., :wide]))
        turned = (x.flip(3) if self.fix_diagonal else x).transpose(2, 3)
        turned = second(shear(turned).transpose(2, 3)).transpose(2, 3)
        turned = unshear(turned[..., :wide]).transpose(2, 3)
        return [*out, turned.flip(3) if self.fix_diagonal else turned]


class InitBlock(nn.Module):
    """The image to 64 channels at half its size, half of them from strips."""

    def __init__(self, in_channels: int, options: MSMDFFNetOptions) -> None:
        super().__init__()
        first = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)
        self.square = nn.Sequential(first, nn.BatchNorm2d(32), nn.ELU())
        self.strips = Strips(in_channels, 8, 2, options.init, options.fix_diagonal)
        self.mix = conv_bn(32, 32, 1).append(nn.ELU())

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 64, H/2, W/2)."""
        return torch.cat([self.mix(torch.cat(self.strips(x), 1)), self.square(x)], 1)


class Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        first = nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=False)
        self.convs = nn.Sequential(
            nn.Sequential(first, nn.BatchNorm2d(cout), nn.ReLU(inplace=True)), conv_bn(cout, cout)
        )
        straight = cin == cout and stride == 1
        shortcut = nn.Conv2d(cin, cout, 1, stride=stride, bias=False)
        self.shortcut = nn.Identity() if straight else nn.Sequential(shortcut, nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H / stride, W / stride)."""
        out: Tensor = (self.convs(x) + self.shortcut(x)).relu()
        return out


class MultiScaleEncoder(Encoder):
    """Four stages of residual blocks; beside each its own view of the shrunk image."""

    channels = (128, 256, 512, 1024)
    strides = (2, 4, 8, 16)
    size_multiple = 16

    def __init__(self, in_channels: int, options: MSMDFFNetOptions) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.init = InitBlock(in_channels, options)
        widths = (64, 128, 256, 512)
        shapes = zip(widths, (3, 4, 6, 3), (1, 2, 2, 2), strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(w, w, stride), *(Residual(w, w) for _ in range(blocks - 1)))
            for w, blocks, stride in shapes
        )
        self.views = nn.ModuleList(Residual(in_channels, w) for w in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return maps at strides 2, 4, 8, 16."""
        out = self.init(x)
        maps = []
        for stage, view, stride in zip(self.stages, self.views, self.strides, strict=True):
            out = torch.cat([stage(out), view(F.avg_pool2d(x, stride))], 1)
            maps.append(out)
        return tuple(maps)


class StripDecoder(nn.Module):
    """Strips in four directions, each beside a reduced map, and twice the size.

    Args:
        cin: Channels.
        cout: Channels of the output.
        options: How diagonal strips are made.
    """

    def __init__(self, cin: int, cout: int, options: MSMDFFNetOptions) -> None:
        super().__init__()
        quarter, half = cin // 4, cin // 2
        self.narrow = conv_bn_relu(cin, quarter, 1, bias=True)
        self.wide = conv_bn_relu(cin, half, 1, bias=True)
        self.strips = Strips(quarter, quarter, 1, options.decoder, options.fix_diagonal)
        self.mix = nn.ModuleList(
            conv_bn_relu(quarter + half, quarter, 1, bias=True) for _ in range(4)
        )
        up = nn.ConvTranspose2d(cin, half, 3, stride=2, padding=1, output_padding=1)
        self.up = nn.Sequential(up, nn.BatchNorm2d(half), nn.ReLU(inplace=True))
        self.out = conv_bn_relu(half, cout, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, 2H, 2W)."""
        wide = self.wide(x)
        strips = self.strips(self.narrow(x))
        mixed = [mix(torch.cat([s, wide], 1)) for mix, s in zip(self.mix, strips, strict=True)]
        out: Tensor = self.out(self.up(torch.cat(mixed, 1)))
        return out


class MSMDFFNet(OwnEncoderModel):
    """MSMDFF-Net.

    Args:
        in_channels: Bands.
        num_classes: K.
        options: How diagonal strips are made.
    """

    Options = MSMDFFNetOptions
    size_multiple = 16

    def __init__(self, in_channels: int, num_classes: int, options: MSMDFFNetOptions) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = MultiScaleEncoder(in_channels, options)
        self.links = nn.ModuleList(Residual(c, c // 2) for c in self.encoder.channels)
        self.decoder4, self.decoder3 = (StripDecoder(c, c // 2, options) for c in (512, 256))
        self.decoder2, self.decoder1 = (StripDecoder(c, 64, options) for c in (128, 64))
        self.head = nn.Sequential(
            conv(64, 32, bias=True),
            nn.ReLU(inplace=True),
            conv(32, head_channels(num_classes), bias=True),
        )

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        maps = self.encoder(x)
        q1, q2, q3, q4 = (link(m) for link, m in zip(self.links, maps, strict=True))
        out = self.decoder4(q4) + q3
        out = self.decoder3(out) + q2
        out = self.decoder1(self.decoder2(out) + q1)
        return Prediction(class_logits(self.head(out)))
