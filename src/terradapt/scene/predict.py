"""predict_scene: a scene becomes a class GeoTIFF with its style and its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import ConfigError, SceneError
from terradapt.files import stamp
from terradapt.grid import Grid, Window
from terradapt.progress import Advance, Track
from terradapt.raster import (
    AreaOfInterest,
    Layer,
    SceneWriter,
    open_scene,
    part_folder,
    signature_of,
)
from terradapt.raster.cog import TILE
from terradapt.scene import sidecars
from terradapt.scene.options import PredictOptions
from terradapt.scene.predictor import Predictor
from terradapt.scene.resample import fitted
from terradapt.scene.stream import Block, Wanted, predict_region


@dataclass(frozen=True)
class Job:
    """A scene, opened and measured: everything that its pixels depend on.

    Attributes:
        source: The scene, within its area of interest.
        predictor: The model, fitted to the scene's resolution.
        grid: The lattice.
        batch: Windows per model call.
        wanted: What is kept of the scores.
        signature: Short hash of scene, model and options.
        stamp: Sizes and times of the scene's files.
        scene: What was asked for.
        options: How it was asked for.
    """

    source: Any
    predictor: Predictor
    grid: Grid
    batch: int
    wanted: Wanted
    signature: str
    stamp: tuple[Any, ...]
    scene: Any
    options: PredictOptions


def predict_scene(
    predictor: Predictor,
    scene: str | Path | Sequence[Path],
    out: Path,
    options: PredictOptions | None = None,
    bar: Track | None = None,
    *,
    model: str = "",
    blocks: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """Predict a scene into ``out``: a cloud optimized GeoTIFF, its style and its statistics.

    Beside ``out`` stand ``.json`` (pixels and hectares per class), ``.qml`` (QGIS style),
    ``.tif.aux.xml`` (class names) and, if asked for, ``_scores.tif`` and ``_confidence.tif``.

    Args:
        predictor: The model.
        scene: A file; a folder or several files make one mosaic.
        out: The class raster to write.
        options: See :class:`PredictOptions`.
        bar: ``bar(total, label, unit)`` gives a context with ``advance(n)``.
        model: Name or hash of the model, for the statistics and for resuming.
        blocks: What yields the blocks instead of plain streaming; see ``scene.cluster``.

    Returns:
        The statistics, as written to the JSON file.

    Raises:
        ConfigError: Options that do not fit.
        SceneError: The scene cannot be read; what is written can be resumed.
        OutputError: The result cannot be written; what is written can be resumed.
    """
    options = options or PredictOptions()
    with ExitStack() as stack:
        job = open_job(predictor, scene, options, model, stack)
        done = sidecars.finished(out, job.signature) if options.resume else None
        if done is not None and not part_folder(out).exists():
            return done
        source = job.source
        writer = SceneWriter(
            _layers(job, out, options), width=source.width, height=source.height, crs=source.crs,
            transform=source.transform, signature={"job": job.signature}, stamp=job.stamp,
            resume=options.resume,
        )  # fmt: skip
        stack.enter_context(writer)
        _fill(writer, job, bar, Path(str(source.path)).name, blocks or stream_blocks)
        statistics = sidecars.statistics(job, writer.notes, out, model)
        writer.commit()
        sidecars.write(out, predictor.classes, statistics)
        writer.clean()
    return statistics


def open_job(
    predictor: Predictor,
    scene: str | Path | Sequence[Path],
    options: PredictOptions,
    model: str,
    stack: ExitStack,
) -> Job:
    """Open a scene and settle the lattice, the batch and the classes.

    Raises:
        ConfigError: A window, overlap or class that does not fit the model.
        SceneError: The scene or the area of interest cannot be read.
    """
    source: Any = stack.enter_context(
        open_scene(
            scene, predictor.spec, bands=options.bands or None, nodata=options.nodata,
            allow_remote=options.allow_remote,
        )
    )  # fmt: skip
    if options.aoi is not None:
        source = AreaOfInterest(source, options.aoi)
    suited = fitted(predictor, options, source.resolution)
    grid = options.grid(suited, source.height, source.width, TILE)
    batch = options.batch_for(suited, grid)
    wanted = Wanted(_subset(predictor, options), options.scores is not None, options.confidence)
    files = [Path(str(p)) for p in getattr(source, "paths", [source.path])]
    settings = {k: str(v) for k, v in vars(options).items() if k != "resume"}
    shape = [source.height, source.width, str(source.crs), list(source.transform), source.dtype]
    engine = [predictor.engine, predictor.precision]
    signature = signature_of(
        [[p.name for p in files], shape, model, engine, settings, batch, predictor.classes.names]
    )
    stamps = tuple(stamp(p) for p in files)
    return Job(source, suited, grid, batch, wanted, signature, stamps, scene, options)


def stream_blocks(job: Job, region: Window, advance: Advance | None = None) -> Any:
    """Yield a region's blocks in this process."""
    return predict_region(
        job.source, job.predictor, job.grid, region, batch=job.batch, wanted=job.wanted,
        block_height=job.source.block_height, advance=advance,
    )  # fmt: skip


