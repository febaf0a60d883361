"""Losses that ask whether thin things hang together: skeleton recall and clDice.

Both are for background and one class (K = 2; a road, a river), both are added to a loss of pixels
and never stand alone: the first only pushes recall, the second does not see widths.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from terradapt.classes import IGNORE

SMOOTH = 1.0
"""Added above and below, in pixels, as both papers' code does."""


def skeleton_recall(logits: Tensor, tube: Tensor) -> Tensor:
    """Return 1 - (sum p s + 1) / (sum s + 1), the mean over the images that have a skeleton.

    Kirchhoff et al., "Skeleton Recall Loss", ECCV 2024 (arXiv 2404.03010). It is linear in p and
    has no gradient through the skeleton, which comes with the batch. The release sums over the
    batch; here each image counts alike, as in SAM2MS's structure loss.

    Args:
        logits: (B, 2, H, W).
        tube: The label's skeleton, dilated within the label, (B, H, W), 0 or 1.
    """
    p, s = logits.float().softmax(1)[:, 1], tube.float()
    sums = s.sum((1, 2))
    recall = ((p * s).sum((1, 2)) + SMOOTH) / (sums + SMOOTH)
    seen = sums > 0
    return ((1 - recall) * seen).sum() / seen.sum().clamp(min=1)


def cldice(logits: Tensor, target: Tensor, iterations: int = 10) -> Tensor:
    """Return 1 - 2 Tp Ts / (Tp + Ts), the mean over the images that have the class.

    Tp = (sum S(p) g + 1) / (sum S(p) + 1), Ts = (sum S(g) p + 1) / (sum S(g) + 1), with soft
    skeletons S (Shit et al., "clDice", CVPR 2021, arXiv 2003.07311). The release always runs 10
    iterations whatever it is asked, and sums over the batch; here the number is kept, and each
    image counts alike.

    Args:
        logits: (B, 2, H, W).
        target: (B, H, W), 0, 1 or 255; pixels of 255 belong to no skeleton and to no mask.
        iterations: At least half the greatest width of the class, px.
    """
    valid = (target != IGNORE).float()
    p, g = logits.float().softmax(1)[:, 1] * valid, (target == 1).float()
    with torch.no_grad():
        of_truth = soft_skeleton(g, iterations)
    found = soft_skeleton(p, iterations)
    precision = ((found * g).sum((1, 2)) + SMOOTH) / (found.sum((1, 2)) + SMOOTH)
    sensitivity = ((of_truth * p).sum((1, 2)) + SMOOTH) / (of_truth.sum((1, 2)) + SMOOTH)
    loss = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    seen = g.sum((1, 2)) > 0
    return (loss * seen).sum() / seen.sum().clamp(min=1)


def soft_skeleton(p: Tensor, iterations: int) -> Tensor:
    """Return what opening takes away from ever thinner erosions, in 0..1.

    ::

        p:  ..####..   erode:  ...##...   erode:  ........
            ..####..           ...##...           ........   what an opening of the middle
            ..####..           ...##...           ........   one removes is its skeleton
            ..####..           ........           ........

    Args:
        p: Probabilities (B, H, W) in 0..1.
        iterations: Erosions; what is wider than twice as many pixels keeps no skeleton.
    """
    p = p[:, None]
    skeleton = F.relu(p - _dilate(_erode(p)))
    for _ in range(iterations):
        p = _erode(p)
        delta = F.relu(p - _dilate(_erode(p)))
        skeleton = skeleton + F.relu(delta - skeleton * delta)
    return skeleton[:, 0]


def _erode(p: Tensor) -> Tensor:
    tall = -F.max_pool2d(-p, (3, 1), 1, (1, 0))
    wide = -F.max_pool2d(-p, (1, 3), 1, (0, 1))
    return torch.minimum(tall, wide)


def _dilate(p: Tensor) -> Tensor:
    return F.max_pool2d(p, 3, 1, 1)
