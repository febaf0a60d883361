"""SFA-Net: UNetFormer's decoder on an EfficientNet whose maps are adjusted first.

Paper: Hwang, Jeong, Lee 2024, "SFA-Net: Semantic Feature Adjustment Network for Remote Sensing
Image Segmentation", Remote Sensing 16, 3278. At 6 classes and 512 px: 10,662,745 parameters (37,376
more for the auxiliary head of training: the 10.7 M that the paper prints), 7.042 GMACs by thop. The
code weighs the auxiliary loss by 0.4.

Slip reproduced: the first adjustment module gates the map's global mean, not the map, and gives a
1 x 1 map to what follows; ``fam1: spatial`` gates the map. Training takes two images a batch or
more.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import Gate, upsample
from terradapt.models.baselines.unetformer import (
    WIDTH,
    AttentionBlock,
    AuxiliaryHead,
    FeatureRefinement,
    GlobalLocalAttention,
    WeightedFusion,
    segmentation_head,
)
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv_bn

RATIO = 16


class SFANetOptions(ConfigPart):
    """Switch of the first adjustment module; the default is the released code's."""

    fam1: Literal["global", "spatial"] = "global"


class FeatureAdjustment(nn.Module):
    """Finer maps, halved by strided 1x1 convolutions, are added to coarser ones through gates."""

    def __init__(self, channels: tuple[int, ...], fam1: str) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.spatial = fam1 == "spatial"
        self.down_12, self.down_34 = _halving(c1, c2), _halving(c3, c4)
        self.down_23, self.down_f1 = _halving(c2, c3), _halving(c2, c3)
        self.fam_1 = Gate(c2, max(1, c2 // RATIO), bias=True, act=nn.ReLU)
        self.fam_2 = Gate(c3, max(1, c3 // RATIO), bias=False, act=nn.ReLU)

    def forward(self, f1: Tensor, f2: Tensor, f3: Tensor, f4: Tensor) -> tuple[Tensor, Tensor]:
        """Return the adjusted maps (B, C3, H/16, W/16) and (B, C4, H/32, W/32)."""
        a2 = f2 + self.down_12(f1)
        a3 = f3 + self.down_23(f2)
        gated = self.fam_1(a2 if self.spatial else F.adaptive_avg_pool2d(a2, 1))
        f3 = self.fam_2(a3)
        return self.down_f1(gated) + f3, f4 + self.down_34(f3)


class SFANet(SegmentationModel):
    """Feature adjustment, three blocks of attention, a refinement head on shuffled channels.

    Args:
        encoder: All four maps are used.
        num_classes: K.
        options: The first adjustment module's form.
    """

    Options = SFANetOptions
    min_batch = 2
    training_only = ("aux_head",)

    def __init__(self, encoder: Encoder, num_classes: int, options: SFANetOptions) -> None:
        super().__init__()
        c1, c2, c3, c4 = encoder.channels
        self.encoder = encoder
        self.num_classes = num_classes
        self.adjustment = FeatureAdjustment(encoder.channels, options.fam1)
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
        in3, in4 = self.adjustment(f1, f2, f3, f4)
        x4 = self.block_4(self.reduce(in4))
        x3 = self.block_3(self.fusion_3(x4, in3))
        x2 = self.block_2(self.fusion_2(x3, f2))
        shuffled = x2.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)  # in four groups
        logits = upsample(self.head(self.refinement(shuffled, f1)), x)
        aux = (self.aux_head(x4, x3, x2, x),) if self.training else ()
        return Prediction(logits, aux, features)


def _halving(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride=2), nn.BatchNorm2d(cout))
