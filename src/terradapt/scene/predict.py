"""predict_scene: a scene becomes a class GeoTIFF with its style and its figures."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import OutputError, SceneError
from terradapt.files import check_new, check_output
from terradapt.grid import Window
from terradapt.owner import owned
from terradapt.progress import Track
from terradapt.raster import (
    Compound,
    Layer,
    ScenePath,
    SceneWriter,
    part_folder,
)
from terradapt.raster.cog import TILE
from terradapt.scene import sidecars
from terradapt.scene.job import Blocks, Job, open_job
from terradapt.scene.options import PredictOptions
from terradapt.scene.predictor import Predictor
from terradapt.scene.stream import Block, quantized

SUFFIXES = (".tif", ".tiff")


def predict_scene(
    predictor: Predictor,
    scene: ScenePath | Compound,
    out: Path,
    options: PredictOptions | None = None,
    bar: Track | None = None,
    *,
    model: str = "",
    scratch: bool = False,
    blocks: Blocks = Job.blocks,
) -> dict[str, Any]:
    """Predict a scene into ``out``: a cloud optimized GeoTIFF, its style and its statistics.

    Beside ``out`` stand ``.json`` (pixels and hectares per class), ``.qml`` (QGIS style),
    ``.tif.aux.xml`` (class names) and, if asked for, ``_scores.tif`` and ``_confidence.tif``, the
    last with a style of its own.

    Args:
        predictor: The model.
        scene: A file; a folder or several files make one mosaic.
        out: The class raster to write.
        options: See :class:`PredictOptions`.
        bar: ``bar(total, label, unit)`` gives a context with ``advance(n)``.
        model: Name or hash of the model, for the statistics and for resuming.
        scratch: The rasters are read soon and thrown away: no overviews, nothing is compressed.
        blocks: What yields the blocks; for others than plain streaming see ``scene.cluster``.

    Returns:
        The statistics, as written to the JSON file.

    Raises:
        ConfigError: Options that do not fit.
        SceneError: The scene cannot be read; what is written can be resumed.
        OutputError: The result exists already, another process writes it, or it is one of the files
            that are read. Or it cannot be written; what is written can be resumed.
    """
    options = options or PredictOptions()
    goes_on = options.resume and part_folder(out).exists()
    with ExitStack() as stack:
        for owner in (out, out.with_suffix(".json")):  # map.tif and map.tiff share the second
            stack.enter_context(owned(owner))
        job = open_job(predictor, scene, options, model, stack)
        check_result(out, scene, options, job.source.files)
        layers = _layers(job, out, options)
        if scratch:
            layers = {name: replace(layer, scratch=True) for name, layer in layers.items()}
        done = sidecars.finished(job, out, layers) if options.resume else None
        if done is not None:
            shutil.rmtree(part_folder(out), ignore_errors=True)
            return done
        known = options.resume and (goes_on or sidecars.may_be_of(job, out))
        check_new((layer.path for layer in layers.values()), options.overwrite or known)
        source = job.source
        writer = SceneWriter(
            layers,
            width=source.width,
            height=source.height,
            crs=source.crs,
            transform=source.transform,
            signature={"job": job.signature},
            stamp=job.stamp,
            resume=options.resume,
        )
        stack.enter_context(writer)
        _fill(writer, job, bar, Path(str(source.path)).name, blocks)
        statistics = sidecars.statistics(job, writer.notes, out, model)
        writer.commit()
        statistics = sidecars.write(out, predictor.classes, statistics, layers)
        writer.clean()
    return statistics


def check_result(
    out: Path,
    scene: ScenePath | Compound,
    options: PredictOptions,
    reads: Iterable[str | Path | None],
) -> None:
    """Check that a map can be written, and that it is none of what it is made from.

    Args:
        out: The class raster.
        scene: The scene.
        options: They name what is written beside it, and the area of interest.
        reads: All files that are read.

    Raises:
        OutputError: It cannot, would replace an input, or would become part of its mosaic.
    """
    beside = sidecars.written_with(out, options)
    check_output(out, SUFFIXES, reads=[*reads, options.aoi], beside=beside)
    folder = Path(scene) if isinstance(scene, (str, Path)) else None
    if folder and folder.is_dir() and out.parent.is_dir() and out.parent.samefile(folder):
        raise OutputError(
            f"{out}: lies in {folder}, whose rasters are the scene: the map would be read as one",
            "choose another folder with -o",
        )


def _fill(writer: SceneWriter, job: Job, bar: Track | None, label: str, blocks: Blocks) -> None:
    """Predict and write the block rows that are not there yet."""
    first = writer.rows_done * TILE
    if first >= writer.height:
        return
    region = Window(first, 0, writer.height - first, writer.width)
    rows = job.grid.rows.touching(first, writer.height)
    total = len(rows) * len(job.grid.cols.starts)
    context = bar(total, label, "window") if bar else nullcontext(None)
    with context as advance:
        work = blocks(job, region, advance)
        try:
            for block in work:
                writer.write_row(_stored(block, writer), sidecars.count(job, block))
        except SceneError:
            writer.mark_unreadable()
            raise
        finally:
            work.close()


def _stored(block: Block, writer: SceneWriter) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"classes": block.classes[None]}
    if block.confidence is not None:
        arrays["confidence"] = quantized(block.confidence[None])
    if block.scores is not None:
        half = writer.layers["scores"].dtype == "float16"
        arrays["scores"] = block.scores.astype(np.float16) if half else block.scores
    return arrays


def _layers(job: Job, out: Path, options: PredictOptions) -> dict[str, Layer]:
    classes = job.predictor.classes
    sure = {"TERRADAPT_CONFIDENCE": sidecars.confidence(job.predictor)}
    layers = {
        "classes": Layer(
            out, colours=classes.colours, band_names=("class",), tags=sidecars.tags(classes)
        )
    }
    if options.confidence:
        path = out.with_name(f"{out.stem}_confidence.tif")
        layers["confidence"] = Layer(path, band_names=("confidence",), tags=sure, scale=0.004)
    if options.scores:
        names = tuple(classes.names[i] for i in job.wanted.subset) or classes.names
        path, half = out.with_name(f"{out.stem}_scores.tif"), options.scores == "float16"
        layers["scores"] = Layer(
            path,
            len(names),
            options.scores,
            float("nan") if half else 255,
            band_names=names,
            tags=sure,
            scale=1.0 if half else 0.004,
        )
    return layers
