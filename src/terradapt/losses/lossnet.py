"""Lossnet: a frozen ImageNet network compares prediction and mask at several depths (SAM2MS 3.5).

Both maps are repeated to three channels and ImageNet-normalised. Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.classes import IGNORE
from terradapt.config import LossNetConfig
from terradapt.weights import from_hub, load_backbone

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_WEIGHT = {"paper": 1.0, "release": 0.1}
RELEASE_SIDE = 224  # px
VGG_TAPS = (3, 8, 15, 22)  # relu1_2, relu2_2, relu3_3, relu4_3
RANDOM = "random"


class ResNetTaps(nn.Module):
    """timm's resnet50 up to layer4.

    ``paper`` taps the stem after its ReLU and layer1..4; ``release`` taps conv1, bn1, maxpool,
    layer1 and layer2.
    """

    def __init__(self, form: str, pretrained: bool) -> None:
        super().__init__()
        net = _timm("resnet50", pretrained)
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        self.form = form

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the five taps, finest first."""
        conv = self.conv1(x)
        norm = self.bn1(conv)
        stem = norm.relu()
        pooled = self.maxpool(stem)
        first = self.layer1(pooled)
        second = self.layer2(first)
        if self.form == "release":
            return [conv, norm, pooled, first, second]
        third = self.layer3(second)
        return [stem, first, second, third, self.layer4(third)]


class VGGTaps(nn.Module):
    """timm's vgg16 up to relu4_3; taps relu1_2, relu2_2, relu3_3, relu4_3 in both forms."""

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        self.features = _timm("vgg16", pretrained).features[: VGG_TAPS[-1] + 1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the four taps, finest first."""
        taps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in VGG_TAPS:
                taps.append(x)
        return taps


def _timm(name: str, pretrained: bool) -> Any:
    if pretrained:
        return from_hub(partial(timm.create_model, name, pretrained=True), name)
    return timm.create_model(name)


class LossNet(nn.Module):
    """The loss of a config; its network never trains.

    ``paper``: the root of the mean squared difference at each tap, summed: the L2 norm of Eq 6,
    divided by the root of the number of elements so that it does not swamp the other terms.
    ``release``: maps resized to 224 x 224, the mean squared difference at each tap, summed.

    Args:
        config: Network, form, weight. ``weights``: a local file of timm's state dict, ``"hub"`` or
            None for timm's hub, ``"random"`` for tests.

    Raises:
        CheckpointError: The weights cannot be fetched or read, or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: LossNetConfig) -> None:
        super().__init__()
        hub = config.weights in (None, "hub")
        self.net: nn.Module = (
            ResNetTaps(config.form, hub) if config.name == "resnet50" else VGGTaps(hub)
        )
        if not hub and config.weights != RANDOM:
            load_backbone(self.net, str(config.weights))
        self.form = config.form
        self.weight = DEFAULT_WEIGHT[config.form] if config.weight is None else config.weight
        self.register_buffer("mean", torch.tensor(MEAN)[None, :, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[None, :, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> LossNet:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted loss.

        Args:
            logits: (B, 2, H, W).
            target: (B, H, W), 0, 1 or 255; the prediction counts as right where it is 255.
        """
        assert logits.shape[1] == 2, "lossnet is for background and one class"
        truth = (target == 1).to(logits.dtype)
        prediction = torch.where(target == IGNORE, truth, logits.softmax(1)[:, 1])
        with torch.no_grad():
            wanted = self.net(self._image(truth))
        found = self.net(self._image(prediction))
        differences = [self._difference(p, g) for p, g in zip(found, wanted, strict=True)]
        return self.weight * torch.stack(differences).sum()

    def _image(self, grey_BHW: Tensor) -> Tensor:
        image = grey_BHW[:, None].expand(-1, 3, -1, -1)
        if self.form == "release":
            side = (RELEASE_SIDE, RELEASE_SIDE)
            image = F.interpolate(image, side, mode="bilinear", align_corners=False)
        return (image - self.mean) / self.std

    def _difference(self, found: Tensor, wanted: Tensor) -> Tensor:
        if self.form == "release":
            return F.mse_loss(found.float(), wanted.float())
        squares = (found.float() - wanted.float()).square().mean((1, 2, 3))
        return (squares + 1e-12).sqrt().mean()  # the root's slope at 0 is infinite
