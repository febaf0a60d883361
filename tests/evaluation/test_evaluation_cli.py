from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import Call
from eval_files import write_dataset, write_raster
from terradapt import checkpoint, models
from terradapt.classes import ROADS, ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.evaluation import report_run
from terradapt.meta import Meta

MODEL = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))
SUFFIXES = (".json", ".md", ".html")


def _checkpoint(path: Path, classes: ClassMap) -> Path:
    torch.manual_seed(0)
    meta = Meta(RunConfig(model=MODEL), classes, InputSpec(), 64, data="somewhere")
    checkpoint.save(path, models.build(MODEL, len(classes)), meta)
    return path


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory.mktemp("run") / "checkpoint.safetensors", ROADS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", [(64, 80), (64, 64), (70, 70)], ROADS)
    return tmp_path / "data"


def _nothing(folder: Path) -> bool:
    return not any(p.suffix in (*SUFFIXES, ".part") for p in folder.glob("out*"))


def test_eval_writes_three_files_and_prints_the_figures(
    terradapt: Call, ckpt: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "report.json"
    ran = terradapt("eval", ckpt, "--data", data, "-o", out, "--boundary", 1, "--study")
    assert ran.status == 0, ran.err
    assert all(out.with_suffix(s).is_file() for s in SUFFIXES)
    assert sorted(p.suffix for p in out.parent.iterdir()) == sorted(SUFFIXES)
    report = json.loads(out.read_text())
    assert {"metrics", "protocol", "data", "checkpoint", "commit"} <= report.keys()
    assert {"miou", "mf1", "oa", "mdice", "rlod", "boundary_f1"} <= report["metrics"].keys()
    for row in report["metrics"]["per_class"].values():
        assert {"iou", "f1", "precision", "recall"} <= row.keys()
        assert all(0 <= row[k] <= 1 for k in ("iou", "f1", "precision", "recall"))
    assert report["data"]["images"] == 3
    assert np.sum(report["confusion"]) == report["metrics"]["pixels"]
    assert "split_study" in report["protocol"]
    assert "road" in ran.out and "mIoU" in ran.out and str(out.with_suffix(".html")) in ran.out


def test_a_run_s_folder_gets_its_report(ckpt: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(ckpt, run)
    report = report_run(run, data)
    assert report.split == "test"
    assert {"report.json", "report.md", "report.html"} <= {p.name for p in run.iterdir()}
    read = json.loads((run / "report.json").read_text())
    assert read["model"]["name"] == "kd-arafnet"
    assert read["model"]["objective"]["name"] == "supervised"
    assert read["data"]["trained_on"] == "somewhere"


def test_missing_split(terradapt: Call, ckpt: Path, data: Path, tmp_path: Path) -> None:
    for split in ("nope", "val"):
        ran = terradapt("eval", ckpt, "--data", data, "--split", split, "-o", tmp_path / "out.json")
        assert ran.is_user_error(str(data), f"'{split}'")
    assert _nothing(tmp_path)


def test_dataset_without_labels(terradapt: Call, ckpt: Path, data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "labels")
    ran = terradapt("eval", ckpt, "--data", data, "-o", tmp_path / "out.json")
    assert ran.is_user_error(str(data))
    assert _nothing(tmp_path)


def test_one_image_without_a_label(terradapt: Call, ckpt: Path, data: Path, tmp_path: Path) -> None:
    (data / "labels" / "s1.tif").unlink()
    ran = terradapt("eval", ckpt, "--data", data, "-o", tmp_path / "out.json")
    assert ran.is_user_error("s1")
    assert _nothing(tmp_path)


def test_no_dataset(terradapt: Call, ckpt: Path, tmp_path: Path) -> None:
    ran = terradapt("eval", ckpt, "--data", tmp_path / "gone", "-o", tmp_path / "out.json")
    assert ran.is_user_error("gone")


def test_checkpoint_of_other_classes(terradapt: Call, data: Path, tmp_path: Path) -> None:
    other = _checkpoint(tmp_path / "other.safetensors", ClassMap(("water", "land", "ice")))
    ran = terradapt("eval", other, "--data", data, "-o", tmp_path / "out.json")
    assert ran.is_user_error("water, land, ice")
    assert "--match" in ran.errors[1]
    assert _nothing(tmp_path)
    joined = terradapt(
        "eval", other, "--data", data, "--match", "road=land", "-o", tmp_path / "out.json"
    )
    assert joined.status == 0, joined.err
    assert "background" in joined.out


def test_label_of_another_size(terradapt: Call, ckpt: Path, data: Path, tmp_path: Path) -> None:
    write_raster(data / "labels" / "s2.tif", np.zeros((60, 70), np.uint8), 0.5)
    ran = terradapt("eval", ckpt, "--data", data, "-o", tmp_path / "out.json")
    assert ran.is_user_error("s2.tif", "70 x 60")
    assert _nothing(tmp_path)


def test_unwritable_output(terradapt: Call, ckpt: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = terradapt("eval", ckpt, "--data", data, "-o", tmp_path / "file" / "report.json")
    assert ran.is_user_error(str(tmp_path / "file"))
    ran = terradapt("eval", ckpt, "--data", data, "-o", tmp_path)
    assert ran.is_user_error(str(tmp_path), "is a folder")


def test_a_checkpoint_that_is_none(terradapt: Call, data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x80\x04 pickle")
    ran = terradapt("eval", bad, "--data", data, "-o", tmp_path / "out.json")
    assert ran.is_user_error("bad.safetensors")
    assert _nothing(tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--match", "road"),
        ("--resolution", "fine"),
        ("--resolution", "-1"),
        ("--boundary", "-2"),
        ("--labels", "half"),
        ("--road", "canal"),
        ("--threshold", "2"),
    ],
)
def test_options_out_of_range(
    terradapt: Call, ckpt: Path, data: Path, tmp_path: Path, option: str, value: str
) -> None:
    ran = terradapt("eval", ckpt, "--data", data, "-o", tmp_path / "out.json", option, value)
    assert ran.is_user_error()
    assert _nothing(tmp_path)


def test_one_image_with_its_label(terradapt: Call, ckpt: Path, tmp_path: Path) -> None:
    """Its values are the model's ids, 0 and 255 alone a mask, or what a classes file says."""
    label = np.tile(np.repeat([0, 255], 32), (64, 1)).astype(np.uint8)
    write_raster(tmp_path / "image.tif", np.repeat(label[None], 3, 0), 0.5)
    out = tmp_path / "out.json"

    def supports() -> dict[str, int]:
        ran = terradapt("eval", ckpt, tmp_path / "image.tif", tmp_path / "label.tif", "-o", out)
        assert ran.status == 0, ran.err
        found = json.loads(out.read_text())
        assert (found["data"]["images"], found["data"]["split"]) == (1, "all")
        return {k: v["pixels"] for k, v in found["metrics"]["per_class"].items()}

    write_raster(tmp_path / "label.tif", label, 0.5)
    assert supports() == {"background": 2048, "road": 2048}
    label[:8, 32:] = 1
    write_raster(tmp_path / "label.tif", label, 0.5)
    assert supports() == {"background": 2048, "road": 256}
    (tmp_path / "classes.yaml").write_text(
        "names: [road, background]\nvalues: [0, 255]\nignore: [1]"
    )
    assert supports() == {"road": 2048, "background": 1792}
    assert not list(tmp_path.glob("splits.json"))


@pytest.mark.parametrize(
    ("label", "named"),
    [("gone.tif", "gone.tif"), ("small.tif", "32 x 64"), ("seven.tif", "7"), ("a.gpkg", "a.gpkg")],
)
def test_a_label_that_does_not_fit(
    terradapt: Call, ckpt: Path, tmp_path: Path, label: str, named: str
) -> None:
    write_raster(tmp_path / "image.tif", np.zeros((3, 64, 64), np.uint8), 0.5)
    write_raster(tmp_path / "small.tif", np.zeros((64, 32), np.uint8), 0.5)
    write_raster(tmp_path / "seven.tif", np.full((64, 64), 7, np.uint8), 0.5)
    (tmp_path / "a.gpkg").write_bytes(b"")
    words = (tmp_path / "image.tif", tmp_path / label, "-o", tmp_path / "out.json")
    assert terradapt("eval", ckpt, *words).is_user_error(named)
    assert _nothing(tmp_path)


def test_evaluated_is_one_dataset_or_one_image(terradapt: Call, ckpt: Path, data: Path) -> None:
    assert terradapt("eval", ckpt).is_user_error("on what")
    assert terradapt("eval", ckpt, data, "--data", data).is_user_error("2 paths")
    assert terradapt("eval", ckpt, data, data, data).is_user_error("3 paths")
