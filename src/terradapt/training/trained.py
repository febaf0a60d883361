"""TrainedRun: what training gives to Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from terradapt.classes import ClassMap
from terradapt.meta import Meta
from terradapt.report.wording import metrics_html, told_metrics
from terradapt.training.run import BEST


@dataclass(frozen=True, repr=False)
class TrainedRun(os.PathLike[str]):
    """A finished run; stands for its folder wherever a model is asked for.

    Attributes:
        folder: Config, log, checkpoints and report.
        classes: Names and colours.
        metrics: Of the best checkpoint, fractions; ``split`` says on which images.
        confidence: How far scores are probabilities, in words.
    """

    folder: Path
    classes: ClassMap
    metrics: Mapping[str, Any]
    confidence: str

    @classmethod
    def of(cls, folder: Path, meta: Meta) -> TrainedRun:
        """Return the run of a folder whose best checkpoint says this of itself."""
        return cls(folder, meta.classes, meta.metrics, meta.confidence)

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint's file."""
        return self.folder / BEST

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        split = self.metrics.get("split", "")
        return f"<TrainedRun {self.folder}: {told_metrics(self.metrics)} on {split}>"

    def _repr_html_(self) -> str:
        told = f"<p>{escape(repr(self)[1:-1])}; confidence: {escape(self.confidence)}</p>"
        return told + metrics_html(self.metrics, self.classes)
