"""``terradapt predict``: scenes become class GeoTIFFs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terradapt.cli._help import MAP, add

if TYPE_CHECKING:
    from terradapt.errors import TerradaptError
    from terradapt.raster import ScenePath
    from terradapt.scene import PredictOptions, Predictor
    from terradapt.scene.cluster import Cluster, Load
    from terradapt.scene.embedded import Embedded
    from terradapt.scene.job import Blocks


class ScoreType(StrEnum):
    """How class probabilities are stored."""

    float16 = "float16"
    uint8 = "uint8"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # one scene, with a run's checkpoint
        terradapt predict run scene.tif -o map.tif
        # two scenes, with the winner's probability
        terradapt predict model.onnx a.tif b.tif -o maps --confidence
        # every raster of a folder, each a map of its own
        terradapt predict run --each photos -o maps
    """
    add(app, "predict", predict, MAP, examples)


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A run, a checkpoint, or a model.onnx.")],
    scenes: Annotated[
        list[str],
        typer.Argument(
            metavar="SCENE...", help="Rasters, or folders: one mosaic each, unless --each."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="FILE.tif for one scene, else a folder.")
    ],
    mosaic: Annotated[bool, typer.Option(help="Take all scenes as one mosaic.")] = False,
    each: Annotated[
        bool, typer.Option("--each", help="Map each raster of a folder on its own.")
    ] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="Write class probabilities too.")
    ] = False,
    scores_as: Annotated[
        ScoreType, typer.Option(help="How: float16, or uint8 in steps of 0.004.")
    ] = ScoreType.float16,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Write the winner's probability too.")
    ] = False,
    classes: Annotated[
        str, typer.Option(help="Choose among these classes only: names with commas.")
    ] = "",
    aoi: Annotated[
        Path | None, typer.Option(help="Area of interest: polygons, or a mask raster.")
    ] = None,
    resolution: Annotated[
        str, typer.Option(help="What the model sees: auto, native, search or metres per pixel.")
    ] = "auto",
    tta: Annotated[
        bool, typer.Option("--tta", help="Mean over eight turned and mirrored views.")
    ] = False,
    bands: Annotated[str, typer.Option(help="Bands to use: indexes or names with commas.")] = "",
    nodata: Annotated[
        float | None, typer.Option(help="Nodata value instead of the scene's own.")
    ] = None,
    grow_void: Annotated[
        int | None,
        typer.Option(help="Pixels this near to nodata are nodata too, px.", min=0, max=1024),
    ] = None,
    window: Annotated[int | None, typer.Option(help="Side of a window, px.", min=1)] = None,
    overlap: Annotated[float, typer.Option(help="Share of a window, 0 to 0.9.")] = 0.25,
    margin: Annotated[int, typer.Option(help="Pixels dropped at inner edges.", min=0)] = 0,
    batch: Annotated[int | None, typer.Option(help="Windows per model call.", min=1)] = None,
    device: Annotated[str | None, typer.Option(help="For example cuda:0 or cpu.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    engine: Annotated[
        str,
        typer.Option(
            help="What runs the model: own, auto (the measured fastest), torch, compiled, "
            "reduce-overhead, torch-bf16, onnxruntime, openvino, openvino-bf16."
        ),
    ] = "own",
    trunk: Annotated[
        Path | None, typer.Option(help="Frozen trunk that the checkpoint only names.")
    ] = None,
    cluster: Annotated[
        str,
        typer.Option(
            help="Dask scheduler, tls://HOST:PORT or tcp://HOST:PORT; 'local' processes; 'none'; "
            "'auto' starts local processes where they pay."
        ),
    ] = "auto",
    workers: Annotated[int | None, typer.Option(help="Workers of --cluster local.", min=1)] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let scenes be https:// or s3:// addresses.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace maps that are there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would take; write nothing.")
    ] = False,
) -> dict[str, Any]:
    """Map scenes; get a class GeoTIFF of each, with areas.

    Each is a cloud optimized GeoTIFF on the scene's own grid, with colour table and class names;
    beside it stand .json (pixels and hectares per class) and .qml (QGIS).
    """
    from terradapt import hub
    from terradapt.cli._forecast import tell_forecasts
    from terradapt.cli._progress import say
    from terradapt.errors import ConfigError
    from terradapt.files import check_new, digest
    from terradapt.raster import scene_files
    from terradapt.scene import PredictOptions
    from terradapt.scene.predict import check_result

    options = PredictOptions(
        window=window,
        overlap=overlap,
        margin=margin,
        batch=batch,
        scores=scores_as.value if scores else None,
        confidence=confidence,
        classes=_listed(classes),
        aoi=aoi,
        resolution=_resolution(resolution),
        bands=tuple(int(b) if b.isdecimal() else b for b in _listed(bands)),
        nodata=nodata,
        grow_void=grow_void,
        allow_remote=allow_remote,
        resume=resume,
        overwrite=overwrite,
    )
    if each and mosaic:
        raise ConfigError("--each and --mosaic exclude each other", "give one of the two")
    jobs = outputs(each_file(scenes) if each else scenes, output, mosaic=mosaic, each=each)
    checkpoint = hub.local(checkpoint)
    reads: list[str | Path | None] = [checkpoint, trunk]
    for scene, _ in jobs:
        reads += scene_files(scene, allow_remote=allow_remote)
    for scene, out in jobs:
        check_result(out, scene, options, reads)
        check_new([out], overwrite or resume)
    _check_device(device)
    load = partial(
        open_predictor,
        checkpoint.absolute(),
        engine=engine,
        device=device,
        precision=precision,
        trunk=trunk if trunk is None or str(trunk) == "hub" else trunk.absolute(),
        tta=tta,
    )
    predictor = load(say=say)
    load = partial(load, engine=predictor.engine)
    if dry_run:
        return tell_forecasts([scene for scene, _ in jobs], predictor, options, workers)
    name = f"{checkpoint.name} {digest(checkpoint)[:12]}{' tta' if tta else ''}"
    with _pool(cluster, load, name, workers, _gpus(predictor, device)) as pool:
        figures = _run(jobs, predictor, options, name, pool)
    return {"files": [out for _, out in jobs], "maps": figures}


