"""A region's finished blocks from top to bottom, in memory of its width."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap
from terradapt.errors import ConfigError, one_of
from terradapt.grid import Grid, Window
from terradapt.progress import Advance
from terradapt.raster import Scene
from terradapt.scene.blend import Blender, Chunk, Piece, Plan, read_chunks
from terradapt.scene.options import STEPS, PredictOptions
from terradapt.scene.pipeline import abreast, ahead
from terradapt.scene.predictor import Predictor, argmax, on_host, streams_for

_AHEAD = 2


@dataclass(frozen=True)
class Block:
    """A finished rectangle of the output.

    Attributes:
        window: Where it lies in the scene.
        classes: (h, w) uint8 ids, 255 where the scene has no data.
        scores: (K, h, w) float32, NaN without data; uint8 in steps of 0.004, 255 without data,
            where ``uint8`` is asked for; when the options ask for scores.
        confidence: (h, w) float32, NaN without data; when the options ask for it.
    """

    window: Window
    classes: NDArray[np.uint8]
    scores: NDArray[Any] | None = None
    confidence: NDArray[np.float32] | None = None


class Runner:
    """Calls the model on chunks; halves the batch for good when memory runs out.

    Off the host a batch that is not full is filled up to a half, a quarter ... of the full one.
    """

    def __init__(self, predictor: Predictor, batch: int) -> None:
        self.predictor, self.batch, self.host = predictor, batch, on_host(predictor)

    def __call__(self, chunk: Chunk) -> list[Any]:
        """Return one (K, window, window) array of scores for each live window; thread-safe.

        Raises:
            MemoryError: Even a single window does not fit.
        """
        images = chunk.images
        results: list[Any] = []
        while len(results) < len(images):
            part = images[len(results) : len(results) + self.batch]
            try:
                scores = self.predictor.predict(part if self.host else self._filled(part))
            except MemoryError:
                if len(part) == 1:
                    raise
                self.batch = min(self.batch, len(part) // 2)
                continue
            results.extend(self.predictor.numpy(scores) if self.host else scores[: len(part)])
        return results

    def _filled(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill up a batch with black: few shapes, for each of which kernels are chosen anew."""
        size = self.batch
        while len(images) <= size // 2:
            size //= 2
        if len(images) == size:
            return images
        black = np.zeros((size - len(images), *images.shape[1:]), np.uint8)
        return np.concatenate([images, black])


def region_pieces(
    source: Scene,
    predictor: Predictor,
    grid: Grid,
    region: Window,
    *,
    batch: int,
    subset: Sequence[int] = (),
    advance: Advance | None = None,
) -> Iterator[Piece]:
    """Yield a region's finished pieces, from top to bottom.

    The pieces may reach beyond the region, where they are unfinished.

    Args:
        source: Where windows come from.
        predictor: The model.
        grid: The scene's lattice.
        region: The pixels wanted.
        batch: Windows per model call.
        subset: Class ids to choose among.
        advance: Called with the number of lattice windows done.
    """
    plan = Plan(grid, region, batch)
    blender, run = Blender(plan, predictor, subset), Runner(predictor, batch)
    streams = streams_for(predictor, grid, batch)
    chunks = ahead(read_chunks(source, plan, predictor.spec.context), _AHEAD, "read")
    scored = abreast(run, chunks, streams, "stream", lambda: predictor.share(streams))
    try:
        for chunk, scores in scored:
            yield from blender.feed(chunk, scores)
            if advance is not None:
                advance(chunk.stop - chunk.first)
    finally:
        scored.close()
        chunks.close()
        predictor.share(1)


@dataclass(frozen=True)
class Wanted:
    """What is kept of the scores.

    Args:
        subset: Class ids that the first axis of the scores stands for; all when empty.
        scores: Keep the scores themselves.
        confidence: Keep the highest score.
        steps: The scores are kept as uint8 in steps of 0.004.
    """

    subset: tuple[int, ...] = ()
    scores: bool = False
    confidence: bool = False
    steps: bool = False

    @classmethod
    def of(cls, options: PredictOptions, classes: ClassMap) -> Wanted:
        """Return what options ask for.

        Raises:
            ConfigError: A class that the model does not have.
        """
        for name in options.classes:
            if name not in classes.names:
                raise ConfigError(f"the model has no class '{name}'", one_of(name, classes.names))
        subset = sorted({classes.names.index(n) for n in options.classes})
        scores = options.scores
        return cls(tuple(subset), scores is not None, options.confidence, scores == "uint8")


def predict_region(
    source: Scene,
    predictor: Predictor,
    grid: Grid,
    region: Window,
    *,
    batch: int,
    wanted: Wanted = Wanted(),
    advance: Advance | None = None,
) -> Generator[Block, None, None]:
    """Yield a region as blocks of its full width and of the grid's block height.

    The blocks lie on the grid's block rows; the first and the last may be cut by the region.
    """
    work = region_pieces(
        source, predictor, grid, region, batch=batch, subset=wanted.subset, advance=advance
    )
    pieces = ahead(_labelled(work, predictor, region, wanted), batch, "model")
    canvas = _Canvas(region, grid.block, len(wanted.subset) or len(predictor.classes), wanted)
    try:
        for area, result in _results(pieces, wanted):
            canvas.add(area, result)
            yield from canvas.take(min(area.row, region.bottom))
        yield from canvas.take(region.bottom)
    finally:
        pieces.close()


