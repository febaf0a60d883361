"""Class probabilities of any side on the grid of the comparison, by windows.

Pixels of the grid that are coarser than the side's are shares of what lies in them; finer ones take
the pixel that they lie in. Nothing depends on how the grid is cut into windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.changes.sides import MapSide, VectorSide
from terradapt.files import Closing
from terradapt.grid import Window
from terradapt.raster import Georef, SceneReader, rasterize
from terradapt.raster.georef import move_points
from terradapt.scene.options import STEPS
from terradapt.scene.predictor import argmax

Floats = NDArray[np.float64]
Shares = NDArray[np.float32]
Steps = NDArray[np.uint8]
Shift = tuple[float, float]
_KNOT = 32  # px between places that are moved from CRS to CRS; between them it is linear
_CACHE = 256 << 20  # bytes: windows and their rims share tiles
_MOST = 8  # samples along a side of a pixel


class Onto:
    """Where the pixels of a grid lie in another raster.

    Args:
        source: The raster that is read.
        target: The grid.
        shift: Rows and columns of the grid by which the raster lies off.
    """

    def __init__(self, source: Georef, target: Georef, shift: Shift = (0.0, 0.0)) -> None:
        self.source, self.target, self.shift = source, target, np.array(shift)
        self.straight = target.same_place(source.crs)
        centre = np.array([target.height, target.width]) / 2 - 0.5
        ends = self._move(centre + np.array([[0, 0], [1, 0], [0, 1]]))
        self.scale = float(np.sqrt(abs(np.linalg.det(ends[1:] - ends[:1]))))
        corner = self._move(np.zeros((1, 2)))[0]
        step = self._move(np.eye(2)) - corner
        self.offset = None
        if self.straight and np.abs(step - np.eye(2)).max() < 1e-6:
            down, right = _nearest(corner).tolist()
            self.offset = down, right

    def _move(self, places: Floats) -> Floats:
        """(M, 2) places of the grid as places of the raster."""
        xy = self.target.xy(places + self.shift)
        if not self.straight:
            assert self.source.crs is not None
            xy = move_points(xy, self.target.crs, self.source.crs)
        return self.source.pixels(xy)

    def places(self, window: Window, part: Shift = (0.0, 0.0)) -> tuple[Floats, Floats]:
        """Return (H, W) rows and columns in the raster of a window's pixels.

        Args:
            window: Of the grid.
            part: Rows and columns from the pixels' centres.
        """
        rows = np.arange(window.row, window.bottom) + part[0]
        cols = np.arange(window.col, window.right) + part[1]
        if self.straight:
            corner = self._move(np.zeros((1, 2)))[0]
            down, right = self._move(np.eye(2)) - corner
            found = (
                corner[k] + (rows * down[k])[:, None] + (cols * right[k])[None] for k in (0, 1)
            )
            one, two = found
            return one, two
        knots = [
            np.arange(int(v[0] // _KNOT), int(v[-1] // _KNOT) + 2) * _KNOT for v in (rows, cols)
        ]
        mesh = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).reshape(-1, 2).astype(float)
        known = self._move(mesh).reshape(len(knots[0]), len(knots[1]), 2)
        known = np.where(np.isfinite(known), known, -1e9)
        left, up = (_linear(k, v) for k, v in zip(knots, (rows, cols), strict=True))
        one, two = (left @ known[..., k] @ up.T for k in (0, 1))
        return one, two

    def pixels(
        self, window: Window, most: int = _MOST
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return the pixels of the raster that make those of a window: (H, W) rows and columns.

        Args:
            window: Of the grid.
            most: Samples along a side of a pixel, at most.
        """
        count = min(most, max(1, round(self.scale)))
        parts = (np.arange(count) + 0.5) / count - 0.5
        found = []
        for down in parts:
            for right in parts:
                rows, cols = self.places(window, (float(down), float(right)))
                found.append((_nearest(rows), _nearest(cols)))
        return found


