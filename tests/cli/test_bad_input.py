"""Bad input through the command line: status 2, an error and a fix, the file named."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from safetensors.torch import save_file

from terradapt import checkpoint, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.meta import Meta
from terradapt.raster import SceneReader, read_label, write_raster
from training_files import SMALL, write_folder

CLASSES = ClassMap(("class0", "class1", "class2"))
MODEL = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "checkpoint.safetensors"
    meta = Meta(RunConfig(model=MODEL), CLASSES, InputSpec(), 64)
    checkpoint.save(path, models.build(MODEL, 3), meta)
    return path


def scene(path: Path, array: np.ndarray | None = None, **options: object) -> Path:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 80, 90)).astype(np.uint8)
    write_raster(path, pixels if array is None else array, **options)
    return path


def truncated(path: Path) -> Path:
    scene(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def zero_byte(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def text(path: Path) -> Path:
    path.write_text("no raster")
    return path


SCENES: dict[str, Callable[[Path], Path]] = {
    "truncated": truncated,
    "zero_byte": zero_byte,
    "text": text,
    "missing": lambda path: path,
    "two_bands": lambda path: scene(path, np.ones((2, 80, 90), np.uint8)),
    "sixteen_bit": lambda path: scene(path, np.full((3, 80, 90), 900, np.uint16)),
    "float": lambda path: scene(path, np.full((3, 80, 90), 0.5, np.float32)),
    "nan": lambda path: scene(path, np.full((3, 80, 90), np.nan, np.float32)),
}


@pytest.mark.parametrize("kind", SCENES)
def test_predict_refuses_a_scene(terradapt, ckpt: Path, tmp_path: Path, kind: str) -> None:
    path = SCENES[kind](tmp_path / f"{kind}.tif")
    before = set(tmp_path.iterdir())
    done = terradapt("predict", ckpt, path, "-o", tmp_path / "out.tif")
    assert done.is_user_error(f"{kind}.tif")
    left = {p.name for p in set(tmp_path.iterdir()) - before}
    assert not {n for n in left if n.endswith(".tif")}, left


def test_predict_takes_scenes_that_are_only_odd(terradapt, ckpt: Path, tmp_path: Path) -> None:
    rotated = Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(0.3, -0.3)
    empty = np.zeros((3, 80, 90), np.uint8)
    odd = {
        "no_crs": scene(tmp_path / "no_crs.tif"),
        "rotated": scene(tmp_path / "rotated.tif", crs="EPSG:32633", transform=rotated),
        "all_nodata": scene(tmp_path / "all_nodata.tif", empty, nodata=0),
    }
    for name, path in odd.items():
        out = tmp_path / f"{name}_out.tif"
        done = terradapt("predict", ckpt, path, "-o", out)
        assert done.status == 0, done.err
        with SceneReader(path) as source, SceneReader(out) as result:
            assert (result.crs, result.transform) == (source.crs, source.transform)
    assert (read_label(tmp_path / "all_nodata_out.tif") == 255).all()


def pickled(path: Path, _: Path) -> None:
    torch.save({"model": torch.zeros(1)}, path)


def raw_pickle(path: Path, _: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def cut(path: Path, good: Path) -> None:
    path.write_bytes(good.read_bytes()[:5000])


def of_another_model(path: Path, good: Path) -> None:
    other = MODEL.model_copy(update={"encoder": EncoderConfig(name="mobilenetv3_small_075")})
    meta = {"terradapt": Meta(RunConfig(model=other), CLASSES, InputSpec(), 64).to_json()}
    from safetensors.torch import load_file

    save_file(load_file(good), path, metadata=meta)


def without_metadata(path: Path, _: Path) -> None:
    save_file({"weight": torch.zeros(1)}, path)


def empty_file(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def huge_header(path: Path, _: Path) -> None:
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


CHECKPOINTS = [
    pickled,
    raw_pickle,
    cut,
    of_another_model,
    without_metadata,
    empty_file,
    huge_header,
]


@pytest.mark.parametrize("make", CHECKPOINTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("verb", ["predict", "eval"])
def test_a_checkpoint_that_cannot_be_trusted_is_refused(
    terradapt, ckpt: Path, tmp_path: Path, make: Callable[[Path, Path], None], verb: str
) -> None:
    bad = tmp_path / "bad.safetensors"
    make(bad, ckpt)
    out = tmp_path / ("out.tif" if verb == "predict" else "report.json")
    if verb == "predict":
        args = ["predict", bad, scene(tmp_path / "scene.tif"), "-o", out]
    else:
        args = ["eval", bad, "--data", write_folder(tmp_path / "data"), "-o", out]
    assert terradapt(*args).is_user_error("bad.safetensors")
    assert not out.exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


def other_size(folder: Path) -> str:
    write_raster(folder / "labels" / "1.tif", np.zeros((90, 96), np.uint8))
    return "1.tif"


def unknown_value(folder: Path) -> str:
    label = read_label(folder / "labels" / "0.tif")
    label[:2, :3] = 77
    write_raster(folder / "labels" / "0.tif", label)
    return "77"


def cut_image(folder: Path) -> str:
    path = folder / "images" / "1.tif"
    path.write_bytes(path.read_bytes()[:300])
    return "1.tif"


def empty_label(folder: Path) -> str:
    (folder / "labels" / "0.tif").write_bytes(b"")
    return "0.tif"


def float_images(folder: Path) -> str:
    write_raster(folder / "images" / "1.tif", np.zeros((3, 96, 96), np.float32))
    return "1.tif"


def no_labels(folder: Path) -> str:
    shutil.rmtree(folder / "labels")
    return str(folder)


def wrong_split(folder: Path) -> str:
    (folder / "splits.json").write_text(json.dumps({"train": ["nosuch"]}))
    return "nosuch"


def leaking_split(folder: Path) -> str:
    (folder / "splits.json").write_text(json.dumps({"train": ["0", "1"], "test": ["1"]}))
    return "splits.json"


FOLDERS = [
    other_size,
    unknown_value,
    cut_image,
    empty_label,
    float_images,
    no_labels,
    wrong_split,
    leaking_split,
]


@pytest.mark.parametrize("spoil", FOLDERS, ids=lambda f: f.__name__)
def test_train_refuses_a_dataset(
    terradapt, folder: Path, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    named = spoil(folder)
    done = terradapt("train", "landcover", *SMALL, "--data", folder, "-o", tmp_path / "run")
    assert done.is_user_error(named)


def test_eval_refuses_a_missing_split_and_other_classes(
    terradapt, ckpt: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    assert terradapt("eval", ckpt, "--data", folder, "--split", "nosuch", "-o", out).is_user_error(
        "nosuch"
    )
    (folder / "classes.yaml").write_text("names: [sea, sand, snow]\n")
    assert terradapt("eval", ckpt, "--data", folder, "-o", out).is_user_error("sea")
    assert not out.exists()


def test_outputs_that_cannot_be_written_are_told_before_the_work(
    terradapt, ckpt: Path, folder: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    path = scene(tmp_path / "scene.tif")
    assert terradapt("predict", ckpt, path, "-o", blocked / "out.tif").is_user_error("blocked")
    assert terradapt("eval", ckpt, "--data", folder, "-o", blocked / "r.json").is_user_error(
        "blocked"
    )
    args = ["train", "landcover", *SMALL, "--data", folder, "-o", blocked / "run"]
    assert terradapt(*args).is_user_error("blocked")
