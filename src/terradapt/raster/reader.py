"""SceneReader: windows of any raster as the uint8 bands that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving, Resampling
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from terradapt.config import InputSpec, Pair
from terradapt.errors import SceneError, refusing
from terradapt.grid import Window
from terradapt.raster.georef import Georef
from terradapt.raster.opening import CACHE_BYTES, gdal_env, open_raster
from terradapt.raster.orientation import UPRIGHT, exif_orientation
from terradapt.raster.scene import Scene
from terradapt.raster.validity import Validity, shrink

_PERCENTILE_SIDE = 1024
_PROBES, _PROBE = 4, 128  # windows to a side, px: what a scene's values are judged by
_FLAT = 0.01  # share of the training's range within which a scene has no contrast
_NO_NAMES = {"gray", "grey", "undefined", "palette", "alpha"}  # colours that name no band


class SceneReader(Scene):
    """Windows of one raster: pixels and the mask of those that are valid.

    What is data is decided by :class:`terradapt.raster.validity.Validity`.

    Args:
        path: The raster.
        spec: Bands and stretch of the model; None gives all bands in the file's own type.
        resolution: Metres per pixel to resample to on reading; None reads native pixels.
        bands: 1-based indexes or names of bands instead of the spec's.
        nodata: A nodata value instead of the file's.
        grow_void: Hide pixels this near to a hidden one too, px; None as the spec says. For
            collars that lossy compression has blurred.
        allow_remote: Let GDAL follow addresses.
        cache: GDAL's block cache, bytes.

    Attributes:
        path: As given.
        files: The path, and what GDAL reads with it: sources of a VRT, masks, sidecars.
        georef: Where the pixels lie (after resampling).
        block_height: Rows of the file's own blocks, px; 1 when the reader resamples.
        count: Bands in the file.
        dtype: The type that holds the bands that are read, for example ``"uint16"``.
        band_types: The type of each of them.
        nodata: The nodata value of the first of them, or None.
        band_names: Descriptions of the file's bands, ``""`` where there is none.
        band_scales: Factors from the stored values of the file's bands to true ones.
        tags: The file's metadata items.
        indexes: 1-based indexes of the bands that :meth:`read` gives.
        data_bands: Those of them that are no alpha bands.

    Raises:
        SceneError: The file cannot be read, has only ground control points, lacks a band, or is
            not of the type that the model was trained on; an image of palette indexes.
    """

    def __init__(
        self,
        path: str | Path,
        spec: InputSpec | None = None,
        *,
        resolution: float | None = None,
        bands: Sequence[int | str] | None = None,
        nodata: float | None = None,
        grow_void: int | None = None,
        allow_remote: bool = False,
        cache: int = CACHE_BYTES,
    ) -> None:
        self.path, self.spec = path, spec
        self._grow = spec.grow_void if grow_void is None and spec else grow_void or 0
        self._env = gdal_env(allow_remote, GDAL_CACHEMAX=cache)
        with self._env:
            self._file = open_raster(path, allow_remote=allow_remote)
        try:
            with self._env:  # masks beside the file are opened when they are asked for
                self._describe()
            if spec is not None:
                self.check_image()
            self.indexes = self._choose(bands)
            everything = bands is None and spec is None
            with self._env:
                self._validity = Validity(
                    self._file, self.indexes, everything=everything, nodata=nodata
                )
            self.nodata = next(iter(self._validity.nodata), None)
            self.data_bands = self._validity.bands
            self.band_types = tuple(str(self._file.dtypes[i - 1]) for i in self.indexes)
            self.dtype, self._mixed = self.type_of(self.indexes), len(set(self.band_types)) > 1
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
        kind = np.uint8 if self.spec else np.dtype(self.dtype)
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

    def thinned(self, window: Window, step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read one pixel in ``step`` squared; overviews serve where the file has some."""
        whole = Window(0, 0, self.height // step, self.width // step)
        inside = window.intersect(whole)
        if step == 1 or self._scaled or inside is None:
            return super().thinned(window, step)
        far = (float(step), float(step))
        raw = self._raw(inside, self.indexes, thinned=far)
        valid = np.zeros((window.height, window.width), bool)
        pixels = np.zeros((len(raw), *valid.shape), np.uint8 if self.spec else raw.dtype)
        rows, cols = inside.shift(-window.row, -window.col).slices
        valid[rows, cols] = self._validity.of(raw, partial(self._masks, inside, thinned=far))
        pixels[:, rows, cols] = raw if self._ranges is None else _to_uint8(raw, self._ranges)
        return pixels, valid

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
        raw, valid = self._with_validity(window)
        if self.spec is None:
            return raw, valid
        pixels = raw if self._ranges is None else _to_uint8(raw, self._ranges)
        if not valid.all():
            pixels *= valid
        return pixels, valid

    def _with_validity(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window in raw units; its void grows by what lies around it too."""
        by = self._grow
        size = window.height + 2 * by, window.width + 2 * by
        wide = Window(window.row - by, window.col - by, *size).intersect(self.window) or window
        raw = self._raw(wide, self.indexes)
        valid = self._validity.of(raw, partial(self._masks, wide))
        if not by:
            return raw, valid
        rows, cols = window.shift(-wide.row, -wide.col).slices
        return np.ascontiguousarray(raw[:, rows, cols]), shrink(valid, by)[rows, cols]

    def _masks(
        self,
        window: Window,
        indexes: Sequence[int],
        mask: bool,
        thinned: tuple[float, float] | None = None,
    ) -> NDArray[Any]:
        return self._raw(window, indexes, mask=mask, nearest=True, thinned=thinned)

    def _raw(
        self,
        window: Window,
        indexes: Sequence[int],
        *,
        mask: bool = False,
        nearest: bool = False,
        thinned: tuple[float, float] | None = None,
    ) -> NDArray[Any]:
        """Read a window of bands, or of their masks.

        Args:
            window: In the reader's pixels, or in those of ``thinned``.
            indexes: Bands, from 1.
            mask: Read the bands' masks instead.
            nearest: Take the nearest pixel where the reader resamples.
            thinned: Rows and columns of the file to a pixel: of each, one is read.
        """
        fy, fx = thinned or self._scale
        area = RasterWindow(window.col * fx, window.row * fy, window.width * fx, window.height * fy)
        size = (window.height, window.width)
        kind = Resampling.nearest
        if self._scaled and not nearest and thinned is None:
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

    def _describe(self) -> None:
        file = self._file
        self.files = files_of(file, self.path)
        self.count = int(file.count)
        self.band_names = tuple(d or "" for d in file.descriptions)
        self.band_scales = tuple(float(v) for v in file.scales)
        self.tags: dict[str, str] = dict(file.tags())
        self.colour_interpretation = tuple(c.name for c in file.colorinterp)
        self.orientation = exif_orientation(self.path) if file.transform.is_identity else UPRIGHT
        self._named = False
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

    def check_image(self) -> None:
        """Refuse what is no image for a model.

        Raises:
            SceneError: Its pixels are indexes of a colour table.
        """
        if ColorInterp.palette in self._file.colorinterp:
            out = f"{Path(str(self.path)).stem}_rgb.tif"
            raise SceneError(
                f"{self.path}: is a palette image, its pixels are indexes of a colour table",
                f"write its colours first: gdal_translate -expand rgb {self.path} {out}",
            )

    @property
    def lossy(self) -> bool:
        """Whether compression may have changed the pixels; of a VRT unknown, so taken as yes."""
        if self._file.driver in ("JPEG", "JP2OpenJPEG", "VRT"):
            return True
        kind = self._file.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
        return "JPEG" in kind or kind in ("WEBP", "JXL")

    def type_of(self, bands: Sequence[int]) -> str:
        """Return the type that holds bands, by 1-based index: of 8 bit and float it is float."""
        kinds = [self._file.dtypes[b - 1] for b in bands]
        return str(np.result_type(*kinds)) if kinds else str(self._file.dtypes[0])

    def names_of(self, bands: Sequence[int]) -> tuple[str, ...]:
        """Return the names of bands by 1-based index: as described, else of their colours.

        A band that has neither, or a name that another has too, has the name ``""``.
        """
        names = [
            own or ("" if colour in _NO_NAMES else colour)
            for own, colour in zip(self.band_names, self.colour_interpretation, strict=True)
        ]
        folded = [n.casefold() for n in names]
        return tuple(
            names[b - 1] if b <= self.count and folded.count(folded[b - 1]) == 1 else ""
            for b in bands
        )

    def remarks(self) -> list[str]:
        """Return what does not stop a prediction and should be known: names, values, turning."""
        spec, told = self.spec, []
        if self.orientation != UPRIGHT:
            told.append(
                f"{self.path}: has EXIF orientation {self.orientation}, by which viewers turn it; "
                "it is read as it is stored"
            )
        if spec is None or spec.percentiles is not None:
            return told
        if any(spec.band_names) and not self._named and any(self.band_names):
            told.append(
                f"{self.path}: its bands are {_listed(self.names_of(range(1, self.count + 1)))}, "
                f"the model was trained on {_listed(spec.band_names)}: bands "
                f"{_listed(self.indexes)} are read, in this order; --bands names others"
            )
        return told + self._foreign_values()

    def _foreign_values(self) -> list[str]:
        """Tell values that lie far outside those of the training, from some windows."""
        probes = [
            Window(round(row), round(col), min(_PROBE, self.height), min(_PROBE, self.width))
            for row in np.linspace(0, max(0, self.height - _PROBE), _PROBES)
            for col in np.linspace(0, max(0, self.width - _PROBE), _PROBES)
        ]
        parts = [np.empty((len(self.indexes), 0))]
        for window in dict.fromkeys(probes):
            with suppress(SceneError):  # the prediction says where it is damaged
                raw, valid = self._with_validity(window)
                parts.append(raw[:, valid])
        values = np.concatenate(parts, 1)
        if not values.size:
            return []
        low, high = np.percentile(values, (2, 98), axis=1)
        own = self._ranges
        below, above = (np.array([[0.0, 255.0]] * len(values)) if own is None else own).T
        beyond = np.maximum((below >= values.T).mean(0), (above <= values.T).mean(0)) > 0.5
        foreign = (own is not None) & beyond | (high - low < _FLAT * (above - below)).all()
        return [
            f"{self.path}: band {index} has values from {low[i]:.4g} to {high[i]:.4g}, the "
            f"training images' range is {below[i]:.4g} to {above[i]:.4g}: bring the scene to their "
            "units, or the map means little"
            for i, index in enumerate(self.indexes)
            if foreign[i]
        ]

    def _choose(self, bands: Sequence[int | str] | None) -> tuple[int, ...]:
        spec = self.spec
        if bands is None and spec is None:
            return tuple(range(1, self.count + 1))
        if bands is not None:
            chosen, self._named = tuple(self._index(b) for b in bands), True
        else:
            chosen = (spec and self._by_name(spec)) or (spec.bands if spec else ())
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

    def _by_name(self, spec: InputSpec) -> tuple[int, ...] | None:
        """Return a model's bands by the names of the training's; None where they are not these."""
        if not any(spec.band_names):
            return None
        wanted = [n.casefold() for n in spec.band_names]
        both = self.names_of(range(1, self.count + 1))
        for known in (self.band_names, self.colour_interpretation, both):
            names = [n.casefold() for n in known]
            if all(not n or names.count(n) == 1 for n in wanted):
                found = tuple(
                    names.index(n) + 1 if n else band
                    for n, band in zip(wanted, spec.bands, strict=True)
                )
                self._named = len(set(found)) == len(found)
                return found if self._named else None
        return None

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
        # a photo and its surface model are two files in training, one VRT of both types as a scene
        own = {_family(self.dtype), _family(self.band_types[0])}
        if spec.ranges is not None and _family(spec.dtype) not in own:
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
        plain = file.driver == "GTiff" and not self._scaled and self._validity.is_plain
        self._sparse = plain and set(self._validity.nodata) == {file.nodata} != {None}
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
        valid = self._validity.of(raw, partial(self._masks, window, thinned=thinned))
        if not valid.any():
            return np.tile(np.array([0.0, 1.0], np.float32), (len(self.indexes), 1))
        ranges = np.percentile(raw[:, valid].astype(np.float64), percentiles, axis=1).T
        ranges[:, 1] = np.maximum(ranges[:, 1], np.nextafter(ranges[:, 0], np.inf))
        result: NDArray[np.float32] = ranges.astype(np.float32)
        return result


def files_of(file: Any, path: str | Path) -> tuple[str | Path, ...]:
    """Return a path and all files that GDAL reads with it, sources of nested VRTs included."""
    found: dict[str, str | Path] = {str(path): path}
    todo = [str(name) for name in file.files]
    while todo:
        name = todo.pop(0)
        if name in found:
            continue
        found[name] = name
        if name.lower().endswith(".vrt"):
            with suppress(SceneError), open_raster(name) as nested:
                todo += map(str, nested.files)
    return tuple(found.values())


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
