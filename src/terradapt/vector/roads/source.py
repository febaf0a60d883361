"""Where masks come from: arrays, label rasters, score rasters; read by window, mirrored outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE
from terradapt.errors import DataError
from terradapt.grid import Window
from terradapt.raster import Georef, SceneReader

_CACHE = 4 << 20  # bytes: a block's tiles
_TILE = 64  # rows: blocks of fewer are strips
_STRIP_CACHE = 16 << 20  # bytes: strips cross all blocks of a row


class MaskSource(Protocol):
    """A mask, and scores where there are some, by windows that lie within the scene."""

    @property
    def georef(self) -> Georef:
        """Size, transform and CRS."""

    def read(self, window: Window) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Return the (H, W) mask and scores of 0..1."""


@dataclass(frozen=True)
class ArraySource:
    """A mask, or scores, in memory.

    Args:
        array: (H, W) bool mask, class ids, or floating-point scores of 0..1.
        georef: Where it lies; None places it at pixels of one metre.
        value: Class id of what is wanted in an array of ids.
        threshold: Scores from here on are the mask; NaN is not.
        scores: (H, W) scores of 0..1 beside a mask or ids, or None.
    """

    array: NDArray[Any]
    georef: Georef
    value: int = 1
    threshold: float = 0.5
    scores: NDArray[np.float32] | None = None

    def read(self, window: Window) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Return the (H, W) mask, and the scores where there are some."""
        part = self.array[window.slices]
        beside = None if self.scores is None else self.scores[window.slices]
        if part.dtype == bool:
            return part, beside
        if part.dtype.kind == "f":
            scores = np.nan_to_num(part.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
            return scores >= self.threshold, scores
        return part == self.value, beside


class RasterSource:
    """A class of a label raster, with the scores of a second raster on the same grid.

    Args:
        path: Label raster with ids, or a float raster with scores of one class.
        value: The class id; in a raster of two values 0 and 255 (a mask), 255 stands for 1.
        scores: Raster of scores on the same grid, or None; uint8 counts by the file's scale, or as
            0..255 where it states none.
        band: 1-based band of the scores; a raster of one band is taken as it is.
        threshold: Scores from here on are the mask, when ``path`` holds scores itself.

    Raises:
        SceneError: A file cannot be read.
        DataError: The two rasters differ in size, or the label has no such class form.
    """

    def __init__(
        self,
        path: str | Path,
        value: int,
        *,
        scores: str | Path | None = None,
        band: int = 1,
        threshold: float = 0.5,
    ) -> None:
        self.path, self.value, self.threshold = path, value, threshold
        self._label = _opened(path)
        self._scores = None if scores is None else _opened(scores, band)
        if self._scores and self._size(self._scores) != self._size(self._label):
            raise DataError(
                f"{scores}: is {self._size(self._scores)} pixels large, the labels are "
                f"{self._size(self._label)}",
                "use the scores that were predicted with these labels",
            )

    @staticmethod
    def _size(reader: SceneReader) -> str:
        return f"{reader.width} x {reader.height}"

    @property
    def georef(self) -> Georef:
        """Size, transform and CRS of the labels."""
        return self._label.georef

    def read(self, window: Window) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Return the (H, W) mask and scores."""
        pixels, valid = self._label.read(window)
        values = pixels[0]
        if values.dtype.kind == "f":
            return ArraySource(
                np.where(valid, values, np.nan), self.georef, threshold=self.threshold
            ).read(Window(0, 0, window.height, window.width))
        mask = (values == self.value) & valid
        return mask, self._read_scores(window)

    def _read_scores(self, window: Window) -> NDArray[np.float32] | None:
        if self._scores is None:
            return None
        values, valid = self._scores.read(window)
        scale = self._scores.band_scales[self._scores.indexes[0] - 1]
        if scale == 1 and values.dtype == np.uint8:
            scale = 1 / 255
        scores = np.where(valid, values, np.nan)[0].astype(np.float32) * np.float32(scale)
        value: NDArray[np.float32] | None = np.nan_to_num(scores, nan=0.0, posinf=1.0, neginf=0.0)
        return value

    def close(self) -> None:
        """Close the files."""
        self._label.close()
        if self._scores:
            self._scores.close()


def _opened(path: str | Path, band: int | None = None) -> SceneReader:
    """Open all bands of a raster, or one; the only one, where there is no other."""
    with SceneReader(path) as reader:
        only = reader.data_bands if len(reader.data_bands) == 1 else ()
        bands = None if band is None else (only or (band,))
        cache = _CACHE if reader.block_height >= _TILE else _STRIP_CACHE
    return SceneReader(path, bands=bands, cache=cache)


def read_mirrored(
    source: MaskSource, window: Window
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
    """Read a window that may reach beyond the scene; there the scene is mirrored at its edge.

    A road that meets the edge goes on beyond it, so its centre line reaches the edge, and one that
    runs along the edge keeps its line.
    """
    georef = source.georef
    inside = window.intersect(Window(0, 0, georef.height, georef.width))
    assert inside is not None
    mask, scores = source.read(inside)
    if inside == window:
        return mask, scores
    pads = (
        (inside.row - window.row, window.bottom - inside.bottom),
        (inside.col - window.col, window.right - inside.right),
    )
    mirrored = np.pad(mask, pads, mode="reflect")
    return mirrored, None if scores is None else np.pad(scores, pads, mode="reflect")


__all__ = ["IGNORE", "ArraySource", "MaskSource", "RasterSource", "read_mirrored"]
