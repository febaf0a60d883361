"""What a finished run's reports say, as far as runs are compared: figures, images, curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from terradapt.classes import ClassMap
from terradapt.config import RunConfig
from terradapt.documents import read_log, validated
from terradapt.errors import DataError, refusing
from terradapt.files import read_json
from terradapt.metrics.confusion import class_scores

TRIAL = "trial.json"
"""In a run's folder: what the trials asked for, and the time that it took so far."""
FURTHER = "on-"
"""How the reports on further data are named: ``on-NAME.json`` beside ``report.json``."""
REST = ("background", "other", "rest", "none")
"""Names of what is not the road."""
_MEANS = {"mdice": "dice", "miou_image": "iou", "rlod": "rlod", "mae_x100": "mae", "mae": "mae"}
_FIX = "evaluate the run again: terradapt eval RUN --data DIR -o RUN/report.json"


@dataclass(frozen=True, eq=False)
class Evidence:
    """One report.

    Attributes:
        path: The file.
        metrics: Its figures, fractions.
        classes: Of label and prediction.
        data: What was evaluated.
        protocol: What was counted.
        images: Image's id -> figures of it.
        confusion: (N, K, K) pixels of the images in their order; None in a report without.
        parameters: Millions, or None.
    """

    path: Path
    metrics: Mapping[str, Any]
    classes: ClassMap
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    images: Mapping[str, Mapping[str, Any]]
    confusion: NDArray[np.float64] | None = None
    parameters: float | None = None

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.data.get("name", ""))

    @property
    def road(self) -> int | None:
        """Id of the class that is asked for, where there are two; None with more."""
        if len(self.classes) != 2:
            return None
        return 0 if self.classes.names[1].casefold() in REST else 1

    def value(self, metric: str) -> float | None:
        """Return a figure by its dotted key, in per cent (MAE times 100); None without.

        ``per_class.road.*`` is the class of the road of two, whatever its name.
        """
        value: Any
        if metric.startswith("per_class."):
            name, _, figure = metric.removeprefix("per_class.").rpartition(".")
            value = self.metrics["per_class"].get(self._class(name), {}).get(figure)
        else:
            value = self.metrics.get(metric)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if metric == "mae_x100" else 100 * float(value)

    def resampled(self, metric: str, counts: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return a figure over other draws of the images, in the unit of :meth:`value`.

        Args:
            metric: A dotted key.
            counts: (B, N) how often each draw has each image.

        Returns:
            (B,), or None for a figure that cannot be made from the images' counts.
        """
        key = _MEANS.get(metric)
        if key is not None:
            values = np.array([row.get(key, np.nan) for row in self.images.values()], float)
            there = np.isfinite(values)
            sums, total = counts @ np.where(there, values, 0.0), counts @ there
        elif self.confusion is not None:
            n, k, _ = self.confusion.shape
            drawn = (counts @ self.confusion.reshape(n, k * k)).reshape(-1, k, k)
            parts = self._parts(metric, drawn)
            if parts is None:
                return None
            sums, total = parts
        else:
            return None
        shares: NDArray[np.float64] = np.zeros(len(counts))
        np.divide(sums, total, out=shares, where=total > 0)
        return 100 * shares

    def _parts(
        self, metric: str, drawn: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Dividend and divisor of a figure of (B, K, K) matrices."""
        name, _, figure = metric.removeprefix("per_class.").rpartition(".")
        if metric == "oa":
            return drawn.diagonal(axis1=1, axis2=2).sum(1), drawn.sum((1, 2))
        table = class_scores(drawn)
        part = figure if name else {"miou": "iou", "mf1": "f1"}.get(metric, metric)
        if part not in ("iou", "f1", "precision", "recall"):
            return None
        if name:
            owner = self._class(name)
            if owner not in self.classes.names:
                return None
            return table[part][:, self.classes.names.index(owner)], np.ones(len(drawn))
        kept = list(self.classes.evaluated)
        used = (table["support"] + table["predicted"] > 0)[:, kept]
        return np.where(used, table[part][:, kept], 0.0).sum(1), used.sum(1).astype(np.float64)

    def misfit(self, other: Evidence) -> str:
        """Return why this cannot be compared with another report, "" where it can."""
        split, theirs = (e.data.get("split") for e in (self, other))
        digests = {str(e.data["splits_digest"]) for e in (self, other) if "splits_digest" in e.data}
        apart = sorted(self.images.keys() ^ other.images.keys())
        both = self.images.keys() & other.images.keys()
        pixels = [i for i in both if self.images[i].get("pixels") != other.images[i].get("pixels")]
        counted, wanted = ({**e.protocol, "splits": None} for e in (self, other))
        keys = [k for k in {**counted, **wanted} if counted.get(k) != wanted.get(k)]
        checks = {
            f"was evaluated on {self.name or 'unnamed data'}, not on {other.name}": (
                self.name != other.name
            ),
            f"was evaluated on the split '{split}', not on '{theirs}'": split != theirs,
            f"has the classes {', '.join(self.classes.names)}": (
                self.classes.names != other.classes.names
            ),
            f"was evaluated on other images of '{split}', for example {apart[:1]}": bool(apart),
            f"was evaluated on other labels, for example of {sorted(pixels)[:1]}": bool(pixels),
            "is of other splits of these data": len(digests) > 1,
            f"was counted differently ({', '.join(keys)})": bool(keys),
        }
        return next((why for why, wrong in checks.items() if wrong), "")

    def ordered(self, other: Evidence) -> Evidence:
        """Return the same with the images in another report's order."""
        if list(self.images) == list(other.images):
            return self
        own = list(self.images)
        order = [own.index(i) for i in other.images]
        confusion = None if self.confusion is None else self.confusion[order]
        images = {i: self.images[i] for i in other.images}
        return Evidence(**{**vars(self), "images": images, "confusion": confusion})

    def _class(self, name: str) -> str:
        road = self.road
        if name == "road" and name not in self.classes.names and road is not None:
            return self.classes.names[road]
        return name


class TrialNote(BaseModel):
    """``trial.json`` in a run's folder.

    Attributes:
        method: Name of the method.
        config: As it was asked for; the run's own may be completed by weights and machine.
        seconds: s, training and evaluation so far.
        parameters: Millions that predict.
        gmacs: Of one image.
    """

    model_config = ConfigDict(frozen=True)

    method: str
    config: RunConfig
    seconds: float = Field(0.0, ge=0)
    parameters: float | None = None
    gmacs: float | None = None


@dataclass(frozen=True)
class RunEvidence:
    """A finished run.

    Attributes:
        folder: The run's.
        own: Its report.
        further: Reports on further data, by the data's name.
        events: Lines of its log.
        trial: What the trials say of it, or None.
    """

    folder: Path
    own: Evidence
    further: Mapping[str, Evidence] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    trial: TrialNote | None = None

    def on(self, metric: str) -> tuple[Evidence | None, str]:
        """Return the report that holds a metric, and its key there: ``KEY@DATA`` is on DATA."""
        key, _, name = metric.partition("@")
        return (self.further.get(name) if name else self.own), key

    def value(self, metric: str) -> float | None:
        """Return a figure; see :meth:`Evidence.value`."""
        evidence, key = self.on(metric)
        return None if evidence is None else evidence.value(key)


class _Report(BaseModel):
    """``report.json``, as far as runs are compared."""

    format: str = Field(pattern="^terradapt-report-1$")
    metrics: dict[str, Any]
    classes: dict[str, Any]
    data: dict[str, Any]
    protocol: dict[str, Any]
    images: list[dict[str, float | str | None]]
    image_confusion: dict[str, list[Annotated[int, Field(ge=0)]]] = {}
    facts: dict[str, Any] = {}


def read_evidence(path: Path) -> Evidence:
    """Read a report.

    Raises:
        DataError: No report of this version.
    """
    values = read_json(path, DataError, _FIX)
    held = validated(_Report, values, path, DataError, _FIX)
    with refusing(path, DataError, _FIX, "no report of a run"):
        classes = ClassMap.from_dict(held.classes)
        if not isinstance(held.metrics["per_class"], dict):
            raise ValueError("no figures per class")
        rows = {str(row["id"]): row for row in held.images}
        if not rows:
            raise ValueError("no image in it")
        shape = (len(rows), len(classes), len(classes))
        matrices = [held.image_confusion[i] for i in rows] if held.image_confusion else None
        confusion = None if matrices is None else np.array(matrices, float).reshape(shape)
        told = str(held.facts.get("parameters", "")).split()
        parameters = float(told[0]) if len(told) == 2 and told[1] == "M" else None
    return Evidence(
        path, held.metrics, classes, held.data, held.protocol, rows, confusion, parameters
    )


def read_run(folder: Path) -> RunEvidence:
    """Read what a finished run's folder says.

    Raises:
        DataError: No report in it, or a damaged one.
    """
    path = folder / "report.json"
    if not path.is_file():
        raise DataError(f"{folder}: no report.json, so no finished run", _FIX)
    return RunEvidence(
        folder,
        read_evidence(path),
        {e.name: e for e in map(read_evidence, sorted(folder.glob(f"{FURTHER}*.json")))},
        read_log(folder / "log.jsonl"),
        read_trial(folder),
    )


def read_trial(folder: Path) -> TrialNote | None:
    """Return what the trials say of a run, None of one that they did not make.

    Raises:
        DataError: The file that tells it is damaged.
    """
    path, fix = folder / TRIAL, "remove this file"
    if not path.is_file():
        return None
    return validated(TrialNote, read_json(path, DataError, fix), path, DataError, fix)


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the folders with a report at or below a folder, in the order of their names."""
    for path in sorted(folder.rglob("report.json")):
        yield path.parent
