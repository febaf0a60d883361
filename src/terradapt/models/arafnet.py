"""SAM2-ARAFNet and KD-ARAFNet: one decoder for the teacher and all students.

Paper: "SAM2-ARAFNet: adapting SAM2 with an attention-enhanced residual ASPP fusion network for
high-resolution remote sensing semantic segmentation". Low path (1/8) and high path (ResASPP, 1/32)
meet in a bilateral fusion module (BFM, 1/8); the layout is the one that prints the parameters and
MACs of the paper's Table 4. Shapes: B batch, C1..C4 encoder channels, W the decoder's width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from terradapt.config import ConfigPart
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import attention, conv, conv_bn, conv_bn_relu

RATES = (3, 6, 12, 18, 24)


class ARAFNetOptions(ConfigPart):
    """Switches of the decoder; the defaults are the paper's, the others its Table 6.

    ``mlp_width`` is ours: beside the paper's decoder a path of 1x1 convolutions answers at 1/4.
    """

    aux: bool = False  # auxiliary head, used in training only
    resaspp: bool = True  # False: a 1x1 convolution in its place
    branch_attention: bool = True  # CBAM in the five branches
    trunk_attention: bool = True  # CBAM on F4 and on the residual
    low_path: bool = True
    low_attention: bool = True  # CBAM at the end of the low path
    fusion: Literal["bfm", "add", "concat", "none"] = "bfm"
    up_mode: Literal["nearest", "bilinear"] = "nearest"  # of the high path, x4
    width: int = 128
    mlp_width: int = Field(0, ge=0)  # channels of a path of 1x1 convolutions; 0: none, the paper

    @model_validator(mode="after")
    def _fusable(self) -> ARAFNetOptions:
        if self.low_path and self.fusion == "none":
            raise ValueError("fusion 'none' needs low_path false")
        if not self.low_path and self.fusion in ("add", "concat"):
            raise ValueError("without the low path, fusion is 'bfm' or 'none'")
        return self


NO_ATTENTION = {"branch_attention": False, "trunk_attention": False}
BARE = {**NO_ATTENTION, "low_attention": False, "resaspp": False}
ABLATIONS: dict[str, dict[str, Any]] = {
    "w/o ResASPP module": {"resaspp": False},
    "w/o all attention in ResASPP": NO_ATTENTION,
    "w/o branch attention in ResASPP": {"branch_attention": False},
    "w/o trunk attention in ResASPP": {"trunk_attention": False},
    "w/o LowPath (BFM retained)": {"low_path": False},
    "w/o LowPath (BFM removed)": {"low_path": False, "fusion": "none"},
    "w/o BFM (add)": {"fusion": "add"},
    "w/o BFM (concat)": {"fusion": "concat"},
    "w/o attention, BFM, and ResASPP (add)": {**BARE, "fusion": "add"},
    "w/o attention, BFM, and ResASPP (concat)": {**BARE, "fusion": "concat"},
}
"""The ten variants of the paper's Table 6, in its order, as options."""


