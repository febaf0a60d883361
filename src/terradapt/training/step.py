"""One training step, measured: for the estimate of a recipe's time and memory."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from terradapt import models
from terradapt.config import RunConfig
from terradapt.machine import peak_memory
from terradapt.training.pretrained import with_weights
from terradapt.training.suiting import with_channels

_OPTIMISER_STATES = 3  # gradient and the two moments of AdamW, each as large as the weight


def measure_step(config: RunConfig, num_classes: int) -> dict[str, Any]:
    """Run a forward and backward pass of the recipe's model on one crop, and scale to the batch.

    Args:
        config: The recipe; its weights are left random.
        num_classes: Of the dataset.

    Returns:
        ``device``, ``step_seconds`` of a whole batch, ``memory_bytes`` of weights, gradients,
        optimiser and activations.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = with_channels(with_weights(config, None))
    model = models.build(plan, num_classes).to(device).train()
    image = torch.rand(2, plan.in_channels, config.data.crop, config.data.crop, device=device)
    mask = torch.zeros(2, config.data.crop, config.data.crop, dtype=torch.long, device=device)
    before = _used(device)
    seconds = min(_pass(model, image, mask) for _ in range(2))
    activations = max(0, _used(device) - before)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return {
        "device": "the GPU" if device.type == "cuda" else "the CPU",
        "step_seconds": seconds / len(image) * config.train.batch * config.train.accumulate,
        "memory_bytes": weights
        + trained * _OPTIMISER_STATES
        + activations * config.train.batch // len(image),
    }


def _pass(model: nn.Module, image: Tensor, mask: Tensor) -> float:
    start = time.perf_counter()
    logits = model(image).logits
    functional.cross_entropy(logits, mask).backward()
    if image.is_cuda:
        torch.cuda.synchronize()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def _used(device: torch.device) -> int:
    """Peak bytes so far: of the device, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_memory() or 0
