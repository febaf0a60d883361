"""Two sides on one grid: the raster of change and the classes before and after, row by row.

A row of blocks is a pure function of a :class:`Pair` and its number, so that threads, processes and
machines make the same bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.changes.calibration import ChangeTable
from terradapt.changes.difference import score_of_change
from terradapt.changes.sampling import Sampler, Shift, Steps, open_sampler, placed
from terradapt.changes.sides import Joined, MapSide, Side, VectorSide
from terradapt.errors import DataError, SceneError
from terradapt.grid import Window
from terradapt.machine import cpu_cores
from terradapt.preflight.alignment import REACH, SIDE, explained, peak
from terradapt.preflight.alignment import Shift as Estimate
from terradapt.progress import Advance
from terradapt.raster import Georef, Layer, SceneWriter, rasterize, read_layer
from terradapt.raster.cog import TILE
from terradapt.raster.georef import move_points
from terradapt.scene.options import STEPS
from terradapt.scene.pipeline import abreast
from terradapt.scene.predictor import argmax

_COLUMNS = 2048  # px worked on at once
_PATCHES = 49
_VARIES = 0.1  # standard deviation of a class within a patch, at least
_LEAST_SHIFT = 0.25  # px; smaller ones are none
_SURE_ERROR = 0.1  # px; with it half of the patches are enough
_CLOSE_ERROR = 0.5  # px within which an estimate is used


@dataclass(frozen=True)
class Pair:
    """Two sides, the grid, and everything that the raster of change depends on.

    Attributes:
        old: The earlier side.
        new: The later side.
        georef: The grid.
        joined: The classes.
        shift: Rows and columns of the grid by which the old side lies off.
        reach: How far the two may still lie apart, px.
        table: From scores to probabilities.
        threshold: From which probability on it is a change.
        grow: From which probability on a pixel beside a change belongs to it.
        area: Polygons in the grid's CRS; outside nothing is looked at; everywhere when empty.
        direct: The new side's scores say themselves what changed: its first class is unchanged.
            The old side is not read.
    """

    old: Side
    new: Side
    georef: Georef
    joined: Joined
    shift: Shift = (0.0, 0.0)
    reach: int = 1
    table: ChangeTable = ChangeTable()  # noqa: RUF009 (frozen)
    threshold: float = 0.5
    grow: float = 0.5
    area: tuple[Any, ...] = ()
    direct: bool = False

    def open_sides(self, stack: ExitStack) -> tuple[Sampler, Sampler]:
        """Open both sides for reading on the grid."""
        count, rest = len(self.joined.names), self.joined.rest
        old = open_sampler(self.old, self.georef, self.joined.old, count, self.shift, rest)
        stack.callback(old.close)
        new = open_sampler(self.new, self.georef, self.joined.new, count, (0.0, 0.0), rest)
        stack.callback(new.close)
        return old, new

    def looked_at(self, window: Window) -> NDArray[np.bool_]:
        """Return the (H, W) mask of the area that is looked at."""
        if not self.area:
            return np.ones((window.height, window.width), bool)
        here = self.georef.crop(window)
        burnt = rasterize(
            [(s, 1) for s in self.area],
            height=here.height,
            width=here.width,
            transform=here.transform,
        )
        inside: NDArray[np.bool_] = burnt > 0
        return inside


@dataclass(frozen=True)
class RowTask:
    """A row of blocks of a pair; small enough to travel.

    Attributes:
        pair: The pair.
        row: The number of the row.
    """

    pair: Pair
    row: int

    def __str__(self) -> str:
        return f"row {self.row} of {self.pair.old.path} and {self.pair.new.path}"


@dataclass(frozen=True)
class Row:
    """What a row of blocks says.

    Attributes:
        change: (1, H, W) uint8, probability of change in steps of 0.004; 255 not looked at.
        classes: (2, H, W) uint8, joined ids before and after; 255 not looked at.
        note: Square metres looked at, not looked at and per class before and after; pixels from
            ``grow`` on per pair of classes.
    """

    change: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    note: dict[str, Any]


_open = threading.local()


def row_of(task: RowTask) -> Row:
    """Return a row of blocks; the files stay open for the thread's next one.

    Raises:
        SceneError: A part of a side that cannot be read.
    """
    pair = task.pair
    block = _told_block if pair.direct else _block
    if getattr(_open, "pair", None) is not pair:
        close_sides()
        _open.stack, _open.pair = ExitStack(), pair
        _open.sides = pair.open_sides(_open.stack)
    georef, count = pair.georef, len(pair.joined.names)
    top = task.row * TILE
    height = min(TILE, georef.height - top)
    change = np.full((1, height, georef.width), 255, np.uint8)
    classes = np.full((2, height, georef.width), 255, np.uint8)
    areas, shares = np.zeros(2), np.zeros((2, count))
    pairs = np.zeros(count * count, np.int64)
    likely = pair.table.of_steps()
    for left in range(0, georef.width, _COLUMNS):
        window = Window(top, left, height, min(_COLUMNS, georef.width - left))
        score, before, after, valid = block(pair, window)
        steps = likely[score]
        at = np.s_[:, left : left + window.width]
        change[0][at] = np.where(valid, steps, 255)
        code = before * np.int64(count) + after
        code[~valid] = count * count
        for band, ids in enumerate((before, after)):
            classes[band][at] = np.where(valid, ids, 255)
        metres = georef.pixel_areas(window)
        sums = np.bincount(code.ravel(), metres.ravel(), minlength=count * count + 1)
        areas += sums[:-1].sum(), sums[-1]
        both = sums[:-1].reshape(count, count)
        shares += both.sum(axis=1), both.sum(axis=0)
        told = valid & (steps >= round(pair.grow * STEPS)) & (before != after)
        pairs += np.bincount(code[told], minlength=count * count)
    note = {
        "areas": areas.tolist(),
        "classes": shares.tolist(),
        "pairs": {str(k): int(pairs[k]) for k in np.flatnonzero(pairs)},
    }
    return Row(change, classes, note)


def close_sides() -> None:
    """Close what :func:`row_of` left open in this thread."""
    if hasattr(_open, "stack"):
        _open.stack.close()
        del _open.stack, _open.pair, _open.sides


def _block(
    pair: Pair, window: Window
) -> tuple[Steps, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    halo = 2 * pair.reach
    wide = Window(
        window.row - halo, window.col - halo, window.height + 2 * halo, window.width + 2 * halo
    )
    (old, before, saw), (new, after, sees) = (side.steps(wide) for side in _open.sides)
    inside = _within(pair.georef, wide)
    score, valid = score_of_change(old, new, (saw & inside, sees & inside), pair.reach)
    cut = np.s_[halo : halo + window.height, halo : halo + window.width]
    return score, before[cut], after[cut], valid & pair.looked_at(window)


def _told_block(
    pair: Pair, window: Window
) -> tuple[Steps, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    shares, _, valid = _open.sides[1].steps(window)
    after = argmax(shares[1:])[0] + np.uint8(1)
    score = (np.uint8(STEPS) - shares[0]) * valid
    return score, np.zeros_like(after), after, valid & pair.looked_at(window)


def _within(georef: Georef, window: Window) -> NDArray[np.bool_]:
    rows = np.arange(window.row, window.bottom)
    cols = np.arange(window.col, window.right)
    down, right = (rows >= 0) & (rows < georef.height), (cols >= 0) & (cols < georef.width)
    return np.asarray(down[:, None] & right[None])


Rows = Callable[[Callable[[RowTask], Row], Iterable[RowTask]], Iterator[Row]]
"""What yields the rows in order: :func:`here`, or a cluster's ``ordered``."""


