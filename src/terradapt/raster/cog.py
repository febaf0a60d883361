"""Lay out compressed tiles as a cloud optimized GeoTIFF, byte for byte the same every time.

GDAL writes a one-pixel template that carries the georeference, colours and metadata in GDAL's own
encoding; this module copies those tags and places the tiles: directories first, then overviews from
the smallest up, then the full image. Sizes are known before anything is written, so the file is a
BigTIFF exactly when it must be. TIFF 6.0 and the BigTIFF and COG specifications say the rest.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

TILE = 512
_CLASSIC_LIMIT = 4_000_000_000
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_GEO_TAGS = frozenset({320, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113})
_SHORT, _LONG, _LONG8 = 3, 4, 16

Tags = dict[int, tuple[int, bytes]]
"""Tag -> (TIFF type, little-endian values)."""


@dataclass
class Level:
    """One image of the pyramid: its size and where its tiles lie in the part file.

    Args:
        width: Columns, px.
        height: Rows, px.
        offsets: (n,) int64 places of the tiles in the part file, planes and rows first.
        sizes: (n,) int64 bytes of the tiles.
    """

    width: int
    height: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


@dataclass
class Image:
    """What all levels share.

    Args:
        bands: Samples per pixel, in separate planes.
        dtype: ``"uint8"`` or ``"float16"``.
        template: Tags of GDAL's template.
        levels: Full image first, then ever smaller overviews.
    """

    bands: int
    dtype: str
    template: Tags
    levels: list[Level] = field(default_factory=list)


def tiles_across(size: int) -> int:
    """Return the tiles that cover ``size`` pixels."""
    return -(-size // TILE)


def pyramid_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Return (width, height) of the overviews, until one tile holds the whole scene."""
    sizes = []
    while max(width, height) > TILE:
        width, height = (width + 1) // 2, (height + 1) // 2
        sizes.append((width, height))
    return sizes


def template_tags(content: bytes) -> Tags:
    """Read the georeference, colour and metadata tags of a classic little-endian TIFF."""
    assert content[:4] == b"II*\0"
    (place,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, place)
    tags: Tags = {}
    for entry in range(count):
        tag, kind, number = struct.unpack_from("<HHI", content, place + 2 + 12 * entry)
        size = _SIZES[kind] * number
        start = place + 2 + 12 * entry + 8
        if size > 4:
            (start,) = struct.unpack_from("<I", content, start)
        if tag in _GEO_TAGS:
            tags[tag] = (kind, content[start : start + size])
    return tags


def write_cog(image: Image, part: BinaryIO, out: BinaryIO) -> None:
    """Write the file: directories, then tiles from the smallest overview to the full image."""
    payload = sum(_stored(level) for level in image.levels)
    big = payload + 64 * sum(v.offsets.size for v in image.levels) + (1 << 20) > _CLASSIC_LIMIT
    placed = _place(image, _header_size(image, big))
    out.write(_directories(image, placed, big))
    for level in reversed(image.levels):
        _copy_tiles(level, part, out)


def _stored(level: Level) -> int:
    first = np.unique(level.offsets, return_index=True)[1]
    return int(level.sizes[first].sum())


def _place(image: Image, start: int) -> list[NDArray[np.int64]]:
    """Return the final offsets of every level's tiles; tiles stored once stay so."""
    placed: list[NDArray[np.int64]] = []
    for level in reversed(image.levels):
        unique, first, back = np.unique(level.offsets, return_index=True, return_inverse=True)
        sizes = level.sizes[first]
        ends = np.cumsum(sizes)
        placed.append((start + ends - sizes)[back].astype(np.int64).reshape(level.offsets.shape))
        start += int(ends[-1]) if unique.size else 0
    return placed[::-1]


def _copy_tiles(level: Level, part: BinaryIO, out: BinaryIO) -> None:
    offsets, first = np.unique(level.offsets, return_index=True)
    sizes = level.sizes[first]
    run = 0
    while run < len(offsets):
        stop = run + 1
        while (
            stop < len(offsets)
            and offsets[stop] == offsets[stop - 1] + sizes[stop - 1]
            and offsets[stop] - offsets[run] < 1 << 24
        ):
            stop += 1
        part.seek(int(offsets[run]))
        out.write(part.read(int(offsets[stop - 1] + sizes[stop - 1] - offsets[run])))
        run = stop


