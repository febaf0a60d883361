"""Layers of a result and their compressed tiles."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from terradapt.classes import Colour
from terradapt.raster.cog import TILE, Tags, halve_mean, halve_mode, template_tags
from terradapt.raster.files import colour_table
from terradapt.raster.opening import quiet

_LEVEL = 4  # a quarter more bytes than 6, at less than half the time


@dataclass(frozen=True)
class Layer:
    """One output raster.

    Args:
        path: The GeoTIFF to write.
        bands: Its bands.
        dtype: ``"uint8"`` or ``"float16"``.
        nodata: Value of pixels without data; NaN for float16.
        colours: Colour table of a class raster, by id; None for other rasters.
        band_names: Descriptions of the bands.
        tags: Metadata of the file.
        scale: Factor from stored to true values.
        scratch: It is read soon and thrown away: no overviews, and nothing is compressed.
    """

    path: Path
    bands: int = 1
    dtype: str = "uint8"
    nodata: float = 255
    colours: tuple[Colour, ...] | None = None
    band_names: tuple[str, ...] = ()
    tags: Mapping[str, str] | None = None
    scale: float = 1.0
    scratch: bool = False


def blank(layer: Layer) -> NDArray[Any]:
    """Return a tile without data."""
    return np.full((TILE, TILE), layer.nodata, layer.dtype)


def tiles(layer: Layer, array: NDArray[Any]) -> Iterable[tuple[NDArray[Any], Layer]]:
    """Cut a block row (bands, h, width) into whole tiles."""
    for band in array:
        for left in range(0, array.shape[2], TILE):
            part = band[:, left : left + TILE]
            if part.shape == (TILE, TILE):
                tile = np.ascontiguousarray(part)
            else:
                tile = blank(layer)
                tile[: part.shape[0], : part.shape[1]] = part
            yield tile, layer


def encode_tile(tile: NDArray[Any], layer: Layer) -> bytes:
    """Compress a tile."""
    return zlib.compress(tile.data, 0 if layer.scratch else _LEVEL)


def encoded(job: tuple[NDArray[Any], Layer]) -> bytes | None:
    """Compress a tile; None for one without data."""
    tile, layer = job
    empty = np.isnan(tile).all() if np.isnan(layer.nodata) else (tile == layer.nodata).all()
    return None if empty else encode_tile(tile, layer)


def halved(job: tuple[Layer, list[list[bytes]]]) -> bytes:
    """Make one tile of an overview from up to 2x2 compressed tiles."""
    layer, cells = job
    whole = np.full((2 * TILE, 2 * TILE), layer.nodata, layer.dtype)
    for r, row in enumerate(cells):
        for c, data in enumerate(row):
            tile = np.frombuffer(zlib.decompress(data), layer.dtype).reshape(TILE, TILE)
            whole[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE] = tile
    if layer.colours is not None:
        halves: NDArray[Any] = halve_mode(whole, int(layer.nodata))
    else:
        halves = halve_mean(whole, layer.nodata)
    return encode_tile(np.ascontiguousarray(halves), layer)


def template(
    layer: Layer, crs: CRS | None, transform: Affine | None, tags: Mapping[str, str]
) -> Tags:
    """Let GDAL encode georeference, colours and metadata in a tiny file of the same bands."""
    dtype = "float32" if layer.dtype == "float16" else layer.dtype
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": layer.bands,
        "width": 1,
        "height": 1,
        "dtype": dtype,
        "crs": crs,
        "nodata": layer.nodata,
        "bigtiff": "NO",
        "endianness": "LITTLE",
        "interleave": "band",
    }
    if transform is not None and transform != Affine.identity():
        profile["transform"] = transform
    with quiet(), MemoryFile() as memory:
        with memory.open(**profile) as file:
            if layer.colours is not None:
                file.write_colormap(1, colour_table(layer.colours))
            for band, name in enumerate(layer.band_names, 1):
                file.set_band_description(band, name)
            if layer.scale != 1.0:
                file.scales = (layer.scale,) * layer.bands
            file.update_tags(**tags)
        return template_tags(bytes(memory.getbuffer()))