def _nearest(values: Floats) -> NDArray[np.int64]:
    return np.floor(np.clip(values, -1e9, 1e9) + 0.5 + 1e-6).astype(np.int64)


def _linear(knots: NDArray[Any], at: NDArray[Any]) -> Floats:
    """(N, M) weights of M knots for N places."""
    weights: Floats = np.maximum(0.0, 1.0 - np.abs(at[:, None] - knots[None]) / _KNOT)
    return weights


def box_of(
    picks: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], whole: Window
) -> Window | None:
    """Return the window of a raster that holds pixels; None where none lies in it."""
    inside = [
        (r[ok], c[ok])
        for r, c in picks
        if (ok := (r >= 0) & (c >= 0) & (r < whole.height) & (c < whole.width)).any()
    ]
    if not inside:
        return None
    top, left = min(int(r.min()) for r, _ in inside), min(int(c.min()) for _, c in inside)
    bottom = max(int(r.max()) for r, _ in inside) + 1
    right = max(int(c.max()) for _, c in inside) + 1
    return Window(top, left, bottom - top, right - left)


def as_steps(shares: Shares) -> Steps:
    """Return probabilities in the nearest steps of 0.004."""
    return np.rint(shares * STEPS).astype(np.uint8)


def exact_steps(steps: Steps, valid: NDArray[np.bool_]) -> tuple[Steps, NDArray[np.uint8]]:
    """Make steps sum to exactly 1: the likeliest class takes what rounding left.

    Args:
        steps: (K, H, W) steps of 0.004 that sum to about 1; changed in place.
        valid: (H, W); elsewhere they are 0.

    Returns:
        The steps, and (H, W) the likeliest class, the first of equal ones.
    """
    ids = argmax(steps)[0]
    lack = np.where(valid, np.uint8(STEPS), np.uint8(0))
    for plane in steps:
        lack -= plane  # modulo 256, as are the sums below
    for k in range(len(steps)):
        steps[k] += lack * (ids == k)
    return steps, ids


