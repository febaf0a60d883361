"""``terradapt predict`` with a real checkpoint: every option once, and bad input."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
import torch
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine
from rio_cogeo import cog_validate

from scene_files import PLACE, noise, write_scene
from terradapt import checkpoint, load, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.grid import Window
from terradapt.meta import Meta
from terradapt.raster import SceneReader

MODEL = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))
CLASSES = ClassMap(("ground", "roof", "tree"))


def save(path, spec):
    torch.manual_seed(0)
    meta = Meta(RunConfig(model=MODEL), CLASSES, spec, 64)
    checkpoint.save(path, models.build(MODEL, 3), meta)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run") / "checkpoint.safetensors",
                InputSpec(resolution=0.3))  # fmt: skip


@pytest.fixture
def scene(tmp_path):
    pixels = noise(150, 130)
    pixels[:, :40, :50] = 0
    return write_scene(tmp_path / "scene.tif", pixels, nodata=0)


def test_a_scene_becomes_a_map(terradapt, trained, scene, tmp_path):
    out = tmp_path / "maps" / "map.tif"
    done = terradapt("predict", trained, scene, "-o", out, "--scores", "--confidence")
    assert done.status == 0, done.err
    assert "roof" in done.out
    with rasterio.open(out) as file, rasterio.open(scene) as source:
        classes = file.read(1)
        assert (file.crs, file.transform, file.shape) == (
            source.crs, source.transform, source.shape)  # fmt: skip
        np.testing.assert_array_equal(classes == 255, (source.read() == 0).all(0))
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["valid_pixels"] == (classes < 255).sum()
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "map.json", "map.qml", "map.tif", "map.tif.aux.xml", "map_confidence.qml",
        "map_confidence.tif", "map_scores.tif",
    ]  # fmt: skip
    assert cog_validate(out, strict=True, quiet=True)[0]


def test_a_run_stands_for_its_checkpoint(terradapt, trained, scene, tmp_path):
    run = trained.parent
    assert terradapt("predict", trained, scene, "-o", tmp_path / "file.tif").status == 0
    done = terradapt("predict", run, scene, "-o", tmp_path / "run.tif")
    assert done.status == 0, done.err
    maps = [(tmp_path / f"{name}.tif").read_bytes() for name in ("file", "run")]
    assert maps[0] == maps[1]
    assert (load(run).predict(scene) == load(trained).predict(scene)).all()
    assert terradapt("export", run, "-o", tmp_path / "m.onnx").status == 0
    assert terradapt("push", run, "o/n", "--save", tmp_path / "repo").status == 0
    assert (tmp_path / "repo" / "checkpoint.safetensors").is_file()
    empty = tmp_path / "empty"
    empty.mkdir()
    for call in (["predict", empty, scene, "-o", tmp_path / "x.tif"], ["export", empty]):
        assert terradapt(*call).is_user_error("is a folder without checkpoint.safetensors")


def test_options_reach_the_result(terradapt, trained, scene, tmp_path):
    out, mask = tmp_path / "map.tif", np.zeros((1, 150, 130), np.uint8)
    mask[:, 60:120, 60:120] = 1
    area = write_scene(tmp_path / "area.tif", mask)
    done = terradapt(
        "predict", trained, scene, "-o", out, "--tta", "--classes", "ground,tree", "--aoi", area,
        "--scores", "--scores-as", "uint8", "--resolution", "0.6", "--overlap", "0.5",
        "--margin", "4", "--batch", "2", "--bands", "3,2,1", "--nodata", "7", "--window", "96",
    )  # fmt: skip
    assert done.status == 0, done.err
    classes = rasterio.open(out).read(1)
    np.testing.assert_array_equal(classes < 255, mask[0] > 0)
    assert not (classes == 1).any()
    with rasterio.open(tmp_path / "map_scores.tif") as file:
        assert file.descriptions == ("ground", "tree")
        assert file.dtypes[0] == "uint8"


def test_many_scenes_a_folder_and_a_mosaic(terradapt, trained, tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name, shift in (("a", 0), ("b", 100)):
        place = Affine(0.3, 0, PLACE.c + 0.3 * shift, 0, -0.3, PLACE.f)
        write_scene(folder / f"{name}.tif", noise(90, 100), transform=place)
    files = sorted(folder.iterdir())
    assert terradapt("predict", trained, *files, "-o", tmp_path / "each").status == 0
    assert {p.name for p in (tmp_path / "each").glob("*.tif")} == {"a.tif", "b.tif"}
    assert terradapt("predict", trained, folder, "-o", tmp_path / "one.tif").status == 0
    assert terradapt("predict", trained, *files, "--mosaic", "-o", tmp_path / "two.tif").status == 0
    assert rasterio.open(tmp_path / "one.tif").shape == (90, 200)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()


@pytest.mark.parametrize("place", ["map.tif", "folder"])
def test_a_map_is_replaced_only_with_overwrite(terradapt, trained, scene, tmp_path, place):
    command = ("predict", trained, scene, "-o", tmp_path / place)
    out = tmp_path / ("map.tif" if place == "map.tif" else "folder/scene.tif")
    assert terradapt(*command).status == 0
    before = {p: p.read_bytes() for p in out.parent.iterdir() if p.is_file()}
    done = terradapt(*command, "--tta")
    assert done.is_user_error(out.name, "exists") and "--overwrite" in done.errors[1]
    assert {p: p.read_bytes() for p in out.parent.iterdir() if p.is_file()} == before
    assert terradapt(*command, "--overwrite", "--classes", "tree").status == 0
    classes = rasterio.open(out).read(1)
    assert set(np.unique(classes)) == {2, 255}


def test_a_class_that_is_nowhere_is_absent(terradapt, trained, scene, tmp_path):
    out = tmp_path / "map.tif"
    done = terradapt("predict", trained, scene, "-o", out, "--classes", "roof")
    rows = {line.split()[0]: line for line in done.out.splitlines()[1:]}
    assert "100.00%" in rows["roof"] and "absent" not in rows["roof"]
    for name in ("ground", "tree"):
        assert "absent" in rows[name] and "%" not in rows[name] and "ha" not in rows[name]


def test_resume_finds_a_finished_result(terradapt, trained, scene, tmp_path):
    out = tmp_path / "map.tif"
    assert terradapt("predict", trained, scene, "-o", out).status == 0
    before = out.stat().st_mtime_ns
    assert terradapt("predict", trained, scene, "-o", out, "--resume").status == 0
    assert out.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_local_workers_give_the_same_classes(terradapt, trained, tmp_path):
    path = write_scene(tmp_path / "scene.tif", noise(1200, 200))
    maps = [tmp_path / "here.tif", tmp_path / "workers.tif"]
    assert terradapt("predict", trained, path, "-o", maps[0], "--batch", 2).status == 0
    done = terradapt("predict", trained, path, "-o", maps[1], "--batch", 2, "--cluster", "local",
                     "--workers", 2)  # fmt: skip
    assert done.status == 0, done.err
    here, workers = (rasterio.open(m).read(1) for m in maps)
    assert (here != workers).mean() < 1e-3  # the threads of a worker are other than here


@pytest.mark.slow
def test_ctrl_c_leaves_a_resumable_state(terradapt, trained, tmp_path):
    path, out = write_scene(tmp_path / "scene.tif", noise(1600, 900)), tmp_path / "map.tif"
    command = [sys.executable, "-m", "terradapt", "predict", trained, path, "-o", out]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as child:
        journal = tmp_path / "map.tif.part" / "journal.jsonl"
        while child.poll() is None and not (journal.exists() and b"row" in journal.read_bytes()):
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()
    assert child.returncode == 130, said
    assert "--resume" in said
    assert "Traceback" not in said
    assert not out.exists()
    assert terradapt("predict", trained, path, "-o", out, "--resume").status == 0
    assert cog_validate(out, strict=True, quiet=True)[0]


@pytest.mark.parametrize("name", ["rotated", "plain", "empty"])
def test_unusual_scenes_work_and_are_told(terradapt, trained, tmp_path, name):
    pixels, options, said = noise(90, 80), {}, "px"
    if name == "rotated":
        options = {"transform": Affine(0.24, 0.18, 500_000, 0.18, -0.24, 5_400_000)}
    elif name == "plain":
        options, said = {"crs": None, "transform": None}, "no CRS"
    else:
        pixels, options, said = np.zeros_like(pixels), {"nodata": 0}, "no valid pixel"
    path = write_scene(tmp_path / "scene.tif", pixels, **options)
    done = terradapt("predict", trained, path, "-o", tmp_path / "map.tif")
    assert done.status == 0, done.err
    assert said in done.out
    with SceneReader(tmp_path / "map.tif") as out, SceneReader(path) as source:
        assert out.transform == source.transform
        assert out.crs == source.crs
        classes, _ = out.read(Window(0, 0, 90, 80))
        assert (classes == 255).all() == (name == "empty")


def test_a_float_scene_hides_its_nan(terradapt, tmp_path):
    spec = InputSpec(dtype="float32", stretch=(2.0, 98.0))
    trained = save(tmp_path / "checkpoint.safetensors", spec)
    pixels = noise(90, 80).astype(np.float32)
    pixels[1, 20:30] = np.nan
    path = write_scene(tmp_path / "scene.tif", pixels)
    done = terradapt("predict", trained, path, "-o", tmp_path / "map.tif")
    assert done.status == 0, done.err
    classes = rasterio.open(tmp_path / "map.tif").read(1)
    np.testing.assert_array_equal(classes == 255, np.isnan(pixels).any(0))


def broken(kind, tmp_path):
    """Write a bad scene; return it with words that the error must hold."""
    path = tmp_path / "bad.tif"
    if kind == "truncated":
        write_scene(path, noise(700, 600), interleave="pixel")
        os.truncate(path, path.stat().st_size // 2)
        return path, "cannot be read"
    if kind == "gcps":
        points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r in (0, 8) for c in (0, 8)]
        return write_scene(path, noise(9, 9), crs="EPSG:4326", transform=None, gcps=points), "gro"
    if kind in ("zero-byte", "text"):
        path.write_bytes(b"" if kind == "zero-byte" else b"hello, this is no image")
        return path, "empty" if kind == "zero-byte" else "no raster"
    if kind == "missing":
        return path, "no such file"
    pixels = {"bands": noise(90, 80, 2), "16-bit": noise(90, 80).astype(np.uint16) * 9,
              "float": noise(90, 80).astype(np.float32)}[kind]  # fmt: skip
    words = {"bands": "has 2 bands", "16-bit": "uint16", "float": "float32"}[kind]
    return write_scene(path, pixels), words


KINDS = ["truncated", "gcps", "zero-byte", "text", "missing", "bands", "16-bit", "float"]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_scenes_are_told_in_two_lines(terradapt, trained, tmp_path, kind):
    path, words = broken(kind, tmp_path)
    out = tmp_path / "maps" / "map.tif"
    assert terradapt("predict", trained, path, "-o", out).is_user_error("bad.tif", words)
    assert not [p for p in out.parent.glob("*") if p.is_file()]


@pytest.mark.parametrize("kind", ["pickle", "truncated", "empty", "missing"])
def test_bad_checkpoints_are_told_in_two_lines(terradapt, trained, scene, tmp_path, kind):
    path, content = tmp_path / "bad.safetensors", trained.read_bytes()
    if kind != "missing":
        contents = {"pickle": pickle.dumps({"a": 1}), "truncated": content[:-100], "empty": b""}
        path.write_bytes(contents[kind])
    done = terradapt("predict", path, scene, "-o", tmp_path / "maps" / "map.tif")
    assert done.is_user_error("bad.safetensors")
    assert not list((tmp_path / "maps").glob("*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--window", "50"], "window of 50"),
        (["--overlap", "0.99"], "overlap"),
        (["--resolution", "high"], "'high' is no resolution"),
        (["--classes", "water"], "no class 'water'"),
        (["--bands", "nir,1,2"], "no band named 'nir'"),
        (["--aoi", "nowhere.gpkg"], "nowhere.gpkg"),
        (["--device", "cuda:7"], "cuda:7"),
    ],
)
def test_options_that_do_not_fit_are_told(terradapt, trained, scene, tmp_path, options, words):
    done = terradapt("predict", trained, scene, "-o", tmp_path / "maps" / "map.tif", *options)
    assert done.is_user_error(words)
    assert not list((tmp_path / "maps").glob("*"))


def test_a_place_that_cannot_be_written_is_told_before_any_work(
    terradapt, trained, scene, tmp_path
):
    (tmp_path / "file").write_text("")
    done = terradapt("predict", trained, scene, "-o", tmp_path / "file" / "map.tif")
    assert done.is_user_error("map.tif")
    done = terradapt("predict", trained, scene, scene, "-o", tmp_path / "map.tif")
    assert done.is_user_error("one file for 2 scenes")
    assert "--mosaic" in done.err
    done = terradapt("predict", "--each", trained, scene, scene, "-o", tmp_path / "map.tif")
    assert done.is_user_error("one file for 2 scenes")
    assert "--mosaic" not in done.err


def test_each_raster_of_a_folder_is_a_map(terradapt, trained, tmp_path):
    """Of any kind together; what is damaged is told and listed, the others are mapped."""
    photos = tmp_path / "photos"
    photos.mkdir()
    write_scene(photos / "a.tif", noise(70, 80))
    write_scene(photos / "b.tif", noise(60, 90), crs="EPSG:32601")
    write_scene(photos / "c.png", noise(50, 50), crs=None, transform=None, driver="PNG")
    (photos / "d.tif").write_bytes(b"hello, this is no image")
    (photos / "notes.txt").write_text("none")
    out = tmp_path / "maps"
    done = terradapt("predict", trained, "--each", photos, "-o", out)
    assert done.status == 2
    assert {p.name for p in out.glob("*.tif")} == {"a.tif", "b.tif", "c.tif"}
    assert done.errors[-2] == f"error: 1 of 4 scenes have no map: {photos / 'd.tif'}"
    assert f"{photos / 'd.tif'}: is no raster" in done.err
    write_scene(photos / "d.tif", noise(40, 40))
    before = (out / "a.tif").stat().st_mtime_ns
    again = terradapt("predict", trained, "--each", photos, "-o", out, "--resume")
    assert again.status == 0, again.err
    assert (out / "d.tif").is_file() and (out / "a.tif").stat().st_mtime_ns == before


def test_folders_that_are_no_mosaic_say_which_word_to_use(terradapt, trained, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "maps"
    photos.mkdir()
    write_scene(photos / "a.tif", noise(70, 80))
    write_scene(photos / "b.tif", noise(60, 90), crs="EPSG:32601")
    done = terradapt("predict", trained, photos, "-o", out)
    assert done.is_user_error("b.tif", "CRS") and "--each" in done.errors[1]
    assert not out.exists()
    write_scene(photos / "a.tif", noise(70, 80), crs=None, transform=None)
    done = terradapt("predict", trained, photos, "-o", out)
    assert done.is_user_error("a.tif", "has no CRS") and "--each" in done.errors[1]
    for name in ("a.tif", "b.tif"):
        write_scene(photos / name, noise(70, 80))
    done = terradapt("predict", trained, photos, "-o", out)
    assert done.status == 0 and "b.tif covers the same ground as a.tif" in done.err
    assert "--each" in done.err
    far = Affine.translation(9000, 0) @ Affine(0.3, 0, 500_000, 0, -0.3, 5_400_000)
    write_scene(photos / "b.tif", noise(70, 80), transform=far)
    done = terradapt("predict", trained, photos, "-o", tmp_path / "far")
    assert done.status == 0 and "its files lie far apart" in done.err


def test_each_is_refused_where_it_says_nothing(terradapt, trained, scene, tmp_path):
    out, empty = tmp_path / "maps", tmp_path / "empty"
    empty.mkdir()
    done = terradapt("predict", trained, scene, "--each", "--mosaic", "-o", out)
    assert done.is_user_error("--each and --mosaic")
    assert terradapt("predict", trained, "--each", empty, "-o", out).is_user_error("no rasters")
    done = terradapt("predict", trained, "--each", tmp_path, "-o", tmp_path)
    assert done.is_user_error("scene.tif", "written over")
    assert not out.exists()


def test_a_dry_run_says_what_it_takes_and_writes_nothing(terradapt, trained, scene, tmp_path):
    out = tmp_path / "new" / "map.tif"
    before = sorted(tmp_path.rglob("*"))
    done = terradapt("predict", trained, scene, "-o", out, "--dry-run")
    assert done.status == 0, done.err
    first, *workers = done.out.splitlines()
    assert first.startswith("scene.tif: ") and "windows of 64 px, about" in first
    assert " of memory" in first
    assert [line.split()[0] for line in workers] == ["1", "2", "4", "8", "16"]
    args = ["predict", trained, scene, "-o", out, "--dry-run", "--workers", 3]
    done = terradapt(*args, "--progress", "json")
    plan = json.loads(done.out.splitlines()[-1])["result"]["plans"][0]
    assert plan["windows"] == int(first.split()[1]) and plan["hours"]["3"] > 0
    assert sorted(tmp_path.rglob("*")) == before
    assert terradapt("predict", trained, tmp_path, "-o", scene, "--dry-run").is_user_error()


def test_a_big_scene_is_told_beforehand(terradapt, trained, tmp_path):
    big = write_scene(tmp_path / "big.tif", noise(800, 800))
    small = write_scene(tmp_path / "small.tif", noise(200, 200))
    done = terradapt("predict", trained, big, small, "-o", tmp_path / "maps")
    assert done.status == 0, done.err
    told = [line for line in done.err.splitlines() if "windows of 64 px" in line]
    assert len(told) == 1 and told[0].startswith("big.tif: 289 windows of 64 px, about")


@pytest.mark.slow
def test_a_program_stops_a_prediction_and_goes_on(trained, tmp_path):
    """The word `stop`, on a pipe as any system has it: the rows that are done are kept."""
    big = write_scene(tmp_path / "big.tif", noise(2600, 700))
    out = tmp_path / "map.tif"
    command = [sys.executable, "-m", "terradapt", "predict", str(trained), str(big), "-o", str(out)]
    command += ["--progress", "json", "--cluster", "none", "--batch", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        last = {}
        for line in process.stdout:
            last = json.loads(line)
            if last.get("phase") and last["done"] > 0.6 * last["total"]:
                process.stdin.write("stop\n")
                process.stdin.flush()
                break
        rest = process.stdout.read().splitlines()
    assert process.returncode == 130
    assert json.loads(rest[-1]) == {"stopped": f"go on with --resume, the state is in {out}.part"}
    assert not out.exists()
