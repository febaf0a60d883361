"""Two scenes as one: the bands of the earlier date, then those of the later, on one grid.

What a model of two dates takes. The earlier date's shift is taken out while it is read, so that
blocks stay pure functions of the two files and the shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.changes.raster import spread_windows
from terradapt.changes.sampling import Onto, Shift, box_of
from terradapt.classes import CHANGES
from terradapt.config import InputSpec
from terradapt.errors import ConfigError
from terradapt.grid import Window
from terradapt.preflight.alignment import REACH, explained, peak
from terradapt.preflight.alignment import Shift as Estimate
from terradapt.raster import (
    Compound,
    Georef,
    Scene,
    ScenePath,
    absolute_scene,
    open_scene,
    scene_files,
)
from terradapt.scene import Predictor

_VARIES = 4.0  # standard deviation of a band within a patch, at least
_LEVELS = 8  # of brightness, that stand for the regions of the earlier date


def takes_two_dates(predictor: Predictor) -> bool:
    """Tell whether a model takes two dates at once and says what changed: ``siamese`` is one."""
    config = predictor.meta.config if predictor.meta else None
    siamese = config is not None and config.model.name == "siamese"
    return siamese or (
        predictor.classes.names == CHANGES.names and len(predictor.spec.bands) % 2 == 0
    )


@dataclass(frozen=True)
class DatePair(Compound):
    """Two scenes that are read as one.

    Attributes:
        old: The earlier scene.
        new: The later scene.
        georef: The grid.
        shift: Rows and columns of the grid by which the earlier scene lies off.
    """

    old: ScenePath
    new: ScenePath
    georef: Georef
    shift: Shift = (0.0, 0.0)

    def __str__(self) -> str:
        return f"{self.old} and {self.new}"

    def open(self, spec: InputSpec | None = None, **options: Any) -> TwoScenes:
        """Open both."""
        return TwoScenes(self, spec, **options)

    def files(self, *, allow_remote: bool = False) -> list[str | Path]:
        """Return all files that they are read from."""
        sides = (self.old, self.new)
        return [f for s in sides for f in scene_files(s, allow_remote=allow_remote)]

    def absolute(self) -> DatePair:
        """Return it by paths that mean the same in every folder."""
        one, two = absolute_scene(self.old), absolute_scene(self.new)
        return DatePair(one, two, self.georef, self.shift)


class TwoScenes(Scene):
    """Two open scenes on one grid.

    Args:
        pair: The scenes.
        spec: Bands and stretch of the model: those of the earlier date, then those of the later.
        options: Further arguments of :func:`terradapt.raster.open_scene`.

    Raises:
        SceneError: One cannot be read, or lacks a band.
    """

    def __init__(self, pair: DatePair, spec: InputSpec | None = None, **options: Any) -> None:
        if options.get("bands"):
            raise ConfigError("two dates have the bands of the model", "leave the bands out")
        one, two = (None, None) if spec is None else halves(spec)
        self.georef = pair.georef
        self._sides = [open_scene(pair.old, one, **options)]
        try:
            self._sides.append(open_scene(pair.new, two, **options))
        except BaseException:
            self.close()
            raise
        self.path = self._sides[1].path
        self.files = [f for side in self._sides for f in side.files]
        self.dtype, self.block_height = self._sides[1].dtype, 1
        shifts = (pair.shift, (0.0, 0.0))
        self._onto = [
            Onto(s.georef, self.georef, d) for s, d in zip(self._sides, shifts, strict=True)
        ]

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read (2 C, H, W) pixels and (H, W) where both dates have data."""
        old, new, valid = self.dates(window)
        return np.concatenate([old, new]), valid

    def dates(self, window: Window) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """Read (C, H, W) pixels of each date, which may have unlike bands, and where both have."""
        parts = [_seen(s, o, window) for s, o in zip(self._sides, self._onto, strict=True)]
        valid = parts[0][1] & parts[1][1]
        rows, cols = np.arange(window.row, window.bottom), np.arange(window.col, window.right)
        valid &= ((rows >= 0) & (rows < self.height))[:, None]
        valid &= ((cols >= 0) & (cols < self.width))[None]
        return parts[0][0], parts[1][0], valid

    def close(self) -> None:
        """Close the files."""
        for side in self._sides:
            side.close()

    def remarks(self) -> list[str]:
        """Return what should be known of both."""
        return [told for side in self._sides for told in side.remarks()]


