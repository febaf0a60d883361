"""Counting (target, prediction) pairs of class ids, as fast as NumPy lets one.

Few classes are counted by bit planes: ids are split into bits, 64 pixels to a word, and each pair
of classes is one AND and one population count. Up to 15 classes, a pair fits one byte and two
pixels make one step of a histogram. More classes take a 16-bit code per pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]
Counter = Callable[[Bytes, Bytes, int], Counts]

CHUNK = 1 << 20  # px of one step; what is made of them stays in the cache
PLANE_CLASSES = 4  # beyond, the K x K population counts cost more than a histogram
PAIR_CLASSES = 15  # a pair fits one byte, with room for 255 as target
_WORD = 64  # px


def counter_for(num_classes: int) -> Counter:
    """Return the fastest way of counting K classes."""
    if num_classes <= PLANE_CLASSES and hasattr(np, "bitwise_count"):  # NumPy 2
        return count_planes
    return count_pairs if num_classes <= PAIR_CLASSES else count_codes


def count_planes(t: Bytes, p: Bytes, k: int) -> Counts:
    """Count by bit planes; flat ids in, (k, k) counts out.

    Raises:
        ValueError: An id that is no class.
    """
    whole = t.size & ~(_WORD - 1)
    counts = count_pairs(t[whole:], p[whole:], k).copy()
    t, p = t[:whole], p[:whole]
    if _strange(t, p, k):
        return counts + count_codes(t, p, k)
    kept = ~_plane(t, 128)  # of k small ids and 255, only 255 has this bit
    targets, predictions = _one_hot(t, k, kept), _one_hot(p, k, kept)
    for i, target in enumerate(targets):
        for j, prediction in enumerate(predictions):
            counts[i, j] += np.bitwise_count(target & prediction).sum(dtype=np.int64)
    return counts


def count_pairs(t: Bytes, p: Bytes, k: int) -> Counts:
    """Count with one byte per pixel, two pixels per step of a histogram; k <= 15.

    Raises:
        ValueError: An id that is no class.
    """
    if _strange(t, p, k):
        return count_codes(t, p, k)
    codes = np.left_shift(t, 4)
    codes |= p
    both = np.bincount(codes[: codes.size & ~1].view(np.uint16), minlength=1 << 16)
    table = both.reshape(256, 256)
    single = table.sum(axis=0) + table.sum(axis=1)
    if codes.size & 1:
        single[codes[-1]] += 1
    counts: Counts = single.reshape(16, 16)[:k, :k]
    return counts


def count_codes(t: Bytes, p: Bytes, k: int) -> Counts:
    """Count any byte values with one 16-bit code per pixel.

    Raises:
        ValueError: An id that is no class, where the target is not 255.
    """
    codes = t.astype(np.uint16)
    codes <<= 8
    codes |= p
    table = np.bincount(codes, minlength=1 << 16).reshape(256, 256)
    known = table[:IGNORE]
    for what, found in (("target", known.sum(axis=1)), ("prediction", known.sum(axis=0))):
        ids = found.nonzero()[0]
        if ids.size and int(ids.max()) >= k:
            raise ValueError(f"{what} {int(ids.max())} is none of the {k} classes")
    counts: Counts = table[:k, :k]
    return counts


def _strange(t: Bytes, p: Bytes, k: int) -> bool:
    """Whether there are ids that the quick ways would misread."""
    return bool(t.size) and (int(p.max()) >= k or int((t + np.uint8(1)).max()) > k)


def _plane(ids: Bytes, bit: int) -> Words:
    words: Words = np.packbits(ids & np.uint8(bit)).view(np.uint64)
    return words


def _one_hot(ids: Bytes, k: int, kept: Words) -> list[Words]:
    """Return one word plane per class, from the bits of the ids, the highest first."""
    planes = [kept]
    for bit in reversed(range((k - 1).bit_length())):
        one = _plane(ids, 1 << bit)
        planes = [half for plane in planes for half in (plane & ~one, plane & one)]
    return planes[:k]
