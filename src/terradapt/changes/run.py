"""compare: two sides in, an update of the map out."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from terradapt.changes import raster
from terradapt.changes.comparison import Pairing, Result
from terradapt.changes.dates import DatePair, takes_two_dates
from terradapt.changes.figures import figures_of
from terradapt.changes.options import CompareOptions
from terradapt.changes.page import changes_page
from terradapt.changes.raster import Rows
from terradapt.changes.roads import CHANGED, GONE, NEW
from terradapt.changes.sides import (
    MapSide,
    Side,
    is_map,
    is_vector,
    open_map,
    open_vectors,
    place_of,
)
from terradapt.classes import Colour
from terradapt.errors import ConfigError, DataError, OutputError, SceneError, one_of
from terradapt.files import (
    check_new,
    check_output,
    digest,
    read_json,
    replacing,
    write_json,
    write_together,
)
from terradapt.owner import owned
from terradapt.progress import Track
from terradapt.raster import ScenePath, part_folder, scene_files, signature_of
from terradapt.raster.pam import SUFFIX, beside_stamp
from terradapt.scene import PredictOptions, Predictor, predict_scene
from terradapt.scene.job import Blocks, Job
from terradapt.vector.geopackage import Layer, write_geopackage
from terradapt.vector.style import state_style
from terradapt.vector.write import check_vector

COLOURS: dict[str, Colour] = {NEW: (0, 170, 80), GONE: (215, 30, 60), CHANGED: (240, 150, 0)}
"""RGB of the states, in QGIS and in pictures."""
_DIRECT = "both.tif"  # what a model of two dates makes of them


def compare(
    old: ScenePath,
    new: ScenePath,
    output: str | Path,
    *,
    model: Predictor | str | Path | None = None,
    model_name: str = "",
    predict: PredictOptions | None = None,
    bar: Track | None = None,
    blocks: Blocks = Job.blocks,
    rows: Rows = raster.here,
    say: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> dict[str, Any]:
    """Write what is new, gone and changed between two dates, or against a map that one has.

    Each side is a scene (then ``model`` maps it), a class map with or without scores, or vectors:
    polygons, road centrelines or both. Beside ``output`` stand ``NAME_change.tif`` (where a side is
    a raster), ``NAME.json`` and ``NAME.html``.

    Args:
        old: The earlier side.
        new: The later side.
        output: The GeoPackage to write: layers ``polygons`` and ``edges``.
        model: What maps scenes, or says itself what changed between two (``siamese``): an opened
            model, or what :func:`terradapt.load` opens.
        model_name: Of an opened model, for the figures and for resuming.
        predict: How it does; scores, resuming and overwriting are not looked at.
        bar: ``bar(total, label, unit)`` gives a context with ``advance(n)``.
        blocks: What yields the blocks of predictions; see ``scene.cluster``.
        rows: What yields the rows of the comparison; a cluster's ``ordered``.
        say: Takes what is told on the way.
        options: Fields of :class:`CompareOptions`.

    Returns:
        The figures, as in ``NAME.json``.

    Raises:
        ConfigError: An option that is out of its range.
        SceneError: A raster that cannot be read, a scene without a model, no common ground.
        DataError: Vectors that cannot be read or are empty, no common class.
        OutputError: The result exists already, is being written, or cannot be.
    """
    chosen = _chosen(options)
    output = Path(output)
    paths = [old, new]
    reads = [f for p in paths for f in _files(p)]
    reads += [p for p in (chosen.aoi, chosen.calibration) if p is not None]
    check_output(output, (".gpkg",), reads=reads, beside=_beside(output)[1:])
    check_vector(output, chosen.overwrite or chosen.resume, reads=reads)
    work = part_folder(output)
    scene = next((p for p in paths if _is_scene(p)), None)
    predictor, name = (None, "") if scene is None else _opened(model, model_name, scene)
    named = (chosen.old_class, chosen.new_class)
    sides = [
        _side(path, work / f"{label}.tif", predictor, which)
        for path, label, which in zip(paths, ("old", "new"), named, strict=True)
    ]
    run = _settled(sides, paths, chosen, predictor)
    asked = {k: str(v) for k, v in vars(chosen).items() if k not in ("resume", "overwrite")}
    predict = replace(predict or PredictOptions(), resume=chosen.resume, overwrite=True)
    setting = {k: str(v) for k, v in vars(predict).items() if k not in ("resume", "overwrite")}
    scores = [s.scores for s in sides if isinstance(s, MapSide) and s.scores and s.scene is None]
    marks = {str(f): beside_stamp(f) for f in [*reads, *scores]}
    stamps = [[f, mark] for f, mark in marks.items() if mark or not f.endswith(SUFFIX)]
    signature = signature_of([stamps, asked, setting, name, predictor and predictor.engine])
    with ExitStack() as stack:
        stack.enter_context(owned(output))
        done = _finished(output, signature) if chosen.resume else None
        if done is not None:
            shutil.rmtree(work, ignore_errors=True)
            return done
        check_new(_beside(output), chosen.overwrite)
        _begin(work, signature, chosen.resume)
        try:
            for source, made, called in _to_map(run, paths, name):
                assert predictor is not None
                wanted = replace(predict, scores="uint8")
                told = predict_scene(
                    predictor,
                    source,
                    made,
                    wanted,
                    bar,
                    model=called,
                    scratch=True,
                    blocks=blocks,
                )
                run.notes.extend(told["notes"])
            result = run.compared(work, signature, rows, bar)
            figures = figures_of(
                run, result.polygons, result.edges, result.rows, result.extra,
                signature=signature, model=name,
            )  # fmt: skip
            page = changes_page(run, result.polygons, result.edges, figures, COLOURS)
            if page is None:
                run.notes.append("no HTML report: it needs the extra 'report'")
                figures["notes"] = list(run.notes)
            for note in run.notes:
                say(note)
            _publish(output, work, result, figures, page)
        except (ConfigError, DataError):  # nothing that a resume would mend
            shutil.rmtree(work, ignore_errors=True)
            raise
    return figures


def _chosen(options: dict[str, Any]) -> CompareOptions:
    known = [f.name for f in fields(CompareOptions)]
    unknown = next((k for k in options if k not in known), None)
    if unknown is not None:
        raise ConfigError(f"no option '{unknown}'", one_of(unknown, known, "options: "))
    for key in ("aoi", "calibration"):
        if options.get(key) is not None:
            options[key] = Path(options[key])
    return CompareOptions(**options)


def _files(path: ScenePath) -> list[Path]:
    if is_vector(path):
        assert isinstance(path, str | Path)
        table = Path(path).with_suffix(".dbf")  # of a shapefile: the classes stand in it
        return [Path(path), *([table] if Path(path).suffix.lower() == ".shp" else [])]
    return [Path(str(f)) for f in scene_files(path)]


def _is_scene(path: ScenePath) -> bool:
    return not is_vector(path) and not is_map(path)


def _opened(
    model: Predictor | str | Path | None, name: str, scene: ScenePath
) -> tuple[Predictor, str]:
    if model is None:
        raise SceneError(
            f"{scene}: is a scene, which is compared by what a model sees in it",
            "add --model RUN, or give its class map",
        )
    if isinstance(model, Predictor):
        return model, name or type(model).__name__
    from terradapt import hub, predictors

    path = hub.local(Path(model))
    return predictors.load(path), f"{Path(path).name} {digest(path)[:12]}"


def _side(path: ScenePath, made: Path, predictor: Predictor | None, named: str | None) -> Side:
    if is_vector(path):
        assert isinstance(path, str | Path)
        return open_vectors(path, named)
    if not _is_scene(path):
        assert isinstance(path, str | Path)
        return open_map(path, named)
    assert predictor is not None
    classes, direct = predictor.classes, takes_two_dates(predictor)
    made = made.with_name(_DIRECT) if direct else made
    surety = predictor.meta.confidence if predictor.meta else "not calibrated"
    return MapSide(
        made,
        place_of(path),
        classes.names,
        classes.colours,
        made.with_name(f"{made.stem}_scores.tif"),
        scene=path,
        surety=surety,
    )


def _settled(
    sides: list[Side], paths: list[ScenePath], chosen: CompareOptions, predictor: Predictor | None
) -> Pairing:
    if predictor is None or not takes_two_dates(predictor):
        return Pairing.of(sides[0], sides[1], chosen)
    other = next((p for p in paths if not _is_scene(p)), None)
    old, new = sides
    if other is not None or not isinstance(old, MapSide) or not isinstance(new, MapSide):
        raise SceneError(
            f"{other}: is no scene, and the model takes two scenes at once",
            "give the two scenes, or a model that maps one: of land cover or roads",
        )
    return Pairing.direct(old, new, chosen, predictor)


def _to_map(
    run: Pairing, paths: list[ScenePath], name: str
) -> list[tuple[ScenePath | DatePair, Path, str]]:
    """Return what a model is to map before anything is compared: scene, map, name of the model."""
    pair = run.pair
    if pair is not None and pair.direct:
        both = DatePair(paths[0], paths[1], pair.georef, pair.shift)
        return [(both, run.new.path, f"{name}, shift {pair.shift}")]
    return [
        (path, side.path, name)
        for path, side in zip(paths, (run.old, run.new), strict=True)
        if _is_scene(path)
    ]


def _beside(output: Path) -> list[Path]:
    """Return all files of a result."""
    change = output.with_name(f"{output.stem}_change.tif")
    return [output, change, output.with_suffix(".json"), output.with_suffix(".html")]


def _begin(work: Path, signature: str, resume: bool) -> None:
    """Make the work folder, or go on in it."""
    note = work / "job.json"
    if resume and note.is_file():
        if read_json(note).get("signature") == signature:
            return
        raise OutputError(
            f"{work}: is of other inputs or options", "run the command without --resume"
        )
    shutil.rmtree(work, ignore_errors=True)
    write_json(note, {"signature": signature})


def _finished(output: Path, signature: str) -> dict[str, Any] | None:
    """Return the figures of a result of the same inputs and options."""
    if not output.is_file():
        return None
    try:
        found: dict[str, Any] = read_json(output.with_suffix(".json"))
    except DataError:
        return None
    return found if found.get("signature") == signature else None


def _publish(
    output: Path, work: Path, result: Result, figures: dict[str, Any], page: str | None
) -> None:
    """Write the GeoPackage last: where it is, all is."""
    polygons, edges = result.polygons, result.edges
    area = "area_m2" if polygons.unit == "m" else f"area_{polygons.unit}"
    shapes = [shapely.MultiPolygon(_surface(s)) for s in polygons.shapes]
    columns = {
        "state": polygons.state,
        "class_before": polygons.before,
        "class_after": polygons.after,
        "probability": np.round(polygons.probability, 4),
        area: np.round(polygons.area, 3),
        "feature": polygons.feature,
    }
    lines = {
        "state": edges.state,
        "class": np.array(["road"] * len(edges), object),
        "probability": np.round(edges.probability, 4),
        "length_m": np.round(edges.length, 3),
        "offset_m": np.round(np.nan_to_num(edges.offset), 2),
    }
    layers: list[Layer] = [
        ("polygons", "MultiPolygon", np.array(shapes, object), columns),
        ("edges", "LineString", edges.lines, lines),
    ]
    styles = {n: state_style("state", COLOURS, lines=n == "edges") for n in ("polygons", "edges")}
    change, place = work / "change.tif", _beside(output)[1]
    texts = {output.with_suffix(".json"): json.dumps(figures, indent=1) + "\n"}
    if page is not None:
        texts[output.with_suffix(".html")] = page
    if change.is_file():
        with replacing(place) as part:
            shutil.copyfile(change, part)
    write_together(dict(texts))
    with replacing(output, sqlite3.Error) as part:
        write_geopackage(part, layers, edges.crs if len(edges) else polygons.crs, styles)
    shutil.rmtree(work, ignore_errors=True)


def _surface(shape: Any) -> list[Any]:
    return [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]