def open_predictor(checkpoint: Path, *, tta: bool = False, **opening: Any) -> Predictor:
    """Open a model, here or on a worker.

    Args:
        checkpoint: What :func:`terradapt.export.fastest.load` opens.
        tta: Take the mean over eight views.
        opening: Further arguments of :func:`terradapt.export.fastest.load`.
    """
    from terradapt.export import fastest

    predictor = fastest.load(checkpoint, **opening)
    if not tta:
        return predictor
    from terradapt.predictors.tta import TtaPredictor

    return TtaPredictor(predictor)


def _pool(
    cluster: str, load: Load, name: str, workers: int | None, gpus: int
) -> AbstractContextManager[Cluster | Embedded | None]:
    """Return what shares the work out, as a context; None works alone."""
    from contextlib import nullcontext

    from terradapt.scene.cluster import Cluster
    from terradapt.scene.embedded import Embedded

    if cluster == "none":
        return nullcontext(None)
    if cluster == "auto":
        return Embedded(load, name, gpus=gpus)
    return Cluster(cluster, load, name, workers=workers, gpus=gpus)


def _gpus(predictor: Predictor, device: str | None) -> int:
    """Return the GPUs that may share the work: all, unless one was named."""
    if not predictor.device.startswith("cuda"):
        return 0
    if device and ":" in device:
        return 1
    import torch

    return torch.cuda.device_count()


def _run(
    jobs: list[tuple[ScenePath, Path]],
    predictor: Predictor,
    options: PredictOptions,
    name: str,
    pool: Cluster | Embedded | None,
) -> list[dict[str, Any]]:
    from terradapt.cli._events import say_stopped
    from terradapt.cli._forecast import tell_before
    from terradapt.cli._progress import progress
    from terradapt.errors import DataError, SceneError
    from terradapt.raster import part_folder
    from terradapt.scene import predict_scene
    from terradapt.scene.job import Job

    blocks: Blocks = pool.blocks if pool else Job.blocks
    failed: list[tuple[ScenePath, TerradaptError]] = []
    done: list[dict[str, Any]] = []
    for scene, out in jobs:
        try:
            if not options.resume:  # what is left of a stopped one is its bar's to say
                tell_before(scene, predictor, options, pool)
            figures = predict_scene(
                predictor, scene, out, options, progress, model=name, blocks=blocks
            )
        except KeyboardInterrupt:
            state = part_folder(out)
            kept = f"go on with --resume, the state is in {state}"
            say_stopped(kept if state.exists() else "nothing was written yet")
            raise
        except (SceneError, DataError) as error:  # of this scene alone
            if len(jobs) == 1:
                raise
            failed.append((scene, error))
            typer.echo(f"error: {error.message}\nfix: {error.fix}", err=True)
            continue
        _tell(out, figures)
        done.append({"map": out, **figures})
    if failed:
        names = ", ".join(str(scene) for scene, _ in failed)
        raise SceneError(
            f"{len(failed)} of {len(jobs)} scenes have no map: {names}",
            "mend what is told above for each, and run again with --resume",
        ) from failed[0][1]
    return done


