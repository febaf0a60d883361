"""Structured pruning: ARAFNet's decoder with fewer channels, each the strongest of a wider decoder.

A channel that several layers share (a sum, a gate, an attention) is kept or dropped in all of them.
Its strength is the energy that its makers give it, known from their batch norms without any data,
times the squared weights with which its readers take it up; rescaling a channel changes nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from terradapt.errors import ConfigError
from terradapt.models import build
from terradapt.models.arafnet import BFM, RATES, ARAFNet, ResASPP
from terradapt.models.contract import SegmentationModel
from terradapt.models.layers import CBAM

LEAST = 8  # channels of a decoder


@dataclass(frozen=True)
class PrunedLayer:
    """A convolution of the decoder, and its batch norm where one follows.

    Attributes:
        name: Of the convolution.
        out: Group of its output channels; "" when all stay.
        into: Groups of its input's parts; "" is a part that stays. Empty: one filter per channel.
        norm: Name of the batch norm, or "".
    """

    name: str
    out: str
    into: tuple[str, ...]
    norm: str = ""


def narrow(model: SegmentationModel, width: int) -> SegmentationModel:
    """Return a KD-ARAFNet whose decoder has fewer channels, filled with the strongest.

    Encoder and MLP path are copied whole; an auxiliary head, used in training only, is dropped.
    Without further training the result is worse than the model: it is a start for fine-tuning.

    Args:
        model: ARAFNet with its paper's low path, ResASPP and bilateral fusion.
        width: Channels of the new decoder, from 8 to the model's own.

    Raises:
        ConfigError: Another model, or no such width.
    """
    wide = _width(model)
    if not LEAST <= width <= wide:
        raise ConfigError(
            f"a decoder of {wide} channels cannot be pruned to {width}",
            f"give a width from {LEAST} to {wide}",
        )
    options = {**model.config.options, "width": width, "aux": False}
    config = model.config.model_copy(update={"options": options})
    blank = config.encoder.model_copy(update={"weights": None})
    small = build(config.model_copy(update={"encoder": blank}), model.num_classes)
    small.config = config
    beside = ("mlp",) if options.get("mlp_width") else ()
    for whole in ("encoder", "high.attention", *beside):
        small.get_submodule(whole).load_state_dict(model.get_submodule(whole).state_dict())
    kept = {group: _strongest(values, width) for group, values in strengths(model).items()}
    with torch.no_grad():
        for layer in LAYERS:
            _copy_layer(model, small, layer, kept)
        for name, group in ATTENTIONS:
            _copy_attention(model.get_submodule(name), small.get_submodule(name), kept[group])
    return small.train(model.training)


def strengths(model: SegmentationModel) -> dict[str, Tensor]:
    """Return the strength of every channel (W,) of each group of the decoder."""
    wide = _width(model)
    made: dict[str, Tensor] = defaultdict(lambda: torch.zeros(wide))
    taken: dict[str, Tensor] = defaultdict(lambda: torch.zeros(wide))
    for layer in LAYERS:
        if not layer.into:
            continue
        weight_OIT = _weight(model.get_submodule(layer.name))
        given = weight_OIT.square().sum((1, 2))
        if layer.norm:
            norm: Any = model.get_submodule(layer.norm)
            given = channel_energy(norm.weight, norm.bias)
            folded = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight_OIT = weight_OIT * folded[:, None, None]
        if layer.out:
            made[layer.out] = made[layer.out] + given
        read = weight_OIT.square().sum((0, 2))
        for group, part in zip(layer.into, read.split(_sizes(layer, len(read), wide)), strict=True):
            if group:
                taken[group] = taken[group] + part
    return {group: (made[group] * taken[group]).detach() for group in made}


def channel_energy(scale: Tensor, shift: Tensor) -> Tensor:
    """Return the mean square of relu(scale z + shift) for a standard normal z."""
    size = scale.abs().clamp(min=1e-12)
    at = shift / size
    density = torch.exp(-at.square() / 2) / math.sqrt(2 * math.pi)
    below = (1 + torch.erf(at / math.sqrt(2))) / 2
    return ((shift.square() + size.square()) * below + shift * size * density).clamp(min=0)


def _layers() -> tuple[PrunedLayer, ...]:
    def normed(name: str, out: str, *into: str) -> PrunedLayer:
        return PrunedLayer(f"{name}.0", out, into, f"{name}.1")

    branches = [normed(f"high.branches.{i}", "aspp", "") for i in range(len(RATES))]
    fusion = [
        layer
        for side, other in (("low", "high"), ("high", "low"))
        for layer in (
            normed(f"fusion.main_{side}", side),
            PrunedLayer(f"fusion.main_{side}.2", "fused", (side,)),
            normed(f"fusion.gate_{other}", "fused", other),
        )
    ]
    return (
        normed("low.down", "down", ""),
        normed("low.up", "up", ""),
        normed("low.fuse", "low", "down", "", "up"),
        normed("high.residual", "aspp", ""),
        *branches,
        normed("high.project", "high", *["aspp"] * len(RATES)),
        *fusion,
        normed("fusion.out", "out", "fused"),
        normed("head", "head", "out"),
        PrunedLayer("head.4", "", ("head",)),
    )


LAYERS = _layers()
ATTENTIONS = (
    ("low.attention", "low"),
    ("high.residual.2", "aspp"),
    *[(f"high.branches.{i}.4", "aspp") for i in range(len(RATES))],
)


def _width(model: SegmentationModel) -> int:
    """Return the decoder's channels; refuse a model whose layers are not those of LAYERS."""
    parts = (getattr(model, "low", None), getattr(model, "high", None), getattr(model, "fusion", 0))
    if not (isinstance(model, ARAFNet) and isinstance(parts[1], ResASPP)):
        raise _unknown(model)
    if parts[0] is None or not isinstance(parts[2], BFM):
        raise _unknown(model)
    return int(model.get_submodule("head.0").out_channels)  # type: ignore[arg-type]


