"""Trials: methods x seeds under one protocol on one dataset, trained, compared and told.

Each run is a normal one: ``OUT/METHOD/seed-N`` with config, log, checkpoints and report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terradapt.documents import validated
from terradapt.errors import ConfigError, DataError, OutputError, TerradaptError, one_of
from terradapt.files import check_output, read_json
from terradapt.owner import owned
from terradapt.progress import Track
from terradapt.trials.comparison import Comparison, Contender
from terradapt.trials.evidence import RunEvidence, TrialNote, read_run
from terradapt.trials.plan import Method, Trials, read_trials
from terradapt.trials.writing import write_comparison

if TYPE_CHECKING:
    from terradapt.config import RunConfig
    from terradapt.data import Dataset
    from terradapt.trials.running import TrialJob

__all__ = ["Comparison", "Method", "Trials", "load_trials", "run_trials"]


def load_trials(source: str | Path) -> Trials:
    """Return trials by name, as the papers' tables have them, or from a YAML file.

    Raises:
        ConfigError: No such trials, or a file that cannot be used.
    """
    from terradapt.trials.packaged import packaged_names, packaged_trials

    name = str(source)
    if name in packaged_names():
        return packaged_trials(name)
    if Path(name).is_file():
        return read_trials(Path(name))
    fix = one_of(name, packaged_names(), "use a YAML file or one of: ")
    raise ConfigError(f"no trials or file '{name}'", fix)


def run_trials(
    source: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    recipe: str | None = None,
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
    split: str | None = None,
    also: Sequence[str | Path] = (),
    limit: float | None = None,
    workers: int | None = None,
    resume: bool = False,
    bar: Track | None = None,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Train every method with every seed, and write the table.

    Args:
        source: A trials file, or the name of a paper's table: ``arafnet-6``.
        data: A prepared dataset or a bare folder of images and labels.
        out: Folder for the runs and ``trials.{json,md,csv,tex,svg}``, renewed after each run.
        overrides: Of the recipe, for all methods; see :meth:`Trials.config`.
        recipe: Name or file; the trials' own when missing.
        seeds: One run of each method with each; the trials' own when empty.
        only: Texts; only methods whose names hold one of them are trained, and the reference.
        split: Split to evaluate; the trials' own, or the first of test, val and train with images.
        also: Further datasets that each run is evaluated on.
        limit: GMACs of one image above which a method is told and not trained; the trials' own
            when missing, infinite for none.
        workers: Processes at a time; None: one a GPU, else one a core.
        resume: Keep the finished runs of the folder and go on with those that were broken.
        bar: ``bar(total, label, unit)``: a context manager that yields ``advance(n)``.
        say: Called with a line before each run.

    Raises:
        ConfigError: Unknown trials, method or model, or a config that cannot be used.
        DataError: The dataset cannot be used.
        OutputError: The folder holds trials already, or cannot be written.
        TerradaptError: Runs have failed; the table tells which and why.
        KeyboardInterrupt: Stopped, with a state to go on from.
    """
    from terradapt.data import open_dataset
    from terradapt.trials.cell import require_asked
    from terradapt.trials.running import TrialRunner, worker_count

    trials = load_trials(source).renewed(
        limit=limit, split=split, seeds=tuple(dict.fromkeys(seeds)) or None
    )
    chosen = trials.chosen(tuple(only))
    out = Path(out)
    protocol = trials.protocol(overrides, recipe)
    configs = {
        (method.name, seed): trials.config(method, seed, overrides, recipe, out)
        for seed in trials.seeds
        for method in chosen
        if not method.absent
    }
    check_output(out, folder=True)
    _require_free(out, resume)
    dataset = open_dataset(data, protocol.data)
    for other in also:
        open_dataset(other, protocol.data)
    trials = trials.renewed(split=trials.split or _first_split(dataset))
    dataset.split(str(trials.split))
    contenders = [_contender(trials, m, configs.get((m.name, trials.seeds[0]))) for m in chosen]
    for one in contenders:
        _weigh(one, configs.get((one.name, trials.seeds[0])), trials, len(dataset.classes))
    jobs = _jobs(trials, chosen, contenders, configs, out)
    reference = next(c for c in contenders if c.name == trials.reference.name)
    if reference.absent:
        raise ConfigError(
            f"{trials.name}: the reference '{reference.name}' is not trained: {reference.absent}",
            "name another reference, give data that it can take, or raise --limit",
        )
    comparison = Comparison(
        trials.name, trials.title, contenders, reference, trials.seeds, table=trials.table
    )
    comparison.facts = _facts(dataset, trials, data, overrides, recipe)
    with owned(out, folder=True):
        _require_same(out, comparison.facts)
        by_name = {c.name: c for c in contenders}
        wanted = []
        for job in jobs:
            require_asked(job.note.config, job.folder)
            found = _finished(job, str(trials.split), len(also))
            if found is None or comparison.misfit(found):
                wanted.append(job)
            else:
                by_name[job.note.method].runs[job.seed] = found

        def done(job: TrialJob, found: RunEvidence | TerradaptError) -> None:
            one = by_name[job.note.method]
            why = found.message if isinstance(found, TerradaptError) else comparison.misfit(found)
            if isinstance(found, TerradaptError) or why:
                one.failed[job.seed] = why
            else:
                one.runs[job.seed] = found
            write_comparison(comparison, out)

        write_comparison(comparison, out)
        count = worker_count(workers, len(wanted))
        TrialRunner(data, str(trials.split), also, count, bar, say).run(wanted, done)
    _tell_failures(comparison, out)
    return comparison