class MapSampler(Closing):
    """Joined class probabilities of a map.

    Args:
        side: The map.
        target: The grid.
        table: Of each id its joined id.
        count: Joined classes.
        shift: As in :class:`Onto`.
    """

    def __init__(
        self, side: MapSide, target: Georef, table: Sequence[int], count: int, shift: Shift
    ) -> None:
        self.side, self.count = side, count
        self.table = np.full(256, -1, np.int64)
        self.table[: len(table)] = table
        self.reader = SceneReader(
            side.scores or side.path, bands=None if side.scores else (1,), cache=_CACHE
        )
        self.onto = Onto(self.reader.georef, target, shift)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    def read(self, window: Window) -> tuple[Shares, NDArray[np.bool_]]:
        """Return (K, H, W) probabilities that sum to 1, and (H, W) valid; not valid ones are 0."""
        shape = (window.height, window.width)
        sums = np.zeros((self.count, *shape), np.float32)
        if self.onto.offset is not None:
            pixels, valid = self.reader.read(window.shift(*self.onto.offset))
            self._add(sums, pixels, valid)
            return self._shares(sums, valid)
        picks = self.onto.pixels(window)
        box = box_of(picks, self.reader.window)
        seen = np.zeros(shape, np.int64)
        if box is None:
            return sums, seen > 0
        pixels, valid = self.reader.read(box)
        for rows, cols in picks:
            inside = (
                (rows >= box.row) & (rows < box.bottom) & (cols >= box.col) & (cols < box.right)
            )
            at = np.where(inside, rows - box.row, 0), np.where(inside, cols - box.col, 0)
            seen += self._add(sums, pixels[:, at[0], at[1]], valid[at] & inside)
        return self._shares(sums, 2 * seen >= len(picks))

    def steps(self, window: Window) -> tuple[Steps, NDArray[np.uint8], NDArray[np.bool_]]:
        """Return as :func:`exact_steps`, and (H, W) valid.

        Stored steps are taken as they are where pixel lies on pixel: that they were rounded one by
        one moves a probability by half a step for each class, at most.
        """
        if self.onto.offset is None or self.side.scores is None or self.reader.dtype != "uint8":
            shares, valid = self.read(window)
            return *exact_steps(as_steps(shares), valid), valid
        pixels, valid = self.reader.read(window.shift(*self.onto.offset))
        if not valid.all():
            pixels *= valid
        joined = np.zeros((self.count, *valid.shape), np.uint8)
        for band, number in zip(pixels, self.table.tolist(), strict=False):
            joined[number] += band
        valid &= joined.any(axis=0)
        return *exact_steps(joined, valid), valid

    def _add(
        self, sums: Shares, pixels: NDArray[Any], valid: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Add a sample of every pixel; say which counted."""
        if self.side.scores is None:
            ids = pixels[0] == 255 if self.side.mask else pixels[0]
            classes = np.where(valid, self.table[np.clip(ids, 0, 255).astype(np.int64)], -1)
            for k in range(self.count):
                sums[k] += classes == k
            known: NDArray[np.bool_] = classes >= 0
            valid &= known
            return valid
        whole = valid.all()
        for band, joined in zip(pixels, self.table.tolist(), strict=False):
            sums[joined] += band if whole else np.where(valid, band, 0)
        return valid

    def _shares(self, sums: Shares, valid: NDArray[np.bool_]) -> tuple[Shares, NDArray[np.bool_]]:
        total = sums.sum(axis=0)
        valid = valid & (total > 0)
        if not valid.all():
            total[~valid] = 1
            sums *= valid
        sums /= total
        return sums, valid


class VectorSampler(Closing):
    """Joined class probabilities of polygons: one inside.

    Args:
        side: The polygons.
        target: The grid.
        table: Of each of their names its joined id.
        count: Joined classes.
        shift: As in :class:`Onto`.
        rest: The joined id elsewhere.
    """

    def __init__(
        self,
        side: VectorSide,
        target: Georef,
        table: Sequence[int],
        count: int,
        shift: Shift,
        rest: int = 0,
    ) -> None:
        self.target, self.count, self.rest = target, count, rest
        moved = side.moved_to(target.crs)
        self.shapes = placed(moved.polygons, target, shift)
        names = dict(zip(side.names, table, strict=True))
        self.values = np.array([names[k] for k in side.kinds], np.int64)
        self.tree = shapely.STRtree(self.shapes)

    def close(self) -> None:
        """Have nothing to close."""

    def read(self, window: Window) -> tuple[Shares, NDArray[np.bool_]]:
        """Return as :meth:`MapSampler.read`; every pixel is valid."""
        box = shapely.box(window.col, window.row, window.right, window.bottom)
        here = np.sort(self.tree.query(box))
        ids = rasterize(
            zip(self.shapes[here], self.values[here].tolist(), strict=True),
            height=window.height,
            width=window.width,
            transform=_pixels_from(window),
            fill=self.rest,
        )
        shares = np.stack([ids == k for k in range(self.count)]).astype(np.float32)
        return shares, np.ones(ids.shape, bool)

    def steps(self, window: Window) -> tuple[Steps, NDArray[np.uint8], NDArray[np.bool_]]:
        """Return as :meth:`MapSampler.steps`."""
        shares, valid = self.read(window)
        return *exact_steps(as_steps(shares), valid), valid


Sampler = MapSampler | VectorSampler


def open_sampler(
    side: MapSide | VectorSide,
    target: Georef,
    table: Sequence[int],
    count: int,
    shift: Shift = (0.0, 0.0),
    rest: int = 0,
) -> Sampler:
    """Open a side for reading on a grid.

    Raises:
        SceneError: It cannot be read.
    """
    if isinstance(side, MapSide):
        return MapSampler(side, target, table, count, shift)
    return VectorSampler(side, target, table, count, shift, rest)


def placed(shapes: NDArray[Any], target: Georef, shift: Shift = (0.0, 0.0)) -> NDArray[Any]:
    """Return geometries of a grid's CRS in its (column, row) of pixel corners, shift taken out."""

    def place(xy: Floats) -> Floats:
        return (target.pixels(xy) - shift)[:, ::-1] + 0.5

    return np.asarray(shapely.transform(shapes, place), object)


def zones(
    shapes: NDArray[Any], target: Georef, *, rows: int = 512, cols: int = 2048
) -> Iterator[tuple[Window, NDArray[np.int64], NDArray[np.int32]]]:
    """Yield the blocks of a grid in which polygons lie.

    Args:
        shapes: (P,) polygons in (column, row) of pixel corners.
        target: The grid.
        rows: Of a block, px.
        cols: Of a block, px.

    Yields:
        The block; the N polygons there; and its (H * W,) pixels: 0, or 1..N of these polygons.
    """
    tree = shapely.STRtree(shapes)
    for top in range(0, target.height, rows):
        for left in range(0, target.width, cols):
            window = Window(
                top, left, min(rows, target.height - top), min(cols, target.width - left)
            )
            box = shapely.box(window.col, window.row, window.right, window.bottom)
            here = np.sort(tree.query(box))
            if not len(here):
                continue
            ids = rasterize(
                zip(shapes[here], range(1, len(here) + 1), strict=True),
                height=window.height,
                width=window.width,
                transform=_pixels_from(window),
                dtype="int32",
            )
            yield window, here, ids.ravel()


def zonal_means(
    shapes: NDArray[Any], target: Georef, read: Any, planes: int
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return means of planes over polygons, by blocks.

    Args:
        shapes: (P,) polygons in (column, row) of pixel corners.
        target: The grid.
        read: Gives (K, H, W) values and (H, W) valid of a window.
        planes: K.

    Returns:
        (P, K) means over valid pixels, NaN without one; (P,) pixels, and (P,) valid ones.
    """
    count = len(shapes)
    sums, pixels, good = np.zeros((count, planes)), np.zeros(count, int), np.zeros(count, int)
    for window, here, ids in zones(shapes, target):
        values, valid = read(window)
        pixels[here] += np.bincount(ids, minlength=len(here) + 1)[1:]
        at = np.flatnonzero((ids > 0) & valid.ravel())  # most of a block lies in no polygon
        known = ids[at] - 1
        good[here] += np.bincount(known, minlength=len(here))
        for k in range(planes):
            sums[here, k] += np.bincount(known, values[k].ravel()[at], minlength=len(here))
    with np.errstate(invalid="ignore"):
        return sums / np.where(good, good, np.nan)[:, None], pixels, good


def values_at(
    places: Floats, target: Georef, read: Any, planes: int, *, side: int = 512
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return (M, K) values and (M,) valid at places of a grid; outside it not valid.

    Args:
        places: (M, 2) rows and columns, pixel centres whole numbers.
        target: The grid.
        read: As in :func:`zonal_means`.
        planes: K.
        side: Of the tiles that are read, px.
    """
    found, known = np.zeros((len(places), planes)), np.zeros(len(places), bool)
    cells = np.floor(places + 0.5).astype(np.int64)
    inside = ((cells >= 0) & (cells < [target.height, target.width])).all(axis=1)
    tile = cells // side
    for key in np.unique(tile[inside], axis=0):
        top, left = (key * side).tolist()
        window = Window(top, left, min(side, target.height - top), min(side, target.width - left))
        here = np.flatnonzero(inside & (tile == key).all(axis=1))
        values, valid = read(window)
        row, col = (cells[here] - [top, left]).T
        found[here], known[here] = values[:, row, col].T, valid[row, col]
    return found, known


def _pixels_from(window: Window) -> Any:
    """Return the transform of a window in (column, row) of pixel corners."""
    from affine import Affine

    return Affine.translation(window.col, window.row)