def here(
    function: Callable[[RowTask], Row], tasks: Iterable[RowTask]
) -> Generator[Row, None, None]:
    """Yield the rows in order, made by threads of this process."""
    work = abreast(function, tasks, min(4, cpu_cores()), "change")
    try:
        for _, row in work:
            yield row
    finally:
        work.close()
        close_sides()


def write_change(
    pair: Pair,
    change: Path,
    classes: Path,
    *,
    signature: str,
    resume: bool = False,
    rows: Rows = here,
    advance: Advance | None = None,
) -> list[dict[str, Any]]:
    """Write the raster of change, and the classes before and after.

    Args:
        pair: The two sides.
        change: GeoTIFF to write: probability in steps of 0.004.
        classes: GeoTIFF to write: joined ids before and after.
        signature: Of everything that they depend on, for a resume.
        resume: Go on where a killed run stopped.
        rows: What yields the rows.
        advance: Called with 1 after each row of blocks.

    Returns:
        The notes of all rows; see :class:`Row`.

    Raises:
        SceneError: A part of a side that cannot be read.
        OutputError: The disk is full; what is written can be resumed.
    """
    georef = pair.georef
    tags = {"TERRADAPT_CHANGE": str(pair.table)}
    layers = {
        "change": Layer(change, band_names=("probability of change",), tags=tags, scale=1 / STEPS),
        "classes": Layer(classes, 2, band_names=("before", "after"), scratch=True),
    }
    writer = SceneWriter(
        layers,
        width=georef.width,
        height=georef.height,
        crs=georef.crs,
        transform=georef.transform,
        signature={"job": signature},
        resume=resume,
    )
    with writer:
        tasks = (RowTask(pair, row) for row in range(writer.rows_done, writer.rows))
        for row in rows(row_of, tasks):
            writer.write_row({"change": row.change, "classes": row.classes}, row.note)
            if advance is not None:
                advance(1)
        writer.commit()
        writer.clean()
    return list(writer.notes)


