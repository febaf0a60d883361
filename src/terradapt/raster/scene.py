"""Scene: what can be read by windows and lies somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from terradapt.grid import Window
from terradapt.raster.georef import Georef


class Scene(Protocol):
    """A raster as a model reads it: one file, a mosaic of many, a part of one, a test double.

    What derives from this has the rest of it from :attr:`georef`, and is a context manager.

    Attributes:
        path: What errors call it.
        files: All files that it is read from: sources of a VRT, masks, an area of interest.
        georef: Size, transform and CRS.
        dtype: Type of the pixels in the files, for example ``"uint16"``.
        block_height: Rows of the file's own blocks, px: reading whole ones decodes none twice.
    """

    path: str | Path
    files: Sequence[str | Path]
    georef: Georef
    dtype: str
    block_height: int

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window: (C, H, W) pixels and (H, W) valid; outside the scene 0 and False.

        Raises:
            SceneError: A part of the scene cannot be read.
        """

    def thinned(self, window: Window, step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read one pixel in ``step`` squared, to look at: as :meth:`read`.

        Args:
            window: In pixels of the thinned scene: those at rows and columns 0, step, 2 step, ...
            step: Pixels of the scene to one of the thinned scene, >= 1.

        Raises:
            SceneError: A part of the scene cannot be read.
        """
        row, col, height, width = window.row, window.col, window.height, window.width
        pixels, valid = self.read(Window(row * step, col * step, height * step, width * step))
        return pixels[:, ::step, ::step], valid[::step, ::step]

    def cells(self, window: Window, side: int) -> NDArray[np.uint8]:
        """Read (C, H, W) means of squares of pixels, on the lattice that starts with the scene.

        Args:
            window: In cells; may reach beyond the scene.
            side: Of a cell, px, 16 at most. What lies outside or is not valid counts as it is read:
                as 0.

        Raises:
            SceneError: A part of the scene cannot be read.
        """
        row, col, height, width = window.row, window.col, window.height, window.width
        wide = Window(row * side, col * side, height * side, width * side)
        return cell_means(self.read(wide)[0], side)

    def look(self, window: Window, context: int = 0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window as a model sees it: (C, H, W) pixels and (H, W) valid.

        With a context the bands come once more: of the ground that is ``context`` times as wide and
        high, concentric to the nearest cell, as cells of ``context`` px.

        Raises:
            SceneError: A part of the scene cannot be read.
        """
        pixels, valid = self.read(window)
        if context:
            pixels = np.concatenate([pixels, self.cells(window.around(context), context)])
        return pixels, valid

    def close(self) -> None:
        """Close the files."""

    def remarks(self) -> list[str]:
        """Return what does not stop a prediction and should be known."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def height(self) -> int:
        """Rows, px."""
        return self.georef.height

    @property
    def width(self) -> int:
        """Columns, px."""
        return self.georef.width

    @property
    def crs(self) -> CRS | None:
        """The CRS, or None."""
        return self.georef.crs

    @property
    def transform(self) -> Affine:
        """Pixel to CRS."""
        return self.georef.transform

    @property
    def resolution(self) -> float | None:
        """Metres per pixel at the centre, or None if unknown."""
        return self.georef.resolution

    @property
    def window(self) -> Window:
        """The window of the whole scene."""
        return Window(0, 0, self.height, self.width)


def cell_means(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return rounded means (C, H, W) of squares of uint8 pixels (C, side * H, side * W)."""
    rows = pixels[:, ::side].astype(np.uint16)  # 16 * 16 * 255 fit
    for i in range(1, side):
        rows += pixels[:, i::side]
    total = rows[:, :, ::side].copy()
    for i in range(1, side):
        total += rows[:, :, i::side]
    total += side * side // 2
    total //= side * side
    return total.astype(np.uint8)
