"""A result is never written over what it is made from, whatever the path is called."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_files import write_folder
from scene_files import noise, write_scene
from terradapt import checkpoint, hub, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.data import open_dataset
from terradapt.errors import OutputError
from terradapt.export.run import export_checkpoint
from terradapt.files import check_output
from terradapt.meta import Meta
from terradapt.predictors import load
from terradapt.preflight.check import check_dataset
from terradapt.preflight.page import write_page
from terradapt.report import Report, write_report
from terradapt.scene import PredictOptions, predict_scene
from terradapt.training.run import Run
from terradapt.vector import vectorize_polygons, vectorize_roads

MODEL = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "checkpoint.safetensors"
    meta = Meta(RunConfig(model=MODEL), ClassMap(("ground", "roof")), InputSpec(resolution=0.3), 64)
    checkpoint.save(path, models.build(MODEL, 2), meta)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    (tmp_path / "flight").mkdir()
    return write_scene(tmp_path / "flight" / "scene.tif", noise(70, 60))


def held(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


SPELLINGS: dict[str, Callable[[Path, Path], Path]] = {
    "itself": lambda scene, _: scene,
    "folder": lambda scene, _: scene.parent,
    "relative": lambda scene, _: Path(os.path.relpath(scene)),
    "dots": lambda scene, _: scene.parent / ".." / scene.parent.name / scene.name,
    "symlink": lambda scene, tmp: _linked(tmp / "link.tif", lambda p: p.symlink_to(scene)),
    "hard link": lambda scene, tmp: _linked(tmp / "hard.tif", lambda p: p.hardlink_to(scene)),
    "linked folder": lambda scene, tmp: (
        _linked(tmp / "way", lambda p: p.symlink_to(scene.parent)) / "scene.tif"
    ),
}


def _linked(path: Path, link: Callable[[Path], None]) -> Path:
    link(path)
    return path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_scene_is_not_written_over(terradapt, trained, scene, tmp_path, spelling) -> None:
    out = SPELLINGS[spelling](scene, tmp_path)
    before = held(tmp_path)
    for more in ((), ("--overwrite",), ("--resume",)):
        done = terradapt("predict", trained, scene, "-o", out, *more)
        assert done.is_user_error("would be written over")
    assert held(tmp_path) == before
    file = out / "scene.tif" if out.is_dir() else out
    with pytest.raises(OutputError, match="would be written over"):
        predict_scene(load(trained), str(scene), file, PredictOptions(overwrite=True))
    assert held(tmp_path) == before


def test_nor_is_anything_else_that_is_read(terradapt, trained, scene, tmp_path) -> None:
    other = write_scene(tmp_path / "flight" / "other.tif", noise(70, 60), transform=None)
    area = tmp_path / "area.json"
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    shape = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    area.write_text(json.dumps({"type": "FeatureCollection", "features": [shape]}))
    mask = write_scene(tmp_path / "mask.tif", np.ones((1, 70, 60), np.uint8))
    vrt = tmp_path / "a.vrt"
    box = 'xOff="0" yOff="0" xSize="60" ySize="70"'
    vrt.write_text(
        '<VRTDataset rasterXSize="60" rasterYSize="70"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>5e5,0.3,0,54e5,0,-0.3</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{b}"><SimpleSource><SourceFilename '
            f'relativeToVRT="1">flight/scene.tif</SourceFilename><SourceBand>{b}</SourceBand>'
            f"<SrcRect {box}/><DstRect {box}/></SimpleSource></VRTRasterBand>"
            for b in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    scores = write_scene(tmp_path / "map_scores.tif", noise(70, 60))
    before = held(tmp_path)
    calls = [
        (vrt, "-o", scene),
        (scene, "--aoi", mask, "-o", mask),
        (scene, "--aoi", area, "-o", tmp_path / "area.tif"),  # its figures are area.json
        (scores, "--scores", "-o", tmp_path / "map.tif"),
        (scene, other, "-o", scene.parent),
        (scene, scores, "--mosaic", "-o", scores),
        (scene.parent, "-o", scene),
    ]
    for call in calls:
        done = terradapt("predict", trained, *call)
        assert done.is_user_error("would be written over"), call
        assert held(tmp_path) == before, call
    done = terradapt("predict", trained, scene.parent, "-o", scene.parent / "new.tif")
    assert done.is_user_error("whose rasters are the scene")
    assert held(tmp_path) == before


def test_vectors_and_exports_spare_their_inputs(terradapt, trained, scene, tmp_path) -> None:
    ids = write_scene(tmp_path / "ids.tif", noise(70, 60, 1) % 2)
    for suffix in (".gpkg", ".geojson", ".json"):
        path = _linked(tmp_path / f"out{suffix}", lambda p: p.hardlink_to(ids))
        before = held(tmp_path)
        done = terradapt("vectorize", ids, "-o", path, "--overwrite")
        assert done.is_user_error("would be written over")
        for write in (vectorize_polygons, vectorize_roads):
            with pytest.raises(OutputError, match="would be written over"):
                write(ids, path, overwrite=True)
        assert held(tmp_path) == before
    model = _linked(tmp_path / "m.onnx", lambda p: p.symlink_to(trained))
    before = trained.read_bytes()
    assert terradapt("export", trained, "-o", model).is_user_error("would be written over")
    with pytest.raises(OutputError, match="would be written over"):
        export_checkpoint(trained, trained)
    with pytest.raises(OutputError, match="would be written over"):
        hub.save(trained, trained.parent)
    assert terradapt("push", trained, "a/b", "--save", trained.parent).status == 2
    assert trained.read_bytes() == before


def test_reports_runs_and_pages_spare_the_data(terradapt, trained, tmp_path) -> None:
    root = write_folder(tmp_path / "data")
    dataset = open_dataset(root)
    dataset.save()
    (root / "labels" / "s0.md").write_text("notes")
    before = held(tmp_path)
    for path in (root / "dataset.json", root / "splits.json", root / "splits.html"):
        done = terradapt("eval", trained, "--data", root, "--split", "all", "-o", path)
        assert done.is_user_error("would be written over"), path
    report = Report({"per_class": {}}, dataset.classes, reads=dataset.files)
    with pytest.raises(OutputError, match="would be written over"):
        write_report(report, root / "splits.json")
    page = check_dataset(root)
    for path in (root / "images" / "s0.tif", root / "dataset.json"):
        with pytest.raises(OutputError):
            write_page(page, path)
    config = RunConfig()
    with pytest.raises(OutputError, match="is the dataset's folder"):
        Run(root).check(dataset, config)
    teacher = {"objective.distill.teacher": str(trained)}
    with pytest.raises(OutputError, match="would be written over"):
        Run(trained.parent).check(dataset, config.with_values(teacher))
    Run(tmp_path / "run").check(dataset, config.with_values(teacher))
    assert held(tmp_path) == before


def test_a_demo_spares_what_lies_there(terradapt, tmp_path) -> None:
    write_scene(tmp_path / "scene.tif", noise(20, 20))
    before = held(tmp_path)
    assert terradapt("demo", "-o", tmp_path).is_user_error("scene.tif: is there already")
    assert held(tmp_path) == before


def test_another_file_of_the_same_bytes_may_be_written_over(trained, scene, tmp_path) -> None:
    out = shutil.copy(scene, tmp_path / "map.tif")
    check_output(out, reads=[scene, None, tmp_path / "none", "https://example.com/a.tif"])
    figures = predict_scene(load(trained), str(scene), Path(out), PredictOptions(overwrite=True))
    assert figures["valid_pixels"] == 70 * 60
    assert figures["notes"] == []