def _unknown(model: SegmentationModel) -> ConfigError:
    return ConfigError(
        f"the decoder of {model.config.name} with {model.config.options or 'its options'} "
        "cannot be pruned",
        "prune a kd-arafnet with its low path, ResASPP and BFM",
    )


def _strongest(values: Tensor, count: int) -> Tensor:
    return values.topk(count).indices.sort().values


def _weight(module: nn.Module) -> Tensor:
    """Return a convolution's weights as (outputs, inputs, taps)."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    if isinstance(module, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    return weight.detach().flatten(2)


def _sizes(layer: PrunedLayer, inputs: int, width: int) -> list[int]:
    """Return the channels of each part of a layer's input."""
    rest = inputs - width * sum(map(bool, layer.into))
    return [width if group else rest for group in layer.into]


def _copy_layer(
    model: SegmentationModel, small: SegmentationModel, layer: PrunedLayer, kept: dict[str, Tensor]
) -> None:
    source: Any = model.get_submodule(layer.name)
    target: Any = small.get_submodule(layer.name)
    weight_OIT = _weight(source)
    outputs, inputs = weight_OIT.shape[:2]
    rows = kept[layer.out] if layer.out else torch.arange(outputs)
    columns = _columns(layer, inputs, _width(model), kept) if layer.into else torch.zeros(1).long()
    _weight(target).copy_(weight_OIT[rows][:, columns])
    if source.bias is not None:
        target.bias.copy_(source.bias[rows])
    if layer.norm:
        _copy_norm(model.get_submodule(layer.norm), small.get_submodule(layer.norm), rows)


def _columns(layer: PrunedLayer, inputs: int, width: int, kept: dict[str, Tensor]) -> Tensor:
    """Return the input channels of a layer that stay."""
    parts, start = [], 0
    for group, size in zip(layer.into, _sizes(layer, inputs, width), strict=True):
        parts.append(start + (kept[group] if group else torch.arange(size)))
        start += size
    return torch.cat(parts)


def _copy_norm(source: Any, target: Any, rows: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(target, name).copy_(getattr(source, name)[rows])


def _copy_attention(source: nn.Module, target: nn.Module, kept: Tensor) -> None:
    """Copy a CBAM; its mean over fewer channels is brought back to that over all."""
    if not (isinstance(source, CBAM) and isinstance(target, CBAM)):
        return
    into, back = (_weight(source.channel.mlp[i]) for i in (0, 2))
    small_in, small_back = (_weight(target.channel.mlp[i]) for i in (0, 2))
    hidden = _strongest(into.square().sum((1, 2)) * back.square().sum((0, 2)), len(small_in))
    small_in.copy_(into[hidden][:, kept])
    small_back.copy_(back[kept][:, hidden])
    target.spatial.conv.weight.copy_(source.spatial.conv.weight)
    target.spatial.conv.weight[:, 0] *= len(kept) / source.channel.mlp[0].in_channels  # type: ignore[operator]