def each_file(scenes: list[str]) -> list[str]:
    """Return files as they are, and the rasters of each folder in its place.

    Raises:
        SceneError: A folder holds no raster.
    """
    from terradapt.errors import SceneError
    from terradapt.raster.mosaic import rasters_in

    found = []
    for scene in scenes:
        files = [str(p) for p in rasters_in(Path(scene))] if Path(scene).is_dir() else [scene]
        if not files:
            raise SceneError(f"{scene}: has no rasters", "put GeoTIFF, PNG or JPEG files in it")
        found += files
    return found


def outputs(
    scenes: list[str], output: Path, *, mosaic: bool = False, each: bool = False
) -> list[tuple[ScenePath, Path]]:
    """Return each scene with the file that it becomes.

    Raises:
        OutputError: Several scenes and one file, or two scenes of the same name.
    """
    from terradapt.errors import OutputError
    from terradapt.files import is_remote

    is_file = output.suffix.lower() in {".tif", ".tiff"} and not output.is_dir()
    is_folder = output.is_dir() or not output.suffix[1:2].isalpha()
    if not is_file and not is_folder and not is_remote(output):
        raise OutputError(
            f"{output}: cannot write '{output.suffix}'",
            "name it .tif; a folder of this name must be there already",
        )
    if mosaic or len(scenes) == 1:
        scene: ScenePath = [Path(s) for s in scenes] if mosaic else scenes[0]
        stem = "mosaic" if mosaic else Path(scenes[0]).stem or "scene"
        return [(scene, output if is_file else output / f"{stem}.tif")]
    if is_file:
        raise OutputError(
            f"{output}: is one file for {len(scenes)} scenes",
            "give a folder" if each else "give a folder, or add --mosaic",
        )
    jobs: list[tuple[ScenePath, Path]] = [(s, output / f"{Path(s).stem}.tif") for s in scenes]
    doubled = {out for _, out in jobs if [o for _, o in jobs].count(out) > 1}
    if doubled:
        raise OutputError(
            f"{sorted(doubled)[0]}: would hold two scenes",
            "predict scenes of one name separately, into two folders",
        )
    return jobs


def _tell(out: Path, figures: dict[str, Any]) -> None:
    for note in figures.get("notes", ()):
        typer.echo(f"warning: {note}", err=True)
    typer.echo(f"{out}: {figures['width']} x {figures['height']} px")
    if not figures["crs"]:
        typer.echo(f"{out}: the scene has no CRS; pixels are counted, hectares are not")
    if not figures["valid_pixels"]:
        typer.echo(f"{out}: the scene has no valid pixel; the result is all nodata")
    for row in figures["classes"]:
        if figures["valid_pixels"] and not row["pixels"]:
            typer.echo(f"  {row['name']:<24} {'absent':>17}")
            continue
        area = "" if row["hectares"] is None else f"{row['hectares']:12.4f} ha"
        typer.echo(f"  {row['name']:<24} {row['pixels']:>14} px {row['share']:8.2%} {area}")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _resolution(text: str) -> Any:
    from terradapt.errors import ConfigError

    if text in ("auto", "native", "search"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(
            f"'{text}' is no resolution",
            "use --resolution auto, native, search or metres per pixel",
        )
    return value


def _check_device(device: str | None) -> None:
    from terradapt.errors import ConfigError

    if device and device.startswith("cuda"):
        import torch

        known = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if device not in {*known, *(["cuda"] if known else [])}:
            raise ConfigError(f"no device {device}", f"use one of: {', '.join(['cpu', *known])}")
