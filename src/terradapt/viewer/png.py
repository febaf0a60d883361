"""PNG as tiles need it: written fast, and read back where it is our own."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _INDEXED, _RGBA = 0, 2, 3, 6
_LEVEL = 3  # of zlib: ids shrink well at any level, photos at none


def indexed_png(ids: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Return (H, W) ids as a PNG whose pixel values are the ids; 255 is transparent.

    Args:
        ids: Class ids.
        palette: (256, 3) RGB by id.
    """
    clear = bytes([255] * IGNORE + [0])
    chunks = [_chunk(b"PLTE", palette.tobytes()), _chunk(b"tRNS", clear)]
    return _png(ids, _INDEXED, chunks)


def grey_png(values: NDArray[np.uint8]) -> bytes:
    """Return (H, W) values as a grey PNG."""
    return _png(values, _GREY)


def colour_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return (H, W, 3) or (H, W, 4) pixels as a PNG."""
    return _png(pixels, _RGBA if pixels.shape[2] == 4 else _RGB)


def read_own(data: bytes) -> NDArray[np.uint8]:
    """Return the (H, W) values of a PNG that :func:`indexed_png` or :func:`grey_png` wrote.

    Raises:
        ValueError: It is cut short, damaged, or another's.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("no PNG")
    place, body, size = len(_SIGNATURE), b"", None
    while place < len(data):
        whole = place + 8 <= len(data)
        length, name = struct.unpack_from(">I4s", data, place) if whole else (0, b"")
        content = data[place + 8 : place + 8 + length]
        check = data[place + 8 + length : place + 12 + length]
        if check != struct.pack(">I", zlib.crc32(name + content)):
            raise ValueError("a damaged PNG")
        if name == b"IHDR":
            size = struct.unpack(">IIBBBBB", content)
        elif name == b"IDAT":
            body += content
        elif name == b"IEND":
            break
        place += 12 + length
    if size is None or size[2] != 8 or size[3] not in (_GREY, _INDEXED):
        raise ValueError("another's PNG")
    width, height = int(size[0]), int(size[1])
    try:
        rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, width + 1)
    except zlib.error as error:
        raise ValueError("a damaged PNG") from error
    return np.ascontiguousarray(rows[:, 1:])


def _png(pixels: NDArray[np.uint8], colour: int, more: list[bytes] | None = None) -> bytes:
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each begins with filter 0: none
    rows[:, 1:] = pixels.reshape(height, -1)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(rows.tobytes(), _LEVEL))
    return b"".join([_SIGNATURE, head, *(more or ()), body, _chunk(b"IEND", b"")])


def _chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )
