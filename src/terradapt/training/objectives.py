"""Objectives: ``objective(model, batch) -> loss, logs``. They vary, the trainer does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from terradapt.config import ObjectiveConfig, RunConfig
from terradapt.data import Dataset
from terradapt.errors import ConfigError
from terradapt.losses.lossnet import LossNet
from terradapt.losses.pixel import balanced_weights, cross_entropy, dice, structure
from terradapt.metrics.confusion import Confusion
from terradapt.models.contract import Prediction

Logs = dict[str, Tensor]
Batch = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch], tuple[Tensor, Logs]]


class Supervised:
    """CE + Dice on the logits and, weighted by ``aux``, CE on auxiliary ones (ARAFNet Eq 5).

    Args:
        config: Weights of the terms.
        class_weights: (K,) weights of the classes in CE, or None.
    """

    def __init__(self, config: ObjectiveConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Logs]:
        """Return the loss and its terms for ``image`` (B, C, H, W) and ``mask`` (B, H, W)."""
        return self.compare(model(batch["image"]), batch["mask"])

    def compare(self, prediction: Prediction, mask: Tensor) -> tuple[Tensor, Logs]:
        """Return the loss and its terms for a prediction."""
        config, weights = self.config, self.class_weights
        terms = {
            "ce": config.ce * cross_entropy(prediction.logits, mask, weights),
            "dice": config.dice * dice(prediction.logits, mask),
        }
        if prediction.aux:
            parts = [cross_entropy(aux, mask, weights) for aux in prediction.aux]
            terms["aux"] = config.aux * torch.stack(parts).sum()
        return _total(terms)


class Structure:
    """Structure loss on the logits and, weighted by ``aux``, on further outputs, plus a lossnet.

    SAM2MS and SAM2-UNet; two classes, the second one is the road.
    """

    def __init__(self, config: ObjectiveConfig, lossnet: LossNet | None = None) -> None:
        self.config = config
        self.lossnet = lossnet

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Logs]:
        """Return the loss and its terms for ``image`` (B, C, H, W) and ``mask`` (B, H, W)."""
        prediction, mask = model(batch["image"]), batch["mask"]
        release = self.config.reproduce_release
        terms = {"structure": structure(prediction.logits, mask, reproduce_release=release)}
        if prediction.aux:
            parts = [structure(a, mask, reproduce_release=release) for a in prediction.aux]
            terms["aux"] = self.config.aux * torch.stack(parts).sum()
        if self.lossnet is not None:
            terms["lossnet"] = self.lossnet(prediction.logits, mask)
        return _total(terms)


def build_objective(config: RunConfig, dataset: Dataset, device: torch.device) -> Objective:
    """Build the objective that a config names.

    Raises:
        ConfigError: It does not fit the classes.
        CheckpointError: A teacher or a lossnet's weights cannot be used.
    """
    if config.objective.name == "structure":
        return _build_structure(config, dataset, device)
    supervised = _build_supervised(config.objective, dataset, device)
    if config.objective.name == "distill":
        from terradapt.training.distillation import build_distilled

        return build_distilled(config, dataset, supervised, device)
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
        mask = dataset.read_mask(item)
        counts.update(mask, np.zeros_like(mask))
    return torch.from_numpy(counts.matrix.sum(1))


def _total(terms: Logs) -> tuple[Tensor, Logs]:
    loss = torch.stack(list(terms.values())).sum()
    return loss, {"loss": loss.detach(), **{k: v.detach() for k, v in terms.items()}}
