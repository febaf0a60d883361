"""``terradapt runs``: finished runs in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terradapt.cli._help import COMPARE, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # the runs below two folders, seeds of one method in one row
        terradapt runs runs/unetformer runs/mine
        # named, as Markdown, CSV, LaTeX and curves
        terradapt runs Ours=runs/mine UNetFormer=runs/b --reference Ours -o table
    """
    add(app, "runs", runs, COMPARE, examples)


def runs(
    folders: Annotated[
        list[str], typer.Argument(metavar="[NAME=]RUN...", help="Run folders, or folders of such.")
    ],
    reference: Annotated[
        str | None, typer.Option(help="Method that the others are compared with; else the first.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder: write runs.md, .csv, .tex, ...")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the table.")] = "Runs compared",
) -> dict[str, Any]:
    """Compare finished runs; get a table.

    Runs whose configs differ in the seed alone are one method. Each figure is the mean and spread
    over seeds; differences from the reference have an interval over images. Runs that were
    evaluated on another split or other data are left out and told.
    """
    from terradapt.cli._require import require
    from terradapt.errors import DataError
    from terradapt.files import check_output
    from terradapt.trials.comparison import folders_of
    from terradapt.trials.folders import compare_runs
    from terradapt.trials.writing import comparison_markdown, write_comparison

    if output is not None:
        require("the curves of terradapt runs", "report", "matplotlib")
    comparison, told = compare_runs(folders, reference=reference, title=title)
    written: list[Path] = []
    if output is None:
        typer.echo(comparison_markdown(comparison), nl=False)
    else:
        reads = [f / n for f in folders_of(comparison) for n in ("report.json", "log.jsonl")]
        check_output(output, folder=True, reads=reads)
        written = list(write_comparison(comparison, output, "runs"))
        for path in written:
            typer.echo(path)
    if told:
        raise DataError(
            f"{len(told)} of the folders left out, the first {told[0]}",
            "compare runs of one split of one dataset; the table holds the others",
        )
    return {"files": written}
