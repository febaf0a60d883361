"""The verbs of the command line as functions; what is heavy is imported when one is called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from terradapt.errors import CheckpointError, ConfigError, SceneError, one_of, require
from terradapt.evaluation.options import Protocol
from terradapt.options import chosen, keywords
from terradapt.progress import silent, text_bar
from terradapt.scene.options import PredictOptions
from terradapt.vector.options import VectorizeOptions

if TYPE_CHECKING:
    from terradapt.config import RunConfig
    from terradapt.evaluation.options import ProtocolChoices
    from terradapt.models.contract import SegmentationModel
    from terradapt.predictors.mapper import Mapper
    from terradapt.predictors.scene_map import SceneMap
    from terradapt.raster import ScenePath
    from terradapt.report import Report
    from terradapt.scene.options import PredictChoices
    from terradapt.training.trained import TrainedRun
    from terradapt.vector import Network, Polygons
    from terradapt.vector.options import VectorizeChoices

    AnyPath = str | PathLike[str]


def train(
    recipe: AnyPath | RunConfig,
    data: AnyPath,
    out: AnyPath = "run",
    *,
    resume: bool = False,
    report: bool = True,
    progress: bool = True,
    **values: Any,
) -> TrainedRun:
    """Train a model: ``train("landcover", "DIR", "RUN", epochs=10)``.

    Args:
        recipe: Name of a recipe (``terradapt recipes`` lists them), a YAML file, or a config.
        data: Folder with ``images`` and ``labels``, or a prepared dataset.
        out: The run's folder.
        resume: Go on with the run that the folder holds.
        report: Write ``report.html``, ``.json`` and ``.md`` into the run.
        progress: Show a line of progress.
        values: Changes of the recipe: ``epochs=10``; dotted keys as ``**{"optim.lr": 1e-3}``. All
            keys stand in docs/config.md.

    Returns:
        The run. It stands for its checkpoint: ``predict(run, "scene.tif")``.

    Raises:
        ConfigError: A recipe or a value that cannot be used.
        DataError: A dataset that cannot be used.
        OutputError: The folder holds another run, or cannot be written.
        MissingExtraError: The extra ``train``, or for the report ``report``, is not installed.
        KeyboardInterrupt: Stopped; ``resume=True`` goes on.
    """
    from terradapt import training
    from terradapt.config import RunConfig, load_config

    require("terradapt.train", "train", "torch", "timm", "accelerate")
    if report:
        require("the report of terradapt.train", "report", "jinja2", "matplotlib")
    from terradapt.meta import read_meta
    from terradapt.training.trained import TrainedRun

    own = ("resume", "report", "progress")
    for key in values:
        if get_close_matches(key, own, n=1, cutoff=0.7):
            raise ConfigError(f"no option '{key}'", one_of(key, own, "beside config keys: "))
    config = recipe if isinstance(recipe, RunConfig) else load_config(os.fspath(recipe))
    run, folder = Path(out), Path(data)
    bar, say = (text_bar, print) if progress else (silent, None)
    training.train(config.with_values(values), folder, run, resume=resume, bar=bar, say=say)
    if report:
        from terradapt.evaluation import open_task
        from terradapt.report import write_report

        task = open_task(run, folder, None)
        with bar(task.pixels, "report", "px") as advance:
            write_report(task.run(progress=advance), run / "report.json")
    return TrainedRun.of(run, read_meta(run / "checkpoint.safetensors"))


@keywords()
def load(
    path: AnyPath,
    *,
    engine: str = "own",
    device: str | None = None,
    precision: str = "fp32",
    trunk: str | Path | None = None,
    tta: bool = False,
    progress: bool = True,
) -> Mapper:
    """Open a model: ``load("RUN")``, ``load("model.onnx")``, ``load("hf://owner/name")``.

    Args:
        path: A run's folder, ``.safetensors``, ``.onnx``, or ``hf://owner/name[@revision]``.
        engine: What runs it: ``own`` (torch for a checkpoint, ONNX Runtime for an exported model),
            ``auto`` (the measured fastest), or a name; see docs/edge.md.
        device: A torch device such as ``cuda:0``; None takes a GPU when there is one.
        precision: ``fp32``, ``bf16`` or ``fp16``, torch only.
        trunk: Weights of a frozen trunk that the checkpoint only names.
        tta: Take the mean over eight turned and mirrored views.
        progress: Say what ``auto`` measured and took.

    Returns:
        A mapper: ``load(path).predict(scene)``; see :class:`terradapt.predictors.mapper.Mapper`.

    Raises:
        CheckpointError: Another kind of file, or one that cannot be trusted, read or fitted.
        ConfigError: No such engine.
        MissingExtraError: The engine is not installed.
    """
    from terradapt import hub
    from terradapt.export import fastest
    from terradapt.files import digest
    from terradapt.predictors.mapper import Mapper
    from terradapt.predictors.tta import TtaPredictor

    file, say = hub.local(os.fspath(path)), print if progress else None
    predictor = fastest.load(
        file, engine=engine, device=device, precision=precision, trunk=trunk, say=say
    )
    name = f"{file.name} {digest(file)[:12]}{' tta' if tta else ''}"
    return Mapper(TtaPredictor(predictor) if tta else predictor, name, file)


@keywords(PredictOptions)
def predict(
    model: AnyPath | Mapper,
    scene: ScenePath,
    out: str | Path | None = None,
    *,
    progress: bool = True,
    **options: Unpack[PredictChoices],
) -> SceneMap:
    """Map a scene: ``predict("RUN", "scene.tif", confidence=True)``.

    A scene of any size can be mapped into a file; without ``out`` the map stays in memory.

    Args:
        model: What :func:`load` opens, or what it returned (with its device and engine).
        scene: A raster, a folder of them, or files that make one mosaic.
        out: The class raster to write, ``.tif``; its style and figures stand beside it.
        progress: Show a line of progress.
        options: ``confidence=True`` and ``scores=True`` keep the winner's and all classes'
            probabilities; ``classes``, ``aoi``, ``window``, ``overlap``, ``resolution`` and more:
            the fields of :class:`terradapt.scene.PredictOptions`.

    Returns:
        The map: ``.classes``, ``.confidence``, ``.scores``, ``.areas``, ``.polygons()``,
        ``.roads()``; a notebook shows the picture.

    Raises:
        SceneError: The scene cannot be read.
        ConfigError: Options that do not exist or do not fit.
        OutputError: The result cannot be written.
    """
    return _opened(model).predict(scene, out, progress=progress, **options)


@keywords(Protocol)
def evaluate(
    model: AnyPath | Mapper,
    data: AnyPath | tuple[AnyPath, AnyPath],
    split: str = "test",
    out: AnyPath | None = None,
    *,
    pictures: int = 6,
    study: bool = False,
    against: Sequence[AnyPath] = (),
    progress: bool = True,
    **options: Unpack[ProtocolChoices],
) -> Report:
    """Score a model on labelled images: ``evaluate("RUN", "DIR", "val", boundary=1.0)``.

    Args:
        model: What :func:`load` opens, or what it returned.
        data: Folder of the dataset; or an image and its label raster, as a pair.
        split: Name of a split, or ``all``; a pair has none.
        out: ``report.json`` to write; ``.md`` and ``.html`` stand beside it.
        pictures: Places shown side by side.
        study: Add the split study: PCA and t-SNE of image features.
        against: Datasets that the study compares with.
        progress: Show a line of progress.
        options: ``boundary``, ``road``, ``network``, ``labels`` and more: the fields of
            :class:`terradapt.evaluation.Protocol`.

    Returns:
        The report: ``.metrics``, ``.confusion``, ``.images``; a notebook shows the classes.

    Raises:
        DataError: No such split, or labels that cannot be used.
        ConfigError: Options that do not exist or do not fit.
        OutputError: The report cannot be written.
    """
    from terradapt.evaluation import open_task
    from terradapt.report import check_report, write_report

    protocol = chosen(Protocol, options)
    source = (Path(data[0]), Path(data[1])) if isinstance(data, tuple) else Path(data)
    task = open_task(_opened(model), source, split)
    if out is not None:
        check_report(Path(out), task.files)
    bar = text_bar if progress else silent
    with bar(task.pixels, f"evaluate {split}", "px") as advance:
        report = task.run(protocol, pictures=pictures, progress=advance)
    if study or against:
        from terradapt.evaluation.study import add_study

        add_study(report, task.dataset, [Path(other) for other in against])
    if out is not None:
        write_report(report, Path(out))
    return report


@overload
def vectorize(
    labels: AnyPath | SceneMap,
    out: AnyPath | None = None,
    *,
    roads: None = None,
    progress: bool = True,
    **options: Unpack[VectorizeChoices],
) -> Polygons: ...
@overload
def vectorize(
    labels: AnyPath | SceneMap,
    out: AnyPath | None = None,
    *,
    roads: str | int,
    progress: bool = True,
    **options: Unpack[VectorizeChoices],
) -> Network: ...
@keywords(VectorizeOptions)
def vectorize(
    labels: Any,
    out: AnyPath | None = None,
    *,
    roads: str | int | None = None,
    progress: bool = True,
    **options: Any,
) -> Any:
    """Turn a map into polygons, or its roads into a network: ``vectorize("map.tif", "map.gpkg")``.

    Args:
        labels: A class raster, a mask of 0 and 255, scores of one class, or what :func:`predict`
            returned.
        out: ``.gpkg``, ``.geojson`` or ``.shp`` to write too; of roads also ``.graphml``.
        roads: Make a road network of this class (name or id).
        progress: Show a line of progress.
        options: ``simplify``, ``min_area``, ``buildings``, ``scores`` and more: the fields of
            :class:`terradapt.vector.options.VectorizeOptions`.

    Returns:
        Polygons, or with ``roads`` a network; geopandas takes both with ``from_features``.

    Raises:
        SceneError: A raster cannot be read.
        DataError: No such class.
        ConfigError: Options that do not exist or do not fit.
        OutputError: The file exists already, or cannot be written.
    """
    from terradapt.predictors.scene_map import SceneMap
    from terradapt.vector.files import polygons_of, roads_of

    given, track = chosen(VectorizeOptions, options), text_bar if progress else silent
    path = None if out is None else Path(out)
    if isinstance(labels, SceneMap):
        if roads is None:
            return labels.polygons(path, progress=progress, **options)
        return labels.roads(roads, path, progress=progress, **options)
    if not isinstance(labels, str | PathLike):
        raise SceneError(
            f"a {type(labels).__name__} is no map", "give a raster's path, or what predict returned"
        )
    if roads is None:
        return polygons_of(Path(labels), path, given, track)
    return roads_of(Path(labels), roads, path, given, track)


def build(
    name: str, classes: int, *, encoder: str | None = None, **fields: Any
) -> SegmentationModel:
    """Build a model of the registry, a torch module: ``build("sam2-arafnet", classes=6)``.

    Args:
        name: A name of ``terradapt models``, for example ``"sam2-arafnet"``.
        classes: K, 2 or more.
        encoder: The encoder's name; the paper's own when missing.
        fields: Further fields of ``ModelConfig``, for example ``in_channels=4``,
            ``options={"aux": False}``, or of its encoder, for example ``weights="hub"``.

    Returns:
        A model: normalized pixels (B, C, H, W) in, ``Prediction`` out.

    Raises:
        ConfigError: No such model or field.
        CheckpointError: Weights that cannot be read or fitted.
    """
    from terradapt import models
    from terradapt.config import RunConfig

    own = models.default_config(name)
    chosen = {"model.encoder.name": encoder or own.encoder.name}
    inside = set(type(own.encoder).model_fields) - {"name"}
    chosen |= {f"model.{'encoder.' if k in inside else ''}{k}": v for k, v in fields.items()}
    config = RunConfig(model=own).with_values(chosen)
    return models.build(config.model, classes)


def _opened(model: AnyPath | Mapper) -> Mapper:
    from terradapt.predictors.mapper import Mapper

    if isinstance(model, Mapper):
        return model
    if not isinstance(model, str | PathLike):
        raise CheckpointError(
            f"a {type(model).__name__} is no model",
            "give a run's folder, its checkpoint.safetensors, a model.onnx, or what load returns",
        )
    return load(model)
