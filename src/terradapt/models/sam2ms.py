"""SAM2MS: road extraction from multi-scale differences of SAM2's features.

Paper: "SAM2MS: An Efficient Framework for HRSI Road Extraction Powered by SAM2". Dimensional
reduction blocks (DRB), the multi-scale subtraction module (MSSM), a small decoder. Where the text
is vague, the authors' release and its printed parameters decide; ``drb`` chooses between the two
forms of the DRB. Shapes: B batch, C1..C4 encoder channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.contract import Prediction, SegmentationModel, two_classes
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn, conv_bn_relu

WIDTH = 64
KERNELS = (3, 5, 7)


class SAM2MSOptions(ConfigPart):
    """Switches of the decoder; ``none`` and ``false`` are the paper's Table 6."""

    drb: Literal["paper", "release", "none"] = "paper"  # none: a 1x1 reduction
    mssm: bool = True  # False: the reduced maps are added to the decoder as they are


class PaperDRB(nn.Module):
    """DRB of the paper's Figure 3: reduce, then reweight by strip convolutions (as SegNeXt)."""

    def __init__(self, cin: int, width: int = WIDTH) -> None:
        super().__init__()
        self.reduce = conv_bn(cin, width, 1)
        self.base = nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False)
        self.strips = nn.ModuleList(_strip_pair(width, k) for k in KERNELS)
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 64, H, W)."""
        x = self.reduce(x)
        base = self.base(x)
        weight = self.mix(torch.stack([base, *(strip(base) for strip in self.strips)]).sum(0))
        out: Tensor = self.norm(x + x * weight).relu()
        return out


def _strip_pair(width: int, k: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, (1, k), padding=(0, k // 2), groups=width, bias=False),
        nn.Conv2d(width, width, (k, 1), padding=(k // 2, 0), groups=width, bias=False),
    )


class ReleaseDRB(nn.Module):
    """DRB of the release, which is SAM2-UNet's receptive field block (RFB).

    Four branches, no ReLU within: 1x1; and for k = 3, 5, 7: 1x1, (1, k), (k, 1), 3x3 of dilation k.
    """

    def __init__(self, cin: int, width: int = WIDTH) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn(cin, width, 1)])
        for k in KERNELS:
            self.branches.append(
                nn.Sequential(
                    conv_bn(cin, width, 1),
                    conv_bn(width, width, (1, k)),
                    conv_bn(width, width, (k, 1)),
                    conv_bn(width, width, 3, dilation=k),
                )
            )
        self.fuse = conv_bn(4 * width, width)
        self.residual = conv_bn(cin, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 64, H, W)."""
        fused = self.fuse(torch.cat([branch(x) for branch in self.branches], 1))
        out: Tensor = (fused + self.residual(x)).relu()
        return out


def reduction(name: str, cin: int) -> nn.Module:
    """Return the block that takes an encoder map to 64 channels."""
    if name == "none":
        return conv_bn_relu(cin, WIDTH, 1)
    return PaperDRB(cin) if name == "paper" else ReleaseDRB(cin)


class Sub(nn.Module):
    """``conv(|a - up(b)|)``, b the deeper map (paper's Eq 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn_relu(WIDTH, WIDTH, bias=True)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Return (B, 64, H, W) of the shallower map."""
        out: Tensor = self.conv((shallow - up_to(deep, shallow)).abs())
        return out


class MSSM(nn.Module):
    """Six Subs across levels 1..4, summed per level."""

    def __init__(self) -> None:
        super().__init__()
        self.sub43, self.sub32, self.sub21 = Sub(), Sub(), Sub()
        self.sub432, self.sub321, self.sub4321 = Sub(), Sub(), Sub()
        self.conv2 = conv_bn_relu(WIDTH, WIDTH, bias=True)
        self.conv1 = conv_bn_relu(WIDTH, WIDTH, bias=True)

    def forward(self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor) -> tuple[Tensor, ...]:
        """Return the levels 1, 2, 3 at strides 4, 8, 16."""
        x43, x32, x21 = self.sub43(x3, x4), self.sub32(x2, x3), self.sub21(x1, x2)
        x432, x321 = self.sub432(x32, x43), self.sub321(x21, x32)
        x4321 = self.sub4321(x321, x432)
        return self.conv1(x21 + x321 + x4321), self.conv2(x32 + x432), x43


class SAM2MS(SegmentationModel):
    """Binary roads on any encoder with maps at strides 4, 8, 16, 32.

    Args:
        encoder: Its channels are asked for.
        num_classes: 2; the road's logit z stands as (0, z).
        options: Switches of the decoder.
    """

    Options = SAM2MSOptions

    def __init__(self, encoder: Encoder, num_classes: int, options: SAM2MSOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        self.drb = nn.ModuleList(reduction(options.drb, c) for c in encoder.channels)
        self.mssm = MSSM() if options.mssm else None
        self.deep = conv_bn_relu(encoder.channels[3], WIDTH, bias=True)
        self.conv3 = conv_bn_relu(WIDTH, WIDTH, bias=True)
        self.conv2 = conv_bn_relu(WIDTH, WIDTH, bias=True)
        self.head = nn.Conv2d(WIDTH, 1, 3, padding=1)
        if self.mssm is None:
            del self.drb[3]  # nothing is subtracted from the deepest map

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, 2, H, W)."""
        features = self.encoder(x)
        reduced = [drb(f) for drb, f in zip(self.drb, features, strict=False)]
        level1, level2, level3 = self.mssm(*reduced) if self.mssm is not None else reduced
        out = self.conv3(up_to(self.deep(features[3]), level3) + level3)
        out = self.conv2(up_to(out, level2) + level2)
        z = up_to(self.head(up_to(out, level1) + level1), x)
        return Prediction(two_classes(z), (), features)


def up_to(x: Tensor, like: Tensor) -> Tensor:
    """Resize bilinearly to the height and width of another map."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
