"""Seg-Road's loss on which neighbouring pixels are both road."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from terradapt.classes import IGNORE

NEAR, FAR = 2, 4
"""Distances to the neighbours, px; the paper's names 1 and 3 count the pixels between."""
WEIGHTS = (0.4, 0.6)


def connectivity_targets(target: Tensor, distance: int) -> tuple[Tensor, Tensor]:
    """Return whether each pixel and its neighbour are both road, and where that is known.

    Outside the image there is no road. A pixel that is no road is connected to nothing, whatever
    its neighbour. The release leaves channels 3 to 8 of the far neighbours empty; here all nine are
    filled.

    Args:
        target: (B, H, W), 0, 1 or 255.
        distance: To the neighbours, px.

    Returns:
        Two (B, 9, H, W) in row order, the fifth being the pixel itself: 0 or 1 in float32, and
        booleans.
    """
    road, ignored = (target == 1)[:, None].float(), (target == IGNORE)[:, None].float()
    both = torch.cat([road, ignored])
    sides = F.unfold(both, 3, dilation=distance, padding=distance)
    roads, unknown = sides.unflatten(2, target.shape[1:]).chunk(2)
    known = (ignored == 0) & ((unknown == 0) | (road == 0))
    return road * roads, known


def connectivity(logits: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return 0.4 BCE(near) + 0.6 BCE(far), means over the pixels and neighbours that are known.

    Args:
        logits: Two (B, 9, H, W): of the neighbours at 2 px, of those at 4 px.
        target: (B, H, W), 0, 1 or 255.
    """
    terms = []
    for weight, z, distance in zip(WEIGHTS, logits, (NEAR, FAR), strict=True):
        truth, known = connectivity_targets(target, distance)
        bce = F.binary_cross_entropy_with_logits(z.float(), truth, reduction="none")
        terms.append(weight * (bce * known).sum() / known.sum().clamp(min=1))
    return torch.stack(terms).sum()
