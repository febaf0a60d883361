"""The block function: windows of one region of the lattice in, finished class scores out.

Every value depends on the scene, the grid and the model alone: windows go to the model in fixed
batches along a lattice row, and every pixel sums its windows in the order of the lattice, columns
first. So a region, the whole scene, and any share of work give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.grid import Grid, Window
from terradapt.raster import Scene
from terradapt.scene.context import Surroundings
from terradapt.scene.predictor import Predictor, on_host


@dataclass(frozen=True)
class Chunk:
    """Neighbouring windows of one lattice row: what the model sees at once.

    Attributes:
        row: Lattice row.
        first: First lattice column.
        stop: Lattice column after the last.
        live: Those of them that hold a valid pixel.
        images: (n, C, window, window) uint8, one for each of ``live``; with a context 2 C.
        valid: (rows, columns) mask of the pixels that this chunk finishes.
    """

    row: int
    first: int
    stop: int
    live: tuple[int, ...]
    images: NDArray[np.uint8]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """Finished pixels.

    Attributes:
        window: Where they lie in the scene.
        valid: (height, width) mask.
        scores: (K, height, width) where the model left them; None where no pixel is valid.
    """

    window: Window
    valid: NDArray[np.bool_]
    scores: Any


class Plan:
    """Which windows a region needs, and which rows each lattice row finishes.

    Args:
        grid: The lattice of the scene.
        region: The pixels wanted, inside the scene.
        batch: Windows per model call; part of the result's identity.
    """

    def __init__(self, grid: Grid, region: Window, batch: int) -> None:
        self.grid, self.region, self.batch = grid, region, batch
        self.rows = grid.rows.touching(region.row, region.bottom)
        cols = grid.cols.touching(region.col, region.right)
        first = cols.start // batch * batch
        self.cols = range(first, min(-(-cols.stop // batch) * batch, len(grid.cols.starts)))
        starts = grid.cols.starts
        self.left = starts[self.cols.start]
        self.right = min(starts[self.cols.stop - 1] + grid.window, grid.width)

    def __len__(self) -> int:
        """Windows of the region's rows and columns."""
        return len(self.rows) * len(self.cols)

    def finished(self, row: int) -> tuple[int, int]:
        """Return the first and stop pixel row that no later window touches."""
        starts = self.grid.rows.starts
        last = row + 1 == len(starts)
        return starts[row], self.grid.height if last else starts[row + 1]

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yield first and stop lattice column of every batch of a row."""
        for first in range(self.cols.start, self.cols.stop, self.batch):
            yield first, min(first + self.batch, self.cols.stop)


def read_chunks(source: Scene, plan: Plan, context: int = 0) -> Iterator[Chunk]:
    """Read a region's windows, every row of the file once, and cut them into chunks.

    Args:
        source: The scene.
        plan: The region's windows.
        context: As of :meth:`terradapt.raster.Scene.look`; its rows are read once more.
    """
    grid, size = plan.grid, plan.grid.window
    strip = _Strip(source, plan)
    around = Surroundings(source, plan.grid, plan.cols, context) if context else None
    for row in plan.rows:
        top = grid.rows.starts[row]
        pixels, valid = strip.rows(top, size)
        first, stop = plan.finished(row)
        done = valid[: stop - first].copy()
        for begin, end in plan.chunks():
            spans = [grid.cols.starts[c] - plan.left for c in range(begin, end)]
            live = tuple(
                c
                for c, x in zip(range(begin, end), spans, strict=True)
                if valid[:, x : x + size].any()
            )
            bands = len(pixels)
            images = np.empty((len(live), bands * (2 if around else 1), size, size), np.uint8)
            for image, c in zip(images, live, strict=True):
                x = grid.cols.starts[c] - plan.left
                cut = pixels[:, :, x : x + size]
                image[:bands, :, : cut.shape[2]] = cut
                image[:bands, :, cut.shape[2] :] = 0
                if around:
                    image[bands:] = around.window(row, c)
            left = spans[0]
            right = plan.right if end == plan.cols.stop else grid.cols.starts[end]
            yield Chunk(row, begin, end, live, images, done[:, left : right - plan.left])


class _Strip:
    """A moving band of the scene's rows in one buffer: reads only what it has not read."""

    def __init__(self, source: Scene, plan: Plan) -> None:
        self.source, self.plan = source, plan
        self.step = source.block_height if source.block_height <= 1024 else 1
        self.top = self.bottom = plan.grid.rows.starts[plan.rows.start]
        self.filled = self.top  # no pixel from here on
        self.width = plan.right - plan.left
        self.buffer = np.zeros((0, 0, 0), np.uint8)
        self.valid = np.zeros((0, self.width), bool)

    def rows(self, top: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return pixels and mask of ``count`` rows from ``top``; rows beyond the scene are 0.

        They are views that the next call overwrites.
        """
        if top + count > self.bottom:
            stop = -(-(top + count) // self.step) * self.step
            last = min(stop, self.plan.grid.height)
            area = Window(self.bottom, self.plan.left, last - self.bottom, self.width)
            self._append(*self.source.read(area), top, stop)
        first = top - self.top
        if self.filled <= self.top:
            shape = (len(self.buffer), count, self.width)
            return np.broadcast_to(np.zeros((), np.uint8), shape), self.valid[first : first + count]
        return self.buffer[:, first : first + count], self.valid[first : first + count]

    def _append(self, pixels: NDArray[Any], valid: NDArray[np.bool_], top: int, stop: int) -> None:
        """Drop the rows above ``top`` and add some; a band of nothing but zeros is not touched."""
        kept, more = self.bottom - top, len(valid)
        if not len(self.buffer):
            height = self.plan.grid.window + self.step  # rows may end anywhere in a block
            self.buffer = np.zeros((len(pixels), height, self.width), np.uint8)
        blank = not (valid.any() or pixels.any())
        if not blank or self.filled > top:
            self._move(top - self.top, kept, blank=self.filled <= top)
            self.buffer[:, kept : kept + more] = pixels
            self.buffer[:, kept + more : stop - top] = 0
            self.filled = self.filled if blank else self.bottom + more
        below = np.zeros((stop - self.bottom - more, self.width), bool)
        self.valid = np.concatenate([self.valid[top - self.top :], valid, below])
        self.top, self.bottom = top, stop

    def _move(self, by: int, kept: int, *, blank: bool) -> None:
        """Move the kept rows to the top, in pieces that do not overlap."""
        if blank:
            self.buffer[:, :kept] = 0
            return
        for first in range(0, kept if by else 0, by or 1):
            stop = min(first + by, kept)
            self.buffer[:, first:stop] = self.buffer[:, first + by : stop + by]


class Blender:
    """Turns the scores of chunks, in order, into finished pieces.

    Along a row, a window's left columns take the tail of the windows before it; along the scene,
    its top rows take the tail of the row above. Only overlaps are multiplied, since all other
    weights are exactly 1.

    Args:
        plan: The region's windows.
        predictor: Holds the device that the weights go to.
        subset: Class ids to choose among; all when empty.
    """

    def __init__(self, plan: Plan, predictor: Predictor, subset: Sequence[int] = ()) -> None:
        self.plan, self.subset = plan, list(subset)
        self._put: Callable[[NDArray[np.float32]], Any] = (
            np.ascontiguousarray if on_host(predictor) else predictor.asarray
        )
        self._across = _Tapers(plan.grid.cols.weights, self._put, vertical=False)
        self._down = _Tapers(plan.grid.rows.weights, self._put, vertical=True)
        self._tail: Any = None
        self._above: dict[int, Any] = {}
        self._below: dict[int, Any] = {}
        self._row = -1

    def feed(self, chunk: Chunk, scores: Sequence[Any]) -> Iterator[Piece]:
        """Take the scores (K, window, window) of a chunk's live windows, give what they finish."""
        if chunk.row != self._row:
            self._row, self._tail = chunk.row, None
            self._above, self._below = self._below, {}
        for col in range(chunk.first, chunk.stop):
            window = scores[chunk.live.index(col)] if col in chunk.live else None
            if window is not None and self.subset:
                window = window[self.subset]
            yield self._add(col, window, chunk)

    def _add(self, col: int, window: Any, chunk: Chunk) -> Piece:
        starts = self.plan.grid.cols.starts
        left = starts[col]
        if window is not None:
            self._across.apply(window, col)
        last = col + 1 == self.plan.cols.stop
        right = self.plan.right if last else starts[col + 1]
        tail = self._tail if window is None else None
        window = self._merged(window, self._tail, 2)
        self._tail = None if last else self._left_over(window, tail, right - left, 2)
        done = None if window is None else window[:, :, : right - left]
        from_left = left - starts[chunk.first]
        valid = chunk.valid[:, from_left : from_left + right - left]
        return self._finish(left, valid, done)

    def _finish(self, left: int, valid: NDArray[np.bool_], strip: Any) -> Piece:
        """Blend a finished column of the row with the row above, and cut off what is done."""
        top, stop = self.plan.finished(self._row)
        if strip is not None:
            self._down.apply(strip, self._row)
        above = self._above.pop(left, None)
        tail = above if strip is None else None
        strip = self._merged(strip, above, 1)
        if self._row + 1 < self.plan.rows.stop:
            below = self._left_over(strip, tail, stop - top, 1)
            if below is not None:
                self._below[left] = below * 1
        done = None if strip is None else strip[:, : stop - top]
        return Piece(Window(top, left, *valid.shape), valid, done)

    @staticmethod
    def _left_over(scores: Any, tail: Any, done: int, axis: int) -> Any:
        """Cut off what later windows add to; of a tail that met no window, its own rest."""
        kept = scores if tail is None else tail
        if kept is None or kept.shape[axis] <= done:
            return None
        return kept[:, :, done:] if axis == 2 else kept[:, done:]

    def _merged(self, scores: Any, tail: Any, axis: int) -> Any:
        """Add what earlier windows left to the first columns (axis 2) or rows (axis 1)."""
        if tail is None:
            return scores
        if scores is None:
            shape = list(tail.shape)
            shape[axis] = self.plan.grid.window
            scores = self._put(np.zeros(shape, np.float32))
        if axis == 2:
            scores[:, :, : tail.shape[2]] += tail
        else:
            scores[:, : tail.shape[1]] += tail
        return scores


class _Tapers:
    """Weights of one axis on the device, applied in place where they are not 1."""

    def __init__(
        self,
        weights: NDArray[np.float32],
        put: Callable[[NDArray[np.float32]], Any],
        vertical: bool,
    ) -> None:
        self.spans: dict[bytes, list[tuple[int, int, Any]]] = {}
        self.weights, self.put, self.vertical = weights, put, vertical

    def apply(self, scores: Any, index: int) -> None:
        """Multiply (K, H, W) scores by the taper of window ``index``."""
        key = self.weights[index].tobytes()
        if key not in self.spans:
            self.spans[key] = self._ramps(self.weights[index])
        for first, stop, ramp in self.spans[key]:
            if self.vertical:
                scores[:, first:stop] *= ramp
            else:
                scores[:, :, first:stop] *= ramp

    def _ramps(self, weights: NDArray[np.float32]) -> list[tuple[int, int, Any]]:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], weights != 1, [False]])))
        ramps = []
        for first, stop in edges.reshape(-1, 2):
            ramp = np.ascontiguousarray(weights[first:stop])
            shaped = ramp[:, None] if self.vertical else ramp
            ramps.append((int(first), int(stop), self.put(shaped)))
        return ramps
