"""Mosaic: many files on one pixel grid, read as one scene."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.config import InputSpec
from terradapt.errors import SceneError
from terradapt.files import is_remote
from terradapt.grid import Window
from terradapt.raster.georef import crs_name, warp_to
from terradapt.raster.opening import open_raster
from terradapt.raster.reader import SceneReader, files_of
from terradapt.raster.scene import Scene

SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg"})
_OPEN = 32
_TOLD = 4  # files whose values are looked at before a prediction
_SNAP = 0.05  # px
_SPARSE = 0.1  # share of the whole that the files cover, below which they are hardly one scene
_ALONE = "map every file on its own: --each"
ScenePath = str | Path | Sequence[Path]
"""A file, a folder that makes one mosaic, an address, or several files that do."""


class Compound(ABC):
    """What is read as one scene though it is neither files nor a mosaic: two dates, for example.

    It travels to workers, so it is small and can be pickled.
    """

    @abstractmethod
    def open(self, spec: InputSpec | None = None, **options: Any) -> Scene:
        """Open it, with the arguments of :func:`open_scene`."""

    @abstractmethod
    def files(self, *, allow_remote: bool = False) -> list[str | Path]:
        """Return all files that it is read from."""

    @abstractmethod
    def absolute(self) -> Compound:
        """Return it by paths that mean the same in every folder."""


class Mosaic(Scene):
    """Files of one CRS and pixel size as one scene; where they overlap, the first valid one counts.

    Args:
        paths: The files, in order of precedence.
        name: What errors call the whole.
        spec: Bands and stretch of the model.
        options: Further arguments of every :class:`SceneReader`.

    Raises:
        SceneError: A file that cannot be read, has no place, or another grid than the first.
    """

    def __init__(
        self, paths: Sequence[Path], name: Path, spec: InputSpec | None = None, **options: Any
    ) -> None:
        if not paths:
            raise SceneError(f"{name}: has no rasters", "put GeoTIFF files in it")
        self.path, self.spec = name, spec
        self._paths = list(paths)
        self._options = options
        self._open: OrderedDict[int, SceneReader] = OrderedDict()
        first = self._reader(0)
        self.count, self.dtype, self.block_height = first.count, first.dtype, 1
        self.nodata, self.band_names = first.nodata, first.band_names
        self.indexes = first.indexes
        files: dict[str, str | Path] = {}
        areas = []
        for index in range(len(paths)):
            areas.append(self._place(index, first))
            files |= {str(f): f for f in self._reader(index).files}
        self.files = tuple(files.values())
        top, left = min(a.row for a in areas), min(a.col for a in areas)
        self._areas = [a.shift(-top, -left) for a in areas]
        height, width = max(a.bottom for a in self._areas), max(a.right for a in self._areas)
        self.georef = first.georef.crop(Window(top, left, height, width))

    def close(self) -> None:
        """Close all files."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window as :meth:`SceneReader.read` does."""
        kind = np.uint8 if self.spec else np.dtype(self.dtype)
        shape = (window.height, window.width)
        pixels = np.zeros((len(self.indexes), *shape), kind)
        valid = np.zeros(shape, bool)
        for index, area in enumerate(self._areas):
            common = area.intersect(window)
            if common is None:
                continue
            rows, cols = common.shift(-window.row, -window.col).slices
            if valid[rows, cols].all():
                continue
            part, good = self._reader(index).read(common.shift(-area.row, -area.col))
            take = good & ~valid[rows, cols]
            np.copyto(pixels[:, rows, cols], part, where=take)
            valid[rows, cols] |= good
        return pixels, valid

    def remarks(self) -> list[str]:
        """Return what should be known of the whole, and of some files, spread over all."""
        some = np.linspace(0, len(self._paths) - 1, min(_TOLD, len(self._paths))).round()
        told = [told for index in some for told in self._reader(int(index)).remarks()]
        return [*self._hardly_one(), *told]

    def _hardly_one(self) -> list[str]:
        """Tell files that lie on each other, as dates of one place do, or far apart."""
        first: dict[Window, int] = {}
        hidden = [(i, n) for n, a in enumerate(self._areas) if (i := first.setdefault(a, n)) != n]
        if hidden:
            (one, other), count = (self._paths[i].name for i in hidden[0]), len(hidden)
            text = f"{self.path}: {other} covers the same ground as {one}, which counts"
            text += f", and so {count - 1} more" if count > 1 else ""
            return [f"{text}; to map every file on its own: --each"]
        covered = sum(a.height * a.width for a in self._areas) / (self.height * self.width)
        if covered < _SPARSE:
            text = f"{self.path}: its files lie far apart: they cover {covered:.1%} of the map"
            return [f"{text}; to map every file on its own: --each"]
        return []

    def _reader(self, index: int) -> SceneReader:
        if index not in self._open:
            self._open[index] = SceneReader(self._paths[index], self.spec, **self._options)
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(index)
        return self._open[index]

    def _place(self, index: int, first: SceneReader) -> Window:
        """Return a file's rectangle in pixels of the first file."""
        reader, base = self._reader(index), first.georef
        path, one = self._paths[index], self._paths[0].name
        if reader.crs is None or base.crs is None:
            bare = path if reader.crs is None else self._paths[0]
            raise SceneError(
                f"{bare}: has no CRS, and so no place among the files of one mosaic",
                f"{_ALONE}; or georeference it",
            )
        if not reader.georef.same_place(base.crs):
            raise SceneError(
                f"{path}: its CRS is {crs_name(reader.crs)}, that of {one} is {crs_name(base.crs)}",
                f"{_ALONE}; or bring all to one CRS first: {warp_to(base.crs, self._paths[0])}",
            )
        if len(reader.indexes) != len(first.indexes) or reader.dtype != first.dtype:
            raise SceneError(
                f"{path}: its bands or type are not those of {one}",
                f"{_ALONE}; or mosaic only files of one kind",
            )
        turn = np.array([(t.a, t.b, t.d, t.e) for t in (reader.transform, base.transform)])
        same = bool(np.abs(turn[0] - turn[1]).max() <= 1e-6 * np.abs(turn).max())
        row, col = (base.pixels(reader.georef.outline()[:1])[0] + 0.5).tolist()
        if not same or max(abs(col - round(col)), abs(row - round(row))) > _SNAP:
            raise SceneError(
                f"{path}: its pixels do not lie on the grid of {one}",
                f"{_ALONE}; or bring all to one grid first: gdalwarp -tap -tr, or gdalbuildvrt",
            )
        return Window(round(row), round(col), reader.height, reader.width)


