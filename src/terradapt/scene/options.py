"""PredictOptions: everything about a prediction that is neither the scene nor the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from terradapt.errors import ConfigError
from terradapt.grid import Grid
from terradapt.options import check_fields, chosen
from terradapt.scene.predictor import Predictor, default_batch, on_host

STEPS = 250
"""Scores and confidence as uint8: this many steps make 1."""


@dataclass(frozen=True)
class PredictOptions:
    """How a scene is predicted.

    Args:
        window: Side of a window, px at the model's resolution; None takes the model's own.
        overlap: Share of a window that neighbours cover too, 0..0.9.
        margin: Pixels at inner edges of windows whose scores are dropped, >= 0.
        batch: Windows per model call; None finds it.
        scores: Write class probabilities too, as ``"float16"`` or ``"uint8"`` (0.004 steps).
        confidence: Write the winning class's probability too, uint8 in steps of 0.004.
        classes: Names to choose among; all when empty.
        aoi: Polygons (vector file) or a mask raster; outside there is no data.
        resolution: ``"auto"`` resamples to the model's metres per pixel, ``"native"`` never does;
            a number is the metres per pixel that the model should see; ``"search"`` looks for the
            scale of a scene that does not say its own, else it is ``"auto"``.
        bands: 1-based indexes or names of the bands to use; the model's own when empty.
        nodata: A nodata value instead of the scene's.
        grow_void: Pixels this near to one without data have none either, px, >= 0; None as the
            model was trained. For collars that lossy compression has blurred.
        allow_remote: Let scenes be addresses.
        resume: Go on where a killed run stopped.
        overwrite: Replace a result that is there.

    Raises:
        ConfigError: A value of the wrong kind.
    """

    window: int | None = None
    overlap: float = 0.25
    margin: int = 0
    batch: int | None = None
    scores: Literal["float16", "uint8"] | None = None
    confidence: bool = False
    classes: tuple[str, ...] = ()
    aoi: Path | None = None
    resolution: float | Literal["auto", "native", "search"] = "auto"
    bands: tuple[int | str, ...] = ()
    nodata: float | None = None
    grow_void: int | None = None
    allow_remote: bool = False
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, **options: Any) -> PredictOptions:
        """Return options by name; ``scores=True`` is ``scores="float16"``.

        Raises:
            ConfigError: No such option, or a value of the wrong kind.
        """
        if isinstance(options.get("scores"), bool):
            options["scores"] = "float16" if options["scores"] else None
        return chosen(cls, options)

    def grid(self, predictor: Predictor, height: int, width: int, block: int = 512) -> Grid:
        """Return the lattice of a scene for a model.

        Raises:
            ConfigError: A window that the model cannot take, or an overlap out of range.
        """
        multiple = max(1, predictor.multiple)
        window = self.window or predictor.window
        if window < 1 or window % multiple:
            raise ConfigError(
                f"a window of {window} px does not fit the model",
                f"use a multiple of {multiple}",
            )
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(
                f"an overlap of {self.overlap:g} is out of range", "use a share from 0 to 0.9"
            )
        window = min(window, -(-max(height, width) // multiple) * multiple)
        stride = min(max(1, round(window * (1 - self.overlap))), window - 2 * self.margin)
        if self.margin < 0 or stride < 1:
            raise ConfigError(
                f"a margin of {self.margin} px leaves nothing of a window of {window} px",
                "use a smaller margin or a larger window",
            )
        return Grid(height, width, window, stride, self.margin, block)

    def batch_for(self, predictor: Predictor, grid: Grid) -> int:
        """Return the windows per model call to begin with."""
        count = len(grid.cols.starts)
        batch = max(1, min(self.batch or default_batch(predictor, grid.window), count))
        if self.batch is None and not on_host(predictor):
            batch = -(-count // -(-count // batch))  # as even as can be: batches of one shape
        return batch


class PredictChoices(TypedDict, total=False):
    """The fields of :class:`PredictOptions` as keywords, for type checkers and editors."""

    window: int | None
    overlap: float
    margin: int
    batch: int | None
    scores: Literal["float16", "uint8"] | bool | None
    confidence: bool
    classes: Sequence[str]
    aoi: str | Path | None
    resolution: float | Literal["auto", "native", "search"]
    bands: Sequence[int | str]
    nodata: float | None
    grow_void: int | None
    allow_remote: bool
    resume: bool
    overwrite: bool
