"""Finished run folders compared: which are one method with several seeds, which do not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terradapt.config import RunConfig, parse_config
from terradapt.errors import ConfigError, DataError, TerradaptError, one_of
from terradapt.files import read_text
from terradapt.trials.comparison import Comparison, Contender, common_facts, leave_out
from terradapt.trials.evidence import find_runs, read_run, read_trial


def compare_runs(
    runs: Sequence[str | Path], *, reference: str | None = None, title: str = "Runs compared"
) -> tuple[Comparison, list[str]]:
    """Compare finished runs: those that differ in nothing but the seed are one method.

    Args:
        runs: Run folders, or folders of such (as ``terradapt trials`` leaves them); ``NAME=FOLDER``
            names the method.
        reference: Name of the method that the others are compared with; the first when missing.
        title: Of the table.

    Returns:
        The comparison, and why some folders are left out of it.

    Raises:
        DataError: No run that can be compared.
        ConfigError: No method of the reference's name.
    """
    found: dict[str, Contender] = {}
    keys: dict[str, str] = {}
    told: list[str] = []
    configs: dict[str, dict[str, Any]] = {}
    for given in runs:
        name, folder = _named(str(given))
        folders = list(find_runs(folder))
        if not folders:
            what = "no finished run below it (no report.json)" if folder.is_dir() else "no folder"
            told.append(f"{folder}: {what}")
        for run in folders:
            try:
                evidence, config = read_run(run), _config(run)
            except TerradaptError as error:
                told.append(error.message)
                continue
            values = _settings(config)
            key = json.dumps([name, values], sort_keys=True)
            if key not in keys:
                named = evidence.trial.method if evidence.trial else _name(run, config)
                keys[key] = _free(name or named, found)
                found[keys[key]] = Contender(keys[key], str(run.parent))
                configs[keys[key]] = values
            one, seed = found[keys[key]], config.train.seed
            if seed in one.runs:
                told.append(f"{run}: {one.name} has a run of seed {seed}, {one.runs[seed].folder}")
            else:
                one.runs[seed] = evidence
    contenders = list(found.values())
    if not contenders:
        raise DataError(
            f"no run to compare: {told[0] if told else 'none given'}",
            "give folders of finished runs: terradapt train leaves a report.json in each",
        )
    first = contenders[0]
    if reference is not None:
        names = {c.name.casefold(): c for c in contenders}
        if reference.casefold() not in names:
            raise ConfigError(f"no method '{reference}'", one_of(reference, found))
        first = names[reference.casefold()]
    comparison = Comparison("runs", title, contenders, first, ())
    told += leave_out(comparison)
    comparison.contenders = [c for c in contenders if c.runs]
    seeds = sorted({seed for c in comparison.contenders for seed in c.runs})
    comparison.seeds = tuple(seeds)
    comparison.facts = common_facts(comparison.first)
    for one in comparison.contenders:
        one.changes = _apart(configs[first.name], configs[one.name])
    comparison.notes = [f"Left out: {why}" for why in told] + _unequal(comparison)
    return comparison, told


def _named(given: str) -> tuple[str, Path]:
    name, sign, folder = given.partition("=")
    if sign and name and not Path(given).exists():
        return name, Path(folder)
    return "", Path(given)


def _config(run: Path) -> RunConfig:
    """The config that a run was asked for, or the one that it has."""
    note = read_trial(run)
    if note is not None:
        return note.config
    path = run / "config.yaml"
    if not path.is_file():
        raise DataError(f"{run}: no config.yaml, so no run's folder", "give a run's folder")
    return parse_config(read_text(path, DataError), str(path))


def _settings(config: RunConfig) -> dict[str, Any]:
    """What makes a method: everything but names, the seed and where things lie."""
    values = config.model_dump(mode="json", exclude={"name", "description"})
    del values["train"]["seed"], values["data"]["workers"]
    teacher = values["objective"]["distill"]
    teacher["teacher"] = bool(teacher["teacher"])  # each seed may have one of its own
    return dict(_flat(values))


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inside = isinstance(value, dict) and value
        flat |= _flat(value, f"{before}{key}.") if inside else {f"{before}{key}": value}
    return flat


def _name(run: Path, config: RunConfig) -> str:
    """The method's name: its folder's where the run is one of its seeds, else the run's own."""
    if run.name.startswith("seed-"):
        return run.parent.name
    return run.name or config.name


def _free(name: str, taken: Mapping[str, Contender]) -> str:
    names = (name, *(f"{name} ({n})" for n in range(2, len(taken) + 3)))
    return next(n for n in names if n not in taken)


def _apart(reference: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in own.items() if reference.get(k) != v}


def _unequal(comparison: Comparison) -> list[str]:
    """Say where runs differ in more than the model: that is no comparison of methods alone."""
    notes = []
    for one in comparison.contenders:
        keys = [k for k in one.changes if not k.startswith("model.")]
        if keys:
            shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
            notes.append(f"{one.name} differs from {comparison.reference.name} in {shown}.")
    return notes
