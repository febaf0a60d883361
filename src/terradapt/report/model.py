"""Report: what was measured, on which data, by which checkpoint, and how to show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from terradapt.classes import ClassMap, Colour
from terradapt.documents import validated
from terradapt.errors import DataError
from terradapt.files import read_json
from terradapt.report.wording import metrics_html, told_metrics
from terradapt.version import __version__

FORMAT = "terradapt-report-1"


@dataclass(frozen=True)
class Picture:
    """One place side by side: image, label, prediction and errors are drawn from it.

    Args:
        name: Heading, for example the image's id.
        image: (H, W, 3) uint8.
        label: (H, W) ids, 255 not evaluated.
        prediction: (H, W) ids.
        caption: One line below the panels.
    """

    name: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class Plate:
    """One finished drawing.

    Args:
        name: Heading, for example the image's id.
        image: (H, W, 3) uint8.
        caption: One line.
    """

    name: str
    image: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class Reference:
    """A printed result that stands beside ours; never measured here.

    Args:
        name: Method and data.
        values: Metric name -> fraction.
        source: Paper and table.
    """

    name: str
    values: Mapping[str, float]
    source: str


@dataclass(repr=False)
class Report:
    """Figures of one evaluation and what explains them.

    A notebook shows the figures of each class; ``metrics`` holds them all.

    Args:
        metrics: Figures, fractions 0..1, with ``per_class``: name -> figures.
        classes: The class map of label and prediction.
        protocol: How the figures were made: split, labels, threshold, definitions.
        data: What was evaluated: ``name``, ``split``, ``images``, ``resolution`` and so on.
        checkpoint: Path of the checkpoint, or "".
        commit: Commit of the code that evaluated, or "".
        title: Heading of the page.
        model: The run's model, as in its config.
        confusion: (K, K) counts, rows are targets.
        reliability: Name -> bins of confidence, as
            :meth:`terradapt.metrics.calibration.Reliability.table` gives them.
        images: One row per image: ``id`` and figures.
        image_confusion: Image's id -> its (K, K) counts, which add up to ``confusion``: figures
            over other draws of the images are made from them.
        facts: Run facts in the order of the page: time, command, hardware and so on.
        notes: Sentences that a reader must know, for example classes without a pixel.
        events: Lines of the run's ``log.jsonl``, for the curves.
        pictures: Places side by side.
        networks: Road networks drawn over their images.
        network_legend: (meaning, RGB) of their colours.
        references: Printed results, shown apart.
        figures: Further drawings, title -> SVG text.
        reads: Files that it was made from: it is never written over one of them.
    """

    metrics: dict[str, Any]
    classes: ClassMap
    protocol: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    commit: str = ""
    title: str = "Evaluation"
    model: dict[str, Any] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    reliability: Mapping[str, Sequence[Mapping[str, float | int]]] = field(default_factory=dict)
    images: Sequence[Mapping[str, Any]] = ()
    image_confusion: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    events: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[Picture] = ()
    networks: Sequence[Plate] = ()
    network_legend: Sequence[tuple[str, Colour]] = ()
    references: Sequence[Reference] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    reads: Sequence[Path] = ()

    @property
    def split(self) -> str:
        """Name of the split that was evaluated, or ""."""
        return str(self.data.get("split", ""))

    def __repr__(self) -> str:
        where = f"{self.data.get('name', 'data')}, split {self.split or 'unknown'}"
        return f"<Report of {where}: {told_metrics(self.metrics)}>"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<p>{escape(repr(self)[1:-1])}</p>{metrics_html(self.metrics, self.classes)}{notes}"

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into ``report.json``."""
        return {
            "format": FORMAT,
            "title": self.title,
            "metrics": self.metrics,
            "protocol": self.protocol,
            "data": self.data,
            "checkpoint": self.checkpoint,
            "commit": self.commit,
            "model": self.model,
            "classes": self.classes.to_dict(),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "reliability": {k: [dict(b) for b in v] for k, v in self.reliability.items()},
            "images": [dict(row) for row in self.images],
            "image_confusion": {k: m.ravel().tolist() for k, m in self.image_confusion.items()},
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "references": [vars(r) | {"values": dict(r.values)} for r in self.references],
            "version": __version__,
        }


def read_report(path: str | Path) -> dict[str, Any]:
    """Read a ``report.json``.

    Raises:
        DataError: No JSON, or not a report.
    """
    path = Path(path)
    values: dict[str, Any] = read_json(path, fix="evaluate again")
    validated(_Stored, values, path, DataError, "give a report.json that terradapt eval wrote")
    return values


class _Metrics(BaseModel):
    """The figures of a ``report.json``."""

    __pydantic_extra__: dict[str, float | str | dict[str, Any] | list[Any] | None]
    model_config = ConfigDict(extra="allow")

    per_class: dict[str, dict[str, Any]] = {}


class _Stored(BaseModel):
    """``report.json``, as far as others rely on it."""

    metrics: _Metrics
    data: dict[str, Any] = {}
    protocol: dict[str, Any] = {}
    model: dict[str, Any] = {}
    facts: dict[str, Any] = {}
