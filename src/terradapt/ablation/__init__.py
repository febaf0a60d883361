"""Ablations: one call trains a grid of variants and seeds and writes the paper's table.

Each cell is a normal run: ``OUT/VARIANT/seed-N`` with config, log, checkpoints and report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from terradapt.ablation.result import AblationResult
from terradapt.ablation.studies import Study, Variant, load_study, study_names
from terradapt.config import RunConfig, load_config
from terradapt.errors import ConfigError, OutputError, TerradaptError
from terradapt.files import check_output
from terradapt.progress import Track, silent

__all__ = ["AblationResult", "Study", "Variant", "ablate", "load_study", "study_names"]

Say = Callable[[str], None]


def ablate(
    name: str,
    data: str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    recipe: str | None = None,
    seeds: Sequence[int] = (42,),
    only: Sequence[str] = (),
    split: str | None = None,
    resume: bool = False,
    bar: Track | None = None,
    say: Say | None = None,
) -> AblationResult:
    """Train every variant of an ablation table with every seed, and write the table.

    Args:
        name: ``arafnet-6``, ``sam2ms-4``, ``sam2ms-5`` or ``sam2ms-6``.
        data: A prepared dataset or a bare folder of images and labels.
        out: Folder for the runs and ``ablation.{json,md,csv}``, which are renewed after each run.
        overrides: Of the recipe, for all variants. ``{encoder}``, ``{size}`` and ``{lossnet}`` in
            them stand for the variant's, so that each finds its weights:
            ``encoder.weights=DIR/{encoder}.pt``.
        recipe: Name or file; the paper's when missing.
        seeds: One run of each variant with each.
        only: Texts; only variants whose names hold one of them are trained.
        split: Split to evaluate, or None: the first of test, val and train that has images.
        resume: Keep the finished runs of the folder and go on with the one that was broken.
        bar: ``bar(total, label, unit)``: a context manager that yields ``advance(n)``.
        say: Called with a line before each run.

    Raises:
        ConfigError: No such table or variant, or a config that cannot be used.
        OutputError: The folder holds an ablation already, or cannot be written.
        TerradaptError: Runs have failed; the table tells which and why.
        KeyboardInterrupt: Stopped, with a state to resume from.
    """
    study = load_study(name)
    variants = study.chosen(tuple(only))
    configs = {
        (variant, seed): cell_config(study, variant, seed, overrides, recipe)
        for seed in dict.fromkeys(seeds)
        for variant in variants
    }
    out = check_output(out, folder=True)
    result = AblationResult(study, variants, tuple(dict.fromkeys(seeds)))
    result.facts = _facts(study, configs, data, overrides, recipe)
    _open(out, resume)
    result.write(out)
    for number, ((variant, seed), config) in enumerate(configs.items(), 1):
        if say:
            say(f"{number}/{len(configs)}: {variant.name}, seed {seed}")
        folder = out / variant.slug / f"seed-{seed}"
        try:
            report = _run(config, data, folder, split, bar)
        except TerradaptError as error:
            if not result.metrics:
                raise
            result.failed[variant.slug, seed] = error.message
        else:
            result.metrics[variant.slug, seed] = report["metrics"]
            result.facts |= {k: report["data"].get(k) for k in ("name", "split")}
        result.write(out)
    _tell_failures(result, out)
    return result


def cell_config(
    study: Study, variant: Variant, seed: int, overrides: Sequence[str], recipe: str | None
) -> RunConfig:
    """Return the config of one cell: recipe, then the user's overrides, then the variant's.

    Raises:
        ConfigError: An override that cannot be used.
    """
    from terradapt.models import parse_options

    chosen = [*overrides, *variant.overrides, f"train.seed={seed}"]
    config = load_config(recipe or study.recipe).with_overrides(chosen)
    values = config.model_dump()
    filled = RunConfig.model_validate(dict(_filled(values, dict(_placeholders(config)))))
    parse_options(filled.model)
    return filled.model_copy(update={"name": f"{study.table.id} {variant.slug} seed {seed}"})


def _placeholders(config: RunConfig) -> Iterator[tuple[str, str]]:
    name = config.model.encoder.name
    yield "{encoder}", name
    yield "{size}", name.removeprefix("sam2_hiera_")
    yield "{lossnet}", config.objective.lossnet.name if config.objective.lossnet else ""


def _filled(value: Any, marks: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _filled(v, marks) for k, v in value.items()}
    if isinstance(value, str):
        for mark, text in marks.items():
            value = value.replace(mark, text)
    return value


def _open(out: Path, resume: bool) -> None:
    if (out / "ablation.json").exists() and not resume:
        raise OutputError(
            f"{out}: holds an ablation already", "add --resume, or give another -o folder"
        )


def _run(
    config: RunConfig, data: str | Path, folder: Path, split: str | None, bar: Track | None
) -> dict[str, Any]:
    """Train and evaluate one cell, or what is left of it."""
    from terradapt import training
    from terradapt.evaluation import report_run
    from terradapt.report import read_report
    from terradapt.training.run import Run

    path = folder / "report.json"
    if path.exists():
        Run(folder).open(config, resume=True)  # refuses a run of another config
        held = read_report(path)
        if split in (None, held["data"].get("split")):
            return held
    training.train(config, data, folder, resume=folder.exists(), bar=bar)
    return report_run(folder, data, split=split, bar=bar or silent).to_dict()


def _facts(
    study: Study,
    configs: dict[tuple[Variant, int], RunConfig],
    data: str | Path,
    overrides: Sequence[str],
    recipe: str | None,
) -> dict[str, Any]:
    from terradapt.meta import code_commit

    config = next(iter(configs.values()))
    encoders = dict.fromkeys(c.model.encoder.name for c in configs.values())
    return {
        "data": str(data),
        "recipe": recipe or study.recipe,
        "overrides": " ".join(overrides) or "none",
        "model": f"{config.model.name} on {', '.join(encoders)}",
        "commit": code_commit(),
    }


def _tell_failures(result: AblationResult, out: Path) -> None:
    if result.failed:
        (variant, seed), why = next(iter(result.failed.items()))
        raise ConfigError(
            f"{out}: {len(result.failed)} runs failed, the first {variant}, seed {seed}: {why}",
            "see ablation.md; mend the cause and go on with --resume",
        )
