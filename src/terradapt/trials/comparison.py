"""Methods compared: means and spreads over seeds, differences from the reference over images."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from terradapt.report.printed import PrintedTable
from terradapt.report.wording import title_of
from terradapt.trials.bootstrap import ImageInterval, paired_bootstrap
from terradapt.trials.evidence import Evidence, RunEvidence
from terradapt.version import __version__

FORMAT = "terradapt-trials-1"
LAND_COVER = ("miou", "mf1", "oa")
ROADS = ("per_class.road.f1", "per_class.road.iou", "miou_image", "mdice", "mae_x100")
"""Figures of a table that is not a paper's."""
LESS_IS_BETTER = ("mae", "mae_x100")


@dataclass(eq=False)
class Contender:
    """A method with what came of it.

    Attributes:
        name: For people.
        folder: Of its runs, below the trials'.
        runs: Seed -> the finished run.
        failed: Seed -> why the run gave no figures.
        absent: Why there are none, or "".
        changes: What it changes in the protocol.
        printed: The paper's figures by metric.
        gmacs: Of one image, or None where they were not counted.
        parameters: Millions, counted; None: as the reports say.
    """

    name: str
    folder: str = ""
    runs: dict[int, RunEvidence] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    absent: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    printed: Mapping[str, float | None] = field(default_factory=dict)
    gmacs: float | None = None
    parameters: float | None = None

    def values(self, metric: str) -> dict[int, float]:
        """Return a figure by seed, in per cent (MAE times 100)."""
        found = {seed: run.value(metric) for seed, run in sorted(self.runs.items())}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, metric: str) -> float | None:
        """Return the mean over the seeds, None without a run."""
        values = self.values(metric).values()
        return statistics.fmean(values) if values else None

    def evidence(self, metric: str, seeds: Iterable[int]) -> tuple[list[Evidence], str]:
        """Return the reports of some seeds that a metric stands in, and its key there."""
        pairs = [self.runs[s].on(metric) for s in seeds]
        return [e for e, _ in pairs if e is not None], metric.partition("@")[0]

    @property
    def size(self) -> float | None:
        """Parameters, millions; None where nothing tells."""
        told = [(r.trial and r.trial.parameters) or r.own.parameters for r in self.runs.values()]
        return self.parameters if self.parameters is not None else next(iter(told), None)

    @property
    def work(self) -> float | None:
        """GMACs of one image, None where they were not counted."""
        told = [r.trial.gmacs for r in self.runs.values() if r.trial]
        return self.gmacs if self.gmacs is not None else next(iter(told), None)

    @property
    def seconds(self) -> float | None:
        """Mean time of a run, None where nothing tells."""
        known = [r.trial.seconds for r in self.runs.values() if r.trial]
        return statistics.fmean(known) if known else None


