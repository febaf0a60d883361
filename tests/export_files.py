"""Small models whose scores vary, and their exported files, for the export tests."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from terradapt.classes import ROADS, ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.export.parity import patches
from terradapt.meta import Meta
from terradapt.models import MODELS, build
from terradapt.models.contract import SegmentationModel
from terradapt.predictors.torch import normalize_tensor

K_MAX = 4  # a head has at most this many channels
LAND = ClassMap(("water", "land", "road", "building"))


def pixels(batch: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Coloured patches, (B, 3, H, W)."""
    return patches(3, max(height, width), batch, seed)[..., :height, :width]


def lively(model: SegmentationModel, seed: int = 0) -> SegmentationModel:
    """Give a randomly initialised model batch statistics and logits that vary over the pixels.

    What starts at zero, so that it does nothing yet (the weight of an attention, the offsets of a
    deformable convolution), gets random values: else nothing of it would be compared.
    """
    for parameter in model.parameters():
        if not parameter.any() and (parameter.numel() == 1 or parameter.ndim > 1):
            nn.init.normal_(parameter, std=0.1 * parameter[0].numel() ** -0.5)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    x = normalize_tensor(torch.from_numpy(pixels(8, 128, 128, seed)), InputSpec())
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()
        model(x)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.running_var.clamp_(min=float(norm.running_var.mean()) / 2 + 1e-3)
        model.eval()
        spread = model(x).logits[:, -1].std()
        convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        last = [m for m in convs if m.out_channels <= K_MAX] or convs
        last[-1].weight.mul_(2 / spread)
    return model


def small(
    name: str = "kd-arafnet", encoder: str = "mobilenetv3_small_100", **options: object
) -> tuple[SegmentationModel, Meta]:
    """Return a lively model of the registry and what its checkpoint would say."""
    torch.manual_seed(0)
    bands = 3 * MODELS[name].dates
    config = RunConfig(
        name="tiny",
        model=ModelConfig(
            name=name, encoder=EncoderConfig(name=encoder), in_channels=bands, options=options
        ),
    )
    classes = ROADS if MODELS[name].binary else LAND
    model = lively(build(config.model, len(classes)))
    spec = InputSpec(resolution=0.09)
    if bands > 3:
        mean, std = spec.mean * (bands // 3), spec.std * (bands // 3)
        seen = {"bands": tuple(range(1, bands + 1)), "mean": mean, "std": std}
        spec = spec.model_copy(update=seen)
    meta = Meta(config=config, classes=classes, spec=spec, window=128)
    return model, meta
