"""One calibration, one meaning: checkpoint, ONNX Runtime, OpenVINO, and what maps say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.special import softmax

from export_files import LAND, pixels, small
from scene_files import noise, write_scene
from terradapt import checkpoint, predictors
from terradapt.errors import CheckpointError
from terradapt.export.onnx import calibrate_graph, import_onnx, write_proto
from terradapt.export.parity import raw_output
from terradapt.export.quantized import recalibrate
from terradapt.export.run import export_with_proof
from terradapt.meta import Calibration, Meta
from terradapt.predictors.openvino import OpenVinoPredictor
from terradapt.predictors.torch import TorchPredictor
from terradapt.scene import PredictOptions, predict_scene

FOUND = Calibration(temperature=1.7, pixels=9, before={"ece": 0.2}, after={"ece": 0.01})
BIASED = replace(FOUND, bias=(0.3, -0.4, 0.1, 0.0))


@pytest.fixture(scope="module")
def plain() -> tuple:
    return small("smp-unet", "resnet18")


def logits_of(plain: tuple, images: np.ndarray) -> np.ndarray:
    model, meta = plain
    predictor = TorchPredictor(model, meta.classes, meta.spec, meta.window)
    return np.log(predictor.numpy(predictor.predict(images)).astype(float))


@pytest.mark.parametrize("found", [FOUND, BIASED])
def test_every_engine_gives_the_calibrated_scores(
    plain: tuple, found: Calibration, tmp_path: Path
) -> None:
    model, meta = plain
    source = tmp_path / "c.safetensors"
    checkpoint.save(source, model, replace(meta, calibration=found))
    result = export_with_proof(source, tmp_path / "m.onnx", window=64)
    assert result.meta.calibration == found
    images = pixels(2, 64, 64, seed=3)
    logits = logits_of(plain, images)
    bias = np.reshape(found.bias or (0,) * 4, (1, 4, 1, 1))
    expected = softmax(logits / 1.7 + bias, 1)
    openvino = OpenVinoPredictor(tmp_path / "m.onnx")
    torch = predictors.load(source, device="cpu")
    for predictor in (torch, predictors.load(tmp_path / "m.onnx"), openvino):
        scores = predictor.numpy(predictor.predict(images))
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        assert predictor.meta is not None
        assert predictor.meta.calibration == found
        if not found.bias:
            assert (scores.argmax(1) == logits.argmax(1)).mean() > 0.9999


def test_biases_for_other_classes_are_damage(plain: tuple) -> None:
    meta = replace(plain[1], calibration=BIASED)
    assert Meta.from_json(meta.to_json(), "here") == meta
    text = meta.to_json().replace("[0.3, -0.4, 0.1, 0.0]", "[0.3]")
    with pytest.raises(CheckpointError, match="1 biases, 4 classes"):
        Meta.from_json(text, "here")
    for temperature in ("0", "-1", "NaN"):
        text = meta.to_json().replace('"temperature": 1.7', f'"temperature": {temperature}')
        with pytest.raises(CheckpointError, match="temperature"):
            Meta.from_json(text, "here")


def test_an_int8_file_gets_a_temperature_of_its_own(plain: tuple, tmp_path: Path) -> None:
    """Labels drawn from the scores at half their logits: the temperature is 2."""
    from terradapt.data import open_dataset
    from terradapt.raster import write_raster

    model, meta = plain
    source = tmp_path / "c.safetensors"
    checkpoint.save(source, model, meta)
    exported = export_with_proof(source, tmp_path / "m.onnx", window=64)
    folder, rng = tmp_path / "set", np.random.default_rng(0)
    for number in range(4):
        image = pixels(1, 64, 64, seed=number)[0]
        honest = softmax(logits_of(plain, image[None])[0] / 2, 0)
        label = (rng.random((64, 64)) > honest.cumsum(0)).sum(0).clip(0, 3).astype(np.uint8)
        write_raster(folder / "images" / f"{number}.tif", image)
        write_raster(folder / "labels" / f"{number}.tif", label)
    (folder / "classes.yaml").write_text(f"names: [{', '.join(LAND.names)}]\n")
    splits = {"train": ["0"], "val": ["1", "2", "3"], "test": []}
    (folder / "splits.json").write_text(json.dumps(splits))
    open_dataset(folder)
    native = replace(exported.meta, spec=meta.spec.model_copy(update={"resolution": None}))
    found, told = recalibrate(exported.path, native, FOUND, folder)
    assert found.temperature == pytest.approx(2, rel=0.1)
    assert "calibrated on val" in told
    (folder / "splits.json").write_text(json.dumps(splits | {"val": [], "test": ["1"]}))
    found, told = recalibrate(exported.path, native, FOUND, folder)
    assert found == FOUND
    assert "stays" in told

    proto = import_onnx().load(str(exported.path))
    calibrate_graph(proto, FOUND)
    write_proto(proto, tmp_path / "t.onnx", {})
    images = pixels(1, 64, 64, seed=9)
    warm, raw = (raw_output(f, native, images) for f in (tmp_path / "t.onnx", exported.path))
    np.testing.assert_allclose(warm, softmax(np.log(raw) / 1.7, 1), atol=1e-5)


@pytest.mark.parametrize("found", [FOUND, None])
def test_maps_say_whether_confidence_is_a_probability(
    plain: tuple, found: Calibration | None, tmp_path: Path
) -> None:
    model, meta = plain
    meta = replace(meta, calibration=found)
    predictor = TorchPredictor(model, meta.classes, meta.spec, 64, meta=meta)
    scene = write_scene(tmp_path / "s.tif", noise(64, 64))
    options = PredictOptions(confidence=True, scores="float16", resolution="native")
    figures = predict_scene(predictor, scene, tmp_path / "map.tif", options)
    said = "calibrated on val: temperature 1.7" if found else "not calibrated"
    assert figures["confidence"] == said
    assert json.loads((tmp_path / "map.json").read_text())["confidence"] == said
    for name in ("map_confidence.tif", "map_scores.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert file.tags()["TERRADAPT_CONFIDENCE"] == said
