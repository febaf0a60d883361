"""One model, one map, one way to read data, whatever file and engine the model comes in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from conftest import Call
from data_files import write_features
from scene_files import noise, write_scene
from terradapt.predictors import engines
from terradapt.raster import SceneWriter, write_raster

CHECKPOINT = Path(__file__).parents[1] / "files" / "checkpoint_0.1.0.safetensors"
"""Trained at 0.3 m; line width 12 m, split seed 7, test fraction 0.4; random crops 0.4 to 1.6."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(2):
        place = Affine(0.25, 0, 500_000, 0, -0.25, 5_400_000)
        write_scene(folder / f"{number}.tif", noise(160, 200, seed=number), transform=place)
    return folder


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> dict[str, Path]:
    """The checkpoint, its exported file and its INT8 file."""
    from terradapt.export.quantized import export_int8
    from terradapt.export.run import export_checkpoint

    folder = tmp_path_factory.mktemp("forms")
    found = {"checkpoint": CHECKPOINT, "onnx": folder / "m.onnx", "int8": folder / "q.onnx"}
    export_checkpoint(CHECKPOINT, found["onnx"])
    export_int8(CHECKPOINT, found["int8"], scenes, count=2)
    return found


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let one engine be measured as the fastest."""

    def choose(name: str) -> None:
        monkeypatch.setattr(engines, "rate", lambda p, **_: 2.0 if p.engine == name else 1.0)

    return choose


def lines_and_images(root: Path) -> Path:
    """Twelve images of 24 m with a road through each, labelled by lines and not split yet."""
    roads = []
    for number in range(12):
        left = 500_000 + 100 * number
        place = Affine(0.25, 0, left, 0, -0.25, 5_400_000)
        pixels = noise(96, 96, seed=number)
        write_raster(root / "images" / f"s{number}.tif", pixels, crs="EPSG:32633", transform=place)
        road = {"type": "LineString", "coordinates": [[left, 5_399_988], [left + 24, 5_399_988]]}
        roads.append((road, {"lanes": 2}))
    write_features(root / "roads.geojson", roads, 32633)
    return root


def evaluated(terradapt: Call, model: Path, root: Path) -> dict[str, Any]:
    out = root.with_suffix(".json")
    done = terradapt(
        "eval", model, "--data", root, "--match", "background=ground", "--match", "road=roof",
        "-o", out,
    )  # fmt: skip
    assert done.status == 0, done.err
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_an_exported_model_reads_a_dataset_as_its_checkpoint(
    terradapt: Call, forms: dict[str, Path], tmp_path: Path
) -> None:
    first = lines_and_images(tmp_path / "checkpoint" / "data")
    shutil.copytree(first, tmp_path / "onnx" / "data")
    shutil.copytree(first, tmp_path / "int8" / "data")
    reports = {k: evaluated(terradapt, path, tmp_path / k / "data") for k, path in forms.items()}
    told = reports["checkpoint"]
    labels = np.sum(told["confusion"], axis=1)
    assert labels[1] / labels.sum() == pytest.approx(12 / 24)  # lines of 12 m, not of 6
    assert told["data"]["images"] == round(0.4 * 12)
    assert told["data"]["trained_on"] == "Harvey"
    for name in ("onnx", "int8"):
        report = reports[name]
        assert {i["id"] for i in report["images"]} == {i["id"] for i in told["images"]}, name
        np.testing.assert_array_equal(np.sum(report["confusion"], axis=1), labels, name)
        for key in ("images", "trained_on", "resolution_m"):
            assert report["data"][key] == told["data"][key], name
        assert report["notes"] == told["notes"]
        assert any("Cross-data: trained on Harvey" in note for note in report["notes"])
        assert report["model"] == told["model"]


def test_every_form_of_a_model_sees_a_scene_alike(
    terradapt: Call,
    forms: dict[str, Path],
    scenes: Path,
    tmp_path: Path,
    fast: Callable[[str], None],
) -> None:
    """At 0.25 m the magnification is one of the training's: no form resamples."""
    fast("onnxruntime")
    calls = {name: (path,) for name, path in forms.items()}
    calls["auto"] = (CHECKPOINT, "--engine", "auto")
    calls["openvino"] = (forms["onnx"], "--engine", "openvino")
    calls["tta"] = (forms["onnx"], "--tta")
    windows, maps = {}, {}
    for name, call in calls.items():
        out = tmp_path / f"{name}.tif"
        done = terradapt("predict", call[0], scenes / "0.tif", "-o", out, *call[1:])
        assert done.status == 0, done.err
        windows[name] = json.loads(out.with_suffix(".json").read_text())["window"]
        with rasterio.open(out) as file:
            maps[name] = file.read(1)
    assert windows == dict.fromkeys(calls, 64)
    for name in ("onnx", "auto", "openvino"):
        assert np.mean(maps[name] == maps["checkpoint"]) > 0.999, name


@pytest.mark.parametrize(
    ("before", "then"), [("torch", "onnxruntime"), ("torch", "torch-bf16"), ("torch", "bf16")]
)
def test_a_run_is_not_resumed_by_another_engine(
    terradapt: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    then: str,
) -> None:
    scene = write_scene(tmp_path / "s.tif", noise(600, 70))
    call = ("predict", CHECKPOINT, scene, "-o", tmp_path / "map.tif")

    def options(name: str) -> list[str]:
        return ["--precision", name] if name == "bf16" else ["--engine", name]

    stop_after_one_row(monkeypatch)
    assert terradapt(*call, *options(before)).status == 130
    monkeypatch.undo()
    other = terradapt(*call, *options(then), "--resume")
    assert other.is_user_error("map.tif.part", "engine")
    same = terradapt(*call, *options(before), "--resume")
    assert same.status == 0, same.err
    done = (tmp_path / "map.tif").stat().st_mtime_ns
    assert terradapt(*call, *options(before), "--resume").status == 0
    assert (tmp_path / "map.tif").stat().st_mtime_ns == done
    assert terradapt(*call, *options(then), "--resume").is_user_error("map.tif")
    assert (tmp_path / "map.tif").stat().st_mtime_ns == done
    assert terradapt(*call, *options(then), "--overwrite").status == 0
    assert (tmp_path / "map.tif").stat().st_mtime_ns != done


def stop_after_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer be interrupted once the first row of blocks is on the disk."""
    write = SceneWriter.write_row

    def once(self: SceneWriter, *arguments: Any) -> None:
        if self.rows_done == 1:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(SceneWriter, "write_row", once)
