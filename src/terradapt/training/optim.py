"""AdamW with two parameter groups and a cosine that is a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from terradapt.config import OptimConfig
from terradapt.models.contract import SegmentationModel


def build_optimizer(model: SegmentationModel, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over backbone and decoder; biases and norms are not decayed.

    Each group carries ``peak``, the learning rate that :func:`set_rates` scales.
    """
    peaks = {"backbone": config.lr_backbone or config.lr, "decoder": config.lr}
    groups = []
    for name, parameters in model.parameter_groups().items():
        for decayed in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decayed]
            if chosen:
                decay = config.weight_decay if decayed else 0.0
                peak = peaks[name]
                groups.append({"params": chosen, "lr": peak, "peak": peak, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, total: int) -> None:
    """Set each group's learning rate for ``step`` of ``total``: linear warm-up, then a cosine.

    The cosine ends at ``min_lr``; SAM2MS prints 1e-4 to 1e-7.
    """
    if step < config.warmup:
        share = (step + 1) / config.warmup
    else:
        done = (step - config.warmup) / max(total - config.warmup, 1)
        share = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    for group in optimizer.param_groups:
        floor = min(config.min_lr, group["peak"])
        warm = step < config.warmup
        group["lr"] = group["peak"] * share if warm else floor + (group["peak"] - floor) * share


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> Iterator[tuple[str, Tensor]]:
    """Yield AdamW's state as ``name.key`` -> tensor, by the parameters' names."""
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"optimizer.{name}.{key}", value


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Put back what :func:`optimizer_tensors` yielded."""
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        if state:
            optimizer.state[parameter] = {k: _laid_out(v, parameter) for k, v in state.items()}


def _laid_out(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """Put a stored value on its parameter's device, in its parameter's memory format."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter).detach().copy_(value)


class Average:
    """Exponential moving average of a model's weights and statistics.

    The decay grows from 0 as ``(1 + n) / (10 + n)`` up to ``decay``, so that short runs forget
    their random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {
            k: v.detach().clone() for k, v in _moving(model) if v.dtype.is_floating_point
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model's weights after optimiser step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = dict(_moving(model))
        held = list(self.tensors.values())
        torch._foreach_lerp_(held, [current[k] for k in self.tensors], 1 - decay)

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the model's state with the averaged tensors in place."""
        return {**model.state_dict(), **self.tensors}


def _moving(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what training changes: parameters that train, and buffers."""
    kept = model.state_dict(keep_vars=True)
    for name, value in kept.items():
        if value.requires_grad or not isinstance(value, nn.Parameter):
            yield name, value.detach()
