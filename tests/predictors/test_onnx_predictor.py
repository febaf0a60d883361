from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_files import CLASSES, SPEC, WEIGHTS, tiny_proto, values, with_external_data, write_tiny
from scene_files import noise, write_scene
from terradapt.errors import CheckpointError, SceneError
from terradapt.meta import KEY
from terradapt.predictors import load
from terradapt.predictors import onnx as onnx_predictor
from terradapt.predictors.onnx import OnnxPredictor
from terradapt.predictors.onnx_file import scan


def reference(images: np.ndarray) -> np.ndarray:
    """The tiny model written out: normalize, 1x1 convolution, softmax."""
    shape = (3, 1, 1)
    x = (images / 255 - np.reshape(SPEC.mean, shape)) / np.reshape(SPEC.std, shape)
    z = np.einsum("kc,bchw->bkhw", WEIGHTS[:, :, 0, 0], x)
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("engine", ["own", "onnxruntime", "openvino"])
def test_scores_are_those_of_the_formula(tmp_path: Path, engine: str) -> None:
    predictor = load(write_tiny(tmp_path / "m.onnx"), engine=engine)
    for batch, height, width in ((1, 64, 64), (3, 32, 96)):
        images = np.stack([noise(height, width, seed=i) for i in range(batch)])
        scores = predictor.predict(images)
        assert scores.dtype == np.float32
        assert scores.flags.writeable
        np.testing.assert_allclose(scores, reference(images), atol=1e-5)
    assert (predictor.classes, predictor.spec) == (CLASSES, SPEC)
    assert (predictor.window, predictor.multiple) == (64, 32)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_second_call_leaves_the_first_result(tmp_path: Path, engine: str) -> None:
    predictor = load(write_tiny(tmp_path / "m.onnx"), engine=engine)
    first = predictor.predict(noise(64, 64, seed=1)[None])
    kept = first.copy()
    predictor.predict(noise(64, 64, seed=2)[None])
    np.testing.assert_array_equal(first, kept)


def test_streams_share_the_cores(tmp_path: Path) -> None:
    predictor = OnnxPredictor(write_tiny(tmp_path / "m.onnx"), threads=4)
    assert predictor.streams == 4
    (tmp_path / "m.onnx").unlink()  # a checkpoint's exported file does not stay
    images = [noise(64, 64, seed=i)[None] for i in range(12)]
    with ThreadPoolExecutor(3, initializer=lambda: predictor.share(3)) as pool:
        scores = list(pool.map(predictor.predict, images))
    for image, found in zip(images, scores, strict=True):
        np.testing.assert_allclose(found, reference(image), atol=1e-5)
    assert threads(predictor) == 1
    predictor.share(2)
    predictor.share(3)
    predictor.predict(images[0])
    assert threads(predictor) == 1
    predictor.share(1)
    predictor.predict(images[0])
    assert threads(predictor) == 4


def test_a_large_model_is_held_once_and_has_one_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_predictor, "LARGEST_COPY", 10)
    predictor = OnnxPredictor(write_tiny(tmp_path / "m.onnx"), threads=2)
    predictor.share(2)
    predictor.predict(noise(64, 64)[None])
    assert (predictor.streams, threads(predictor)) == (1, 2)


def threads(predictor: OnnxPredictor) -> int:
    count: int = predictor._session.get_session_options().intra_op_num_threads
    return count


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("shape", "fixed", "named"),
    [((3, 50, 64), None, "50 x 64"), ((4, 64, 64), None, "4"), ((3, 32, 32), 64, "32 x 32")],
)
def test_images_that_do_not_fit_are_refused(
    tmp_path: Path, engine: str, shape: tuple[int, ...], fixed: int | None, named: str
) -> None:
    border = ("batch", 3, fixed or "height", fixed or "width")
    predictor = load(write_tiny(tmp_path / "m.onnx", border, border), engine=engine)
    with pytest.raises(SceneError, match=named):
        predictor.predict(np.zeros((1, *shape), np.uint8))


def outside(**changes: Any) -> Any:
    """A metadata dictionary with one wrong value."""
    return values(**changes)


def hidden_external() -> Any:
    """A weight that asks for another file inside a subgraph's node attribute."""
    hidden = numpy_helper.from_array(WEIGHTS, "deep")
    hidden.data_location = TensorProto.EXTERNAL
    entry = hidden.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    hidden.ClearField("raw_data")
    constant = helper.make_node("Constant", [], ["c"], value=hidden)
    branch = helper.make_graph([constant], "branch", [], [])
    proto = tiny_proto()
    proto.graph.node.append(
        helper.make_node("If", ["image"], ["unused"], then_branch=branch, else_branch=branch)
    )
    return proto


def without_metadata() -> Any:
    proto = tiny_proto()
    del proto.metadata_props[:]
    return proto


def foreign_metadata() -> Any:
    """A model of another tool: Deepness's keys, none of ours."""
    proto = without_metadata()
    helper.set_model_props(proto, {"model_type": '"Segmentor"', "class_names": "{}"})
    return proto


def broken_metadata() -> Any:
    proto = without_metadata()
    helper.set_model_props(proto, {KEY: "{not json"})
    return proto


def two_inputs() -> Any:
    proto = tiny_proto()
    proto.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    return proto


def integer_input() -> Any:
    proto = tiny_proto()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    proto.graph.node.insert(0, helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT))
    proto.graph.node[1].input[0] = "f"
    return proto


