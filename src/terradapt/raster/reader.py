"""SceneReader: windows of any raster as the uint8 bands that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Interleaving, MaskFlags, Resampling
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from terradapt.config import InputSpec, Pair
from terradapt.errors import SceneError, refusing
from terradapt.grid import Window
from terradapt.raster.georef import Georef
from terradapt.raster.opening import CACHE_BYTES, gdal_env, open_raster
from terradapt.raster.scene import Scene

_PERCENTILE_SIDE = 1024


class SceneReader(Scene):
    """Windows of one raster: pixels and the mask of those that are valid.

    A pixel is valid where the file's mask (internal mask or alpha band) says so, where a selected
    band differs from the nodata value, and where no selected band is NaN or infinite.

    Args:
        path: The raster.
        spec: Bands and stretch of the model; None gives all bands in the file's own type.
        resolution: Metres per pixel to resample to on reading; None reads native pixels.
        bands: 1-based indexes or names of bands instead of the spec's.
        nodata: A nodata value instead of the file's.
        allow_remote: Let GDAL follow addresses.
        cache: GDAL's block cache, bytes.

    Attributes:
        path: As given.
        files: The path alone.
        georef: Where the pixels lie (after resampling).
        block_height: Rows of the file's own blocks, px; 1 when the reader resamples.
        count: Bands in the file.
        dtype: The file's type, for example ``"uint16"``.
        nodata: The nodata value in use, or None.
        band_names: Descriptions of the file's bands, ``""`` where there is none.
        tags: The file's metadata items.
        indexes: 1-based indexes of the bands that :meth:`read` gives.

    Raises:
        SceneError: The file cannot be read, has only ground control points, lacks a band, or is
            not of the type that the model was trained on.
    """

    def __init__(
        self,
        path: str | Path,
        spec: InputSpec | None = None,
        *,
        resolution: float | None = None,
        bands: Sequence[int | str] | None = None,
        nodata: float | None = None,
        allow_remote: bool = False,
        cache: int = CACHE_BYTES,
    ) -> None:
        self.path, self.files = path, (path,)
        self.spec = spec
        self._env = gdal_env(allow_remote, GDAL_CACHEMAX=cache)
        with self._env:
            self._file = open_raster(path, allow_remote=allow_remote)
        try:
            with self._env:  # masks beside the file are opened when they are asked for
                self._describe(nodata)
            self.indexes = self._choose(bands)
            self._check_type()
            self._zoom(resolution)
            self._ranges = self._stretch()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window: (C, H, W) pixels and (H, W) valid; outside the scene 0 and False.

        Pixels that are not valid are 0 when the reader has a spec.

        Raises:
            SceneError: A block of the file cannot be read; names the rows and columns.
        """
        shape = (window.height, window.width)
        kind = np.uint8 if self.spec else np.result_type(*self._file.dtypes)
        inside = window.intersect(self.window)
        if inside is None or self._missing(inside):
            return np.zeros((len(self.indexes), *shape), kind), np.zeros(shape, bool)
        pixels, valid = self._read_inside(inside)
        if inside == window:
            return pixels, valid
        full = np.zeros((len(self.indexes), *shape), kind)
        mask = np.zeros(shape, bool)
        rows, cols = inside.shift(-window.row, -window.col).slices
        full[:, rows, cols], mask[rows, cols] = pixels, valid
        return full, mask

    def _missing(self, window: Window) -> bool:
        """Tell whether a sparse GeoTIFF has not one of a window's blocks: all nodata, unread."""
        if not self._sparse:
            return False
        rows, cols = self._file.block_shapes[0]
        bands = self.indexes if self._file.interleaving == Interleaving.band else (1,)
        return not any(
            self._file.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band)
            for band in bands
            for y in range(window.row // rows, -(-window.bottom // rows))
            for x in range(window.col // cols, -(-window.right // cols))
        )

    def _read_inside(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        raw = self._raw(window, self.indexes)
        valid = self._valid(raw, window)
        if self.spec is None:
            return raw, valid
        pixels = raw if self._ranges is None else _to_uint8(raw, self._ranges)
        if not valid.all():
            pixels *= valid
        return pixels, valid

    def _raw(
        self,
        window: Window,
        indexes: Sequence[int],
        *,
        mask: bool = False,
        thinned: tuple[float, float] | None = None,
    ) -> NDArray[Any]:
        """Read a window of bands, or of their mask.

        Args:
            window: In the reader's pixels, or in those of ``thinned``.
            indexes: Bands, from 1.
            mask: Read the file's mask instead.
            thinned: Rows and columns of the file to a pixel: of each, one is read.
        """
        fy, fx = thinned or self._scale
        area = RasterWindow(window.col * fx, window.row * fy, window.width * fx, window.height * fy)
        size = (window.height, window.width)
        kind = Resampling.nearest
        if self._scaled and not mask and thinned is None:
            kind = Resampling.average if min(fy, fx) > 1 else Resampling.bilinear
        read = self._file.read_masks if mask else self._file.read
        groups = [[i] for i in indexes] if self._mixed else [list(indexes)]
        what = (
            f"rows {window.row} to {window.bottom - 1}, columns {window.col} to "
            f"{window.right - 1} cannot be read"
        )
        fix = "the file is damaged or cut short: copy it again"
        with refusing(f"{self.path}", SceneError, fix, what), self._env:
            parts: list[NDArray[Any]] = [
                read(g, window=area, out_shape=(len(g), *size), resampling=kind) for g in groups
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _valid(
        self, raw: NDArray[Any], window: Window, thinned: tuple[float, float] | None = None
    ) -> NDArray[np.bool_]:
        valid = np.ones(raw.shape[1:], bool)
        if self._masked:
            valid &= (self._raw(window, self.indexes[:1], mask=True, thinned=thinned) > 0)[0]
        elif self.nodata is not None and not math.isnan(self.nodata):
            shown = raw[0] != self.nodata
            for band in raw[1:]:
                shown |= band != self.nodata
            valid &= shown
        if raw.dtype.kind == "f":
            valid &= np.isfinite(raw).all(0)
        return valid

    def _describe(self, nodata: float | None) -> None:
        file = self._file
        self.count = int(file.count)
        self.dtype = str(file.dtypes[0])
        self._mixed = len(set(file.dtypes)) > 1  # a VRT of a photo and a surface model
        self.nodata: float | None = file.nodata if nodata is None else nodata
        self.band_names = tuple(d or "" for d in file.descriptions)
        self.tags: dict[str, str] = dict(file.tags())
        self.colour_interpretation = tuple(c.name for c in file.colorinterp)
        flags = file.mask_flag_enums[0]
        own = MaskFlags.per_dataset in flags or MaskFlags.alpha in flags
        self._masked = own and nodata is None
        if file.transform == Affine.identity():
            self._refuse_unrectified()
        Georef(file.transform, file.crs, file.height, file.width).check(self.path)

    def _refuse_unrectified(self) -> None:
        with refusing(self.path, SceneError, "write it anew: gdal_translate"):
            points, rational = len(self._file.gcps[0]), self._file.rpcs is not None
        if points or rational:
            by = f"{points} ground control points" if points else "rational polynomials (RPC)"
            option = "-tps" if points else "-rpc"
            raise SceneError(
                f"{self.path}: is located by {by} only",
                f"rectify it first: gdalwarp {option} {self.path} rectified.tif",
            )

    def _choose(self, bands: Sequence[int | str] | None) -> tuple[int, ...]:
        spec = self.spec
        if bands is None and spec is None:
            return tuple(range(1, self.count + 1))
        if bands is not None:
            chosen = tuple(self._index(b) for b in bands)
        elif spec and spec.band_names and set(spec.band_names) <= set(self.band_names):
            chosen = tuple(self.band_names.index(n) + 1 for n in spec.band_names)
        else:
            chosen = spec.bands if spec else ()
        if spec and len(chosen) != len(spec.bands):
            raise SceneError(
                f"{self.path}: {len(chosen)} bands chosen, the model takes {len(spec.bands)}",
                f"name {len(spec.bands)} bands",
            )
        if not chosen or max(chosen) > self.count or min(chosen) < 1:
            raise SceneError(
                f"{self.path}: has {self.count} bands, bands {_listed(chosen)} are needed",
                f"choose {len(chosen)} of its bands with --bands, or join files of one grid: "
                f"gdalbuildvrt -separate scene.vrt {self.path} more.tif",
            )
        return chosen

    def _index(self, band: int | str) -> int:
        if isinstance(band, int) or str(band).isdecimal():
            return int(band)
        names = [n.lower() for n in self.band_names]
        for candidates in (names, list(self.colour_interpretation)):
            if str(band).lower() in candidates:
                return candidates.index(str(band).lower()) + 1
        known = _listed([n for n in (*self.band_names, *self.colour_interpretation) if n])
        raise SceneError(f"{self.path}: no band named '{band}'", f"use an index or one of: {known}")

    def _check_type(self) -> None:
        spec = self.spec
        if spec is None or spec.percentiles is not None:  # percentiles of a scene fit any type
            return
        if spec.ranges is None and self.dtype != "uint8":
            raise SceneError(
                f"{self.path}: its pixels are {self.dtype}, the model was trained on 8 bit",
                "scale the scene as the training images were: gdal_translate -ot Byte -scale",
            )
        if spec.ranges is not None and _family(spec.dtype) != _family(self.dtype):
            raise SceneError(
                f"{self.path}: its pixels are {self.dtype}, the model was trained on {spec.dtype}",
                f"convert the scene to the training images' units and {spec.dtype}",
            )

    def _zoom(self, resolution: float | None) -> None:
        file = self._file
        self.georef = Georef(file.transform, file.crs, file.height, file.width)
        own = None if resolution is None else self.georef.resolution
        factor = 1.0 if resolution is None or own is None else own / resolution
        size = (max(1, round(file.height * factor)), max(1, round(file.width * factor)))
        self._scale = (file.height / size[0], file.width / size[1])
        self._scaled = size != (file.height, file.width)
        plain = file.driver == "GTiff" and not self._scaled and not self._masked
        self._sparse = plain and self.nodata is not None and self.nodata == file.nodata
        self.block_height = int(file.block_shapes[0][0])
        if self._scaled:
            self.georef, self.block_height = self.georef.zoom(*size), 1

    def _stretch(self) -> NDArray[np.float32] | None:
        """(C, 2) low and high of each band in raw units, or None for 8 bit as it is."""
        if self.spec is None or self.spec.stretch is None:
            return None
        if self.spec.percentiles is not None:
            return self._scene_ranges(self.spec.percentiles)
        return np.asarray(self.spec.ranges, np.float32).reshape(-1, 2)

    def _scene_ranges(self, percentiles: Pair) -> NDArray[np.float32]:
        """Read a decimated overview once; percentiles of its valid pixels."""
        step = max(1.0, max(self.height, self.width) / _PERCENTILE_SIDE)
        window = Window(0, 0, max(1, round(self.height / step)), max(1, round(self.width / step)))
        thinned = (self._file.height / window.height, self._file.width / window.width)
        raw = self._raw(window, self.indexes, thinned=thinned)
        valid = self._valid(raw, window, thinned)
        if not valid.any():
            return np.tile(np.array([0.0, 1.0], np.float32), (len(self.indexes), 1))
        ranges = np.percentile(raw[:, valid].astype(np.float64), percentiles, axis=1).T
        ranges[:, 1] = np.maximum(ranges[:, 1], np.nextafter(ranges[:, 0], np.inf))
        result: NDArray[np.float32] = ranges.astype(np.float32)
        return result


def _to_uint8(raw: NDArray[Any], ranges: NDArray[np.float32]) -> NDArray[np.uint8]:
    low = ranges[:, 0, None, None]
    scaled = (raw.astype(np.float32) - low) * (255.0 / (ranges[:, 1, None, None] - low))
    scaled = np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def _family(dtype: str) -> str:
    kind = np.dtype(dtype)
    return "float" if kind.kind == "f" else f"integer{kind.itemsize}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(str(v) for v in values) or "none"