@dataclass
class Comparison:
    """Methods under one protocol, as far as their runs are finished.

    Attributes:
        name: In short; a paper's table by its id.
        title: Of the table.
        contenders: In the table's order.
        reference: The one that the others are compared with.
        seeds: Wanted of each.
        facts: Data, split, recipe, overrides, commit.
        notes: Sentences that a reader must know.
        table: As printed, where it is a paper's.
    """

    name: str
    title: str
    contenders: list[Contender]
    reference: Contender
    seeds: tuple[int, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    table: PrintedTable | None = None
    _known: dict[tuple[Any, ...], ImageInterval | None] = field(default_factory=dict, repr=False)

    @property
    def first(self) -> RunEvidence | None:
        """A finished run, the reference's before others; None without one."""
        held = [self.reference, *self.contenders]
        return next((run for one in held for run in one.runs.values()), None)

    @property
    def wanted(self) -> int:
        """Runs that there are to be."""
        return len(self.seeds) * sum(not c.absent for c in self.contenders)

    @property
    def done(self) -> int:
        """Runs with figures."""
        return sum(len(c.runs) for c in self.contenders)

    def columns(self) -> dict[str, str]:
        """Return metric -> heading of the figures that the table leads with.

        A paper's table has the paper's columns, then those of further classes of the data; counts
        and speeds are left to ``terradapt tables``.
        """
        first = self.first
        columns: dict[str, str] = {}
        for heading, metric in self.table.columns if self.table else ():
            if not metric.startswith("complexity.") and "@" not in metric:
                columns[metric] = heading
        if self.table is not None and not columns:
            columns = {"rlod": "RLOD"}
        if self.table is None:
            roads = first is not None and first.own.road is not None
            columns = {m: heading_of(m) for m in (ROADS if roads else LAND_COVER)}
        if "mf1" in columns and first is not None:
            for name in first.own.metrics["per_class"]:
                columns.setdefault(f"per_class.{name}.f1", f"{name} F1")
                columns.setdefault(f"per_class.{name}.iou", f"{name} IoU")
        for name in sorted(
            {n for c in self.contenders for r in c.runs.values() for n in r.further}
        ):
            leading = [m for m in columns if not m.startswith("per_class.") or m in ROADS]
            columns |= {f"{m}@{name}": f"{columns[m]} on {name}" for m in leading if "@" not in m}
        return columns

    def headline(self) -> dict[str, str]:
        """Return the columns without the figures per class, which have a table of their own."""
        columns = self.columns()
        by_class = "mf1" in columns
        return {m: h for m, h in columns.items() if not (by_class and m.startswith("per_class."))}

    def printed(self, one: Contender, metric: str) -> float | None:
        """Return the paper's figure; of ``KEY@DATA`` the one trained and tested on those data."""
        key, _, tested = metric.partition("@")
        if metric in one.printed or self.first is None:
            return one.printed.get(metric)
        trained = self.first.own.name.casefold()
        for known, value in one.printed.items():
            name, _, pair = known.partition("@")
            a, _, b = pair.partition(">")
            if name == key and pair and a in trained and b in (tested or trained).casefold():
                return value
        return None

    def changes(self, one: Contender, metric: str) -> list[float]:
        """Return the differences from the reference, seed by seed."""
        own, other = one.values(metric), self.reference.values(metric)
        return [own[s] - other[s] for s in own if s in other]

    def difference(self, one: Contender, metric: str) -> ImageInterval | None:
        """Return the difference from the reference over images, None where it cannot be made."""
        seeds = [s for s in one.values(metric) if s in self.reference.values(metric)]
        if one is self.reference or not seeds:
            return None
        place = (one.name, metric, *seeds)
        if place not in self._known:
            reference, key = self.reference.evidence(metric, seeds)
            own, _ = one.evidence(metric, seeds)
            aligned = [e.ordered(reference[0]) for e in own]
            self._known[place] = paired_bootstrap(aligned, reference, key)
        return self._known[place]

    def best(self, metric: str) -> float | None:
        """Return the best mean of a column, None where fewer than two differ."""
        means = [m for m in (c.mean(metric) for c in self.contenders) if m is not None]
        least = metric.partition("@")[0] in LESS_IS_BETTER
        if len(set(means)) < 2:
            return None
        return min(means) if least else max(means)

    def misfit(self, run: RunEvidence) -> str:
        """Return why a run cannot stand beside those that are there, "" where it can."""
        first = self.first
        return "" if first is None else run.own.misfit(first.own)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``trials.json`` holds."""
        first = self.first
        return {
            "format": FORMAT,
            "version": __version__,
            "name": self.name,
            "title": self.title,
            "source": self.table.source if self.table else None,
            "printed_on": self.table.data if self.table else None,
            "reference": self.reference.name,
            "seeds": list(self.seeds),
            "facts": self.facts,
            "images": list(first.own.images) if first else [],
            "notes": self.notes,
            "rows": [self._row(c) for c in self.contenders],
        }

    def _row(self, one: Contender) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for metric in self.columns():
            values = one.values(metric)
            if values:
                found = self.difference(one, metric)
                told = {**summary(list(values.values())), "by_seed": values}
                figures[metric] = {**told, "against_reference": found and asdict(found)}
        return {
            "name": one.name,
            "folder": one.folder,
            "changes": dict(one.changes),
            "absent": one.absent or None,
            "gmacs": one.work,
            "parameters_m": one.size,
            "seconds": one.seconds,
            "runs": {seed: str(run.folder) for seed, run in sorted(one.runs.items())},
            "failed": one.failed,
            "printed": dict(one.printed),
            "ours": figures,
        }


def heading_of(metric: str) -> str:
    """Return a metric's heading: ``per_class.road.f1`` is "road F1"."""
    if metric.startswith("per_class."):
        name, _, figure = metric.removeprefix("per_class.").rpartition(".")
        return f"{name} {title_of(figure)}"
    return title_of(metric)


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean and the sample standard deviation, None for a single value."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": spread}


def leave_out(comparison: Comparison) -> list[str]:
    """Remove the runs that do not fit the reference's, and return why.

    Other images cannot be paired, and other labels or splits are another question.
    """
    told = []
    for one in (comparison.reference, *comparison.contenders):
        for seed, run in list(one.runs.items()):
            why = comparison.misfit(run)
            if why:
                del one.runs[seed]
                told.append(f"{run.folder}: {why}")
    return told


def common_facts(first: RunEvidence | None) -> dict[str, Any]:
    """Return what every run of a comparison shares."""
    if first is None:
        return {}
    own = first.own
    return {
        "data": own.name,
        "split": own.data.get("split"),
        "images": len(own.images),
        "splits": own.data.get("splits_digest"),
    }


def folders_of(comparison: Comparison) -> list[Path]:
    """Return the folders of the finished runs."""
    return [run.folder for one in comparison.contenders for run in one.runs.values()]
