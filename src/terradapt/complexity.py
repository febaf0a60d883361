"""Parameters and multiply-accumulates of models, counted as the papers' tool counts them.

The papers print what PyPI's ``thop`` reports in evaluation mode: only modules with a rule that ran
count. So convolutions, linear layers, plain norms, average pools and upsamplings count; attention
products, activations, timm's fused norm-activations and raw parameters do not. What the papers call
FLOPs are these MACs, of the whole batch. Models are built without storage and run on shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from terradapt.config import EncoderConfig
from terradapt.counts import ComplexityRow
from terradapt.models import MODELS, build_on_meta, default_config
from terradapt.models.contract import SegmentationModel
from terradapt.models.encoder import SAM2_TRUNKS, STUDENTS

ROAD_BASELINES = (
    "unet",
    "unet++",
    "d-linknet",
    "msnet",
    "m2snet",
    "seg-road",
    "swin-unet",
    "sgcnnet",
    "msmdffnet",
)
"""The networks that SAM2MS compares with, in its order."""
UPSAMPLE_MACS = {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}


@dataclass(frozen=True)
class Complexity:
    """Size and work of a model.

    Attributes:
        parameters: All that predict; heads used in training only are left out.
        trainable: All that an optimiser gets, training-only heads included.
        thop_parameters: Those of the modules that thop counts.
        macs: Multiply-accumulates of the whole batch, by thop's rules.
    """

    parameters: int
    trainable: int
    thop_parameters: int
    macs: int


def measure(model: SegmentationModel, batch: int, size: int) -> Complexity:
    """Count a model at (batch, its bands, size, size); it runs once, in evaluation mode.

    Args:
        model: On the device ``meta`` the run costs nothing.
        batch: B.
        size: Height and width, px.
    """
    counted: dict[nn.Module, float] = {}
    hooks = [
        module.register_forward_hook(partial(_count, counted, rule))
        for module in model.modules()
        if (rule := _rule(module)) is not None
    ]
    training = model.training
    device = next(model.parameters()).device
    with torch.no_grad():
        model.eval()(torch.empty(batch, model.config.in_channels, size, size, device=device))
    model.train(training)
    for hook in hooks:
        hook.remove()
    aux = sum(_size(model.get_submodule(name)) for name in model.training_only)
    return Complexity(
        _size(model) - aux,
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        sum(_size(module) for module in counted),
        round(sum(counted.values())),
    )


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _count(
    counted: dict[nn.Module, float],
    rule: Callable[[Any, Tensor, Tensor], float],
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    counted[module] = counted.get(module, 0.0) + rule(module, inputs[0], output)


def _rule(module: nn.Module) -> Callable[[Any, Tensor, Tensor], float] | None:
    kinds: list[tuple[type | tuple[type, ...], Callable[[Any, Tensor, Tensor], float]]] = [
        (nn.Linear, lambda m, x, y: m.in_features * y.numel()),
        (nn.LayerNorm, _norm),
        (nn.AdaptiveAvgPool2d, _adaptive_pool),
        (nn.Softmax, lambda m, x, y: 3 * y.numel() - y.numel() // y.shape[m.dim]),
        (nn.AvgPool2d, lambda m, x, y: y.numel()),
        (nn.Upsample, lambda m, x, y: UPSAMPLE_MACS[m.mode] * y.numel()),
    ]
    # subclasses stay out: norm and activation in one, convolutions with standardized weights
    if type(module) is nn.BatchNorm2d:
        return _norm
    if type(module) in (nn.Conv2d, nn.ConvTranspose2d):
        return _conv
    return next((rule for kind, rule in kinds if isinstance(module, kind)), None)


def _conv(module: nn.Conv2d, x: Tensor, y: Tensor) -> float:
    return y.numel() * (x.shape[1] // module.groups) * math.prod(module.weight.shape[2:])


def _norm(module: Any, x: Tensor, y: Tensor) -> float:
    return 2 * x.numel() * (2 if module.weight is not None else 1)


def _adaptive_pool(module: nn.Module, x: Tensor, y: Tensor) -> float:
    return (math.prod(x.shape[2:]) / math.prod(y.shape[2:]) + 1) * y.numel()


def row(
    name: str,
    encoder: str,
    *,
    classes: int = 6,
    batch: int = 8,
    size: int = 512,
    options: dict[str, Any] | None = None,
) -> ComplexityRow:
    """Build and count one model on one encoder.

    Raises:
        ConfigError: No such model, encoder or option.
    """
    own = default_config(name)
    changes = {"encoder": EncoderConfig(name=encoder), "options": options or {}}
    config = own.model_copy(update=changes)
    model = build_on_meta(config, classes)
    counted = measure(model, batch, size)
    return ComplexityRow(
        name,
        encoder,
        counted.parameters,
        counted.trainable,
        counted.thop_parameters,
        counted.macs / 1e9,
        batch,
        size,
        classes,
        options or {},
        sum(v.numel() * v.element_size() for v in model.state_dict().values()),
    )


def catalogue() -> list[ComplexityRow]:
    """Return ARAFNet's Table 4 (batch 8, 512 px, 6 classes), the road models, the baselines."""
    arafnets = [("sam2-arafnet", SAM2_TRUNKS[-1])] + [("kd-arafnet", s) for s in STUDENTS]
    roads: dict[str, Any] = {"classes": 2, "batch": 1, "size": 1024}
    return [
        *(row(name, encoder) for name, encoder in arafnets),
        *(row("sam2ms", trunk, **roads) for trunk in SAM2_TRUNKS),
        row("sam2ms", SAM2_TRUNKS[-1], options={"drb": "release"}, **roads),
        row("sam2-unet", SAM2_TRUNKS[-1], **roads),
        row("siamese", SAM2_TRUNKS[-1], **roads),
        row("siamese", STUDENTS[0], **roads),
        *(
            row(n, line.encoder, **(roads if n in ROAD_BASELINES else {}))
            for n, line in MODELS.items()
            if line.module.startswith("baselines")
        ),
    ]
