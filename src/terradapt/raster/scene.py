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
