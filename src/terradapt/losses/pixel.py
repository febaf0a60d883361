"""Losses of pixels and regions: cross-entropy, Dice, SAM2MS's structure loss.

Shapes: logits (B, K, H, W), target (B, H, W) integers with 255 = ignore, N valid pixels.
A batch without a valid pixel has loss 0 and gradient 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from terradapt.classes import IGNORE

DICE_SMOOTH = 0.05


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of -log p over the valid pixels (ARAFNet Eq 1).

    Args:
        logits: (B, K, H, W).
        target: (B, H, W), 0..K-1 or 255.
        weights: One weight per class (K,); the mean is then over the weights.
    """
    if weights is not None:
        weights = weights.to(logits.device, torch.float32)
    summed = F.cross_entropy(logits.float(), target, weights, ignore_index=IGNORE, reduction="sum")
    valid = target != IGNORE
    if weights is None:
        return summed / valid.sum().clamp(min=1)
    total = (weights[target.where(valid, 0)] * valid).sum()
    return summed / total.where(total > 0, 1.0)


def dice(logits: Tensor, target: Tensor, smooth: float = DICE_SMOOTH) -> Tensor:
    """Return 1 - mean over classes of (2 I + s) / (P + G + s) (ARAFNet Eq 3).

    Sums run over the valid pixels of the whole batch; classes that the target lacks are skipped.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W), 0..K-1 or 255.
        smooth: s, 0.05 as in the GeoSeg code that the paper trains with.
    """
    p_BKHW = logits.float().softmax(1)
    valid = target != IGNORE
    g_BKHW = _one_hot(target, logits.shape[1]).to(p_BKHW.dtype)
    p_BKHW = p_BKHW * valid[:, None]
    dims = (0, 2, 3)
    inter, sums, truth = (p_BKHW * g_BKHW).sum(dims), (p_BKHW + g_BKHW).sum(dims), g_BKHW.sum(dims)
    loss_K = 1 - (2 * inter + smooth) / (sums + smooth)
    present = truth > 0
    return (loss_K * present).sum() / present.sum().clamp(min=1)


def relation(relations: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return how far attention along lines is from "alike where the class is" (SLCNet).

    For each map the mean of abs(A - T) over pairs of valid pixels; T is the softmax of the 0/1
    matrix "same class" along the line, of the target resized to the map's size (nearest). The sum
    over the maps. Our reading: the released code has no ignored pixels; here they are no pair, and
    another class than all.

    Args:
        relations: (B, W, H, H) of columns and (B, H, W, W) of rows, in turn.
        target: (B, H, W), 0..K-1 or 255.
    """
    total = torch.zeros((), device=target.device)
    for i, attention in enumerate(relations):
        lines, length = attention.shape[1:3]
        size = (length, lines) if i % 2 == 0 else (lines, length)
        labels = F.interpolate(target[:, None].float(), size)[:, 0].long()
        labels = labels.transpose(1, 2) if i % 2 == 0 else labels  # (B, lines, length)
        valid = labels != IGNORE
        pairs = valid[..., :, None] & valid[..., None, :]
        alike = (labels[..., :, None] == labels[..., None, :]) & pairs
        gap = (attention.float() - alike.float().softmax(3)).abs() * pairs
        total = total + gap.sum() / pairs.sum().clamp(min=1)
    return total


def _one_hot(target: Tensor, num_classes: int) -> Tensor:
    ids = torch.arange(num_classes, device=target.device)[None, :, None, None]
    return target[:, None] == ids


def structure(logits: Tensor, target: Tensor, *, reproduce_release: bool = False) -> Tensor:
    """Return weighted IoU + weighted BCE, pixels near a border of the mask weighing up to 6.

    ``w = 1 + 5 |avgpool31(G) - G|``; both terms are taken per image and averaged over the batch.
    The release of SAM2MS (as F3Net's before it) passes ``reduce='none'``, so that its BCE is the
    plain mean; this is repaired here.

    Args:
        logits: (B, 2, H, W); z = logits[:, 1] - logits[:, 0] is the road's logit.
        target: (B, H, W), 0, 1 or 255.
        reproduce_release: Bring the unweighted BCE back.
    """
    assert logits.shape[1] == 2, "the structure loss is for background and one class"
    z = logits[:, 1].float() - logits[:, 0].float()
    valid = (target != IGNORE).to(z.dtype)
    truth = (target == 1).to(z.dtype)
    near = F.avg_pool2d(truth[:, None], 31, stride=1, padding=15)[:, 0]
    weight = (1 + 5 * (near - truth).abs()) * valid
    bce = F.binary_cross_entropy_with_logits(z, truth, reduction="none")
    return _weighted_bce(bce, valid, weight, reproduce_release) + _weighted_iou(z, truth, weight)


def _weighted_bce(bce: Tensor, valid: Tensor, weight: Tensor, unweighted: bool) -> Tensor:
    if unweighted:
        return (bce * valid).sum() / valid.sum().clamp(min=1)
    per_image = (bce * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    return _mean_of_seen(per_image, weight)


def _weighted_iou(z: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    p = z.sigmoid()
    inter = (p * truth * weight).sum((1, 2))
    union = ((p + truth) * weight).sum((1, 2))
    return _mean_of_seen(1 - (inter + 1) / (union - inter + 1), weight)


def _mean_of_seen(per_image: Tensor, weight: Tensor) -> Tensor:
    seen = weight.sum((1, 2)) > 0
    return (per_image * seen).sum() / seen.sum().clamp(min=1)


def balanced_weights(pixels: Tensor) -> Tensor:
    """Return class weights (K,) that fall with the square root of a class's share, mean 1.

    Args:
        pixels: Pixels per class (K,); classes without one get the largest weight of the others.
    """
    share = pixels.double() / pixels.sum().clamp(min=1)
    smallest = share[share > 0].min() if bool((share > 0).any()) else share.new_ones(())
    weights = share.clamp(min=float(smallest)).rsqrt()
    return (weights / weights.mean()).float()
