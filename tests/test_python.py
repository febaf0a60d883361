"""The verbs from Python: typed results, no option lost, mistakes in words, pictures."""

from __future__ import annotations

import io
import json
import pydoc
import subprocess
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from PIL import Image

import terradapt
from export_files import small
from scene_files import ConstantPredictor, PlainPredictor, noise, write_scene
from terradapt import checkpoint
from terradapt.errors import CheckpointError, ConfigError, OutputError, SceneError, TerradaptError
from terradapt.evaluation import Protocol
from terradapt.evaluation.options import ProtocolChoices
from terradapt.predictors.mapper import Mapper
from terradapt.progress import text_bar
from terradapt.scene import PredictOptions
from terradapt.scene.options import PredictChoices
from terradapt.vector import vectorize_polygons, vectorize_roads
from terradapt.vector.options import VectorizeChoices, VectorizeOptions
from training_files import SMALL, write_folder

CHOICES = (
    (PredictOptions, PredictChoices),
    (Protocol, ProtocolChoices),
    (VectorizeOptions, VectorizeChoices),
)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = noise(300, 90)
    pixels[:, 20:60, 10:50] = 0
    return write_scene(tmp_path / "scene.tif", pixels, nodata=0)


@pytest.fixture
def mapper() -> Mapper:
    return Mapper(PlainPredictor(), "plain")


def test_the_package_is_imported_without_a_library_and_its_help_teaches() -> None:
    code = (
        "import sys, terradapt; heavy = {'torch', 'numpy', 'rasterio', 'pydantic', 'yaml'};"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys();"
        "import pydoc; text = pydoc.plain(pydoc.render_doc(terradapt));"
        "assert 'torch' not in sys.modules; print(text)"
    )
    call = [sys.executable, "-c", code]
    text = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    assert text.index("terradapt.train(") < text.index("terradapt.predict(")  # the order of work
    for name in set(terradapt.__all__) - {"__version__"}:
        assert f"\n    {name}(" in text
        assert (getattr(terradapt, name).__doc__ or "").count("\n") > 3
    assert "confidence: 'bool' = False" in text  # predict shows its options
    with pytest.raises(AttributeError, match="trian"):
        _ = terradapt.trian


def words(kind: object) -> set[object]:
    """Return the words that a type lets through."""
    parts = get_args(kind)
    return set(parts) if get_origin(kind) is Literal else set().union(*map(words, parts))


@pytest.mark.parametrize(("options", "choices"), CHOICES)
def test_the_keywords_of_a_type_checker_are_those_of_the_options(options, choices) -> None:
    kinds, held = get_type_hints(choices), get_type_hints(options)
    assert list(kinds) == [field.name for field in fields(options)]
    for name, kind in held.items():
        assert words(kind) <= words(kinds[name]), name


@pytest.mark.parametrize("verb", ["train", "evaluate", "load", "predict", "vectorize", "build"])
def test_each_verb_has_types(verb: str) -> None:
    shown = signature(getattr(terradapt, verb))
    assert all(p.annotation is not p.empty for p in shown.parameters.values())
    assert shown.return_annotation is not shown.empty


def test_a_map_in_memory_holds_all_that_its_files_hold(scene: Path, mapper, tmp_path: Path) -> None:
    held = terradapt.predict(mapper, scene, confidence=True, scores=True)
    out = tmp_path / "map.tif"
    written = terradapt.predict(mapper, scene, out, confidence=True, scores=True)
    for one in (held, written):
        assert one.classes.dtype == np.uint8
        assert one.classes.shape == one.confidence.shape == one.scores.shape[1:] == (300, 90)
        assert len(one.scores) == 3
        assert np.isnan(one.confidence[20:60, 10:50]).all()
        np.testing.assert_array_equal(np.asarray(one), one.classes)
        assert np.asarray(one, np.int64).dtype == np.int64
        assert one.shape == (300, 90)
        assert (one[:10] == one.classes[:10]).all()
        assert ((one == 2) == (one.classes == 2)).all()
        assert "class 1" in repr(one)
    assert (held == written).all()
    np.testing.assert_allclose(held.confidence, written.confidence, atol=0.0021)
    np.testing.assert_allclose(held.scores, written.scores, atol=1e-3)
    shown = np.where(held.classes == 255, -1, held.scores.argmax(0))
    np.testing.assert_array_equal(shown[held.classes != 255], held.classes[held.classes != 255])
    assert held.areas == written.areas
    valid = held.classes != 255
    assert sum(held.areas.values()) == pytest.approx(valid.sum() * 0.09 / 1e4, rel=1e-3)
    assert held.figures["classes"] == json.loads(out.with_suffix(".json").read_text())["classes"]
    bare = terradapt.predict(mapper, scene, tmp_path / "bare.tif")
    assert bare.confidence is None
    assert bare.scores is None
    again = terradapt.predict(mapper, scene)
    assert again.confidence is None