def open_scene(path: ScenePath | Compound, spec: InputSpec | None = None, **options: Any) -> Scene:
    """Open a file as a scene, or a folder or several files as one mosaic.

    Args:
        path: A file, a folder, an address, several files, or what opens itself.
        spec: Bands and stretch of the model.
        options: Further arguments of :class:`SceneReader`.

    Raises:
        SceneError: Something of it cannot be read or does not fit.
    """
    if isinstance(path, Compound):
        return path.open(spec, **options)
    if not isinstance(path, (str, Path)):
        return Mosaic(path, Path(path[0]).parent, spec, **options)
    if Path(path).is_dir():
        return Mosaic(rasters_in(Path(path)), Path(path), spec, **options)
    return SceneReader(path, spec, **options)


def scene_files(path: ScenePath | Compound, *, allow_remote: bool = False) -> list[str | Path]:
    """Return all files that a scene is read from, sources of VRTs, masks and sidecars included.

    What cannot be opened counts as itself: reading it says what is wrong.
    """
    if isinstance(path, Compound):
        return path.files(allow_remote=allow_remote)
    if not isinstance(path, (str, Path)):
        members: Sequence[str | Path] = path
    else:
        members = rasters_in(Path(path)) if Path(path).is_dir() else [path]
    found: list[str | Path] = []
    for member in members:
        found.append(member)
        with suppress(SceneError), open_raster(member, allow_remote=allow_remote) as file:
            found += files_of(file, member)
    return found


def absolute_scene(scene: ScenePath) -> ScenePath:
    """Return a scene by paths that mean the same in every folder."""
    if not isinstance(scene, (str, Path)):
        return [part if is_remote(part) else Path(part).absolute() for part in scene]
    return scene if is_remote(scene) else Path(scene).absolute()


def rasters_in(folder: Path) -> list[Path]:
    """Return the rasters of a folder, sorted by name."""
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


__all__ = [
    "Compound",
    "Mosaic",
    "ScenePath",
    "absolute_scene",
    "open_scene",
    "rasters_in",
    "scene_files",
]
