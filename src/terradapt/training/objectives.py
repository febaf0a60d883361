"""Objectives: ``objective(model, batch) -> loss, logs``. They vary, the trainer does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from terradapt.classes import IGNORE
from terradapt.config import ObjectiveConfig
from terradapt.losses.connectivity import connectivity
from terradapt.losses.lossnet import LossNet
from terradapt.losses.pixel import cross_entropy, dice, relation, structure
from terradapt.losses.topology import cldice, skeleton_recall
from terradapt.models.contract import Prediction

Logs = dict[str, Tensor]
Batch = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch], tuple[Tensor, Logs]]


class Supervised:
    """CE + Dice on the logits and, weighted by ``aux``, CE on auxiliary ones (ARAFNet Eq 5).

    A model that tells its attention along lines has it supervised too, weighted by ``relation``.

    Args:
        config: Weights of the terms.
        class_weights: (K,) weights of the classes in CE, or None.
    """

    def __init__(self, config: ObjectiveConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Logs]:
        """Return the loss and its terms for ``image`` (B, C, H, W) and ``mask`` (B, H, W)."""
        return self.compare(model(batch["image"]), batch)

    def compare(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, Logs]:
        """Return the loss and its terms for a prediction of ``batch``.

        Where it says which pixels are ``corrected`` (B, H, W), their mean stands beside that of the
        older labels: a few clicks would be lost among the pixels of whole labelled images.
        """
        config, mask = self.config, batch["mask"]
        entropy = partial(self._entropy, mask=mask, corrected=batch.get("corrected"))
        terms = {
            "ce": config.ce * entropy(prediction.logits),
            "dice": config.dice * dice(prediction.logits, mask),
        }
        if prediction.aux:
            terms["aux"] = config.aux * torch.stack([entropy(a) for a in prediction.aux]).sum()
        if prediction.relations and config.relation:
            terms["relation"] = config.relation * relation(prediction.relations, mask)
        if prediction.connectivity:
            terms["connectivity"] = config.connectivity * connectivity(
                prediction.connectivity, mask
            )
        return _total(terms | _topology(config, prediction.logits, batch))

    def _entropy(self, logits: Tensor, mask: Tensor, corrected: Tensor | None) -> Tensor:
        if corrected is None:
            return cross_entropy(logits, mask, self.class_weights)
        total, weights = logits.new_zeros((), dtype=torch.float32), []
        for chosen, weight in ((~corrected, 1.0), (corrected, self.config.corrections)):
            own = mask.where(chosen, IGNORE)
            weights.append(weight * (own != IGNORE).any())
            total = total + weights[-1] * cross_entropy(logits, own, self.class_weights)
        whole = torch.stack(weights).sum()
        return total / whole.where(whole > 0, 1.0)


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
        if prediction.connectivity:
            terms["connectivity"] = self.config.connectivity * connectivity(
                prediction.connectivity, mask
            )
        if self.lossnet is not None:
            terms["lossnet"] = self.lossnet(prediction.logits, mask)
        return _total(terms | _topology(self.config, prediction.logits, batch))


def _topology(config: ObjectiveConfig, logits: Tensor, batch: Batch) -> Logs:
    """The terms that ask whether thin things hang together, where the config weighs them."""
    terms = {}
    if config.skeleton_recall:
        terms["skeleton_recall"] = config.skeleton_recall * skeleton_recall(logits, batch["tube"])
    if config.cldice:
        length = config.cldice_iterations
        terms["cldice"] = config.cldice * cldice(logits, batch["mask"], length)
    return terms


def _total(terms: Logs) -> tuple[Tensor, Logs]:
    loss = torch.stack(list(terms.values())).sum()
    return loss, {"loss": loss.detach(), **{k: v.detach() for k, v in terms.items()}}
