from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export_files import LAND, pixels, small
from onnx_files import SPEC
from scene_files import noise, write_scene
from terradapt import checkpoint
from terradapt.errors import DataError
from terradapt.export import int8, quantized, windows
from terradapt.export.report import kept_classes
from terradapt.predictors.exported import normalize

LAYERS = ("stem", "harsh", "head")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three convolutions; eight bits do not suit the second: a faint channel has huge weights."""
    rng = np.random.default_rng(0)
    shapes = {"stem": (16, 3, 3, 3), "harsh": (16, 16, 1, 1), "head": (3, 16, 1, 1)}
    weights = {n: (rng.normal(size=s) / 4).astype(np.float32) for n, s in shapes.items()}
    weights["stem"][0] /= 1000
    weights["harsh"][:, 0] *= 300
    chain, nodes = "image", []
    for name in LAYERS:
        pads = [1] * 4 if name == "stem" else [0] * 4
        nodes.append(helper.make_node("Conv", [chain, f"{name}_w"], [name], name=name, pads=pads))
        chain = name
    nodes.append(helper.make_node("Softmax", [chain], ["scores"], axis=1))
    border = ("batch", 3, "height", "width")
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, border)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, border)],
        [numpy_helper.from_array(w, f"{n}_w") for n, w in weights.items()],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("int8") / "float.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


def scores(path: Path, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": normalize(images, SPEC)})[0]


@pytest.fixture
def quantizer(network: Path, tmp_path: Path) -> int8.Quantizer:
    return int8.Quantizer(network, tmp_path, SPEC, pixels(4, 64, 64))


def test_the_layers_and_their_sizes(quantizer: int8.Quantizer) -> None:
    assert quantizer.layers == LAYERS
    assert quantizer.sizes == {"stem": 432, "harsh": 256, "head": 48}


def test_the_harsh_layer_is_found(quantizer: int8.Quantizer) -> None:
    images = pixels(2, 64, 64, seed=9)
    steps: list[int] = []
    change = int8.sensitivity(quantizer, lambda p: scores(p, images), steps.append)
    assert next(iter(change)) == "harsh"
    assert change["harsh"] > 3 * change["head"]
    assert len(steps) == 3


class Recorded:
    """A quantizer that writes down which layers it was asked for."""

    layers = ("a", "b", "c", "d")
    sizes = {"a": 10, "b": 500, "c": 10, "d": 10}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def quantize(self, path: Path, layers: list[str]) -> Path:
        path.write_text(" ".join(layers))
        return path


@pytest.mark.parametrize(("needed", "kept"), [("", ()), ("a", ("a",)), ("ac", ("a", "c"))])
def test_as_few_layers_as_needed_stay_in_float(
    tmp_path: Path, needed: str, kept: tuple[str, ...]
) -> None:
    def agreement(path: Path) -> float:
        return 1.0 - 0.1 * sum(name in path.read_text().split() for name in needed)

    change = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    steps: list[int] = []
    path, found, share = int8.choose(Recorded(tmp_path), change, agreement, 25, steps.append)  # type: ignore[arg-type]
    assert sum(steps) == len(int8.TRIES)  # the bar is full, however early it ends
    assert set(kept) <= set(found)
    assert "b" not in found  # its 500 parameters are beyond the budget
    assert share == agreement(path) == 1.0
    assert bool(found) == bool(kept)


def test_the_root_logger_keeps_its_level(quantizer: int8.Quantizer) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel(logging.INFO)
        quantizer.quantize(quantizer.folder / "all.onnx", LAYERS)
        assert root.level == logging.INFO
    finally:
        root.setLevel(before)


def test_weights_are_integers_with_a_scale_per_channel(quantizer: int8.Quantizer) -> None:
    path = quantizer.quantize(quantizer.folder / "all.onnx", LAYERS)
    constants = {i.name: numpy_helper.to_array(i) for i in onnx.load(str(path)).graph.initializer}
    weights = [v for v in constants.values() if v.dtype == np.int8 and v.ndim == 4]
    assert len(weights) == 3
    assert {v.shape for n, v in constants.items() if n == "stem_w_scale"} == {(16,)}


def test_slim_changes_no_score_and_saves_bytes(quantizer: int8.Quantizer) -> None:
    path = quantizer.quantize(quantizer.folder / "all.onnx", LAYERS)
    images = pixels(1, 64, 64)
    before, size = scores(path, images), path.stat().st_size
    path.write_bytes(int8.slim(onnx.load(str(path))).SerializeToString())
    np.testing.assert_array_equal(scores(path, images), before)
    assert path.stat().st_size < 0.8 * size


def test_slim_shares_no_vector(quantizer: int8.Quantizer) -> None:
    """OpenVINO runs convolutions in float whose scales or zero points another layer reads too."""
    path = quantizer.quantize(quantizer.folder / "all.onnx", LAYERS)
    graph = onnx.load(str(path)).graph
    equal = [i for i in graph.initializer if i.name in ("stem_w_scale", "harsh_w_scale")]
    assert equal[0].dims == equal[1].dims
    equal[1].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(equal[0]), equal[1].name))
    slim = int8.slim(onnx.helper.make_model(graph)).graph
    readers = [name for node in slim.node for name in node.input]
    vectors = [i for i in slim.initializer if i.dims]
    assert len(vectors) >= 6
    assert all(readers.count(i.name) == 1 for i in vectors)
    zeros = [i.name for i in vectors if not numpy_helper.to_array(i).any()]
    assert not zeros


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(min_size=1), st.integers(0, 50), max_size=8), st.integers(0, 120))
def test_what_stays_in_float_is_within_the_budget(sizes: dict[str, int], budget: int) -> None:
    kept = int8.within(list(sizes), sizes, budget)
    assert sum(sizes[k] for k in kept) <= budget
    assert set(kept) <= set(sizes)
    smallest = min(sizes.values(), default=budget + 1)
    assert bool(kept) == (smallest <= budget)


def test_windows_of_a_folder_are_spread_over_its_scenes(tmp_path: Path) -> None:
    for number in range(3):
        write_scene(tmp_path / f"{number}.tif", np.full((3, 96, 96), 10 + number, np.uint8))
    found = windows.collect(tmp_path, SPEC, LAND, 32, 7)
    assert (len(found), found.scenes, found.masks) == (7, 3, None)
    assert np.bincount(found.images[:, 0, 0, 0]).tolist()[10:] == [3, 2, 2]


def test_windows_are_read_at_the_models_resolution(tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", noise(128, 128))  # 0.3 m
    spec = SPEC.model_copy(update={"resolution": 0.6})
    assert len(windows.collect(tmp_path, SPEC, LAND, 64, 9)) == 4
    assert len(windows.collect(tmp_path, spec, LAND, 64, 9)) == 1


def test_windows_without_valid_pixels_are_left_out(tmp_path: Path) -> None:
    image = noise(64, 128)
    image[:, :, 64:] = 0
    write_scene(tmp_path / "a.tif", image, nodata=0)
    assert len(windows.collect(tmp_path, SPEC, LAND, 64, 9)) == 1
    write_scene(tmp_path / "a.tif", np.zeros_like(image), nodata=0)
    with pytest.raises(DataError, match="no scene has valid pixels"):
        windows.collect(tmp_path, SPEC, LAND, 64, 9)


def dataset(folder: Path, scenes: int) -> Path:
    from terradapt.data import open_dataset
    from terradapt.raster import write_raster

    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(scenes):
        image = noise(96, 96, seed=number)
        write_raster(folder / "images" / f"{number}.tif", image)
        write_raster(folder / "labels" / f"{number}.tif", image[0] % 4)
    (folder / "classes.yaml").write_text("names: [water, land, road, building]\n")
    open_dataset(folder)
    return folder


def test_a_dataset_calibrates_on_train_and_measures_elsewhere(tmp_path: Path) -> None:
    _, meta = small()
    folder = dataset(tmp_path / "set", 8)
    sample = quantized.gather_sample(folder, meta, 32, 12)
    assert sample.calibration.split == "train"
    assert set(sample.held_out.split.split("+")) <= {"val", "test"}
    assert sample.held_out.masks is not None
    assert not sample.notes
    ours, theirs = ({i.tobytes() for i in w.images} for w in (sample.calibration, sample.held_out))
    assert not ours & theirs


def test_one_scene_is_told(tmp_path: Path) -> None:
    _, meta = small()
    write_scene(tmp_path / "a.tif", noise(96, 96))
    notes = quantized.gather_sample(tmp_path, meta, 32, 8).notes
    assert len(notes) == 1
    assert "one scene only" in notes[0]
    alone = quantized.gather_sample(tmp_path, meta, 320, 8).notes  # 96 px of 0.3 m at 0.09 m
    assert len(alone) == 2


@pytest.mark.parametrize(("share", "verdict"), [(0.9883, "MISSED"), (0.99, "reached")])
def test_a_missed_target_is_said(share: float, verdict: str) -> None:
    report: dict[str, Any] = {"agreement": share, "target": 0.99, "held_out": 18, "notes": []}
    told = kept_classes(report)
    assert told.startswith(f"{share:.3%} of the pixels of 18 other windows")
    assert told.endswith(f"the target of 99% is {verdict}")
    alone = "accuracy is measured on the windows of the calibration: there are no others"
    assert "the 18 windows of the calibration" in kept_classes(report | {"notes": [alone]})


@pytest.mark.slow
def test_int8_through_the_command_line(terradapt: Any, tmp_path: Path) -> None:
    model, meta = small("smp-unet", "resnet18")
    checkpoint.save(tmp_path / "c.safetensors", model, meta)
    folder = dataset(tmp_path / "set", 6)
    outcome = terradapt(
        "export", tmp_path / "c.safetensors", "-o", tmp_path / "q.onnx",
        "--int8", "--calibrate", folder, "--window", 64, "--windows", 4,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    report = json.loads((tmp_path / "q.report.json").read_text())["int8"]
    lines = outcome.out.splitlines()
    assert lines[1].startswith("parity of the float graph, before INT8, with the checkpoint")
    assert f"{report['agreement']:.3%}" in lines[2] and "the target of 99% is" in lines[2]
    assert lines[3].startswith("accuracy of the INT8 file: mIoU")
    layers = len(report["float_layers"])
    done = [line for line in outcome.err.splitlines() if line.startswith("quantize each layer")]
    assert layers < int(done[-1].split("/")[0].split()[-1])
    assert "/10 file" in outcome.err
    assert report["smaller"] >= 3.5
    assert report["accuracy"]["windows"] == report["held_out"]
    scene = write_scene(tmp_path / "scene.tif", noise(128, 128))
    done = terradapt("predict", tmp_path / "q.onnx", scene, "-o", tmp_path / "map.tif")
    assert done.status == 0, done.err
