"""Words instead of tracebacks, kind of file by kind of file, through the command line."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasterio.rpc import RPC
from rasterio.transform import Affine

from scene_files import noise, write_scene
from terradapt import checkpoint, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.meta import Meta
from terradapt.raster import CRS
from terradapt.vector.geopackage import write_geopackage
from training_files import write_folder

MODEL = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "checkpoint.safetensors"
    meta = Meta(RunConfig(model=MODEL), ClassMap(("a", "b")), InputSpec(), 64)
    checkpoint.save(path, models.build(MODEL, 2), meta)
    return path


@pytest.mark.parametrize(
    "override",
    [
        "data.bands=[1,2,3",
        "data.bands=[]",
        "data.bands=[0,1,2]",
        "name=@x",
        "description=100%: x",
        "train.seed=-1",
        "data.split_seed=-1",
        "augment.scale=[0,0]",
        "augment.scale=[2,1]",
        "augment.hflip=1.5",
        "optim.lr=.nan",
        "optim.clip=.inf",
        "train.ema=1",
        "data.crop=2020-13-45",
    ],
)
def test_overrides(terradapt, tmp_path, override):
    write_folder(tmp_path / "d", 3)
    done = terradapt("train", "demo", "--data", tmp_path / "d", "-o", tmp_path / "r", override)
    assert done.is_user_error(override.partition("=")[0])
    assert not (tmp_path / "r").exists()


def test_a_recipe_in_another_encoding(terradapt, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes("name: ä".encode("latin1"))
    done = terradapt("train", path, "--data", tmp_path, "-o", tmp_path / "r")
    assert done.is_user_error(str(path), "UTF-8", "line 1")


def test_options_of_a_folder(terradapt, tmp_path):
    done = terradapt("data", "folder", tmp_path, "-o", tmp_path / "q", "resolution=[")
    assert done.is_user_error("'resolution=['")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("names: [a, 2020-13-45]", "month"),
        ("names: [a, 2020-01-01]", "names.1"),
        ("names: [no, yes]", "names.0"),
        ("names: [a, b]\nvalues: [0, .inf]", "values.1"),
        ("names: [a, b]\nvalues: [0, 0]", "two classes have one value"),
        ("names: [a, b]\nvalues: [0]", "1 values for 2 names"),
        ("names: [a, b]\ncolours: [[0, 0, 0], [1, 2]]", "colours.1"),
        ("names: [a, b]\ncolours: ['#0000zz', '#ffffff']", "colours.0"),
        ("names: [a, b]\ncolours: [[0, 0, 999999999999999999999], [1, 2, 3]]", "colours.0.2"),
        ("names: [a, b]\nthreshold: 300", "threshold"),
        ("names: [a, b]\nevaluated: [c]", "evaluated"),
        ("names: 7", "names"),
    ],
)
def test_classes_files(terradapt, tmp_path, text, named):
    write_folder(tmp_path, 3)
    (tmp_path / "classes.yaml").write_text(text)
    done = terradapt("data", "check", tmp_path)
    assert done.is_user_error("classes.yaml", named)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"train": [1]}', '{"train": "s0"}', '{"train": {"a": 1}}', "[]"]
)
def test_splits_files(terradapt, tmp_path, text):
    write_folder(tmp_path, 3)
    (tmp_path / "splits.json").write_text(text)
    assert terradapt("data", "check", tmp_path).is_user_error("splits.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("items", {}),
        ("classes", []),
        ("classes", {"names": [1]}),
        ("label", {"kind": "new"}),
        ("label", {"kind": "index", "values": {"a": 1}}),
        ("label", {"kind": "vector", "vector": {"colum": 1}}),
        ("name", 7),
        ("items", [{"id": "a", "image": "a.tif", "height": -1, "width": 2}]),
        ("items", [{"id": "a", "image": "a.tif", "height": 2, "width": 2, "resolution": -1}]),
        ("items", [{"id": "a", "image": 7, "height": 2, "width": 2}]),
        ("items", [{"id": "a", "image": "a", "height": 2, "width": 2}] * 2),
    ],
)
def test_dataset_indexes(terradapt, tmp_path, key, value):
    write_folder(tmp_path / "d", 3)
    assert terradapt("data", "folder", tmp_path / "d", "-o", tmp_path / "q").status == 0
    path = tmp_path / "q" / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert terradapt("data", "check", tmp_path / "q").is_user_error("dataset.json")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda m: "[" * 100_000, "damaged"),
        (lambda m: {**m, "window": "abc"}, "window"),
        (lambda m: {**m, "window": 10**30}, "window"),
        (lambda m: {**m, "spec": {**m["spec"], "mean": []}}, "means"),
        (lambda m: {**m, "spec": {**m["spec"], "std": [float("nan")] * 3}}, "std"),
        (lambda m: {**m, "classes": {**m["classes"], "colours": [[10**30, 0, 0]] * 2}}, "colour"),
    ],
)
def test_checkpoints(terradapt, ckpt, tmp_path, edit, named):
    raw = ckpt.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8 : 8 + size])
    told = edit(json.loads(head["__metadata__"]["terradapt"]))
    head["__metadata__"]["terradapt"] = told if isinstance(told, str) else json.dumps(told)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])
    scene = write_scene(tmp_path / "s.tif", noise(80, 90))
    done = terradapt("predict", path, scene, "-o", tmp_path / "o.tif")
    assert done.is_user_error("odd.safetensors", named)


def layer(path, shapes, crs, names=("a", "b")):
    fields = {"class": np.array(names[: len(shapes)], object)}
    write_geopackage(path, [("l", "Polygon", np.array(shapes, object), fields)], crs)
    return path


HERE = shapely.box(500_003, 5_399_980, 500_012, 5_399_990)
BESIDE = shapely.box(500_012, 5_399_980, 500_024, 5_399_997)


def test_polygons_without_a_crs_lie_in_the_scenes(terradapt, ckpt, tmp_path):
    scene = write_scene(tmp_path / "s.tif", noise(80, 90))
    maps = []
    for crs in (None, CRS.from_epsg(32633)):
        area = layer(tmp_path / "a.gpkg", [HERE], crs)
        done = terradapt("predict", ckpt, scene, "-o", tmp_path / f"{crs}.tif", "--aoi", area)
        assert done.status == 0, done.err
        with rasterio.open(tmp_path / f"{crs}.tif") as file:
            maps.append(file.read(1))
    assert np.array_equal(*maps)
    cols = np.nonzero(maps[0] != 255)[1]
    assert (cols.min(), cols.max()) == (10, 39)  # 3 to 12 m at 0.3 m


def no_layer(path):
    with sqlite3.connect(path) as base:
        base.executescript(
            "pragma application_id = 1196444487; pragma user_version = 10300;"
            "create table t(fid integer primary key, class text);"
        )
    return path


def empty_collection(path):
    path = path.with_suffix(".geojson")
    path.write_text('{"type": "FeatureCollection", "features": []}')
    return path


def not_a_number(path):
    path = path.with_suffix(".geojson")
    ring = "[[15, 48], [NaN, 48], [15, 49], [15, 48]]"
    path.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, '
        f'"geometry": {{"type": "Polygon", "coordinates": [{ring}]}}}}]}}'
    )
    return path


AREAS = {
    "no layer": no_layer,
    "empty": empty_collection,
    "NaN": not_a_number,
    "elsewhere": lambda p: layer(p, [HERE], CRS.from_epsg(32612)),
    "another body": lambda p: layer(p, [HERE], CRS.from_string("+proj=longlat +R=1737400")),
    "a folder": lambda p: p.mkdir() or p,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # pyogrio's, of odd files
@pytest.mark.parametrize("kind", AREAS)
def test_areas_of_interest(terradapt, ckpt, tmp_path, kind):
    scene = write_scene(tmp_path / "s.tif", noise(80, 90))
    area = AREAS[kind](tmp_path / "area.gpkg")
    done = terradapt("predict", ckpt, scene, "-o", tmp_path / "o.tif", "--aoi", area)
    assert done.is_user_error("area")
    assert not (tmp_path / "o.tif").exists()


def test_label_polygons_without_a_crs(terradapt, tmp_path):
    for i in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        write_scene(tmp_path / f"images/{i}.tif", noise(80, 90, seed=i))
    layer(tmp_path / "labels.gpkg", [HERE, BESIDE], None)
    assert terradapt("data", "check", tmp_path).status == 0


@pytest.mark.parametrize(
    ("transform", "crs", "named"),
    [
        (Affine(np.nan, 0, 0, 0, np.nan, 0), "EPSG:32633", "places no pixel"),
        (Affine(0.3, 0, np.inf, 0, -0.3, 0), "EPSG:32633", "places no pixel"),
        (Affine(0.3, 0.3, 0, -0.3, -0.3, 0), "EPSG:32633", "places no pixel"),
        (Affine(1, 0, 200, 0, -1, 200), "EPSG:4326", "200 degrees of latitude"),
    ],
)
def test_absurd_transforms(terradapt, ckpt, tmp_path, transform, crs, named):
    scene = write_scene(tmp_path / "s.tif", noise(40, 50), transform=transform, crs=crs)
    for call in (("predict", ckpt, scene, "-o", "o.tif"), ("vectorize", scene, "-o", "o.gpkg")):
        done = terradapt(*call[:-1], tmp_path / call[-1])
        assert done.is_user_error("s.tif", named)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tif"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_located_by_polynomials_gets_its_remedy(terradapt, ckpt, tmp_path):
    scene = write_scene(tmp_path / "s.tif", noise(40, 50), crs=None, transform=None)
    ones = [1.0, *[0.0] * 19]
    with rasterio.open(scene, "r+") as file:
        file.rpcs = RPC(100, 1, 48, 1, ones, ones, 20, 20, 15, 1, ones, ones, 20, 20)
    done = terradapt("predict", ckpt, scene, "-o", tmp_path / "o.tif")
    assert done.is_user_error("rational polynomials (RPC) only")
    assert done.errors[1] == f"fix: rectify it first: gdalwarp -rpc {scene} rectified.tif"


def test_a_name_that_is_no_utf8(terradapt, ckpt, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/K\xf6ln.tif")
    write_scene(tmp_path / "x.tif", noise(40, 50)).rename(odd)
    named = r"K\xf6ln.tif: its name is no UTF-8"
    assert terradapt("predict", ckpt, odd, "-o", tmp_path / "o.tif").is_user_error(named)
    out = tmp_path / "maps" / "o.tif"
    assert terradapt("predict", ckpt, tmp_path, "-o", out).is_user_error(named)
    scene = write_scene(tmp_path / "x.tif", noise(40, 50))
    assert terradapt("predict", ckpt, scene, "-o", odd).is_user_error(named)


@pytest.mark.parametrize(
    "arguments",
    [
        "predict CKPT SCENE -o OUT.png",
        "predict CKPT SCENE SCENE2 -o OUT.jp2",
        "predict CKPT SCENE -o s3://b/m.tif",
        "predict CKPT SCENE -o gs://b/folder",
        "predict CKPT SCENE -o /vsimem/m.tif",
        "predict CKPT SCENE SCENE2 -o s3://b/folder",
        "vectorize SCENE -o s3://b/m.gpkg",
        "vectorize SCENE -o OUT.png",
        "export CKPT -o s3://b/m.onnx",
        "export CKPT -o OUT.png",
        "train demo --data DATA -o s3://b/run",
        "data folder DATA -o s3://b/set",
        "data check DATA -o https://b/page.html",
        "eval CKPT --data DATA -o s3://b/e",
        "tables -o s3://b/t",
        "bench -o s3://b/bench",
        "demo -o s3://b/demo",
        "push CKPT me/x --save s3://b/p",
    ],
)
def test_outputs_that_cannot_be(terradapt, ckpt, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "data", 3)
    scenes = [write_scene(tmp_path / f"{n}.tif", noise(40, 50)) for n in "ab"]
    terradapt("data", "check", "data")  # writes the splits
    before = sorted(tmp_path.rglob("*"))
    held = {"CKPT": ckpt, "SCENE": scenes[0], "SCENE2": scenes[1], "DATA": "data"}
    words = [held.get(w, w.replace("OUT", str(tmp_path / "out"))) for w in arguments.split()]
    assert terradapt(*words).is_user_error()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_lacks_memory_is_told_what_to_lower(terradapt, ckpt, tmp_path, monkeypatch):
    from terradapt import scene

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(scene, "predict_scene", fail)
    path = write_scene(tmp_path / "s.tif", noise(40, 50))
    for failure in (  # noqa: B007  raised above
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ):
        done = terradapt("predict", ckpt, path, "-o", tmp_path / "o.tif")
        assert done.is_user_error("memory")
        assert "--batch, then --window" in done.errors[1]


def test_a_defect_owns_up(terradapt, ckpt, tmp_path, monkeypatch):
    from terradapt import scene

    monkeypatch.setattr(scene, "predict_scene", lambda *_, **__: 1 / 0)
    path = write_scene(tmp_path / "s.tif", noise(40, 50))
    done = terradapt("predict", ckpt, path, "-o", tmp_path / "o.tif")
    assert done.status == 70
    assert "a fault in terradapt, at test_words.py" in done.errors[0]
    assert "ZeroDivisionError" in done.errors[0]
    assert "--debug" in done.errors[1]


def test_one_damaged_scene_does_not_stop_the_others(terradapt, ckpt, tmp_path):
    scenes = [write_scene(tmp_path / f"s{i}.tif", noise(80, 90, seed=i)) for i in range(4)]
    whole = scenes[1].read_bytes()
    scenes[1].write_bytes(whole[: len(whole) // 3])
    scenes[2].write_bytes(b"")
    out = tmp_path / "out"
    done = terradapt("predict", ckpt, *scenes, "-o", out)
    assert done.status == 2
    assert sorted(p.name for p in out.glob("*.tif")) == ["s0.tif", "s3.tif"]
    assert done.errors[-2].startswith("error: 2 of 4 scenes have no map: ")
    assert str(scenes[1]) in done.errors[0]
    assert str(scenes[2]) in done.errors[2]
    for i in (1, 2):
        assert str(scenes[i]) in done.errors[-2]
        write_scene(scenes[i], noise(80, 90, seed=i))
    assert terradapt("predict", ckpt, *scenes, "-o", out, "--resume").status == 0
    assert len(list(out.glob("*.tif"))) == 4


@pytest.mark.parametrize("option", [("--device", "foo"), ("--precision", "fp8")])
def test_what_no_machine_has(terradapt, ckpt, tmp_path, option):
    path = write_scene(tmp_path / "s.tif", noise(40, 50))
    assert terradapt("predict", ckpt, path, "-o", tmp_path / "o.tif", *option).is_user_error(
        option[1]
    )
    assert not list(Path(tmp_path).glob("o.tif*"))
