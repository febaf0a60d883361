"""Unlabelled images: what the averaged model calls a crop, the model must call its strong view.

Mean teacher (Tarvainen and Valpola 2017) in the form of UniMatch (Yang et al., CVPR 2023, arXiv
2208.09910)::

    L = L_labelled + w(t) * mean over unlabelled pixels of
                            [max p_T(weak) >= tau] * CE(p_S(strong), argmax p_T)

    crop -- flips, turns -- weak ---- averaged model ---- p_T ---- argmax where sure ---+
                               |- colours, blur, CutMix -- strong -- model -- p_S --------+-- CE

The teacher is the run's own average of weights (``train.ema``), in evaluation mode. The release
takes the student's own weak view instead; the average is smoother where runs are short.

Up to ``begin`` a run learns from labelled crops alone, and batch norms take their statistics from
them. From then on these stay, and every crop is seen with them, as a scene is that is mapped::

    0 ------------------- begin -- ramp -- 1 ------------------ end
    labels, statistics move | labels and unlabelled, statistics stay

Anything else parts the model that labels teach from the one that maps (docs/log/67): strong views
in the statistics blur them; weak ones let a model tell labelled crops from others and answer
differently; strong views in a batch of their own teach what no map is made with; and where labelled
crops alone have a batch's statistics, the model that maps has no teacher but itself.

With ``shares`` the teacher is told how frequent the labelled ground's classes are: its
probabilities are multiplied by the labels' share of a class over its own mean share, and made to
sum up to one again (distribution alignment, Berthelot et al., ReMixMatch, ICLR 2020; here with the
mean of one batch). A model in a new place finds too little of what looks new there; its own
answers, taken as labels, would keep it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConsistencyConfig
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.training.objectives import Batch, Logs, Supervised

_LEAST = 1e-6

Teacher = Callable[[Tensor], Tensor]
"""Normalised pixels (B, C, H, W) to logits (B, K, H, W), without a gradient."""


class Consistency:
    """A labelled loss plus agreement on unlabelled crops.

    Args:
        config: Threshold, weight, views.
        supervised: The labelled loss; of a batch without a labelled pixel it is 0.
        teacher: The averaged model.
        shares: (K,) of the labelled pixels' classes, where the config asks for them.
    """

    def __init__(
        self,
        config: ConsistencyConfig,
        supervised: Supervised,
        teacher: Teacher,
        shares: Tensor | None = None,
    ) -> None:
        self.config = config
        self.supervised = supervised
        self.teacher = teacher
        self.shares = shares

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Logs]:
        """Return the loss and its terms.

        Args:
            model: What trains.
            batch: ``image`` and ``mask`` as ever; ``weak`` (B, C, H, W) and ``strong``
                (B, V, C, H, W) normalised, ``known`` (B, H, W), ``box`` (B, V, 4), and
                ``progress``, the share of the run that is done.
        """
        begin, done = self.config.begin, float(batch["progress"])
        if done < begin:
            loss, logs = self.supervised(model, batch)
            return loss, {**logs, "unlabelled": loss.new_zeros(()), "sure": loss.new_zeros(())}
        scores = self.teacher(batch["weak"]).float().softmax(1)
        if self.shares is not None:
            scores = aligned(scores, self.shares, batch["known"], self.config.shares)
        confidence, label = scores.max(1)
        sure = (confidence >= self._threshold(confidence, label, batch["known"])) & batch["known"]
        views, targets, counted = [], [], []
        for v in range(batch["strong"].shape[1]):
            inside = boxes(batch["box"][:, v], label.shape[1:])
            views.append(mixed(batch["strong"][:, v], inside[:, None]))
            targets.append(torch.where(mixed(sure, inside), mixed(label, inside), -1))
            counted.append(mixed(batch["known"], inside))
        with steady(model):
            loss, logs = self.supervised.compare(model(batch["image"]), batch)
            strong = model(torch.cat(views)).logits
        agreement = _cross_entropy(strong, torch.cat(targets), torch.cat(counted))
        if self.config.dropout:
            with steady(model), dropped(model, self.config.dropout):
                again = model(batch["weak"]).logits
            target = torch.where(sure, label, -1)
            agreement = (agreement + _cross_entropy(again, target, batch["known"])) / 2
        risen = min(1.0, (done - begin) / self.config.ramp) if self.config.ramp else 1.0
        loss = loss + self.config.weight * risen * agreement
        share = sure.sum() / batch["known"].sum().clamp(min=1)
        told = {"unlabelled": agreement.detach(), "sure": share}
        return loss, {**logs, **told, "loss": loss.detach()}

    def _threshold(self, confidence: Tensor, label: Tensor, known: Tensor) -> Tensor:
        """The threshold of each pixel; relative ones fall with a class's mean confidence."""
        if not self.config.relative:
            return confidence.new_tensor(self.config.threshold)
        counts = confidence.new_zeros(int(label.max()) + 1)
        sums = counts.clone()
        counts.scatter_add_(0, label.flatten(), known.flatten().to(counts))
        sums.scatter_add_(0, label.flatten(), (confidence * known).flatten())
        mean = sums / counts.clamp(min=1)
        return self.config.threshold * (mean / mean.max().clamp(min=_LEAST))[label]


