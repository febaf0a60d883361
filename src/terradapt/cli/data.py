"""``terradapt data``: prepare a dataset by name; ``terradapt data check``: the pre-flight."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terradapt.cli._complete import dataset_names, recipes
from terradapt.cli._help import TRAIN, add

if TYPE_CHECKING:
    from terradapt.preflight.check import CheckReport


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # all names, a line each
        terradapt datasets
        # the same for programs
        terradapt datasets --json
    """
    add(app, "datasets", datasets, TRAIN, examples)
    examples = """
        # what would spoil a run, and its cost
        terradapt data check photos --recipe landcover
        # your own images and labels
        terradapt data folder photos line_width=4 -o data
        # a benchmark, split as printed
        terradapt data vaihingen downloads split=paper -o data
    """
    add(app, "data", data, TRAIN, examples)


def data(
    name: Annotated[
        str,
        typer.Argument(
            help="A dataset (see terradapt datasets), or 'check'.", autocompletion=dataset_names
        ),
    ],
    source: Annotated[Path, typer.Argument(help="Folder of its files; of 'check': the dataset.")],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Options, for example split=paper."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of the result; of 'check': an HTML page."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Also estimate memory and time of this recipe.", autocompletion=recipes),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the check as JSON.")] = False,
) -> dict[str, Any]:
    """Check a folder of images, or make a dataset of it for training.

    A dataset is an index with splits and statistics. `terradapt data check DIR` prints the
    pre-flight of a prepared dataset or a bare folder: CRS, resolution, alignment, nodata, classes,
    leaks, unreadable files, and with --recipe memory and time. It ends with status 2 when a
    training run would stop.
    """
    values = _options(options or [])
    if name == "check":
        return _check(source, values, output, recipe, as_json)
    return _prepare(name, source, values, output, recipe)


def datasets(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> dict[str, Any]:
    """List the datasets that `terradapt data` can prepare."""
    from terradapt.prepare import DATASETS

    rows = [{"name": n, "description": _summary(t)} for n, t in DATASETS.items()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return {"datasets": rows}
    width = max(len(r["name"]) for r in rows)
    for row in rows:
        typer.echo(f"{row['name']:{width}}  {row['description']}")
    return {"datasets": rows}


def _prepare(
    name: str, source: Path, values: Mapping[str, Any], output: Path | None, recipe: str | None
) -> dict[str, Any]:
    from terradapt.cli._progress import progress, say
    from terradapt.errors import ConfigError, one_of
    from terradapt.files import write_json
    from terradapt.preflight.page import write_page
    from terradapt.preflight.text import to_dict
    from terradapt.prepare import DATASETS

    if name not in DATASETS:
        raise ConfigError(f"no dataset '{name}'", one_of(name, [*DATASETS, "check"]))
    if output is None:
        raise ConfigError("no folder for the result", "name it with -o DIR")
    prepare = _function(DATASETS[name])
    told = {"tell": say} if "tell" in signature(prepare).parameters else {}
    dataset = prepare(source, output, values, progress, **told)
    counts = ", ".join(f"{k} {len(v)}" for k, v in dataset.splits.items())
    bare = f", {len(dataset.unlabelled)} without a label" if dataset.unlabelled else ""
    typer.echo(f"{name}: {len(dataset.split('all'))} images ({counts}{bare}) in {output}")
    report, estimate = _checked(output, values, recipe, pictures=True)
    found = to_dict(report, estimate)
    write_json(output / "check.json", found)
    page = write_page(report, output / "report.html", estimate)
    _print(report, estimate)
    typer.echo(f"report: {page}")
    report.raise_first()
    return {"files": [output / "check.json", page], "dataset": output, "check": found}


def _check(
    root: Path, values: Mapping[str, Any], output: Path | None, recipe: str | None, as_json: bool
) -> dict[str, Any]:
    from terradapt.preflight.page import require_page, write_page
    from terradapt.preflight.text import to_dict

    if output is not None:
        require_page()
    report, estimate = _checked(root, values, recipe, pictures=output is not None)
    found, files = to_dict(report, estimate), []
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _print(report, estimate)
    if output is not None:
        files.append(write_page(report, output, estimate))
        typer.echo(f"page: {files[0]}", err=as_json)
    report.raise_first()
    return {"files": files, "check": found}


def _checked(
    root: Path, values: Mapping[str, Any], recipe: str | None, *, pictures: bool
) -> tuple[CheckReport, dict[str, Any]]:
    from terradapt.cli._progress import progress
    from terradapt.config import load_config
    from terradapt.preflight.check import check_dataset
    from terradapt.prepare.folder import OPTIONS, folder_config

    run = load_config(recipe) if recipe else None
    like = {k: getattr(run.data, k) for k in ("crop", "resolution")} if run else {}
    config = folder_config({k: v for k, v in values.items() if k in OPTIONS})
    config = config.model_copy(update={k: v for k, v in like.items() if k not in values})
    report = check_dataset(root, config, progress, pictures=pictures)
    estimate: dict[str, Any] = {}
    if run is not None and report.dataset is not None and not report.of("error"):
        from terradapt.cli._require import require
        from terradapt.preflight.estimate import estimate_run

        require("the estimate of a recipe", "train", "torch", "timm")
        from terradapt.training.step import measure_step

        estimate = estimate_run(report.dataset, run, measure_step)
    return report, estimate


def _print(report: CheckReport, estimate: Mapping[str, Any]) -> None:
    from terradapt.preflight.text import render_text

    typer.echo(render_text(report, estimate))


def _options(pairs: list[str]) -> dict[str, Any]:
    from terradapt.documents import parse_pairs

    pairs = [pair.removeprefix("data.") for pair in pairs]  # as a recipe spells them
    return parse_pairs(pairs, "line_width=4")


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def _summary(target: str) -> str:
    return (_function(target).__doc__ or "").strip().splitlines()[0]