def estimated_shift(pair: Pair) -> Estimate | None:
    """Estimate by how many pixels of the grid the old side lies off the new one.

    As the pre-flight tells a label's shift: the old side's regions are moved over the new side's
    probabilities, until they explain most of their variance.

    Args:
        pair: The two sides, without a shift.

    Returns:
        The shift, None where there is too little to tell.
    """
    surfaces: list[Any] = []
    with ExitStack() as stack:
        old, new = pair.open_sides(stack)
        windows = spread_windows(pair.georef)
        for number, window in enumerate(windows[::2] + windows[1::2]):
            if 2 * number == len(windows) + len(windows) % 2 and is_enough(found := peak(surfaces)):
                return found
            shares, valid = old.read(window)
            ids = np.where(valid, shares.argmax(axis=0), 255).astype(np.uint8)
            counts = np.bincount(ids.ravel(), minlength=256)[:255]
            if valid.mean() < 0.5 or (counts >= 64).sum() < 2:
                continue
            wide = Window(
                window.row - REACH,
                window.col - REACH,
                window.height + 2 * REACH,
                window.width + 2 * REACH,
            )
            there = new.read(wide)[0]
            core = there[:, 2 * REACH : window.height, 2 * REACH : window.width]  # at any shift
            if core.size == 0:
                continue
            varying = core.std(axis=(1, 2)) >= _VARIES
            if varying.any():
                surfaces.append(explained(np.rint(there[varying] * 255).astype(np.uint8), ids))
    return peak(surfaces)


def is_enough(found: Estimate | None) -> bool:
    """Tell whether further patches would not make an estimate of use better."""
    return found is not None and found.is_clear and found.error <= _SURE_ERROR


def spread_windows(georef: Georef) -> list[Window]:
    """Return patches to estimate a shift on; smaller ones of a small grid: many tell more."""
    inner = min(georef.height, georef.width) - 2 * REACH
    side = min(SIDE, max(inner // 6, 3 * REACH))
    rows, cols = (
        np.linspace(REACH, REACH + max(n - 2 * REACH - side, 0), -(-(n - 2 * REACH) // side))
        for n in (georef.height, georef.width)
    )
    windows = [Window(round(r), round(c), side, side) for r in rows for c in cols]
    some = np.linspace(0, len(windows) - 1, min(_PATCHES, len(windows))).round().astype(int)
    return [windows[i] for i in some] if inner >= side else []


def used_shift(found: Estimate | None) -> Shift:
    """Return the shift that is taken out: the estimate where it is sure, else none."""
    if found is None or not found.is_clear or found.error > _CLOSE_ERROR:
        return (0.0, 0.0)
    if found.distance < max(_LEAST_SHIFT, 2 * found.error):
        return (0.0, 0.0)
    return (round(found.rows, 2), round(found.cols, 2))


def read_area(path: Path | None, georef: Georef | None, crs: Any) -> tuple[Any, ...]:
    """Read the polygons of an area of interest in a CRS.

    Args:
        path: A vector file; None for no area.
        georef: What they must meet; None for no raster.
        crs: The CRS.

    Raises:
        DataError: It cannot be read, or has no polygons.
        SceneError: None of them lies on the grid.
    """
    if path is None:
        return ()
    found = read_layer(path, columns=False)
    shapes = found.geometries[shapely.area(found.geometries) > 0]
    if not len(shapes):
        raise DataError(f"{path}: has no polygons", "draw the area of interest as polygons")
    if found.crs is not None and crs is not None and found.crs != crs:
        shapes = shapely.transform(shapes, lambda xy: move_points(xy, found.crs, crs))
    if (
        georef is not None
        and not shapely.intersects(shapes, shapely.Polygon(georef.outline())).any()
    ):
        raise SceneError(
            f"{path}: none of its polygons lies where both sides are",
            "check the CRS and the place of the area of interest",
        )
    return tuple(shapes)


__all__ = [
    "MapSide",
    "Pair",
    "Row",
    "RowTask",
    "VectorSide",
    "here",
    "placed",
    "row_of",
    "write_change",
]