def short_weights() -> Any:
    """A weight that claims more values than it holds."""
    proto = tiny_proto()
    proto.graph.initializer[0].dims[0] = 2**40
    return proto


def unknown_node() -> Any:
    return tiny_proto(node="NoSuchNode")


FIVE = {"names": ["a", "b", "c", "d", "e"]}
BAD_PROTOS: dict[str, tuple[Any, str]] = {
    "external": (hidden_external, "another file"),
    "no metadata": (without_metadata, "not exported by terradapt"),
    "another tool's": (foreign_metadata, "not exported by terradapt"),
    "broken metadata": (broken_metadata, "damaged"),
    "foreign operators": (lambda: tiny_proto(node="Run", domain="evil"), "foreign operators"),
    "unknown operator": (unknown_node, "cannot load"),
    "two inputs": (two_inputs, "2 inputs"),
    "integers": (integer_input, "uint8"),
    "rank 3": (lambda: tiny_proto(("batch", 3, "w"), ("batch", 3, "w")), "m.onnx"),
    "4 bands": (lambda: tiny_proto(("batch", 4, "h", "w")), "m.onnx"),
    "5 classes": (lambda: tiny_proto(meta=outside(classes=FIVE)), "5 classes"),
    "huge side": (lambda: tiny_proto(("batch", 3, 2**31, 2**31)), "m.onnx"),
    "short weights": (short_weights, "m.onnx"),
    "format": (lambda: tiny_proto(meta=outside(format="other-2")), "format"),
    "class names": (lambda: tiny_proto(meta=outside(classes={"names": ["a"]})), "1 classes"),
    "spec": (lambda: tiny_proto(meta=outside(spec={"std": [1, 1]})), "deviations"),
    "zero std": (lambda: tiny_proto(meta=outside(spec={"std": [1, 0, 1]})), "std"),
    "NaN mean": (lambda: tiny_proto(meta=outside(spec={"mean": [1, float("nan"), 1]})), "mean"),
    "window": (lambda: tiny_proto(meta=outside(window=10**9)), "window"),
    "zero window": (lambda: tiny_proto(meta=outside(window=0)), "window"),
    "odd window": (lambda: tiny_proto(meta=outside(window=33)), "window"),
    "a list": (lambda: tiny_proto(meta=outside(classes=[])), "damaged"),
}


@pytest.mark.parametrize("name", sorted(BAD_PROTOS))
def test_bad_models_are_refused(tmp_path: Path, terradapt: Any, name: str) -> None:
    make, named = BAD_PROTOS[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    scene = write_scene(tmp_path / "scene.tif", noise(64, 64))
    outcome = terradapt("predict", path, scene, "-o", tmp_path / "out.tif")
    assert outcome.is_user_error(named)
    assert "m.onnx" in outcome.errors[0]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["m.onnx", "scene.tif"]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["unknown operator", "5 classes", "4 bands"])
def test_both_engines_refuse(tmp_path: Path, engine: str, name: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(BAD_PROTOS[name][0]().SerializeToString())
    with pytest.raises(CheckpointError, match=r"m\.onnx"):
        load(path, engine=engine)


def test_external_data_beside_the_file_is_refused(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "m.onnx")
    assert (tmp_path / "w.bin").is_file()
    with pytest.raises(CheckpointError, match="another file"):
        OnnxPredictor(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x80\x04pickle", b"GIF89a" * 9])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.onnx"):
        OnnxPredictor(path)


@given(cut=st.integers(1, 400))
def test_a_truncated_file_is_refused(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tiny_proto().SerializeToString()
    path = tmp_path_factory.mktemp("cut") / "m.onnx"
    path.write_bytes(data[: -min(cut, len(data))])
    with pytest.raises(CheckpointError, match=r"m\.onnx"):
        OnnxPredictor(path)


@given(st.binary(max_size=200))
def test_the_walk_ends_on_any_bytes(data: bytes) -> None:
    try:
        scan(data, Path("any.onnx"))
    except CheckpointError as error:
        assert "any.onnx" in error.message


def test_the_walk_agrees_with_the_onnx_package() -> None:
    proto = tiny_proto()
    found = scan(proto.SerializeToString(), Path("m.onnx"))
    assert found.metadata == {p.key: p.value for p in proto.metadata_props}
    assert found.domains == {o.domain for o in proto.opset_import}
    assert json.loads(found.metadata[KEY]) == values()
    assert (found.graphs, found.external) == (1, False)
    assert onnx.load_from_string(proto.SerializeToString()) == proto


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def test_nested_graphs_do_not_exhaust_the_stack() -> None:
    data = b""
    for field in [*[5, 1, 6] * 40, 5, 1, 7]:  # inside out: attribute of a node of a graph
        data = bytes([field << 3 | 2]) + varint(len(data)) + data
    with pytest.raises(CheckpointError, match="deep"):
        scan(data, Path("m.onnx"))


def test_a_scene_through_the_command_line(tmp_path: Path, terradapt: Any) -> None:
    import rasterio

    pixels = noise(150, 130, seed=3)
    pixels[:, :100, :100] = np.array([200, 30, 30])[:, None, None]
    scene = write_scene(tmp_path / "scene.tif", pixels)
    model = write_tiny(tmp_path / "m.onnx")
    outcome = terradapt("predict", model, scene, "-o", tmp_path / "out.tif")
    assert outcome.status == 0, outcome.err
    with rasterio.open(tmp_path / "out.tif") as file:
        expected = reference(pixels[None])[0].argmax(0)
        assert (file.read(1) == expected).mean() > 0.999
