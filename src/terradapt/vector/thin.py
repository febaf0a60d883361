"""Thinning of masks on packed bits, with a fixed number of iterations.

One iteration is the two sub-iterations of Guo and Hall, "Parallel thinning with two-subiteration
algorithms", Communications of the ACM 32(3), 1989 (algorithm A1). Each sub-iteration looks one
pixel far, so ``n`` iterations give every pixel a value that depends on nothing further away than
``2 n`` pixels: a block with a halo of ``2 n`` has exactly the skeleton of the whole scene.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_WORD = 64
_TOP = np.uint64(63)
_ONE = np.uint64(1)
_STRIP = 4096  # words


def thin(mask: NDArray[np.bool_], iterations: int) -> NDArray[np.bool_]:
    """Thin a mask to lines of one pixel; what is wider than about ``2 iterations`` stays thick.

    Args:
        mask: (H, W); beyond its edges lies background.
        iterations: Upper bound, >= 0; fewer run where nothing changes any more.

    Returns:
        (H, W) skeleton, a subset of the mask with its connectivity.
    """
    words = pack(mask)
    strips = _strips(words)
    active = list(range(len(strips)))
    for _ in range(iterations):
        changed = _sweep(words, strips, active, first=True)
        changed |= _sweep(words, strips, active, first=False)
        if not changed:
            break
        active = sorted({j for i in changed for j in (i - 1, i, i + 1) if 0 <= j < len(strips)})
    return unpack(words, mask.shape[1])


def _strips(words: Words) -> list[slice]:
    """Cut the rows into strips whose planes stay in the processor's first cache."""
    rows = max(8, _STRIP // max(words.shape[1], 1))
    return [slice(r, min(r + rows, len(words) - 2)) for r in range(0, len(words) - 2, rows)]


def _sweep(words: Words, strips: list[slice], active: list[int], *, first: bool) -> set[int]:
    """Run one sub-iteration over the strips that may change; return those that did."""
    found = {}
    for i in active:
        part = words[strips[i].start : strips[i].stop + 2]
        if not part[1:-1].any():
            continue
        deleted = _deletable(part, first=first)
        if deleted.any():
            found[i] = deleted
    for i, deleted in found.items():
        words[strips[i].start + 1 : strips[i].stop + 1] ^= deleted
    return set(found)


def pack(mask: NDArray[np.bool_]) -> Words:
    """Return (H + 2, words) little-endian bits of an (H, W) mask, an empty row on each side."""
    height, width = mask.shape
    padded = np.zeros((height + 2, -(-width // _WORD) * 8), np.uint8)
    packed = np.packbits(mask, axis=1, bitorder="little")
    padded[1:-1, : packed.shape[1]] = packed
    return padded.view("<u8").astype(np.uint64, copy=False)


def unpack(words: Words, width: int) -> NDArray[np.bool_]:
    """Return the (H, W) mask that :func:`pack` packed."""
    octets = np.ascontiguousarray(words[1:-1]).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=width, bitorder="little").view(bool)


def close_pinholes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close holes and notches of one pixel: dilation, then erosion by a 3 x 3 square.

    The result at a pixel depends on its surroundings within 2 px.
    """
    padded = np.pad(mask, 2)
    grown = pack(padded)
    grown[1:-1] = _spread(grown, np.bitwise_or)
    kept = unpack(pack(unpack(grown, padded.shape[1])), padded.shape[1])
    shrunk = pack(kept)
    shrunk[1:-1] = _spread(shrunk, np.bitwise_and)
    return mask | unpack(shrunk, padded.shape[1])[2:-2, 2:-2]


def _spread(words: Words, join: np.ufunc) -> Words:
    left, right = _sideways(words)
    rows = join(join(left, right), words)
    joined: Words = join(join(rows[:-2], rows[2:]), rows[1:-1])
    return joined


def _sideways(words: Words) -> tuple[Words, Words]:
    """Return the planes of the left (column - 1) and of the right (column + 1) neighbours."""
    left = words << _ONE
    left[:, 1:] |= words[:, :-1] >> _TOP
    right = words >> _ONE
    right[:, :-1] |= words[:, 1:] << _TOP
    return left, right


def _deletable(words: Words, *, first: bool) -> Words:
    """Return the pixels that one sub-iteration deletes (G1, G2, G3 of the paper)."""
    left, right = _sideways(words)
    e, ne, n, nw = right[1:-1], right[:-2], words[:-2], left[:-2]
    w, sw, s, se = left[1:-1], left[2:], words[2:], right[2:]
    kept = (ne | n | ~se) & e if first else (sw | s | ~nw) & w
    deletable = ~kept & words[1:-1]
    deletable &= _one_crossing((ne | n) & ~e, (nw | w) & ~n, (sw | s) & ~w, (se | e) & ~s)
    deletable &= _two_or_three(e | ne, n | nw, w | sw, s | se, ne | n, nw | w, sw | s, se | e)
    return deletable


def _one_crossing(a: Words, b: Words, c: Words, d: Words) -> Words:
    """True where exactly one of four planes is set."""
    value: Words = np.asarray(((a ^ b) & ~(c | d)) | ((c ^ d) & ~(a | b)), np.uint64)
    return value


def _two_or_three(
    a: Words, b: Words, c: Words, d: Words, e: Words, f: Words, g: Words, h: Words
) -> Words:
    """True where the lesser of the two counts of four planes is 2 or 3."""
    some = _two_of(a, b, c, d) & _two_of(e, f, g, h)
    return some & ~(a & b & c & d & e & f & g & h)


def _two_of(a: Words, b: Words, c: Words, d: Words) -> Words:
    value: Words = np.asarray((a & b) | (c & d) | ((a | b) & (c | d)), np.uint64)
    return value