def _tags(image: Image, index: int, offsets: NDArray[np.int64], big: bool) -> Tags:
    level = image.levels[index]
    bits = np.dtype(image.dtype).itemsize * 8
    float_ = np.dtype(image.dtype).kind == "f"
    palette = 320 in image.template
    wide = _LONG8 if big else _LONG
    kind = "<u8" if big else "<u4"
    tags: Tags = {
        254: (_LONG, struct.pack("<I", 1 if index else 0)),
        256: (_LONG, struct.pack("<I", level.width)),
        257: (_LONG, struct.pack("<I", level.height)),
        258: (_SHORT, struct.pack("<H", bits) * image.bands),
        259: (_SHORT, struct.pack("<H", 8)),
        262: (_SHORT, struct.pack("<H", 3 if palette else 1)),
        277: (_SHORT, struct.pack("<H", image.bands)),
        284: (_SHORT, struct.pack("<H", 2 if image.bands > 1 else 1)),
        322: (_SHORT, struct.pack("<H", TILE)),
        323: (_SHORT, struct.pack("<H", TILE)),
        324: (wide, offsets.astype(kind).tobytes()),
        325: (_LONG, level.sizes.astype("<u4").tobytes()),
        339: (_SHORT, struct.pack("<H", 3 if float_ else 1) * image.bands),
    }
    if image.bands > 1:
        tags[338] = (_SHORT, struct.pack("<H", 0) * (image.bands - 1))
    for tag, value in image.template.items():
        if index == 0 or tag in (320, 42113):
            tags[tag] = value
    return dict(sorted(tags.items()))


def _directories(image: Image, placed: Sequence[NDArray[np.int64]], big: bool) -> bytes:
    """Return the header and all directories with their values, each directory in one piece."""
    out = bytearray(
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    )
    for index in range(len(image.levels)):
        tags = _tags(image, index, placed[index], big)
        last = index == len(image.levels) - 1
        out += _directory(tags, len(out), big, last)
    return bytes(out)


def _directory(tags: Tags, place: int, big: bool, last: bool) -> bytes:
    entry, inline = (20, 8) if big else (12, 4)
    head = (8 if big else 2) + entry * len(tags) + (8 if big else 4)
    values = bytearray()
    rows = bytearray(struct.pack("<Q" if big else "<H", len(tags)))
    for tag, (kind, data) in tags.items():
        rows += struct.pack("<HHQ" if big else "<HHI", tag, kind, len(data) // _SIZES[kind])
        if len(data) <= inline:
            rows += data.ljust(inline, b"\0")
        else:
            rows += struct.pack("<Q" if big else "<I", place + head + len(values))
            values += data + b"\0" * (-len(data) % 8)
    values += b"\0" * (-(head + len(values)) % 8)
    following = 0 if last else place + head + len(values)
    return bytes(rows + struct.pack("<Q" if big else "<I", following) + values)


def _header_size(image: Image, big: bool) -> int:
    zeros = [np.zeros_like(level.offsets) for level in image.levels]
    return len(_directories(image, zeros, big))


def halve_mode(tile: NDArray[np.uint8], nodata: int = 255) -> NDArray[np.uint8]:
    """Return the most frequent value of every 2x2 square, nodata only where all four are.

    Args:
        tile: (..., H, W), even sides.
        nodata: The value that does not count.
    """
    parts = [np.ascontiguousarray(tile[..., r::2, c::2]) for r in (0, 1) for c in (0, 1)]
    votes = [(part != nodata).view(np.uint8) for part in parts]
    for i, j in itertools.combinations(range(4), 2):
        same = (parts[i] == parts[j]).view(np.uint8)
        votes[i] += same
        votes[j] += same
    best, most = parts[0], votes[0] * (parts[0] != nodata)
    for part, count in zip(parts[1:], votes[1:], strict=True):
        better = (count > most) & (part != nodata)
        best = np.where(better, part, best)
        most = np.where(better, count, most)
    return best


def halve_mean(tile: NDArray[np.generic], nodata: float) -> NDArray[np.generic]:
    """Return the mean of every 2x2 square over its valid values.

    Args:
        tile: (..., H, W), even sides.
        nodata: The value that does not count; NaN is one.
    """
    parts = np.stack([tile[..., r::2, c::2] for r in (0, 1) for c in (0, 1)]).astype(np.float32)
    valid = ~np.isnan(parts) if np.isnan(nodata) else parts != nodata
    count = valid.sum(0)
    mean = np.where(valid, parts, 0).sum(0) / np.maximum(count, 1)
    if tile.dtype.kind != "f":
        mean = np.rint(mean)
    return np.where(count > 0, mean, nodata).astype(tile.dtype)
