"""The screen that a run opens with: what is trained, on what, with what, and how it begins."""

from __future__ import annotations

from textwrap import wrap

from torch import nn

from terradapt.config import InputSpec, RunConfig
from terradapt.data import Dataset

WIDTH = 79
NARROW = 20.0
"""Metres: a crop that is narrower sees no house with what stands around it."""


def opening(
    config: RunConfig,
    dataset: Dataset,
    spec: InputSpec,
    model: nn.Module,
    *,
    device: str,
    weights: str,
    steps: tuple[int, int, int],
) -> list[str]:
    """Return the lines, none wider than :data:`WIDTH`.

    Args:
        config: The run, with nothing left open.
        dataset: What it is trained on.
        spec: What the model sees.
        model: The model.
        device: What computes, in words.
        weights: What it begins with, in words.
        steps: Done, all, and of one epoch.
    """
    done, total, epoch = steps
    train = config.train
    weigh = [(p.numel(), p.requires_grad) for p in model.parameters()]
    size = f"{sum(n for n, _ in weigh) / 1e6:.2f} M parameters"
    if not all(trains for _, trains in weigh):
        size += f", {sum(n for n, trains in weigh if trains) / 1e6:.2f} M of them train"
    crops = train.batch * train.accumulate
    rows = {
        "images": _images(dataset),
        "scale": _scale(config, spec),
        "classes": f"{len(dataset.classes)}: {', '.join(dataset.classes.names)}",
        "model": f"{config.model.name} on {config.model.encoder.name}, {size}",
        "weights": weights,
        "device": f"{device}, {train.precision}",
        "steps": f"{total}: {train.epochs} epochs of {epoch}, {crops} crops each"
        + (f"; goes on after {done}" if done else ""),
    }
    return [line for name, text in rows.items() for line in row(name, text)]


def row(name: str, text: str) -> list[str]:
    """Return a name with its text beside it, broken at :data:`WIDTH`."""
    lines = wrap(text, WIDTH - 10, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{name:9} {lines[0]}", *(f"{'':9} {line}" for line in lines[1:])]


def narrow(config: RunConfig, spec: InputSpec) -> str | None:
    """Return a warning where a crop sees too little ground around a thing to know it."""
    metres = _crop_metres(config, spec)
    if metres is None or metres >= NARROW:
        return None
    crop, coarser = config.data.crop, NARROW / config.data.crop
    return (
        f"a crop of {crop} px is {metres:.3g} m wide and sees no context; "
        f"coarser pixels see more: data.resolution={coarser:.2g}, or raise data.crop"
    )


def _images(dataset: Dataset) -> str:
    parts = []
    for name, ids in dataset.splits.items():
        bare = sum(not dataset.is_labelled(dataset.item(i)) for i in ids)
        parts.append(f"{len(ids)} {name}" + (f" ({bare} unlabelled)" if bare else ""))
    beside = len(dataset.items) - len({i for ids in dataset.splits.values() for i in ids})
    return ", ".join(parts) + (f"; {beside} in no split" if beside else "")


def _scale(config: RunConfig, spec: InputSpec) -> str:
    crop, metres = config.data.crop, _crop_metres(config, spec)
    if metres is None:
        return f"unknown, the images do not say; a crop is {crop} px wide"
    return f"{spec.resolution:.3g} m per pixel; a crop of {crop} px is {metres:.3g} m wide"


def _crop_metres(config: RunConfig, spec: InputSpec) -> float | None:
    return None if spec.resolution is None else spec.resolution * config.data.crop
