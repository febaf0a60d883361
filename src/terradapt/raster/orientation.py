"""EXIF orientation: how viewers turn an image whose pixels are stored otherwise."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_TAG = 274
_MOST = 1 << 16  # chunks, segments and tags that are looked at
UPRIGHT = 1


def exif_orientation(path: str | Path) -> int:
    """Return the EXIF orientation (1..8) of a JPEG, PNG or TIFF file; 1: as stored, or not told.

    Viewers and labelling programs turn an image by it; rasters are read as they are stored.
    """
    with suppress(OSError, struct.error), Path(path).open("rb") as file:
        head = file.read(8)
        if head[:4] in (b"II*\0", b"MM\0*"):
            return _of_tiff(file, 0)
        if head[:3] == b"\xff\xd8\xff":
            return _of_jpeg(file)
        if head == b"\x89PNG\r\n\x1a\n":
            return _of_png(file)
    return UPRIGHT


def _of_jpeg(file: BinaryIO) -> int:
    file.seek(2)
    for _ in range(_MOST):
        marker, size = struct.unpack(">HH", file.read(4))
        if marker == 0xFFE1 and file.read(6) == b"Exif\0\0":
            return _of_tiff(file, file.tell())
        if marker in (0xFFDA, 0xFFD9) or marker < 0xFF00:
            break
        here = 6 if marker == 0xFFE1 else 0
        file.seek(size - 2 - here, 1)
    return UPRIGHT


def _of_png(file: BinaryIO) -> int:
    file.seek(8)
    for _ in range(_MOST):
        size, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"eXIf":
            return _of_tiff(file, file.tell())
        if kind == b"IEND":
            break
        file.seek(size + 4, 1)
    return UPRIGHT


def _of_tiff(file: BinaryIO, start: int) -> int:
    """Find the tag in the first directory of a TIFF that begins at ``start``."""
    file.seek(start)
    order = "<" if file.read(2) == b"II" else ">"
    (offset,) = struct.unpack(order + "2xI", file.read(6))
    file.seek(start + offset)
    (count,) = struct.unpack(order + "H", file.read(2))
    for _ in range(count):
        tag, _, _, value = struct.unpack(order + "HHIH2x", file.read(12))
        if tag == _TAG:
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