def quantized(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return scores in steps of 0.004: 0..250, 255 for NaN."""
    steps = np.clip(values, 0, 1)
    steps *= STEPS
    np.rint(steps, out=steps)
    steps[np.isnan(steps)] = IGNORE
    return steps.astype(np.uint8)


Result = tuple[NDArray[np.uint8], NDArray[Any] | None, NDArray[np.float32] | None]


@dataclass(frozen=True)
class _Labelled:
    """A piece of the region; off the host its labels are on their way, and nobody waits for them.

    Attributes:
        window: Where it lies in the scene.
        valid: (h, w) mask.
        fetch: Waits for ids, highest scores and scores, (K, h, w); None where no pixel is valid.
    """

    window: Window
    valid: NDArray[np.bool_]
    fetch: Callable[[], tuple[NDArray[np.uint8], Any, Any]] | None


def _labelled(
    pieces: Iterator[Piece], predictor: Predictor, region: Window, wanted: Wanted
) -> Iterator[_Labelled]:
    """Cut pieces to the region; label them where their scores live, and send for the labels."""
    for piece in pieces:
        area = piece.window.intersect(region)
        if area is None:
            continue
        rows, cols = area.shift(-piece.window.row, -piece.window.col).slices
        valid = piece.valid[rows, cols]
        if piece.scores is None or not valid.any():
            yield _Labelled(area, valid, None)
        else:
            yield _Labelled(area, valid, _send(piece.scores[:, rows, cols], predictor, wanted))


def _send(
    scores: Any, predictor: Predictor, wanted: Wanted
) -> Callable[[], tuple[NDArray[np.uint8], Any, Any]]:
    if isinstance(scores, np.ndarray):  # labelled by the consumer, beside the model
        return lambda: (*argmax(scores), scores)
    ids, best = predictor.label(scores)
    sent = [
        predictor.fetch(array) if asked else None
        for array, asked in ((ids, True), (best, wanted.confidence), (scores, wanted.scores))
    ]
    return lambda: tuple(None if f is None else f() for f in sent)  # type: ignore[return-value]


def _results(work: Iterator[_Labelled], wanted: Wanted) -> Iterator[tuple[Window, Result | None]]:
    """Wait for each piece's labels and hide what is not valid."""
    table = np.arange(256, dtype=np.uint8)
    if wanted.subset:
        table[: len(wanted.subset)] = wanted.subset
    nan = np.float32("nan")
    for piece in work:
        if piece.fetch is None:
            yield piece.window, None
            continue
        ids, best, scores = piece.fetch()
        classes = table[ids] if wanted.subset else ids
        if not piece.valid.all():
            classes[~piece.valid] = IGNORE
        kept = None
        if wanted.scores and wanted.steps:
            kept = np.where(piece.valid, quantized(scores), np.uint8(IGNORE))
        elif wanted.scores:
            kept = np.where(piece.valid, scores, nan)
        sure = np.where(piece.valid, best, nan) if wanted.confidence else None
        yield piece.window, (classes, kept, sure)


class _Canvas:
    """The rows of a region that are not given out yet."""

    def __init__(self, region: Window, block: int, count: int, wanted: Wanted) -> None:
        self.region, self.block, self.wanted, self.count = region, block, wanted, count
        self.top = self.bottom = region.row
        self.layers: list[NDArray[Any] | None] = [None, None, None]

    def add(self, area: Window, result: Result | None) -> None:
        """Put a piece in its place; None leaves it without data."""
        self._reach(area.bottom)
        if result is None:
            return
        rows, cols = area.shift(-self.top, -self.region.col).slices
        for layer, values in zip(self.layers, result, strict=True):
            if layer is not None and values is not None:
                layer[..., rows, cols] = values

    def take(self, done: int) -> Iterator[Block]:
        """Give out the blocks that end at or above row ``done``."""
        while self.top < self.region.bottom:
            stop = min((self.top // self.block + 1) * self.block, self.region.bottom)
            if stop > done:
                return
            self._reach(stop)
            window = Window(self.top, self.region.col, stop - self.top, self.region.width)
            cut = [None if x is None else x[..., : window.height, :] for x in self.layers]
            self.layers = [
                None if x is None else x[..., window.height :, :].copy() for x in self.layers
            ]
            self.top = stop
            assert cut[0] is not None
            yield Block(window, cut[0], cut[1], cut[2])

    def _reach(self, bottom: int) -> None:
        """Have rows down to ``bottom``, without data at first."""
        extra = bottom - self.bottom
        if extra <= 0 and self.layers[0] is not None:
            return
        self.bottom = max(bottom, self.bottom)
        width, nan = self.region.width, np.float32("nan")
        fresh: list[NDArray[Any] | None] = [np.full((max(extra, 0), width), IGNORE, np.uint8)]
        scores, sure = self.wanted.scores, self.wanted.confidence
        empty = np.uint8(IGNORE) if self.wanted.steps else nan
        fresh.append(np.full((self.count, max(extra, 0), width), empty) if scores else None)
        fresh.append(np.full((max(extra, 0), width), nan) if sure else None)
        self.layers = [
            new if old is None or new is None else np.concatenate([old, new], -2)
            for old, new in zip(self.layers, fresh, strict=True)
        ]
