"""What a preparation is given and gives back: options, a benchmark's images, the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from terradapt.classes import ClassMap
from terradapt.data.dataset import Dataset
from terradapt.data.labels import LabelForm
from terradapt.prepare.jobs import Record

PAPER_CROP = 1024  # px, of SAM2MS

Tell = Callable[[str], None]
SplitName = Literal["auto", "paper", "by_image", "official"]


def tell_nothing(line: str) -> None:
    """Tell nothing."""


@dataclass(frozen=True)
class PrepareOptions:
    """How a benchmark is prepared.

    Args:
        split: ``paper``: the paper's; ``by_image``: drawn by image; ``official``: the
            benchmark's folders; ``auto``: the dataset's default, or what is there already.
        seed: Of drawn splits.
        bands: Which imagery: ``RGB``, ``IRRG`` or ``RGBIR`` (ISPRS Potsdam), or an imagery
            folder's name (SpaceNet). None: the first that is there.
        dsm: Add the surface model as one more band (ISPRS).
        crop: Cut crops of this side, px; None: whole images stay where they are.
        overlap: Least pixels that neighbouring crops share.
        line_width: Width of a road from its centreline, m (SpaceNet).
        snap: Take label colours that are off by this much per channel for a class's colour.
        workers: Processes; 0: one per core.
    """

    split: SplitName = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    bands: str | None = None
    dsm: bool = False
    crop: Annotated[int, Field(ge=32)] | None = None
    overlap: Annotated[int, Field(ge=0)] = 0
    line_width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    snap: Annotated[int, Field(ge=0, le=32)] = 0
    workers: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Benchmark:
    """What a reader found in a benchmark's files.

    Args:
        name: Name of the dataset.
        records: Its labelled images.
        classes: Its class map.
        label: How its label files are read.
        resolution: Metres per pixel, where the files do not say.
        paper: Groups by split; None when the paper shuffles crops, empty when no paper has one.
        official: Groups by split as the benchmark's folders or lists state, or None.
        default: The split of ``auto``.
    """

    name: str
    records: tuple[Record, ...]
    classes: ClassMap
    label: LabelForm
    resolution: float | None = None
    paper: Mapping[str, Sequence[str]] | None = None
    official: Mapping[str, Sequence[str]] | None = None
    default: SplitName = "by_image"


@dataclass(frozen=True)
class Prepared:
    """What a preparation did.

    Args:
        dataset: The result.
        done: Images that were prepared now.
        kept: Images that were prepared before and have not changed.
        statistics: Pixels by class, mean and deviation of the bands.
    """

    dataset: Dataset
    done: int
    kept: int
    statistics: Mapping[str, Any] = field(default_factory=dict)


def with_paper_crops(options: PrepareOptions) -> PrepareOptions:
    """Return options that cut SAM2MS's crops where its split is asked for."""
    if options.split == "paper" and options.crop is None:
        return replace(options, crop=PAPER_CROP)
    return options
