"""``terradapt tables``: the papers' tables with our figures beside the printed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terradapt.cli._help import COMPARE, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # all tables, parameters and MACs counted
        terradapt tables
        # one table with the figures of your own runs
        terradapt tables arafnet-4 --runs runs -o table
    """
    add(app, "tables", tables, COMPARE, examples)


def tables(
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="For example arafnet-4.")
    ] = None,
    runs: Annotated[
        list[Path] | None, typer.Option("--runs", help="Folder with runs or reports; repeatable.")
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option("--bench", help="Result of terradapt bench; else the newest below --runs."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write FILE.md and FILE.csv.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of Markdown.")] = False,
) -> dict[str, Any]:
    """Print the papers' tables with your figures beside theirs.

    Each cell has the printed value, and ours where a report below --runs is of that model on that
    data, or what it needs. Parameters and MACs are counted, never quoted; speeds are those that
    `terradapt bench` measured, with their ratio to the teacher's beside the paper's.
    """
    from terradapt.cli._require import require
    from terradapt.files import check_output, write_together

    require("terradapt tables", "train", "torch", "timm")
    from terradapt.tables import (
        fill,
        find_reports,
        find_speeds,
        read_speeds,
        to_csv,
        to_markdown,
    )

    reports = find_reports(runs or ())
    if output is not None:
        reads = [bench, *(p.with_suffix(s) for p, _ in reports for s in (".json", ".md"))]
        check_output(output, reads=reads, beside=[output.with_suffix(s) for s in (".md", ".csv")])
    speeds = read_speeds(bench) if bench else find_speeds(runs or ())
    filled = fill(only or (), reports, speeds=speeds)
    if output is None:
        typer.echo(to_csv(filled) if as_csv else to_markdown(filled), nl=False)
        return {}
    texts = {".md": to_markdown(filled), ".csv": to_csv(filled)}
    written = write_together({output.with_suffix(s): t for s, t in texts.items()})
    for path in written:
        typer.echo(path)
    return {"files": written}
