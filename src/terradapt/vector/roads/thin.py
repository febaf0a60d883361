"""Thinning of masks on packed bits, with a fixed number of iterations.

One iteration is the two sub-iterations of Guo and Hall, "Parallel thinning with two-subiteration
algorithms", Communications of the ACM 32(3), 1989 (algorithm A1). Each sub-iteration looks one
pixel far, so ``n`` iterations give every pixel a value that depends on nothing further away than
``2 n`` pixels: a block with a halo of ``2 n`` has exactly the skeleton of the whole scene.

A pixel is looked at again only where one of its neighbours has changed since the last look at it in
the same sub-iteration.
"""

from __future__ import annotations

import numpy as np

from terradapt.vector.lattice.trace import Ints
from terradapt.vector.roads.bits import Bits, Words, beside, spread

_STRIP = 12_288  # words whose planes stay in the processor's second cache
_SPARSE = 6  # fewer words than one in so many are picked out
_Three = tuple[Words, ...]  # of the row above, the same row, the row below


def thin(bits: Bits, iterations: int) -> Bits:
    """Thin a mask to lines of one pixel; what is wider than about ``2 iterations`` stays thick.

    Args:
        bits: The mask; beyond its edges lies background.
        iterations: Upper bound, >= 0; fewer run where nothing changes any more.

    Returns:
        The skeleton, a subset of the mask with its connectivity.
    """
    thinned = Bits(bits.words.copy(), bits.height, bits.width)
    words, stride = thinned.words, bits.stride
    older = newer = bits.words  # what the last sub-iterations but one, and the last, have deleted
    for i in range(2 * iterations):
        recent = older | newer
        if not recent.any():
            break
        if np.count_nonzero(recent) < len(words) // _SPARSE:
            active = np.flatnonzero(spread(recent, stride, np.bitwise_or) & words)
            deleted = _delete_some(words, stride, active, first=i % 2 == 0)
        else:
            deleted = _delete_all(words, stride, thinned.inner, first=i % 2 == 0)
        words ^= deleted
        older, newer = newer, deleted
    return thinned


def _delete_some(words: Words, stride: int, active: Ints, *, first: bool) -> Words:
    """Return what one sub-iteration deletes of some words."""
    around = active + np.array([[-stride], [0], [stride]])
    rows = words[around]
    left, right = beside(rows, words[around - 1], words[around + 1])
    deleted = np.zeros_like(words)
    deleted[active] = _deletable(*(tuple(plane) for plane in (rows, left, right)), first=first)
    return deleted


def _delete_all(words: Words, stride: int, inner: slice, *, first: bool) -> Words:
    """Return what one sub-iteration deletes."""
    deleted = np.zeros_like(words)
    for begin in range(inner.start, inner.stop, _STRIP):
        stop = min(begin + _STRIP, inner.stop)
        near = slice(begin - stride, stop + stride)
        before, after = slice(near.start - 1, near.stop - 1), slice(near.start + 1, near.stop + 1)
        left, right = beside(words[near], words[before], words[after])
        three = (_three(plane, stride) for plane in (words[near], left, right))
        deleted[begin:stop] = _deletable(*three, first=first)
    return deleted


def _three(plane: Words, stride: int) -> _Three:
    return plane[: -2 * stride], plane[stride:-stride], plane[2 * stride :]


def _deletable(rows: _Three, left: _Three, right: _Three, *, first: bool) -> Words:
    """Return the pixels that one sub-iteration deletes (G1, G2, G3 of the paper)."""
    (n, here, s), (nw, w, sw), (ne, e, se) = rows, left, right
    one, two, three, four = ne | n, nw | w, sw | s, se | e
    kept = (one | ~se) & e if first else (three | ~nw) & w
    deletable = ~kept
    deletable &= here
    deletable &= _two_or_three((e | ne, n | nw, w | sw, s | se), (one, two, three, four))
    one &= ~e
    two &= ~n
    three &= ~w
    four &= ~s
    deletable &= _exactly_one(one, two, three, four)
    return deletable


def _exactly_one(a: Words, b: Words, c: Words, d: Words) -> Words:
    """True where exactly one of four planes is set."""
    one: Words = a ^ b
    one ^= c ^ d
    a &= b
    c &= d
    a |= c
    return one & ~a


def _two_or_three(one: tuple[Words, ...], two: tuple[Words, ...]) -> Words:
    """True where the lesser of the two counts of four planes is 2 or 3."""
    some, every = _two_of(*one)
    more, most = _two_of(*two)
    some &= more
    every &= most
    some ^= every
    return some


def _two_of(a: Words, b: Words, c: Words, d: Words) -> tuple[Words, Words]:
    """Return where two or more of four planes are set, and where all are."""
    ab, cd = a & b, c & d
    some: Words = a | b
    some &= c | d
    some |= ab
    some |= cd
    ab &= cd
    return some, ab