def halves(spec: InputSpec) -> tuple[InputSpec, InputSpec]:
    """Return the specs of the earlier and of the later date; each counts its own file's bands.

    Raises:
        ConfigError: An odd number of bands.
    """
    count = len(spec.bands)
    if count % 2:
        raise ConfigError(f"{count} bands are no two dates", "give a model of two dates")
    half = count // 2
    ranges = spec.ranges
    specs = []
    for part in (slice(0, half), slice(half, count)):
        first = spec.bands[part][0] - spec.bands[0]
        told: dict[str, Any] = {
            "bands": tuple(b - first for b in spec.bands[part]),
            "band_names": spec.band_names[part],
            "mean": spec.mean[part],
            "std": spec.std[part],
        }
        specs.append(spec.model_copy(update=told | ({"stretch": ranges[part]} if ranges else {})))
    return specs[0], specs[1]


def _seen(source: Scene, onto: Onto, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window of the grid: means of what lies in coarser pixels, else the nearest."""
    if onto.offset is not None:
        return source.read(window.shift(*onto.offset))
    picks = onto.pixels(window)
    box = box_of(picks, source.window)
    shape = (window.height, window.width)
    if box is None:
        pixels, _ = source.read(Window(0, 0, 1, 1))
        return np.zeros((len(pixels), *shape), pixels.dtype), np.zeros(shape, bool)
    pixels, valid = source.read(box)
    sums, seen = np.zeros((len(pixels), *shape), np.float32), np.zeros(shape, np.int64)
    for rows, cols in picks:
        inside = (rows >= box.row) & (rows < box.bottom) & (cols >= box.col) & (cols < box.right)
        at = np.where(inside, rows - box.row, 0), np.where(inside, cols - box.col, 0)
        good = inside & valid[at]
        sums += np.where(good, pixels[:, at[0], at[1]], 0)
        seen += good
    mean = np.rint(sums / np.maximum(seen, 1)).astype(pixels.dtype)
    return mean, 2 * seen >= len(picks)


def shift_of_images(scene: Scene) -> Estimate | None:
    """Estimate by how many pixels the earlier half of a scene's bands lies off the later.

    As between two maps, but the earlier date's regions are levels of its brightness: they explain
    the variance of the later date's bands whatever light and season make of each level.

    Args:
        scene: Two dates as one, 8 bit, without a shift.

    Returns:
        The shift, None where there is too little to tell.
    """
    surfaces = []
    for window in spread_windows(scene.georef):
        wide = Window(
            window.row - REACH,
            window.col - REACH,
            window.height + 2 * REACH,
            window.width + 2 * REACH,
        )
        pixels, valid = scene.read(wide)
        if valid.mean() < 0.9:
            continue
        first, second = np.split(pixels, 2)
        core = np.s_[REACH : REACH + window.height, REACH : REACH + window.width]
        bright = first.mean(axis=0)[core]
        edges = np.unique(np.quantile(bright, np.arange(1, _LEVELS) / _LEVELS))
        levels = np.searchsorted(edges, bright).astype(np.uint8)
        always = second[:, 2 * REACH : window.height, 2 * REACH : window.width]  # at any shift
        if levels.min() == levels.max() or float(always.std(axis=(1, 2)).max()) < _VARIES:
            continue
        surfaces.append(explained(np.ascontiguousarray(second.astype(np.uint8)), levels))
    return peak(surfaces)