def _require_free(out: Path, resume: bool) -> None:
    held = [n for n in ("trials.json", "ablation.json") if (out / n).exists()]
    if held and not resume:
        raise OutputError(f"{out}: holds trials already", "add --resume, or give another -o folder")


def _require_same(out: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with other data or splits: such runs cannot stand in one table."""
    path = out / "trials.json"
    fix = "give another -o folder"
    held = read_json(path, ConfigError, fix) if path.is_file() else {}
    known = validated(dict[str, Any], held.get("facts", {}), path, ConfigError, fix)
    for key in ("data", "split", "splits"):
        if known.get(key, facts[key]) != facts[key]:
            what = {"data": "data", "split": "split"}.get(key, "splits of these data")
            raise ConfigError(
                f"{out}: its runs are of other {what} ({known[key]}, now {facts[key]})",
                "give the same data with the same splits.json, or another -o folder",
            )


def _finished(job: TrialJob, split: str, further: int) -> RunEvidence | None:
    """Return what a run's folder says, None where something of it is left to be made."""
    if not (job.folder / "report.json").is_file():
        return None
    try:
        held = read_run(job.folder)
    except DataError:  # the report is made again
        return None
    whole = held.own.data.get("split") == split and len(held.further) >= further
    return held if whole else None


def _first_split(dataset: Dataset) -> str:
    return next((n for n in ("test", "val", "train") if dataset.splits.get(n)), "all")


def _contender(trials: Trials, method: Method, config: RunConfig | None) -> Contender:
    one = Contender(method.name, method.slug, absent=method.absent)
    one.printed = dict(method.printed.values) if method.printed else {}
    one.changes = dict(method.changes)
    if config is not None and method.model:
        one.changes = {
            "model.name": method.model,
            "model.encoder.name": config.model.encoder.name,
            **one.changes,
        }
    return one


def _weigh(one: Contender, config: RunConfig | None, trials: Trials, classes: int) -> None:
    """Build a method on shapes: mistakes come up before any work, and heavy ones are left out."""
    from terradapt.complexity import measure
    from terradapt.models import build_on_meta, entry

    if config is None:
        return
    if entry(config.model.name).binary and classes != 2:
        one.absent = f"not run: {config.model.name} cannot have {classes} classes"
    model = build_on_meta(config.model, 2 if one.absent else classes)
    counted = measure(model, 1, trials.size)
    one.gmacs, one.parameters = counted.macs / 1e9, counted.parameters / 1e6
    heavy = trials.limit is not None and one.gmacs > trials.limit
    if heavy and one.name not in trials.always and not one.absent:
        one.absent = f"not run: {one.gmacs:.1f} GMACs > {trials.limit:g}"


def _jobs(
    trials: Trials,
    chosen: Sequence[Method],
    contenders: Sequence[Contender],
    configs: dict[tuple[str, int], RunConfig],
    out: Path,
) -> list[TrialJob]:
    from terradapt.trials.running import TrialJob

    by_name = {c.name: c for c in contenders}
    jobs = []
    for seed in trials.seeds:
        for method in chosen:
            one = by_name[method.name]
            if one.absent:
                continue
            config = configs[method.name, seed]
            teacher = None
            if method.teacher:
                teacher = out / trials.method(method.teacher).slug / f"seed-{seed}"
                own = str((teacher / "checkpoint.safetensors").absolute())
                teacher = teacher if config.objective.distill.teacher == own else None
            note = TrialNote(
                method=method.name, config=config, parameters=one.parameters, gmacs=one.gmacs
            )
            jobs.append(TrialJob(note, out / method.slug / f"seed-{seed}", teacher))
    return jobs


def _facts(
    dataset: Dataset,
    trials: Trials,
    data: str | Path,
    overrides: Sequence[str],
    recipe: str | None,
) -> dict[str, Any]:
    from terradapt.data.splits import splits_digest
    from terradapt.meta import code_commit

    changes = [f"{k}={json.dumps(v)}" for k, v in trials.changes.items()]
    return {
        "data": dataset.name,
        "folder": str(data),
        "reference": trials.reference.name,
        "split": trials.split,
        "images": len(dataset.split(str(trials.split))),
        "splits": splits_digest(dataset),
        "recipe": recipe or trials.recipe,
        "changes": " ".join([*changes, *overrides]) or "none",
        "limit": None if trials.limit is None else f"{trials.limit:g} GMACs at {trials.size} px",
        "commit": code_commit(),
    }


def _tell_failures(comparison: Comparison, out: Path) -> None:
    failed = [(c.name, s, why) for c in comparison.contenders for s, why in c.failed.items()]
    if failed:
        name, seed, why = failed[0]
        raise ConfigError(
            f"{out}: {len(failed)} runs failed, the first {name}, seed {seed}: {why}",
            "see trials.md; mend the cause and go on with --resume",
        )
