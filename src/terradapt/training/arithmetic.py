"""How a run computes on this machine: precision and threads, settled before its first step.

Both change the bits of a training, so a resumed run takes what its first part took.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from terradapt import models
from terradapt.config import RunConfig
from terradapt.machine import cpu_threads, taken_cores
from terradapt.training.pretrained import with_weights

WORTH_IT = 1.1
"""bfloat16 is taken from this speed-up on: less is lost again outside of the network."""


def settle_precision(
    config: RunConfig, num_classes: int, *, held: RunConfig | None = None, processes: int = 1
) -> tuple[RunConfig, str]:
    """Replace ``train.precision=auto``: what the run began with, or else what is faster here.

    A GPU that has bfloat16 computes in it. On a CPU with bfloat16 arithmetic, forward and backward
    of the run's own network and crop are measured both ways; where several processes train
    together nothing is measured, so that all of them agree.

    Args:
        config: The whole run.
        num_classes: K.
        held: The config of the run that is resumed.
        processes: That train together.

    Returns:
        The config without ``auto``, and a sentence on what was found; "" where nothing was asked.
    """
    if config.train.precision != "auto":
        return config, ""
    if held is not None:
        chosen, told = held.train.precision, ""
    elif torch.cuda.is_available():
        chosen = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        told = f"precision {chosen}: what the GPU computes in"
    elif processes > 1 or not _has_bfloat16():
        chosen, told = "fp32", "precision fp32: this processor has no bfloat16 arithmetic"
        if processes > 1:
            told = "precision fp32: several processes train together"
    else:
        gain = speed_up(config, num_classes)
        chosen = "bf16" if gain >= WORTH_IT else "fp32"
        told = f"precision {chosen}: bfloat16 is {gain:.2f} times as fast here"
    train = config.train.model_copy(update={"precision": chosen})
    return config.model_copy(update={"train": train}), told


def settle_threads(stored: int | None = None) -> tuple[int, str]:
    """Return the threads of a training on the CPU: those it began with, or else the free cores.

    torch waits for its slowest thread: where others use a core, a thread less is many times faster.

    Args:
        stored: What the run that is resumed began with.

    Returns:
        Threads, and a sentence where cores were left to others.
    """
    if stored is not None:
        return stored, ""
    threads = cpu_threads()
    if threads == 1 or os.environ.get("OMP_NUM_THREADS"):
        return threads, ""
    taken = round(taken_cores())
    free = max(1, threads - taken)
    if free == threads:
        return threads, ""
    return free, f"other programs use {taken} of {threads} cores: training with {free} threads"


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """While open, torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def spare_depthwise(model: nn.Module) -> None:
    """Let depthwise convolutions train in float32 where a CPU computes in bfloat16.

    Their backward pass is two to eight times slower in bfloat16 than in float32, unless they are of
    3 x 3 weights and step by one pixel. Predictions stay in bfloat16.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or not 1 < module.groups == module.in_channels:
            continue
        form = module.kernel_size, module.stride, module.dilation
        if form != ((3, 3), (1, 1), (1, 1)):
            module.forward = MethodType(_in_float32, module)  # type: ignore[method-assign]


def _in_float32(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    if not (torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()):
        return type(self).forward(self, x)
    with torch.autocast("cpu", enabled=False):
        return type(self).forward(self, x.float()).to(torch.get_autocast_dtype("cpu"))


def speed_up(config: RunConfig, num_classes: int, seconds: float = 4.0) -> float:
    """Return how many times faster the network's forward and backward pass is in bfloat16.

    Rounds alternate and the fastest of each counts, since others use the machine too.

    Args:
        config: The whole run; weights are left random.
        num_classes: K.
        seconds: Time to measure; at least two rounds are run.
    """
    plan, side = with_weights(config, None).model, config.data.crop
    with torch.random.fork_rng(devices=[]):
        model = models.build(plan, num_classes).train()
        spare_depthwise(model)
        image = torch.rand(2, plan.in_channels, side, side)
        if config.train.channels_last:
            model = model.to(memory_format=torch.channels_last)
            image = image.contiguous(memory_format=torch.channels_last)
        times: list[tuple[float, float]] = []
        start = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < seconds:
            times.append((_pass(model, image, half=False), _pass(model, image, half=True)))
    full, half = np.min(times[1:], axis=0)  # the first pair chose its kernels
    return float(full / half)


def _pass(model: nn.Module, image: torch.Tensor, *, half: bool) -> float:
    mask = torch.zeros(len(image), *image.shape[2:], dtype=torch.long)
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(image).logits
    functional.cross_entropy(logits.float(), mask).backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def _has_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 itself (AVX-512 BF16 or AMX)."""
    named = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in named and bool(torch.cpu._is_avx512_bf16_supported())
