"""``terradapt bench``: efficiency on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terradapt.cli._help import COMPARE, add

if TYPE_CHECKING:
    from terradapt.bench.run import BenchRow, Options


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # your own model on each engine that is installed; needs no torch
        terradapt bench model.onnx
        # all backbones and engines
        terradapt bench -o bench
        # one row, one image at a time
        terradapt bench --backbone resnet18 --engine onnxruntime --batch 1
    """
    add(app, "bench", bench, COMPARE, examples)


def bench(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="A model.onnx, instead of backbones.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")] = Path(
        "bench"
    ),
    backbone: Annotated[
        list[str] | None, typer.Option(help="Only these backbones; may be repeated.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="Only these engines; may be repeated.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Side of the images, px: the model's, or 512.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images at a time: 1 of a model, 8 of backbones.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time for each figure, s.")] = 2.0,
    device: Annotated[str | None, typer.Option(help="Torch device, for example cuda:0.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows that OUTPUT/bench.json has.")
    ] = False,
    accuracy: Annotated[
        list[str] | None,
        typer.Option(metavar="BACKBONE=REPORT.json", help="Measured mIoU for the plot."),
    ] = None,
) -> dict[str, Any]:
    """Time a model, or backbones, on this machine; get a table.

    Of a MODEL: latency, windows/s and memory on each engine, as MODEL.bench.md and .json. Without
    one: ARAFNet's Table 4; bench.md, bench.json and bench.png (accuracy against speed) are written
    after each backbone.
    """
    from dataclasses import asdict, replace

    from terradapt.cli._progress import progress
    from terradapt.cli._require import require
    from terradapt.files import check_output

    if model is not None:
        foreign = {"backbone": backbone, "device": device, "resume": resume, "accuracy": accuracy}
        return _one_model(
            model, output, engine, size, batch, seconds, [k for k, v in foreign.items() if v]
        )
    require("terradapt bench", "train", "torch", "timm")
    require("terradapt bench", "export", "onnx")
    require("the plot of terradapt bench", "report", "matplotlib")
    from terradapt.bench.present import bench_markdown, write_bench
    from terradapt.bench.run import BenchRow, Options
    from terradapt.bench.run import bench as measure

    check_output(output, folder=True)
    known = _accuracy(accuracy or [])
    standard = Options()
    options = Options(
        tuple(backbone or standard.backbones),
        tuple(engine or standard.engines),
        size or standard.size,
        batch or standard.batch,
        seconds,
        device,
    )
    held = _held(output, options) if resume else []
    total = len(options.backbones) * len(options.engines)
    with progress(total, "bench", "row") as advance:
        for name in options.backbones:
            result = measure(replace(options, backbones=(name,)), advance, held)
            result["options"] = asdict(options)
            held = [BenchRow(**row) for row in result["rows"]]
            written = write_bench(output, result, known)
    typer.echo(bench_markdown(result), nl=False)
    typer.echo("\n" + "\n".join(map(str, written)))
    return {"files": written, **result}


def _one_model(
    model: Path,
    output: Path,
    names: list[str] | None,
    size: int | None,
    batch: int | None,
    seconds: float,
    foreign: list[str],
) -> dict[str, Any]:
    from terradapt import hub
    from terradapt.bench.exported import bench_exported, exported_markdown, write_exported
    from terradapt.cli._progress import progress
    from terradapt.errors import CheckpointError, ConfigError, install_line
    from terradapt.files import check_output
    from terradapt.predictors import engines

    if foreign:
        raise ConfigError(f"--{foreign[0]} is of backbones, not of a model", "leave it out")
    model = hub.local(model)
    if model.suffix != ".onnx":
        raise CheckpointError(
            f"{model}: no exported model", f"export it: terradapt export {model} -o model.onnx"
        )
    check_output(output, folder=True)
    with progress(len(names or engines.installed()), f"bench {model.name}", "engine") as advance:
        result = bench_exported(
            model, names, window=size, batch=batch or 1, seconds=seconds, advance=advance
        )
    written = write_exported(output, result)
    typer.echo(exported_markdown(result), nl=False)
    if not names and "openvino" not in engines.installed():
        typer.echo(f"\nnot measured, not installed: openvino ({install_line('openvino')})")
    typer.echo("\n" + "\n".join(map(str, written)))
    return {"files": written, **result}


def _held(folder: Path, options: Options) -> list[BenchRow]:
    from terradapt.bench.present import read
    from terradapt.errors import ConfigError

    rows, earlier = read(folder)
    for name in ("size", "batch", "device"):
        if rows and earlier.get(name) != getattr(options, name):
            raise ConfigError(
                f"{folder / 'bench.json'}: was measured with {name} {earlier.get(name)}",
                f"give --{name} {earlier.get(name)}, or another folder",
            )
    return rows


def _accuracy(pairs: list[str]) -> dict[str, float]:
    from terradapt.errors import ConfigError
    from terradapt.report import read_report

    known = {}
    for pair in pairs:
        name, sign, path = pair.partition("=")
        if not sign:
            raise ConfigError(f"'{pair}' is no BACKBONE=REPORT.json", "write resnet18=report.json")
        known[name] = float(read_report(path)["metrics"]["miou"])
    return known
