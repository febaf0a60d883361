"""Shapefiles (ESRI's technical description, July 1998), for programs that take nothing newer."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.errors import OutputError
from terradapt.raster import CRS

_LARGEST = 2**31 - 1  # bytes of a file that GDAL and others read
_TEXT = 254  # bytes
_POINT, _LINE, _POLYGON = 1, 3, 5
_KINDS = {"Point": _POINT, "LineString": _LINE, "Polygon": _POLYGON}


def shapefile(
    kind: str,
    geometries: NDArray[Any],
    fields: Mapping[str, NDArray[Any]],
    crs: CRS | None,
) -> dict[str, bytes]:
    """Return the contents of a Shapefile's files by suffix.

    Args:
        kind: ``Point``, ``LineString`` or ``Polygon``.
        geometries: (N,) of that kind; none is empty.
        fields: (N,) columns; names of up to 10 bytes, texts of up to 254.
        crs: The CRS, or None.

    Raises:
        OutputError: It would be larger than 2 GB.
    """
    code = _KINDS[kind]
    records = [_record(code, g) for g in shapely.orient_polygons(geometries, exterior_cw=True)]
    sizes = np.array([len(r) for r in records], np.int64)
    starts = 100 + np.concatenate([[0], np.cumsum(sizes + 8)]).astype(np.int64)
    if starts[-1] > _LARGEST:
        raise OutputError(
            f"a Shapefile ends at 2 GB, this would have {starts[-1] / 1e9:.1f} GB",
            "write a GeoPackage: -o NAME.gpkg",
        )
    bounds = shapely.total_bounds(geometries) if len(geometries) else np.zeros(4)
    heads = [struct.pack(">2i", i, n // 2) for i, n in enumerate(sizes.tolist(), 1)]
    index = np.stack([starts[:-1] // 2, sizes // 2], axis=1).astype(">i4").tobytes()
    body = b"".join(part for pair in zip(heads, records, strict=True) for part in pair)
    files = {
        ".shp": _header(code, int(starts[-1]), bounds) + body,
        ".shx": _header(code, 100 + len(index), bounds) + index,
        ".dbf": _table(fields, len(geometries)),
        ".cpg": b"UTF-8",
    }
    if crs is not None:
        files[".prj"] = crs.to_wkt(version="WKT1_ESRI").encode()
    return files


def _header(code: int, size: int, bounds: NDArray[Any]) -> bytes:
    numbers = struct.pack(">7i", 9994, 0, 0, 0, 0, 0, size // 2)
    return numbers + struct.pack("<2i8d", 1000, code, *bounds.tolist(), 0, 0, 0, 0)


def _record(code: int, shape: Any) -> bytes:
    if code == _POINT:
        return struct.pack("<i2d", code, shape.x, shape.y)
    lines = shapely.get_rings(shape) if code == _POLYGON else np.array([shape], object)
    sizes = shapely.get_num_coordinates(lines)
    first = (np.cumsum(sizes) - sizes).astype("<i4").tobytes()
    head = struct.pack("<i4d2i", code, *shape.bounds, len(lines), int(sizes.sum()))
    return head + first + shapely.get_coordinates(lines).astype("<f8").tobytes()


def _table(fields: Mapping[str, NDArray[Any]], count: int) -> bytes:
    """Return dBASE III: fixed columns of text."""
    columns, heads, row = [], b"", 1
    for name, values in fields.items():
        kind, decimals, texts = _column(np.asarray(values))
        width = max([1, *map(len, texts)])
        pad = bytes.ljust if kind == b"C" else bytes.rjust
        columns.append([pad(text, width) for text in texts])
        heads += struct.pack("<11sc4xBB14x", name.encode()[:10], kind, width, decimals)
        row += width
    head = struct.pack("<4BIHH20x", 3, 126, 1, 1, count, 33 + len(heads), row)
    rows = b"".join(b" " + b"".join(row) for row in zip(*columns, strict=True))
    return head + heads + b"\r" + rows + b"\x1a"


def _column(values: NDArray[Any]) -> tuple[bytes, int, list[bytes]]:
    kind = values.dtype.kind
    if kind == "b":
        return b"L", 0, [b"T" if v else b"F" for v in values.tolist()]
    if kind in "iu":
        return b"N", 0, [b"%d" % v for v in values.tolist()]
    if kind == "f":
        return b"N", 6, [b"%.6f" % v if np.isfinite(v) else b"" for v in values.tolist()]
    cut = (str(v).encode()[:_TEXT] for v in values.tolist())
    return b"C", 0, [text.decode(errors="ignore").encode() for text in cut]
