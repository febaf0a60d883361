"""The objective that a config names, built for a dataset and a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from terradapt.config import ObjectiveConfig, RunConfig
from terradapt.data import Dataset, read_mask
from terradapt.errors import ConfigError
from terradapt.losses.lossnet import LossNet
from terradapt.losses.pixel import balanced_weights
from terradapt.metrics.confusion import Confusion
from terradapt.training.consistency import Consistency, Teacher
from terradapt.training.distillation import build_distilled
from terradapt.training.objectives import Objective, Structure, Supervised


def build_objective(
    config: RunConfig, dataset: Dataset, device: torch.device, teacher: Teacher | None = None
) -> Objective:
    """Build the objective that a config names.

    Args:
        config: The run's.
        dataset: What is trained on.
        device: Where it runs.
        teacher: The run's averaged model, where it has one.

    Raises:
        ConfigError: It does not fit the classes.
        CheckpointError: A teacher or a lossnet's weights cannot be used.
    """
    thin = [k for k in ("skeleton_recall", "cldice") if getattr(config.objective, k)]
    if thin and len(dataset.classes) != 2:
        raise ConfigError(
            f"objective.{thin[0]} is for 2 classes, {dataset.root} has {len(dataset.classes)}",
            f"set objective.{thin[0]}=0",
        )
    if config.objective.name == "structure":
        return _build_structure(config, dataset, device)
    supervised = _build_supervised(config.objective, dataset, device)
    if config.objective.name == "distill":
        return build_distilled(config, dataset, supervised, device)
    if config.objective.name == "consistency":
        if teacher is None:
            raise ConfigError(
                "objective.name=consistency learns from the run's average, and there is none",
                "set train.ema=0.99",
            )
        asked = config.objective.consistency
        counts = _class_pixels(dataset) if asked.shares else None
        shares = None if counts is None else (counts / counts.sum()).float().to(device)
        return Consistency(asked, supervised, teacher, shares)
    return supervised


def _build_supervised(
    config: ObjectiveConfig, dataset: Dataset, device: torch.device
) -> Supervised:
    given = config.class_weights
    if given is None:
        return Supervised(config)
    if given == "balanced":
        return Supervised(config, balanced_weights(_class_pixels(dataset)).to(device))
    if len(given) != len(dataset.classes):
        raise ConfigError(
            f"{len(given)} class weights for {len(dataset.classes)} classes",
            f"give one for each of: {', '.join(dataset.classes.names)}",
        )
    return Supervised(config, torch.tensor(given, device=device))


def _build_structure(config: RunConfig, dataset: Dataset, device: torch.device) -> Structure:
    if len(dataset.classes) != 2:
        raise ConfigError(
            f"the structure loss is for 2 classes, {dataset.root} has {len(dataset.classes)}",
            "use objective.name=supervised",
        )
    given = config.objective.lossnet
    lossnet = None if given is None else LossNet(given).to(device)
    return Structure(config.objective, lossnet)


def _class_pixels(dataset: Dataset) -> Tensor:
    """Count the training labels' pixels: (K,)."""
    counts = Confusion(len(dataset.classes))
    for item in dataset.split("train"):
        mask = read_mask(dataset, item)
        counts.update(mask, np.zeros_like(mask))
    return torch.from_numpy(counts.matrix.sum(1))
