"""Metres from pixels: the local metric of a raster, lengths and areas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.raster import Georef
from terradapt.vector.lattice.directions import COL_STEP, ROW_STEP
from terradapt.vector.lattice.trace import Ints

Floats = NDArray[np.float64]
_BATCH = 8192  # polygons measured at a time


@dataclass(frozen=True)
class Metric:
    """How far one pixel reaches on the ground, at one place of a raster.

    Args:
        matrix: (2, 2) metres east and north for one pixel right (column 0) and down (column 1).
    """

    matrix: Floats

    @classmethod
    def of(cls, georef: Georef) -> Metric:
        """Return the metric at a raster's centre."""
        return cls(georef.matrix)

    @cached_property
    def steps(self) -> Floats:
        """(8,) metres of one step in each direction of a chain."""
        return self.length(ROW_STEP, COL_STEP)

    @property
    def pixel(self) -> float:
        """Metres of a pixel's shorter side."""
        return float(min(self.steps[0], self.steps[6]))

    def length(self, rows: NDArray[Any], cols: NDArray[Any]) -> Floats:
        """Return the metres of displacements in pixels."""
        offset = np.stack([np.asarray(cols, float), np.asarray(rows, float)], axis=-1)
        lengths: Floats = np.hypot(*np.moveaxis(offset @ self.matrix.T, -1, 0))
        return lengths


def line_lengths(points: Floats, sizes: Ints, georef: Georef) -> Floats:
    """Return the metres of lines given by all their vertices, one line after the other.

    Args:
        points: (M, 2) CRS coordinates.
        sizes: (E,) vertices of each line.
        georef: Their raster.
    """
    return georef.line_lengths(georef.pixels(points), sizes)


def polygon_areas(shapes: NDArray[Any], georef: Georef) -> Floats:
    """Return the (P,) square metres of polygons.

    Args:
        shapes: (P,) shapely Polygons in (column, row) of pixel corners.
        georef: Their raster.
    """
    areas: list[Floats] = [np.zeros(0)]
    for first in range(0, len(shapes), _BATCH):
        some = shapes[first : first + _BATCH]
        rings, owner = shapely.get_rings(some, return_index=True)
        corners, ring = shapely.get_coordinates(rings, return_index=True)
        within = georef.ring_areas(corners[:, ::-1] - 0.5, np.bincount(ring, minlength=len(rings)))
        hole = np.concatenate([[False], owner[1:] == owner[:-1]])  # the first is the outline
        signed = np.where(hole, -within, within)
        areas.append(np.bincount(owner, signed, minlength=len(some)).astype(np.float64))
    return np.concatenate(areas)