def _fill(
    writer: SceneWriter, job: Job, bar: Track | None, label: str, blocks: Callable[..., Any]
) -> None:
    """Predict and write the block rows that are not there yet."""
    first = writer.rows_done * TILE
    if first >= writer.height:
        return
    region = Window(first, 0, writer.height - first, writer.width)
    rows = job.grid.rows.touching(first, writer.height)
    total = len(rows) * len(job.grid.cols.starts)
    number = len(job.predictor.classes)
    context = bar(total, label, "window") if bar else nullcontext(None)
    with context as advance:
        work = blocks(job, region, advance)
        try:
            for block in work:
                writer.write_row(_stored(block, writer), _count(block.classes, number))
        except SceneError:
            writer.mark_unreadable()
            raise
        finally:
            work.close()


def _stored(block: Block, writer: SceneWriter) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"classes": block.classes[None]}
    if block.confidence is not None:
        arrays["confidence"] = _quantized(block.confidence[None])
    if block.scores is not None:
        half = writer.layers["scores"].dtype == "float16"
        arrays["scores"] = block.scores.astype(np.float16) if half else _quantized(block.scores)
    return arrays


def _quantized(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Steps of 0.004: 0..250, 255 for NaN."""
    steps = np.rint(np.clip(values, 0, 1) * 250)
    return np.where(np.isnan(steps), 255, steps).astype(np.uint8)


def _count(classes: NDArray[np.uint8], number: int) -> dict[str, int]:
    """Pixels of every class that is there; a pass per class beats a histogram for a few."""
    counts = {str(k): int(np.count_nonzero(classes == k)) for k in range(number)}
    return {k: n for k, n in counts.items() if n}


def _layers(job: Job, out: Path, options: PredictOptions) -> dict[str, Layer]:
    classes = job.predictor.classes
    layers = {"classes": Layer(out, colours=classes.colours, band_names=("class",),
                               tags=sidecars.tags(classes))}  # fmt: skip
    if options.confidence:
        path = out.with_name(f"{out.stem}_confidence.tif")
        layers["confidence"] = Layer(path, band_names=("confidence",), scale=0.004)
    if options.scores:
        names = tuple(classes.names[i] for i in job.wanted.subset) or classes.names
        path, half = out.with_name(f"{out.stem}_scores.tif"), options.scores == "float16"
        layers["scores"] = Layer(
            path, len(names), options.scores, float("nan") if half else 255,
            band_names=names, scale=1.0 if half else 0.004,
        )  # fmt: skip
    return layers


def _subset(predictor: Predictor, options: PredictOptions) -> tuple[int, ...]:
    names = predictor.classes.names
    for name in options.classes:
        if name not in names:
            raise ConfigError(f"the model has no class '{name}'", f"use: {', '.join(names)}")
    return tuple(sorted({names.index(n) for n in options.classes}))