def test_chosen_classes_keep_their_names(scene: Path, mapper, tmp_path: Path) -> None:
    options = {"classes": ["class 2", "class 0"], "scores": True}
    for out in (None, tmp_path / "map.tif"):
        found = terradapt.predict(mapper, scene, out, **options)
        assert set(np.unique(found.classes)) == {0, 2, 255}
        assert len(found.scores) == 2
        assert len(found.roads("class 2")) >= 0  # scores of the right band, or none


def test_vectors_of_a_map_are_those_of_its_file(mapper, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", noise(64, 64))
    held = terradapt.predict(mapper, scene, scores=True)
    written = terradapt.predict(mapper, scene, tmp_path / "map.tif", scores="float16")
    figures = vectorize_polygons(tmp_path / "map.tif", tmp_path / "a.gpkg")
    for one in (held, written, tmp_path / "map.tif", str(tmp_path / "map.tif")):
        polygons = terradapt.vectorize(one, progress=False)
        assert polygons.summary() == figures
        assert len(polygons.__geo_interface__["features"]) == len(polygons)
        assert "class 1" in repr(polygons)
    assert sum(row["area_m2"] for row in figures.values()) / 1e4 == pytest.approx(
        sum(held.areas.values())
    )
    scores = tmp_path / "map_scores.tif"
    length = vectorize_roads(tmp_path / "map.tif", tmp_path / "b.gpkg", "class 1", scores=scores)
    network = terradapt.vectorize(written, tmp_path / "c.gpkg", roads="class 1")
    assert network.summary() == length
    assert held.roads("class 1").edges.shape[1] == 2
    assert (tmp_path / "c.gpkg").is_file()
    with pytest.raises(OutputError, match="exists already"):
        held.roads(1, tmp_path / "c.gpkg")
    held.polygons(tmp_path / "c.gpkg", overwrite=True, buildings="class 1", min_area=4)
    with pytest.raises(ConfigError, match="no class 'class 7'"):
        held.roads("class 7")
    with pytest.raises(ConfigError, match="no raster of scores"):
        held.roads(1, scores=scores)


def test_two_classes_need_no_name_for_roads(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", noise(64, 64))
    found = Mapper(ConstantPredictor((0.1, 0.9))).predict(scene)
    assert (found.classes == 1).all()
    assert found.roads().unit == "m"


def test_a_notebook_sees_the_picture_and_the_areas(scene: Path, mapper, tmp_path: Path) -> None:
    held = mapper.predict(scene)
    written = mapper.predict(scene, tmp_path / "map.tif")
    for one in (held, written):
        page = one._repr_html_()
        assert "data:image/png;base64," in page
        assert "class 1" in page
        assert "ha" in page
    whole = Image.open(io.BytesIO(held.picture()))
    np.testing.assert_array_equal(np.asarray(whole), held.classes)
    seen = np.asarray(whole.convert("RGBA"))
    assert (seen[held.classes == 1] == (*held.class_map.colours[1], 255)).all()
    assert (seen[held.classes == 255][:, 3] == 0).all()
    small = np.asarray(Image.open(io.BytesIO(written.picture(side=100))))
    assert small.shape == (100, 30)
    np.testing.assert_array_equal(small, held.classes[1::3, ::3])


def test_a_scene_without_a_place_has_no_hectares(mapper, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", noise(40, 40), crs=None, transform=None)
    found = mapper.predict(scene)
    assert all(np.isnan(area) for area in found.areas.values())
    assert "unknown" in found._repr_html_()
    assert found.polygons().unit == "px"


@pytest.mark.parametrize(
    ("call", "named", "meant"),
    [
        (lambda m, s: terradapt.predict(m, s, confidnce=True), "confidnce", "confidence"),
        (lambda m, s: m.predict(s, score=True), "score", "scores"),
        (lambda m, s: m.predict(s, progres=False), "progres", "progress"),
        (lambda m, s: terradapt.predict(m, s, window="wide"), "option window", ""),
        (lambda m, s: terradapt.predict(m, s, scores=7), "option scores", ""),
        (lambda m, s: terradapt.evaluate(m, s, bondary=1.0), "bondary", "boundary"),
        (lambda m, s: terradapt.evaluate(m, s, threshold=2), "threshold of 2", ""),
        (lambda m, s: terradapt.evaluate(m, s, labels="odd"), "option labels", ""),
        (lambda m, s: terradapt.vectorize(s, min_aria=3), "min_aria", "min_area"),
        (lambda m, s: terradapt.vectorize(s, simplify="much"), "option simplify", ""),
        (lambda m, s: terradapt.vectorize(s, simplify=-1), "below 0", ""),
        (lambda m, s: m.predict(s).polygons(blok=3), "blok", "block"),
        (lambda m, s: m.predict(s).roads(1, max_gaps=3), "max_gaps", "max_gap"),
        (lambda m, s: terradapt.load(s, devise="cpu"), "devise", "device"),
        (lambda m, s: terradapt.train("landcover", s, epoch=3), "epoch", "train.epochs"),
        (lambda m, s: terradapt.train("landcovr", s), "landcovr", "landcover"),
        (lambda m, s: terradapt.train("landcover", s, resmue=True), "resmue", "resume"),
        (lambda m, s: terradapt.build("kd-arafnt", 2), "kd-arafnt", "kd-arafnet"),
    ],
)
def test_a_mistake_is_told_with_what_was_meant(
    scene: Path, mapper, call, named: str, meant: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        call(mapper, scene)
    assert named in caught.value.message
    assert f"did you mean '{meant}'" in caught.value.fix or not meant


def test_what_is_no_model_scene_or_map_is_told(scene: Path, mapper, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a int is no model"):
        terradapt.predict(7, scene)
    with pytest.raises(CheckpointError, match="no such file"):
        terradapt.load(tmp_path / "none.onnx")
    with pytest.raises(SceneError, match="is no map"):
        terradapt.vectorize(np.zeros((4, 4)))
    for odd in (np.zeros((3, 64, 64), np.uint8), np.zeros((1, 3, 64, 64)), 5):
        with pytest.raises(TerradaptError):
            terradapt.predict(mapper, odd)


def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "data")
    pairs = (pair.split("=") for pair in SMALL)
    values = {key: None if value == "null" else value for key, value in pairs}
    values |= {"model.encoder.name": "mobilenetv3_small_050", "epochs": 1}
    values["train.epochs"] = 1
    run = terradapt.train("landcover", data, tmp_path / "run", **{
        key: int(value) if str(value).isdecimal() else value for key, value in values.items()
    } | {"train.ema": 0.9})  # fmt: skip
    assert (tmp_path / "run" / "report.html").is_file()
    assert "mIoU" in repr(run)
    assert "class1" in run._repr_html_()
    report = terradapt.evaluate(run, data, "test", tmp_path / "r.json", progress=False)
    assert (
        json.loads((tmp_path / "r.json").read_text())["metrics"]["miou"] == report.metrics["miou"]
    )
    assert "split test" in repr(report)
    assert "class1" in report._repr_html_()
    scene = data / "images" / "3.tif"
    found = terradapt.predict(run, scene, resolution="native")
    opened = terradapt.load(run.checkpoint, device="cpu")
    assert "class0, class1, class2" in repr(opened)
    np.testing.assert_array_equal(opened.predict(scene, resolution="native"), found)
    again = terradapt.evaluate(opened, data, "test")
    assert again.metrics["miou"] == report.metrics["miou"]
    with pytest.raises(OutputError, match="holds a run"):
        terradapt.train("landcover", data, tmp_path / "run")


def test_two_models_of_one_name_are_two(tmp_path: Path) -> None:
    """The name is what ``resume`` tells models apart by."""
    for folder, seed in (("a", 0), ("b", 1)):
        model, meta = small()
        (tmp_path / folder).mkdir()
        for parameter in model.parameters():
            parameter.data.add_(seed)
        checkpoint.save(tmp_path / folder / "checkpoint.safetensors", model, meta)
    names = [terradapt.load(tmp_path / folder).name for folder in "ab"]
    assert names[0] != names[1]
    assert terradapt.load(tmp_path / "a", tta=True).name == f"{names[0]} tta"


def test_progress_is_one_line_drawn_anew(monkeypatch, capsys) -> None:
    monkeypatch.setattr("terradapt.progress._LIVE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with text_bar(4, "map", "windows") as advance:
        for _ in range(4):
            advance(1)
    drawn = capsys.readouterr().err
    assert drawn.count("\n") == 1
    assert drawn.count("\r") == 5
    assert "4/4 windows" in drawn.split("\r")[-1]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with text_bar(4, "map", "windows") as advance:
        advance(4)
    assert not capsys.readouterr().err  # short work says nothing in a file


def test_pydoc_of_a_map_names_its_parts() -> None:
    from terradapt.predictors.scene_map import SceneMap

    text = pydoc.plain(pydoc.render_doc(SceneMap))
    for part in ("classes", "confidence", "scores", "areas", "polygons", "roads"):
        assert f" {part}" in text