def aligned(scores: Tensor, shares: Tensor, known: Tensor, strength: float) -> Tensor:
    """Return probabilities whose mean has come nearer to given shares.

    Args:
        scores: (B, K, H, W) probabilities.
        shares: (K,) that their mean should have.
        known: (B, H, W), the pixels that count for the mean.
        strength: 0: as they are; 1: multiplied by the whole ratio of shares and mean.
    """
    mean = (scores * known[:, None]).sum((0, 2, 3)) / known.sum().clamp(min=1)
    ratio = (shares / mean.clamp(min=_LEAST)).clamp(max=1 / _LEAST) ** strength
    moved = scores * ratio[:, None, None]
    return moved / moved.sum(1, keepdim=True).clamp(min=_LEAST)


def part(prediction: Prediction, chosen: slice) -> Prediction:
    """Return what a model says of some images of a batch."""
    logits, *rest = prediction
    return Prediction(logits[chosen], *(tuple(t[chosen] for t in several) for several in rest))


def boxes(places: Tensor, size: torch.Size) -> Tensor:
    """Return (B, H, W) bool, true inside each (row, column, height, width) of (B, 4)."""
    row, col, height, width = (places[:, i, None, None] for i in range(4))
    y = torch.arange(size[0], device=places.device)[None, :, None]
    x = torch.arange(size[1], device=places.device)[None, None, :]
    return (y >= row) & (y < row + height) & (x >= col) & (x < col + width)


def mixed(values: Tensor, inside: Tensor) -> Tensor:
    """Return a batch that inside its boxes shows the next of the batch (CutMix)."""
    return torch.where(inside, values.roll(1, 0), values)


def averaged(model: SegmentationModel, tensors: dict[str, Tensor]) -> Teacher:
    """Return a model with other weights, in evaluation mode, as a teacher."""

    @torch.no_grad()
    def teacher(image: Tensor) -> Tensor:
        trains = model.training
        model.eval()
        logits: Tensor = torch.func.functional_call(model, tensors, (image,)).logits
        model.train(trains)
        return logits

    return teacher


@contextmanager
def steady(model: nn.Module) -> Iterator[None]:
    """While open, batch norms use the statistics that maps are made with, and keep them."""
    kinds = nn.modules.batchnorm._BatchNorm
    norms = [m for m in model.modules() if isinstance(m, kinds) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


@contextmanager
def dropped(model: nn.Module, share: float) -> Iterator[None]:
    """While open, whole channels of the encoder's maps are left out at random (UniMatch)."""

    def drop(_: nn.Module, __: object, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(F.dropout2d(m, share) for m in maps)

    bare = getattr(model, "module", model)
    encoder = getattr(bare, "_orig_mod", bare).get_submodule("encoder")
    hook = encoder.register_forward_hook(drop)
    try:
        yield
    finally:
        hook.remove()


def _cross_entropy(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    summed = F.cross_entropy(logits.float(), target, ignore_index=-1, reduction="sum")
    return summed / counted.sum().clamp(min=1)
