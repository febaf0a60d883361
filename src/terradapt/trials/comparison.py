"""The paper's table with our figures: mean and spread over seeds, beside the printed values."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terradapt.ablation.studies import Study, Variant
from terradapt.files import write_together
from terradapt.report.markdown import markdown_table
from terradapt.version import __version__

FORMAT = "terradapt-ablation-1"
ABSENT = "–"


@dataclass
class AblationResult:
    """The figures of a study so far.

    Attributes:
        study: Which table.
        variants: Those that are trained.
        seeds: Of the runs.
        facts: Recipe, overrides, data, split, model, commit.
        metrics: (variant's slug, seed) -> a report's metrics.
        failed: (variant's slug, seed) -> why the run gave no figures.
    """

    study: Study
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    failed: dict[tuple[str, int], str] = field(default_factory=dict)

    def values(self, variant: Variant, metric: str) -> dict[int, float]:
        """Return a metric by seed, in the paper's unit (per cent; MAE times 100)."""
        found = {}
        for seed in self.seeds:
            metrics = self.metrics.get((variant.slug, seed))
            value = None if metrics is None else lookup(metrics, metric)
            if value is not None:
                found[seed] = value if metric == "mae_x100" else 100 * value
        return found

    def changes(self, variant: Variant, metric: str) -> list[float]:
        """Return the differences from the full model, seed by seed."""
        own, full = self.values(variant, metric), self.values(self.study.full, metric)
        return [own[s] - full[s] for s in own if s in full]

    def write(self, folder: Path) -> list[Path]:
        """Write ``ablation.json``, ``.md`` and ``.csv``; all of them or none.

        Raises:
            OutputError: The folder cannot be written.
        """
        return write_together(
            {
                folder / "ablation.json": json.dumps(self.to_dict(), indent=1) + "\n",
                folder / "ablation.md": ablation_markdown(self),
                folder / "ablation.csv": ablation_csv(self),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what ``ablation.json`` holds."""
        table = self.study.table
        return {
            "format": FORMAT,
            "version": __version__,
            "table": table.id,
            "source": table.source,
            "printed_on": table.data,
            "seeds": list(self.seeds),
            "facts": self.facts,
            "rows": [self._row(v) for v in self.variants],
            "failed": [
                {"variant": v, "seed": s, "why": why} for (v, s), why in self.failed.items()
            ],
        }

    def _row(self, variant: Variant) -> dict[str, Any]:
        ours = {m: self.values(variant, m) for m in self.columns()}
        return {
            "name": variant.name,
            "folder": variant.slug,
            "overrides": list(variant.overrides),
            "printed": dict(variant.row.values),
            "ours": {m: summary(list(v.values())) | {"by_seed": v} for m, v in ours.items() if v},
        }

    def columns(self) -> dict[str, str]:
        """Return metric -> heading: the paper's, then those of further classes of the data."""
        columns = {metric: heading for heading, metric in self.study.table.columns}
        if "mf1" in columns:
            for name in self._classes():
                columns.setdefault(f"per_class.{name}.f1", f"{name} F1")
                columns.setdefault(f"per_class.{name}.iou", f"{name} IoU")
        return columns

    def _classes(self) -> list[str]:
        return list(next(iter(self.metrics.values()))["per_class"]) if self.metrics else []


def lookup(metrics: Mapping[str, Any], key: str) -> float | None:
    """Return a report's figure by its dotted key.

    ``per_class.road.*`` is the second class of two, whatever its name.
    """
    value: Any
    if key.startswith("per_class."):
        _, name, figure = key.split(".", 2)
        classes = metrics["per_class"]
        if name == "road" and name not in classes and len(classes) == 2:
            name = list(classes)[1]
        value = classes.get(name, {}).get(figure)
    else:
        value = metrics.get(key)
    return float(value) if isinstance(value, int | float) else None


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean and the sample standard deviation, None for a single value."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": spread}


def ablation_markdown(result: AblationResult) -> str:
    """Return the table for people."""
    table = result.study.table
    done, wanted = len(result.metrics), len(result.variants) * len(result.seeds)
    parts = [f"# {table.source}: {table.title.lower()}", _facts(result)]
    if done < wanted:
        parts.append(f"> {done} of {wanted} runs have figures; go on with --resume.")
    parts += [f"> {name}, seed {s}: {why}" for (name, s), why in result.failed.items()]
    headline = {m: h for m, h in result.columns().items() if _leads(result, m)}
    parts += ["## Figures", _figures(result, headline)]
    parts += [f"## Change against {result.study.full.name}, points", _changes(result, headline)]
    if "mf1" in headline:
        parts += ["## F1 / IoU per class", _per_class(result)]
    return "\n\n".join(parts) + "\n"


def _leads(result: AblationResult, metric: str) -> bool:
    return "mf1" not in result.columns() or not metric.startswith("per_class.")


def _facts(result: AblationResult) -> str:
    table, seeds = result.study.table, ", ".join(map(str, result.seeds))
    lines = [
        f"- printed: {table.citation}; on {table.data}",
        f"- ours: mean ± standard deviation over the seeds {seeds}; other data than the paper's "
        "cannot have its figures, so compare the changes",
        *(f"- {name}: {value}" for name, value in result.facts.items()),
    ]
    return "\n".join(lines)


def _figures(result: AblationResult, headline: Mapping[str, str]) -> str:
    header = ["", *(f"{h}, {who}" for h in headline.values() for who in ("printed", "ours"))]
    rows = []
    for variant in result.variants:
        cells = []
        for metric in headline:
            cells.append(_number(variant.row.values.get(metric)))
            cells.append(_spread(list(result.values(variant, metric).values())))
        rows.append([variant.name, *cells])
    return markdown_table(header, rows)


def _changes(result: AblationResult, headline: Mapping[str, str]) -> str:
    header = ["", *(f"{h}, {who}" for h in headline.values() for who in ("printed", "ours"))]
    rows = []
    for variant in result.variants:
        if variant == result.study.full:
            continue
        cells = []
        for metric in headline:
            own, full = (v.row.values.get(metric) for v in (variant, result.study.full))
            known = own is not None and full is not None
            cells.append(f"{own - full:+.2f}" if known else ABSENT)  # type: ignore[operator]
            cells.append(_spread(result.changes(variant, metric), sign="+"))
        rows.append([variant.name, *cells])
    return markdown_table(header, rows)


def _per_class(result: AblationResult) -> str:
    names = [m.split(".")[1] for m in result.columns() if m.endswith(".f1")]
    rows = []
    for variant in result.variants:
        printed, ours = [], []
        for name in names:
            keys = [f"per_class.{name}.{f}" for f in ("f1", "iou")]
            printed.append(_pair([variant.row.values.get(k) for k in keys]))
            means = [list(result.values(variant, k).values()) for k in keys]
            ours.append(_pair([sum(v) / len(v) if v else None for v in means]))
        rows += [[variant.name, "printed", *printed], ["", "ours", *ours]]
    return markdown_table(["", "", *names], rows)


def _pair(values: Sequence[float | None]) -> str:
    return " / ".join(map(_number, values)) if any(v is not None for v in values) else ABSENT


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def _spread(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return ABSENT
    mean = f"{statistics.fmean(values):{sign}.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def ablation_csv(result: AblationResult) -> str:
    """Return the table as CSV, one line per variant and metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("table", "variant", "metric", "printed", "ours_mean", "ours_sd", "runs"))
    for variant in result.variants:
        for metric in result.columns():
            values = list(result.values(variant, metric).values())
            told = summary(values) if values else {"mean": None, "sd": None}
            numbers = [variant.row.values.get(metric), told["mean"], told["sd"]]
            cells = ["" if n is None else f"{n:.4f}" for n in numbers]
            writer.writerow((result.study.table.id, variant.name, metric, *cells, len(values)))
    return buffer.getvalue()
