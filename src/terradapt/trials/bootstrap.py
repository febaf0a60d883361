"""How far a difference of two methods depends on which images were there: a paired bootstrap.

The images are drawn anew with replacement, for both methods alike; figures over a split, such as
mIoU, are made anew from the drawn images' confusion matrices. Seeds are held: the interval is over
images, the standard deviation beside it is over seeds.
Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from terradapt.trials.evidence import Evidence

DRAWS = 2000
LEVEL = 0.95
_SEED = 0


@dataclass(frozen=True)
class ImageInterval:
    """A method's figure less the reference's, points.

    Attributes:
        value: Over the images as they are.
        low: Lower end of the interval.
        high: Upper end of the interval.
        images: That were drawn from.
    """

    value: float
    low: float
    high: float
    images: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@lru_cache(maxsize=8)
def draw_counts(images: int, draws: int = DRAWS) -> NDArray[np.float64]:
    """Return (draws, images) how often each draw has each image; the same in every call."""
    drawn = np.random.default_rng(_SEED).integers(0, images, (draws, images))
    return np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)


def paired_bootstrap(
    own: Sequence[Evidence], reference: Sequence[Evidence], metric: str, draws: int = DRAWS
) -> ImageInterval | None:
    """Return the difference of two methods' mean figures with its interval over images.

    Args:
        own: Reports of one method, one a seed; of the same images in the same order as
            ``reference``'s.
        reference: Reports of the other.
        metric: A dotted key.
        draws: B.

    Returns:
        None for a figure that cannot be made from the images' counts, or that a report lacks.
    """
    images = len(reference[0].images)
    counts = np.concatenate([np.ones((1, images)), draw_counts(images, draws)])
    sides = []
    for side in (own, reference):
        figures = [e.resampled(metric, counts) for e in side if e.value(metric) is not None]
        if not figures or any(f is None for f in figures):
            return None
        sides.append(np.mean([f for f in figures if f is not None], axis=0))
    whole, *rest = sides[0] - sides[1]
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(rest, (tail, 100 - tail))
    return ImageInterval(float(whole), float(low), float(high), images)
