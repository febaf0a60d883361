"""Whole small rasters: labels in, results out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from terradapt.classes import IGNORE, Colour
from terradapt.errors import DataError, OutputError, SceneError
from terradapt.files import replacing
from terradapt.grid import Window
from terradapt.raster.opening import quiet
from terradapt.raster.reader import SceneReader

_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def read_label(path: str | Path, window: Window | None = None) -> NDArray[np.uint8]:
    """Read a label as it stands in the file, without interpretation.

    Args:
        path: The label raster.
        window: The part to read; all when None. Outside the raster: 255.

    Returns:
        (H, W) values of the first band; (3, H, W) when the file has three bands or more. 255 where
        nodata, alpha or a mask hides them.

    Raises:
        DataError: The file cannot be read, or its values are no integers of 0..255.
    """
    try:
        with SceneReader(path) as reader:
            whole = Window(0, 0, reader.height, reader.width)
            area = window or whole
            inside = area.intersect(whole)
            indexes = 3 if reader.count >= 3 else 1
            label = np.full((indexes, area.height, area.width), IGNORE, np.uint8)
            if inside is not None:
                values, valid = reader.read(inside)
                rows, cols = inside.shift(-area.row, -area.col).slices
                label[:, rows, cols] = _as_ids(values[:indexes], valid, path)
    except SceneError as error:
        raise DataError(error.message, error.fix) from error
    return label if indexes == 3 else label[0]


def _as_ids(values: NDArray[Any], valid: NDArray[np.bool_], path: str | Path) -> NDArray[np.uint8]:
    shown = values[:, valid]
    if (
        values.dtype != np.uint8
        and not ((shown >= 0) & (shown <= 255) & (shown == np.floor(shown))).all()
    ):
        raise DataError(
            f"{path}: has label values that are no integers of 0 to 255 ({values.dtype})",
            "save the label as 8 bit class ids",
        )
    return np.where(valid, values, IGNORE).astype(np.uint8)


def write_raster(
    path: str | Path,
    array: NDArray[Any],
    *,
    crs: CRS | str | None = None,
    transform: Affine | None = None,
    nodata: float | None = None,
    colours: Sequence[Colour] | Mapping[int, Colour] | None = None,
    band_names: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    compress: str | None = "deflate",
) -> None:
    """Write a small raster in one go, beside and then renamed; not made durable.

    Args:
        path: ``.tif``, ``.png`` or ``.jpg``.
        array: (C, H, W) or (H, W).
        crs: Its CRS, if any.
        transform: Pixel to CRS.
        nodata: Value of pixels without data.
        colours: Colour table of a one-band uint8 raster, by id.
        band_names: Descriptions of the bands.
        tags: Metadata items.
        compress: GeoTIFF compression.

    Raises:
        OutputError: Another suffix, or the file cannot be written.
    """
    path = Path(path)
    bands = array[None] if array.ndim == 2 else array
    driver = _DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise OutputError(f"{path}: cannot write '{path.suffix}'", "name it .tif, .png or .jpg")
    profile: dict[str, Any] = {
        "driver": driver,
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "crs": crs,
        "nodata": nodata,
    }
    if transform is not None:
        profile["transform"] = transform
    if driver == "GTiff" and compress:
        profile |= {"compress": compress}
    if driver == "GTiff" and min(bands.shape[1:]) >= 256:
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with replacing(path, RasterioError, durable=False) as part, MemoryFile() as memory:
        with quiet(), memory.open(**profile) as file:
            if colours is not None:
                file.write_colormap(1, colour_table(colours))
            elif driver == "GTiff" and len(bands) == 3 and bands.dtype == np.uint8:
                file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            for index, name in enumerate(band_names, 1):
                file.set_band_description(index, name)
            if tags:
                file.update_tags(**tags)
            file.write(bands)
        part.write_bytes(memory.getbuffer())  # GDAL's own files end short, silently, on a full disk


def png_bytes(ids: NDArray[np.uint8], colours: Sequence[Colour]) -> bytes:
    """Return (H, W) ids as a PNG with a palette; ids without a colour are transparent."""
    size = {"height": ids.shape[0], "width": ids.shape[1]}
    with MemoryFile() as memory:
        with quiet(), memory.open(driver="PNG", count=1, dtype="uint8", **size) as file:
            file.write_colormap(1, colour_table(colours))
            file.write(np.ascontiguousarray(ids)[None])
        return bytes(memory.getbuffer())


def colour_table(colours: Sequence[Colour] | Mapping[int, Colour]) -> dict[int, tuple[int, ...]]:
    """Return a 256-entry RGBA table; ids without a colour are transparent black."""
    pairs = colours.items() if isinstance(colours, Mapping) else enumerate(colours)
    table: dict[int, tuple[int, ...]] = dict.fromkeys(range(256), (0, 0, 0, 0))
    table.update({int(i): (*c, 255) for i, c in pairs})
    return table
