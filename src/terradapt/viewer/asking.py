"""What to ask next, and what the answers say: every fifth place is drawn by chance.

A place is one block. Places that are drawn by chance are never trained on: they alone say how good
a map is, before and after, and how much there is of each class; clicking more cannot game them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE

EVERY = 5
"""One place in this many is drawn by chance."""
MOST_HELD = 60
"""Places held out of one scene at most; a fifth of a scene of fewer blocks."""
FEW = 20
"""With fewer answered places than this the figure is weak."""
_NEAR = 3.0  # blocks: at this distance from what was asked a place counts half
BlockAt = tuple[int, int]


def held_out(scene: str, blocks: Sequence[BlockAt]) -> list[BlockAt]:
    """Return the places of a scene that are held out, in the order in which they are asked.

    They follow from the scene's name and size alone, so that they are the same in every session.

    Args:
        scene: Its name.
        blocks: All its blocks, (row, column).
    """
    count = min(MOST_HELD, len(blocks) // EVERY)
    seed = hashlib.sha256(f"{scene} {len(blocks)}".encode()).digest()[:8]
    draw = np.random.default_rng(int.from_bytes(seed, "little"))
    return [blocks[i] for i in draw.permutation(len(blocks))[:count]]


def class_weights(iou: Sequence[float | None]) -> NDArray[np.float64]:
    """Return what a class's uncertainty counts in the queue: 1.5 - IoU, so a bad one thrice.

    Args:
        iou: Of each class, 0..1; None where it is not known, which counts as 0.5 does.
    """
    known = [0.5 if v is None or np.isnan(v) else v for v in iou]
    return 1.5 - np.array(known, np.float64)


def next_places(
    uncertainty: Mapping[BlockAt, float],
    asked: Sequence[BlockAt],
    held: Sequence[BlockAt],
    count: int = 5,
) -> list[tuple[BlockAt, bool]]:
    """Return the places to ask next, each with whether it was drawn by chance.

    Score of a place: its uncertainty x distance to what was asked.

    Args:
        uncertainty: Of the blocks that are ready: mean over pixels of 1 - margin, each times the
            weight of its class.
        asked: Places that are answered.
        held: Of :func:`held_out`.
        count: Places wanted.
    """
    random = [place for place in held if place not in set(asked)]
    known = {p: u for p, u in uncertainty.items() if p not in set(asked) | set(held)}
    taken, found = list(asked), list[tuple[BlockAt, bool]]()
    while len(found) < count and (random or known):
        by_chance = (len(asked) + len(found)) % EVERY == EVERY - 1
        if random and (by_chance or not known):
            place, chance = random.pop(0), True
        elif known:
            place, chance = max(known, key=lambda p: (known[p] * _apart(p, taken), p)), False
            del known[place]
        else:
            break
        taken.append(place)
        found.append((place, chance))
    return found


def _apart(place: BlockAt, taken: Sequence[BlockAt]) -> float:
    if not taken:
        return 1.0
    away = min(np.hypot(place[0] - r, place[1] - c) for r, c in taken)
    return float(away / (away + _NEAR))


@dataclass(frozen=True)
class Accuracy:
    """What the places drawn by chance say of a map.

    Attributes:
        places: Answered ones.
        pixels: Compared.
        oa: Share that is right, 0..1; None without places.
        reach: Half the 95 % interval; None with fewer than two places.
        iou: Of each class, NaN where it does not occur.
    """

    places: int
    pixels: int
    oa: float | None
    reach: float | None
    iou: tuple[float, ...]

    @property
    def weak(self) -> bool:
        """Whether there are too few places to rely on."""
        return self.places < FEW


def accuracy(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], count: int) -> Accuracy:
    """Return the accuracy of a map from whole answered places, and its 95 % interval.

    Places are clusters of pixels drawn with equal chance, so the ratio estimator's variance counts
    places, not pixels (Cochran 1977, chapter 6: the ratio estimator), with Student's t.

    Args:
        pairs: Truth and map of each place, ids; 255 is not compared.
        count: Number of classes.
    """
    confusion = np.zeros((count, count), np.int64)
    right, seen = [], []
    for truth, found in pairs:
        known = (truth < count) & (found < count) & (truth != IGNORE)
        cells = truth[known].astype(np.int64) * count + found[known]
        own = np.bincount(cells, minlength=count * count).reshape(count, count)
        if own.sum():
            confusion += own
            right.append(int(np.trace(own)))
            seen.append(int(own.sum()))
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    iou = np.where(union > 0, np.diag(confusion) / np.maximum(union, 1), np.nan)
    total, number = sum(seen), len(seen)
    if not number:
        return Accuracy(0, 0, None, None, tuple(iou.tolist()))
    oa = sum(right) / total
    reach = None
    if number > 1:
        rest = np.array(right) - oa * np.array(seen)
        variance = number / (number - 1) * float((rest**2).sum()) / total**2
        reach = _student(number - 1) * float(np.sqrt(variance))
    return Accuracy(number, total, oa, reach, tuple(iou.tolist()))


@dataclass(frozen=True)
class AreaEstimate:
    """How much there is of each class, from the places drawn by chance.

    Attributes:
        places: Answered ones.
        areas: Of each class, in the unit of the totals.
        reach: Half the 95 % interval of each; None with fewer than two places.
    """

    places: int
    areas: NDArray[np.float64]
    reach: NDArray[np.float64] | None


def class_areas(
    counts: NDArray[np.float64], sizes: NDArray[np.float64], totals: NDArray[np.float64]
) -> AreaEstimate:
    """Return the area of each class by reference, stratified by a map's classes.

    The estimator of Olofsson et al. 2014, equation 9: a class's share of what is mapped as one
    class, times that class's mapped area, summed. Their variance (equation 10) counts pixels drawn
    one by one; here whole places are drawn, so the same estimator is linearised over places, with
    Student's t. Places of one pixel each give the paper's intervals. A mapped class that no place
    shows is taken to be like the rest of the map.

    Args:
        counts: (M, S, K) area in each place by mapped class (stratum) and true class.
        sizes: (M, S) whole area of each stratum in a place, at least the sum of its counts.
        totals: (S,) area of each stratum in the scene.
    """
    places, within = len(counts), sizes.sum(0)
    seen = within > 0
    if not totals[seen].sum() > 0:
        return AreaEstimate(places, np.zeros(counts.shape[2]), None)
    whole = np.where(seen, totals, 0) * totals.sum() / totals[seen].sum()
    factor = whole / np.where(seen, within, 1)
    share = counts.sum(0) / np.where(seen, within, 1)[:, None]
    reach = None
    if places > 1:
        rest = np.einsum("s,msk->mk", factor, counts - share * sizes[..., None])
        variance = places / (places - 1) * (rest**2).sum(0)
        reach = _student(places - 1) * np.sqrt(variance)
    return AreaEstimate(places, whole @ share, reach)


def _student(freedom: int) -> float:
    """Student's t that 2.5 % lie above."""
    from scipy.special import stdtrit  # a page shows its scene without it; scipy.stats is slower

    return float(stdtrit(freedom, 0.975))
