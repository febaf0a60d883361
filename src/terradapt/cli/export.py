"""``terradapt export``: a checkpoint becomes one ONNX file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terradapt.cli._help import HAND_ON, add

if TYPE_CHECKING:
    from terradapt.export.run import ExportResult


class Consumer(StrEnum):
    """Programs whose needs differ from terradapt's own."""

    terradapt = "terradapt"
    deepness = "deepness"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # a file that needs no torch
        terradapt export run -o model.onnx
        # 8 bit integers, for small machines
        terradapt export run -o small.onnx --int8 --calibrate data
        # class ids out of the graph itself, for programs of your own
        terradapt export run -o ids.onnx --argmax
    """
    add(app, "export", export, HAND_ON, examples)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A run, or a checkpoint.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file.")] = Path(
        "model.onnx"
    ),
    window: Annotated[
        int | None, typer.Option(help="Side of a window, px; the training crop's by default.")
    ] = None,
    scene: Annotated[
        Path | None, typer.Option(help="Scene on which file and checkpoint are compared.")
    ] = None,
    trunk: Annotated[
        Path | None, typer.Option(help="Weights of a frozen trunk that the checkpoint only names.")
    ] = None,
    consumer: Annotated[
        Consumer, typer.Option("--for", help="deepness (QGIS): windows of one size only.")
    ] = Consumer.terradapt,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize to 8 bit integers.")] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Folder of scenes or prepared dataset to calibrate on, with --int8."),
    ] = None,
    windows: Annotated[int, typer.Option(min=2, help="Windows to calibrate on.")] = 32,
    argmax: Annotated[
        bool,
        typer.Option("--argmax", help="End in class ids, uint8; not for terradapt predict."),
    ] = False,
) -> dict[str, Any]:
    """Turn a checkpoint into one ONNX file, proved to be equal.

    Beside MODEL.onnx it writes MODEL.stac.json and MODEL.report.{json,md}. QGIS Deepness (with
    --for deepness) and `terradapt predict` need the ONNX file alone.
    """
    from terradapt import hub
    from terradapt.cli._require import require
    from terradapt.errors import ConfigError

    require("terradapt export", "train", "torch", "timm")
    require("terradapt export", "export", "onnx")
    from terradapt.meta import read_meta

    checkpoint = hub.local(checkpoint)
    if output.suffix != ".onnx":
        raise ConfigError(f"{output}: no .onnx file", "name the output model.onnx")
    if int8 != (calibrate is not None):
        raise ConfigError(
            "--int8 and --calibrate belong together",
            "give both: --int8 --calibrate FOLDER_WITH_SCENES",
        )
    if argmax and consumer == Consumer.deepness:
        raise ConfigError(
            "--argmax and --for deepness do not go together: Deepness reads scores",
            "leave one of them out",
        )
    if consumer == Consumer.deepness:
        spec = read_meta(checkpoint).spec
        if len(spec.channels) > len(spec.bands):
            raise ConfigError(
                f"{checkpoint}: sees more than a window's bands, the ground around or the scale, "
                "and Deepness gives these alone",
                "map with terradapt predict, or train with data.context=0 encoder.film=false",
            )
    sides: dict[str, Any] = {
        "window": window,
        "fixed": consumer == Consumer.deepness,
        "argmax": argmax,
    }
    if int8:
        assert calibrate is not None
        values = _int8(checkpoint, output, calibrate, windows, trunk, sides)
    else:
        values = _float(checkpoint, output, scene, trunk, sides).to_dict()
    report = _tell(output, values)
    return {"files": [output, report], **values}


def _float(
    checkpoint: Path, output: Path, scene: Path | None, trunk: Path | None, sides: dict[str, Any]
) -> ExportResult:
    from terradapt.export.run import check_export, export_with_proof, parity_windows
    from terradapt.raster import scene_files

    if scene is not None:
        check_export(output, checkpoint, trunk, *scene_files(scene))
    shown = parity_windows(checkpoint, scene, sides["window"]) if scene else {}
    return export_with_proof(checkpoint, output, trunk=trunk, **sides, **shown)


def _int8(
    checkpoint: Path,
    output: Path,
    folder: Path,
    count: int,
    trunk: Path | None,
    sides: dict[str, Any],
) -> dict[str, Any]:
    from terradapt.cli._progress import progress, say
    from terradapt.export.quantized import export_int8

    return export_int8(
        checkpoint,
        output,
        folder,
        count=count,
        trunk=trunk,
        **sides,
        track=progress,
        say=say,
    )


def _tell(output: Path, values: dict[str, Any]) -> Path:
    from terradapt.export.report import kept_classes, write_export_report

    report = write_export_report(output, values)
    typer.echo(f"{output}: {values['bytes'] / 1e6:.2f} MB, {values['precision']}")
    parity, int8 = values["parity"], values.get("int8")
    typer.echo(
        f"parity of the {'float graph, before INT8,' if int8 else 'file'} with the checkpoint: "
        f"{'passed' if parity['passed'] else 'NOT passed'} "
        f"(score difference {parity['max_score']:.1e}, "
        f"{parity['equal_classes']:.3%} equal classes)"
    )
    if int8:
        typer.echo(f"INT8 file: {int8['smaller']:.2f} times smaller; {kept_classes(int8)}")
        accuracy = int8.get("accuracy")
        if accuracy:
            before, after = accuracy["fp32"]["miou"], accuracy["int8"]["miou"]
            typer.echo(
                f"accuracy of the INT8 file: mIoU {after:.2%}, float {before:.2%} "
                f"({accuracy['windows']} windows of {accuracy['split']})"
            )
        else:
            typer.echo("accuracy of the INT8 file: not measured, the scenes have no labels")
    if values["argmax_equal"] is not None:
        typer.echo(
            f"output: class ids, uint8; {values['argmax_equal']:.3%} are those of the highest "
            "score. For terradapt predict, export without --argmax"
        )
    typer.echo(f"report: {report}")
    return report