class LowPath(nn.Module):
    """F1, F2, F3 meet at 1/8."""

    def __init__(self, channels: tuple[int, ...], width: int, attended: bool) -> None:
        super().__init__()
        c1, c2, c3, _ = channels
        self.down = nn.Sequential(
            nn.Conv2d(c1, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(c3, width, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.fuse = conv_bn_relu(width + c2 + width, width)
        self.attention = attention(width, attended)

    def forward(self, f1: Tensor, f2: Tensor, f3: Tensor) -> Tensor:
        """Return (B, W, H/8, W/8)."""
        out: Tensor = self.attention(self.fuse(torch.cat([self.down(f1), f2, self.up(f3)], 1)))
        return out


class ResASPP(nn.Module):
    """Five parallel dilated branches on F4 that share one residual (1/32)."""

    def __init__(self, c4: int, width: int, *, branch: bool, trunk: bool) -> None:
        super().__init__()
        self.attention = attention(c4, trunk)
        self.residual = conv_bn(c4, width, 1).append(attention(width, trunk))
        self.branches = nn.ModuleList(
            conv_bn_relu(c4, width, dilation=rate, bias=True).extend(
                [nn.Dropout(0.1), attention(width, branch)]
            )
            for rate in RATES
        )
        self.project = conv_bn_relu(len(RATES) * width, width, 1, bias=True).append(nn.Dropout(0.2))

    def forward(self, f4: Tensor) -> Tensor:
        """Return (B, W, H/32, W/32)."""
        x = self.attention(f4)
        residual = self.residual(x)
        out: Tensor = self.project(torch.cat([b(x) + residual for b in self.branches], 1))
        return out


class BFM(nn.Module):
    """Bilateral fusion: each side's content passes the other side's gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main_low, self.main_high = self._main(width), self._main(width)
        self.gate_low, self.gate_high = conv_bn(width, width), conv_bn(width, width)
        self.out = conv_bn_relu(width, width)

    @staticmethod
    def _main(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            conv(width, width, 1),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Return (B, W, H/8, W/8) for two maps of that shape."""
        x = self.main_low(low) * torch.sigmoid(self.gate_high(high))
        y = self.main_high(high) * torch.sigmoid(self.gate_low(low))
        out: Tensor = self.out(x + y)
        return out


class ConcatFusion(nn.Module):
    """The ablation's plain fusion: concatenate, 1x1 convolution back to the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(2 * width, width, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Return (B, W, H/8, W/8) for two maps of that shape."""
        out: Tensor = self.conv(torch.cat([low, high], 1))
        return out


class AddFusion(nn.Module):
    """The ablation's plainest fusion."""

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the sum."""
        return low + high


class MLPPath(nn.Module):
    """A vote of all four maps at 1/4, without any neighbourhood: SegFormer's decoder, made cheap.

    SegFormer (arXiv 2105.15203, Sec. 3.1) projects every map, enlarges and concatenates them and
    projects again. Two projections in a row are one, so that maps are added, and enlarged on the
    way up in steps of two::

        F4 -> 1x1 -> x2 -(+)-> x2 -(+)-> x2 -(+)-> BN, ReLU -> dropout -> 1x1 -> K
        F3 -> 1x1 --------'         |         |
        F2 -> 1x1 ------------------'         |
        F1 -> 1x1 ----------------------------'
    """

    def __init__(self, channels: tuple[int, ...], width: int, num_classes: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.head = nn.Sequential(
            nn.Dropout(0.1),
            nn.Conv2d(width, num_classes, 1),
            nn.Upsample(scale_factor=4, mode="bilinear"),
        )

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return logits (B, K, H, W)."""
        *finer, x = (side(f) for side, f in zip(self.sides, features, strict=True))
        for side in reversed(finer):
            x = self.up(x) + side
        out: Tensor = self.head(self.norm(x))
        return out


class ARAFNet(SegmentationModel):
    """The decoder on any encoder with maps at strides 4, 8, 16, 32.

    Args:
        encoder: Its channels are asked for.
        num_classes: K.
        options: Switches of the decoder.
    """

    Options = ARAFNetOptions

    def __init__(self, encoder: Encoder, num_classes: int, options: ARAFNetOptions) -> None:
        super().__init__()
        width, c4 = options.width, encoder.channels[3]
        self.encoder = encoder
        self.num_classes = num_classes
        self.up = nn.Upsample(scale_factor=4, mode=options.up_mode)
        self.low = (
            LowPath(encoder.channels, width, options.low_attention) if options.low_path else None
        )
        self.high: nn.Module = (
            ResASPP(c4, width, branch=options.branch_attention, trunk=options.trunk_attention)
            if options.resaspp
            else conv_bn_relu(c4, width, 1)
        )
        self.fusion = _fusion(options.fusion, width)
        self.head = _head(width, num_classes)
        self.mlp = (
            MLPPath(encoder.channels, options.mlp_width, num_classes) if options.mlp_width else None
        )
        self.aux_head = _head(width, num_classes) if options.aux else None
        self.training_only = ("aux_head",) if options.aux else ()

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W); auxiliary logits in training only."""
        f1, f2, f3, f4 = features = self.encoder(x)
        high = self.up(self.high(f4))
        low = self.low(f1, f2, f3) if self.low is not None else high
        fused = self.fusion(low, high) if self.fusion is not None else high
        logits = self.head(fused)
        if self.mlp is not None:
            logits = logits + self.mlp(features)
        if self.training and self.aux_head is not None:
            both = low + high if self.low is not None else high
            return Prediction(logits, (self.aux_head(both),), features)
        return Prediction(logits, (), features)


def _fusion(name: str, width: int) -> nn.Module | None:
    kinds: dict[str, Any] = {"bfm": BFM, "concat": ConcatFusion}
    if name in kinds:
        return kinds[name](width)  # type: ignore[no-any-return]
    return AddFusion() if name == "add" else None


def _head(width: int, num_classes: int) -> nn.Sequential:
    return conv_bn_relu(width, width).extend(
        [
            nn.Dropout(0.1),
            nn.Conv2d(width, num_classes, 1),
            nn.Upsample(scale_factor=8, mode="bilinear"),
        ]
    )
