"""Job: a scene, opened and measured, that yields its blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from terradapt.errors import SceneError
from terradapt.files import size_text
from terradapt.grid import Grid, Window
from terradapt.machine import free_memory
from terradapt.progress import Advance
from terradapt.raster import Clipped, Compound, Scene, ScenePath, open_scene, signature_of
from terradapt.raster.cog import TILE
from terradapt.raster.pam import SUFFIX, beside_stamp
from terradapt.scene.options import PredictOptions
from terradapt.scene.predictor import Predictor
from terradapt.scene.resample import fitted, levelled, magnified, scale_notes
from terradapt.scene.scale import search_scale
from terradapt.scene.stream import Block, Wanted, predict_region


@dataclass(frozen=True)
class Job:
    """A scene and everything that its pixels depend on.

    Attributes:
        source: The scene, within its area of interest.
        predictor: The model, fitted to the scene's resolution.
        grid: The lattice.
        batch: Windows per model call.
        wanted: What is kept of the scores.
        options: How it was asked for.
        scene: What was asked for; None where the scene was opened by someone else.
        signature: Short hash of scene, model and options; as ``stamp``, of opened jobs only.
        stamp: Sizes and times of the files of the scene and of the area of interest.
        scale: Pixels of the scene to one of the model's, where that was searched for.
        notes: What does not stop the prediction and should be known; of opened jobs only.
    """

    source: Scene
    predictor: Predictor
    grid: Grid
    batch: int
    wanted: Wanted
    options: PredictOptions
    scene: ScenePath | Compound | None = None
    signature: str = ""
    stamp: tuple[list[int], ...] = ()
    scale: float | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Scene, predictor: Predictor, options: PredictOptions) -> Job:
        """Settle the lattice, the batch and the classes of an open scene.

        Raises:
            ConfigError: A window, overlap or class that does not fit the model.
            SceneError: Rows of this width do not fit into memory.
        """
        found = None
        if options.resolution == "search" and source.resolution is None:
            told = levelled(predictor, None)
            found = search_scale(source, told, options.window or predictor.window)
            suited = magnified(told, options, found)
        else:
            suited = levelled(fitted(predictor, options, source.resolution), source.resolution)
        grid = options.grid(suited, source.height, source.width, TILE)
        wanted = Wanted.of(options, predictor.classes)
        _check_memory(source, suited, grid, wanted)
        batch = options.batch_for(suited, grid)
        return cls(source, suited, grid, batch, wanted, options, scale=found)

    def blocks(
        self, region: Window | None = None, advance: Advance | None = None
    ) -> Generator[Block, None, None]:
        """Yield blocks of full width from top to bottom, in this process.

        Args:
            region: The pixels wanted; the whole scene when None. Its pixels are those of the whole
                scene's prediction, bit for bit.
            advance: Called with the number of windows done.

        Raises:
            SceneError: A part of the scene that cannot be read.
        """
        return predict_region(
            self.source,
            self.predictor,
            self.grid,
            region or self.source.window,
            batch=self.batch,
            wanted=self.wanted,
            advance=advance,
        )


def row_memory(predictor: Predictor, grid: Grid, wanted: Wanted) -> int:
    """Return the bytes that the full rows of a scene take while it is predicted, at least."""
    classes = len(wanted.subset) or len(predictor.classes)
    kept = 1 + 4 * wanted.confidence + (1 if wanted.steps else 4) * classes * wanted.scores
    spec = predictor.spec
    around = 2 * len(spec.bands) // spec.context if spec.context else 0  # held, and being joined
    column = grid.window * (len(spec.bands) + around) + grid.block * kept
    lattice = 8 + 12 * grid.window // grid.stride  # bytes of an axis's weights to a pixel
    return column * grid.width + lattice * (grid.width + grid.height)


def _check_memory(source: Scene, predictor: Predictor, grid: Grid, wanted: Wanted) -> None:
    """Compare what full rows take with what is there, before the first is made."""
    needed = row_memory(predictor, grid, wanted)
    free = free_memory()
    if free is not None and needed > free:
        raise SceneError(
            f"{source.path}: {source.width} x {source.height} px need at least "
            f"{size_text(needed)} of memory, {size_text(free)} are free",
            "cut it into strips from top to bottom: gdal_translate -srcwin",
        )


Blocks = Callable[[Job, Window, Advance | None], Generator[Block, None, None]]
"""What yields a region's blocks: :meth:`Job.blocks`, or that of a cluster."""


def open_job(
    predictor: Predictor,
    scene: ScenePath | Compound,
    options: PredictOptions,
    model: str,
    stack: ExitStack,
) -> Job:
    """Open a scene, within its area of interest, and settle how it is predicted.

    Args:
        predictor: The model.
        scene: A file; a folder or several files make one mosaic.
        options: How to predict.
        model: Name or hash of the model.
        stack: Closes the scene.

    Raises:
        ConfigError: A window, overlap or class that does not fit the model; a resolution, and a
            scene that does not say its own.
        SceneError: The scene or the area of interest cannot be read.
    """
    source = stack.enter_context(
        open_scene(
            scene,
            predictor.spec,
            bands=options.bands or None,
            nodata=options.nodata,
            grow_void=options.grow_void,
            allow_remote=options.allow_remote,
        )
    )
    if options.aoi is not None:
        source = stack.enter_context(Clipped(source, options.aoi))
    job = Job.of(source, predictor, options)
    marks = {Path(str(p)): beside_stamp(p) for p in source.files}
    files = [p for p, mark in marks.items() if mark or not str(p).endswith(SUFFIX)]
    apart = ("resume", "overwrite")
    settings = {k: str(v) for k, v in vars(options).items() if k not in apart}
    crs = None if source.crs is None else source.crs.to_wkt()
    signature = signature_of(
        [
            [p.name for p in files],
            [source.height, source.width, crs, list(source.transform), source.dtype],
            model,
            [predictor.engine, predictor.precision],
            settings,
            job.batch,
            predictor.classes.names,
        ]
    )
    stamps = tuple(marks[p] for p in files)
    notes = (*source.remarks(), *scale_notes(source, predictor, options))
    if job.scale is not None:
        notes += (
            f"{source.path}: does not say its metres per pixel; the model says most where it sees "
            f"{job.scale:.3g} of its pixels as one, which was found by trying",
        )
    return replace(job, scene=scene, signature=signature, stamp=stamps, notes=notes)


def predict_blocks(
    source: Scene,
    predictor: Predictor,
    options: PredictOptions | None = None,
    progress: Advance | None = None,
    *,
    region: Window | None = None,
) -> Generator[Block, None, None]:
    """Predict an open scene, or a region of it, as blocks of full width from top to bottom.

    Args:
        source: The scene, read with the predictor's spec.
        predictor: The model.
        options: Windows, classes, scores.
        progress: Called with the number of windows done.
        region: As in :meth:`Job.blocks`.

    Raises:
        ConfigError: Options that do not fit the model.
        SceneError: A part of the scene that cannot be read.
    """
    return Job.of(source, predictor, options or PredictOptions()).blocks(region, progress)
