"""Masks as packed bits: 64 pixels per machine word, neighbours by shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_WORD = 64
_PAD = 3  # empty rows above and below: two for what grows, one that is never written
_TOP = np.uint64(63)
_ONE = np.uint64(1)


@dataclass(frozen=True)
class Bits:
    """A mask of H x W pixels, packed.

    Attributes:
        words: All words one after the other: empty rows, the mask's rows with one empty word
            at the end of each, empty rows. So a word's neighbours are the words before and
            after it and those one ``stride`` away, without exceptions.
        height: Rows of the mask, px.
        width: Columns of the mask, px.
    """

    words: Words
    height: int
    width: int

    @property
    def stride(self) -> int:
        """Words from one row to the next."""
        return -(-self.width // _WORD) + 1

    @property
    def inner(self) -> slice:
        """The words of the mask's rows."""
        return slice(_PAD * self.stride, (_PAD + self.height) * self.stride)


def pack(mask: NDArray[np.bool_]) -> Bits:
    """Pack an (H, W) mask."""
    height, width = mask.shape
    octets = np.zeros((height + 2 * _PAD, (-(-width // _WORD) + 1) * 8), np.uint8)
    packed = np.packbits(mask, axis=1, bitorder="little")
    octets[_PAD:-_PAD, : packed.shape[1]] = packed
    words = octets.view("<u8").astype(np.uint64, copy=False)
    return Bits(words.ravel(), height, width)


def unpack(bits: Bits, rows: slice = slice(None)) -> NDArray[np.bool_]:
    """Return some rows of the mask that :func:`pack` packed."""
    words = bits.words[bits.inner].reshape(bits.height, bits.stride)[rows]
    octets = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=bits.width, bitorder="little").view(bool)


def beside(words: Words, before: Words, after: Words) -> tuple[Words, Words]:
    """Return the planes of the left (column - 1) and of the right (column + 1) neighbours.

    Args:
        words: Some words.
        before: The word before each.
        after: The word after each.
    """
    left = words << _ONE
    left |= before >> _TOP
    right = words >> _ONE
    right |= after << _TOP
    return left, right


def close_pinholes(bits: Bits) -> Bits:
    """Close holes and notches of one pixel: dilation, then erosion by a 3 x 3 square.

    The result at a pixel depends on its surroundings within 2 px.
    """
    grown = spread(bits.words, bits.stride, np.bitwise_or)
    return Bits(bits.words | spread(grown, bits.stride, np.bitwise_and), bits.height, bits.width)


def spread(words: Words, stride: int, join: np.ufunc) -> Words:
    """Join every pixel with its eight neighbours; the outermost rows come out empty."""
    middle = words[1:-1]
    rows, right = beside(middle, words[:-2], words[2:])
    join(rows, right, out=rows)
    join(rows, middle, out=rows)
    joined = np.zeros_like(words)
    inner = joined[stride + 1 : -stride - 1]
    join(rows[: -2 * stride], rows[2 * stride :], out=inner)
    join(inner, rows[stride:-stride], out=inner)
    return joined


def depths(bits: Bits, row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the largest ``d`` for which a pixel's ``2 d + 1`` rows and columns around are all set.

    Args:
        bits: The mask; beyond its edges lies background.
        row: (M,) rows of pixels of the mask that are set.
        col: (M,) columns.
    """
    at = (row + _PAD) * bits.stride + col // _WORD
    bit = (col % _WORD).astype(np.uint64)
    depth = np.zeros(len(row), np.int64)
    words = bits.words
    while len(at):
        words = spread(words, bits.stride, np.bitwise_and)
        inside = (words.take(at) >> bit) & _ONE
        if not inside.any():
            break
        depth += inside.astype(np.int64)
    return depth


__all__ = ["Bits", "Words", "beside", "close_pinholes", "depths", "pack", "spread", "unpack"]
