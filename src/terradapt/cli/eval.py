"""``terradapt eval``: a checkpoint and a dataset become a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terradapt.cli._help import MAP, add

if TYPE_CHECKING:
    from terradapt.evaluation import Protocol
    from terradapt.report import Report


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # the figures of the split test: report.json, .md, .html
        terradapt eval run --data data
        # an exported model, with boundary F1 at 1 m
        terradapt eval model.onnx data --split val --boundary 1 -o val.json
        # one image with its label raster; needs no torch
        terradapt eval model.onnx scene.tif labels.tif
    """
    add(app, "eval", evaluate, MAP, examples)


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A run, a checkpoint, or a model.onnx.")
    ],
    given: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DATA", help="Dataset folder; or two: image and label raster."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Dataset folder, another way to give it.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Report; .md and .html are written beside it.")
    ] = Path("report.json"),
    split: Annotated[str, typer.Option(help="Split to evaluate, or all.")] = "test",
    boundary: Annotated[
        float | None, typer.Option(help="Boundary F1 at this tolerance, metres.")
    ] = None,
    road: Annotated[
        str | None, typer.Option(help="Class with mDice, mIoU, MAE and RLOD per image.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Two classes: the second above this probability.")
    ] = 0.5,
    labels: Annotated[
        str, typer.Option(help="auto, eroded (as ISPRS evaluates) or full labels.")
    ] = "auto",
    erode: Annotated[
        int, typer.Option(min=0, help="Leave out label pixels this near to another class, px.")
    ] = 0,
    geoseg_compat: Annotated[
        bool, typer.Option("--geoseg-compat", help="Count padding as class 0, as GeoSeg does.")
    ] = False,
    resolution: Annotated[
        str, typer.Option(help="auto, native, or metres per pixel that the model sees.")
    ] = "auto",
    match: Annotated[
        list[str] | None,
        typer.Option(metavar="DATASET=CHECKPOINT", help="Two names of one class; repeatable."),
    ] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Score the road network: APLS and TOPO.")
    ] = False,
    centrelines: Annotated[
        Path | None, typer.Option(help="True lines: a file, or a folder with a file per image.")
    ] = None,
    pixel: Annotated[
        float | None,
        typer.Option(help="Network: metres per pixel of images that do not say their own."),
    ] = None,
    study: Annotated[
        bool, typer.Option("--study", help="Add the split study: PCA and t-SNE of image features.")
    ] = False,
    against: Annotated[
        list[Path] | None, typer.Option(help="Study: compare with these datasets; repeatable.")
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Places shown side by side.")] = 6,
    device: Annotated[str | None, typer.Option(help="Torch device, for example cuda:0.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    trunk: Annotated[
        Path | None, typer.Option(help="Weights of a trunk that the checkpoint only names.")
    ] = None,
) -> dict[str, Any]:
    """Score a model on labelled images; get a report.

    It holds the figures as JSON, Markdown and, with the extra 'report', an HTML page. Every image
    of the split is predicted whole, as `terradapt predict` does, and counted against its label.
    Classes are joined by name, so that a checkpoint may be evaluated on other data.
    """
    from terradapt.cli._progress import progress
    from terradapt.cli._require import require
    from terradapt.errors import install_line
    from terradapt.evaluation import open_task
    from terradapt.report import check_report, write_report
    from terradapt.report.html import has_html

    source = _source(given or [], data)
    html = has_html()
    if study or against:
        require("the split study", "report", "sklearn", "matplotlib")
    protocol = _protocol(
        road=road,
        threshold=threshold,
        boundary=boundary,
        labels=labels,
        erode=erode,
        geoseg_compat=geoseg_compat,
        resolution=resolution,
        match=match or [],
        network=network or centrelines is not None,
        centrelines=centrelines,
        pixel=pixel,
    )
    task = open_task(checkpoint, source, split, device=device, precision=precision, trunk=trunk)
    lines = [centrelines, *centrelines.glob("*")] if centrelines else []
    check_report(output, [*task.files, *lines, *([trunk] if trunk else ())])
    shown = pictures if html else 0
    with progress(task.pixels, f"evaluate {task.split}", "px") as advance:
        report = task.run(protocol, pictures=shown, command=_command(), progress=advance)
    if study or against:
        from terradapt.evaluation.study import add_study

        add_study(report, task.dataset, against or [])
    paths = write_report(report, output, html=html)
    _print(report)
    if not html:
        typer.echo(f"note: no HTML page without the extra 'report': {install_line('report')}")
    typer.echo(f"report: {paths[-1]}")
    return {"files": paths, "split": report.split, "metrics": report.metrics}


def _source(given: list[Path], data: Path | None) -> Any:
    """The dataset's folder, or an image and its label."""
    from terradapt.errors import ConfigError

    named = [*given, *([data] if data else [])]
    if len(named) == 1:
        return named[0]
    if data or len(given) != 2:
        raise ConfigError(
            "evaluate on what?" if not named else f"{len(named)} paths are no dataset",
            "give one dataset folder, or one image and its label raster",
        )
    return tuple(given)


def _protocol(*, resolution: str, match: list[str], **values: Any) -> Protocol:
    from terradapt.errors import ConfigError
    from terradapt.evaluation import Protocol

    pairs = [m.partition("=") for m in match]
    for text, (ours, sign, theirs) in zip(match, pairs, strict=True):
        if not (ours and sign and theirs):
            raise ConfigError(f"--match {text}: no pair", "write DATASET=CHECKPOINT")
    try:
        seen: Any = resolution if resolution in {"auto", "native"} else float(resolution)
    except ValueError as error:
        raise ConfigError(
            f"--resolution {resolution}: no resolution", "use auto, native or metres per pixel"
        ) from error
    return Protocol(resolution=seen, match={a: b for a, _, b in pairs}, **values)


def _command() -> str:
    return " ".join(["terradapt", *sys.argv[1:]])


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from terradapt.report.wording import (
        headline,
        per_class_columns,
        shown,
        shown_of_class,
        title_of,
    )

    console = Console(width=max(120, Console().width))  # rows are not broken in a pipe
    per_class = report.metrics["per_class"]
    columns = per_class_columns(per_class)
    table = Table("class", *(title_of(c) for c in columns))
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column is table.columns[0] else "right"
    for name, row in per_class.items():
        note = "" if row.get("evaluated", True) else " *"
        table.add_row(name + note, *(shown_of_class(c, row) for c in columns))
    console.print(table)
    if not all(row.get("evaluated", True) for row in per_class.values()):
        console.print("* not in the means", highlight=False)
    for key, value in headline(report.metrics, everything=True):
        console.print(f"{title_of(key):<26} {shown(key, value):>12}", highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
