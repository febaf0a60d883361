from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from export_files import LAND, pixels, small
from terradapt import checkpoint
from terradapt.classes import ClassMap
from terradapt.errors import CheckpointError, ConfigError
from terradapt.export import metadata, run
from terradapt.export.parity import compare
from terradapt.meta import Calibration, Meta
from terradapt.models import MODELS
from terradapt.models.encoder import STUDENTS
from terradapt.predictors.exported import normalize
from terradapt.predictors.onnx import OnnxPredictor
from terradapt.predictors.torch import TorchPredictor

TINY = "mobilenetv3_small_100"
FIXED = {"sam2_hiera_tiny", "sam2_hiera_large", "swin_tiny_patch4_window7_224"} | {
    "vit_tiny_patch16_224"
}
ROUNDED = {"sgcnnet": 0.05}  # the softmax of large unscaled products magnifies rounding


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    model, meta = small()
    folder = tmp_path_factory.mktemp("export")
    checkpoint.save(folder / "checkpoint.safetensors", model, meta)
    run.export_with_proof(folder / "checkpoint.safetensors", folder / "model.onnx")
    return model, meta, folder / "model.onnx"


def check_contract(name: str, encoder: str, folder: Path, **options: object) -> None:
    """Every model of the registry: one portable file that says what the model says."""
    model, meta = small(name, encoder, **options)
    path = folder / "model.onnx"
    result = run.export_model(model, meta, path)
    assert [f.name for f in folder.iterdir()] == ["model.onnx"]
    check_form(path, fixed=encoder in FIXED)
    ours, theirs = TorchPredictor(model, meta.classes, meta.spec, 128), OnnxPredictor(path)
    sizes = [(3, 128, 128), (1, 128, 128)] if encoder in FIXED else [(2, 128, 128), (1, 64, 160)]
    for batch, height, width in sizes:
        images = pixels(batch, height, width, seed=batch)
        scores = theirs.predict(images)
        assert scores.shape == (batch, len(meta.classes), height, width)
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
        assert scores.std((0, 2, 3)).max() > 1e-3, "the scores do not vary: nothing is compared"
        parity = compare(ours, theirs, images, "test")
        assert parity.max_score < ROUNDED.get(name, 1e-3)
        assert parity.equal_classes >= 0.999
    assert theirs.multiple == (128 if encoder in FIXED else model.size_multiple)
    aux = [n for n, _ in model.named_parameters() if n.startswith(tuple(model.training_only))]
    counted = sum(p.numel() for n, p in model.named_parameters() if n not in aux)
    assert result.meta.parameters == counted


def check_form(path: Path, *, fixed: bool) -> None:
    proto = onnx.load(str(path), load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 8
    assert {(o.domain, o.version) for o in proto.opset_import} == {("", 17)}
    assert all(not t.external_data for t in proto.graph.initializer)
    (image,), (scores,) = proto.graph.input, proto.graph.output
    for value in (image, scores):
        dims = value.type.tensor_type.shape.dim
        assert dims[0].dim_param, "the batch is dynamic"
        assert all(bool(d.dim_param) is not fixed for d in dims[2:])
    assert proto.graph.node[-1].op_type == "Softmax"


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("kd-arafnet", TINY), pytest.param("sam2-unet", "sam2_hiera_tiny", marks=pytest.mark.slow)],
)
def test_contract(name: str, encoder: str, tmp_path: Path) -> None:
    check_contract(name, encoder, tmp_path)


def test_contract_with_a_path_beside(tmp_path: Path) -> None:
    check_contract("kd-arafnet", TINY, tmp_path, mlp_width=16)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_contract_of_every_model(name: str, tmp_path: Path) -> None:
    check_contract(name, MODELS[name].encoder.replace("hiera_large", "hiera_tiny"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [*STUDENTS, "vit_tiny_patch16_224"])
def test_contract_of_every_student(encoder: str, tmp_path: Path) -> None:
    check_contract("kd-arafnet", encoder, tmp_path)


@pytest.mark.slow
def test_contract_of_the_teacher(tmp_path: Path) -> None:
    check_contract("sam2-arafnet", "sam2_hiera_large", tmp_path)


def test_the_export_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model, meta = small()
    model.train()
    model.encoder.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run.export_model(model, meta, tmp_path / "model.onnx")
    assert model.training
    assert not model.encoder.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("window", "best"), [(100, 128), (-32, 32), (2**20, 4096)])
def test_a_window_that_does_not_fit_is_refused(tmp_path: Path, window: int, best: int) -> None:
    model, meta = small()
    with pytest.raises(ConfigError, match=f"{window} px") as caught:
        run.export_model(model, meta, tmp_path / "m.onnx", window=window)
    assert str(best) in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_training_crop_that_is_no_multiple_is_rounded_up() -> None:
    model, meta = small()
    facts = run.exported_meta(model, Meta(meta.config, meta.classes, meta.spec, 100))
    assert (facts.window, facts.multiple) == (128, 32)


def test_deepness_keys_are_json_in_its_units(exported: tuple[Any, Any, Path]) -> None:
    proto = onnx.load(str(exported[2]))
    props = {p.key: json.loads(p.value) for p in proto.metadata_props}
    assert props["model_type"] == "Segmentor"
    assert props["class_names"] == {str(i): n for i, n in enumerate(LAND.names)}
    assert props["resolution"] == 9.0  # cm per px, from 0.09 m
    assert props["tiles_size"] == props["tile_size"] == 128
    assert 0 < props["tiles_overlap"] < 100  # per cent
    assert props["standardization_mean"] == [0.485, 0.456, 0.406]
    assert props["standardization_std"] == [0.229, 0.224, 0.225]
    assert {"seg_thresh", "seg_small_segment"} <= set(props)


def test_a_consumer_as_deepness_is_gets_the_checkpoints_classes(
    exported: tuple[Any, Any, Path],
) -> None:
    """Deepness: pixels / 255, standardization by its keys, softmaxed output, argmax."""
    import onnxruntime as ort

    model, meta, path = exported
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    props = session.get_modelmeta().custom_metadata_map
    mean, std = (json.loads(props[f"standardization_{k}"]) for k in ("mean", "std"))
    images = pixels(2, 128, 128, seed=5)
    x = (images / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    (scores,) = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})
    expected = TorchPredictor(model, meta.classes, meta.spec, 128).predict(images).numpy()
    assert (scores.argmax(1) == expected.argmax(1)).mean() > 0.999


def test_class_names_of_the_item_keep_to_the_classification_extensions_letters(
    exported: tuple[Any, Any, Path],
) -> None:
    path = exported[2]
    told = OnnxPredictor(path).meta
    classes = ClassMap(("low vegetation", "Straße & Weg", "水", "road"))
    own = {f.name: getattr(told, f.name) for f in fields(told)} | {"classes": classes}
    rows = metadata.mlm_item(path, type(told)(**own))["properties"]["mlm:output"][0]
    found = [(c["name"], c["title"]) for c in rows["classification:classes"]]
    names = ["low-vegetation", "Stra-e-Weg", "class-2", "road"]
    assert found == list(zip(names, classes.names, strict=True))


def test_a_file_for_deepness_has_integer_sides_and_the_checkpoints_classes(
    terradapt,  # type: ignore[no-untyped-def]
    exported: tuple[Any, Any, Path],
    tmp_path: Path,
) -> None:
    import onnxruntime as ort

    model, meta, plain = exported
    out = tmp_path / "deep.onnx"
    done = terradapt("export", plain.with_name("checkpoint.safetensors"), "-o", out,
                     "--for", "deepness")  # fmt: skip
    assert done.status == 0, done.err
    check_form(out, fixed=True)
    proto = onnx.load(str(out))
    sides = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[2:]]
    props = {p.key: json.loads(p.value) for p in proto.metadata_props}
    assert sides == [128, 128] and props["tile_size"] == props["tiles_size"] == 128
    # What its loader does: one input, one square output of four dimensions, each key as its type.
    session = ort.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    (given,), (told,) = session.get_inputs(), session.get_outputs()
    assert given.shape[1:] == [3, 128, 128] and told.shape[1:] == [len(LAND.names), 128, 128]
    assert sorted(map(int, props["class_names"])) == list(range(len(LAND.names)))
    whole = ("tile_size", "tiles_overlap", "seg_small_segment")
    assert all(type(props[key]) is int for key in whole)
    assert all(type(props[key]) is float for key in ("resolution", "seg_thresh"))
    opened = OnnxPredictor(out)
    assert (opened.window, opened.multiple) == (128, 128)
    images = pixels(2, 128, 128, seed=5)
    expected = TorchPredictor(model, meta.classes, meta.spec, 128).predict(images).numpy()
    assert (opened.predict(images).argmax(1) == expected.argmax(1)).mean() > 0.999
    item = json.loads(out.with_suffix(".stac.json").read_text())
    assert item["properties"]["mlm:input"][0]["input"]["shape"] == [-1, 3, 128, 128]


def test_imagery_without_a_resolution_has_no_resolution_key() -> None:
    _, meta = small()
    bare = meta.spec.model_copy(update={"resolution": None})
    keys = metadata.deepness(Meta(meta.config, meta.classes, bare, 128))
    assert "resolution" not in keys


REQUIRED = {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"}


def test_the_stac_item_has_what_mlm_requires(exported: tuple[Any, Any, Path]) -> None:
    item = json.loads(exported[2].with_suffix(".stac.json").read_text())
    assert (item["type"], item["geometry"]) == ("Feature", None)
    assert {"id", "stac_version", "links", "assets", "properties"} <= set(item)
    assert any("/mlm/v1.5" in e for e in item["stac_extensions"])
    properties = item["properties"]
    assert set(properties) >= REQUIRED
    (image,), (scores,) = properties["mlm:input"], properties["mlm:output"]
    assert {"name", "bands", "input"} <= set(image)
    assert {"name", "tasks", "result"} <= set(scores)
    for form in (image["input"], scores["result"]):
        assert set(form) == {"shape", "dim_order", "data_type"}
        assert len(form["shape"]) == len(form["dim_order"]) == 4
    assert len(image["value_scaling"]) == len(image["bands"]) == 3
    assert [c["name"] for c in scores["classification:classes"]] == list(LAND.names)
    asset = item["assets"]["model"]
    assert re.match(r"^\d+\.\d+\.\d+", properties["mlm:framework_version"])
    assert image["input"]["dim_order"] == ["batch", "bands", "height", "width"]
    assert [band["name"] for band in asset["bands"]] == image["bands"]
    assert "mlm:model" in asset["roles"]
    assert asset["mlm:artifact_type"] == "ONNX"
    assert asset["file:size"] == exported[2].stat().st_size


def test_the_items_scaling_is_the_predictors(exported: tuple[Any, Any, Path]) -> None:
    _, meta, path = exported
    item = json.loads(path.with_suffix(".stac.json").read_text())
    rows = item["properties"]["mlm:input"][0]["value_scaling"]
    images = pixels(1, 32, 32)
    shape = (3, 1, 1)
    mean, std = (np.reshape([r[k] for r in rows], shape) for k in ("mean", "stddev"))
    np.testing.assert_allclose((images - mean) / std, normalize(images, meta.spec), atol=1e-4)


def test_the_files_own_metadata_holds_the_checkpoints(exported: tuple[Any, Any, Path]) -> None:
    _, meta, path = exported
    found = OnnxPredictor(path).meta
    assert (found.window, found.multiple, found.precision) == (128, 32, "fp32")
    own = {f.name: getattr(found, f.name) for f in fields(meta)}
    assert Meta(**own) == meta


def test_no_path_of_this_machine_is_exported() -> None:
    _, meta = small()
    encoder = meta.config.model.encoder.model_copy(update={"weights": "/home/me/w.safetensors"})
    model = meta.config.model.model_copy(update={"encoder": encoder})
    config = meta.config.model_copy(update={"model": model})
    config = config.with_values({"objective.distill.teacher": "/home/me/teacher.safetensors"})
    model, _ = small()
    told = run.exported_meta(model, Meta(config, meta.classes, meta.spec, 128))
    assert "/home/me" not in json.dumps(metadata.properties(told))


def test_a_model_that_disagrees_is_not_kept(
    exported: tuple[Any, Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Turned(OnnxPredictor):
        def predict(self, images: Any) -> Any:
            return super().predict(images)[:, ::-1].copy()

    monkeypatch.setattr(run, "OnnxPredictor", Turned)
    source = exported[2].with_name("checkpoint.safetensors")
    with pytest.raises(CheckpointError, match="another class"):
        run.export_with_proof(source, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_ends_in_class_ids(
    exported: tuple[Any, Any, Path], tmp_path: Path, terradapt: Any
) -> None:
    """Also where a calibration's bias changes the class; terradapt itself refuses such a file."""
    model, meta, path = exported
    images = pixels(2, 64, 96, seed=5)
    logits = np.log(OnnxPredictor(path).predict(images))
    bias = (3.0, 0.0, 0.0, -3.0)
    told = replace(meta, calibration=Calibration(1.5, bias))
    checkpoint.save(tmp_path / "c.safetensors", model, told)
    result = run.export_with_proof(tmp_path / "c.safetensors", tmp_path / "ids.onnx", argmax=True)
    assert result.argmax == 1 and result.parity is not None and result.parity.passed
    wanted = (logits / 1.5 + np.reshape(bias, (-1, 1, 1))).argmax(1)
    assert (wanted != logits.argmax(1)).mean() > 0.01

    session = ort.InferenceSession(tmp_path / "ids.onnx", providers=["CPUExecutionProvider"])
    (ids,) = session.run(["classes"], {"image": normalize(images, meta.spec)})
    assert (ids.dtype, ids.shape) == (np.uint8, (2, 64, 96))
    assert (ids == wanted).mean() > 0.9999
    proto = onnx.load(str(tmp_path / "ids.onnx"))
    onnx.checker.check_model(proto, full_check=True)
    assert not [n for n in proto.graph.node if n.op_type == "Softmax"]
    item = json.loads((tmp_path / "ids.stac.json").read_text())
    (output,) = item["properties"]["mlm:output"]
    assert (output["name"], output["result"]["data_type"]) == ("classes", "uint8")
    assert output["result"]["shape"] == [-1, -1, -1]

    for verb in (("predict", "SCENE", "-o", tmp_path / "map.tif"), ("bench",), ("eval", "SCENE")):
        words = [tmp_path / "ids.onnx" if w == "SCENE" else w for w in verb[1:]]
        outcome = terradapt(verb[0], tmp_path / "ids.onnx", *words)
        assert outcome.is_user_error("ids.onnx", "class ids")
        assert "without --argmax" in outcome.errors[1]
    assert not (tmp_path / "map.tif").exists()
    assert "argmax" not in run.exported_meta(model, meta).to_json()  # older terradapts read on


def test_export_through_the_command_line(
    terradapt: Any, exported: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    source = exported[2].with_name("checkpoint.safetensors")
    outcome = terradapt("export", source, "-o", tmp_path / "out.onnx")
    assert outcome.status == 0, outcome.err
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "out.onnx",
        "out.report.json",
        "out.report.md",
        "out.stac.json",
    ]
    parity = json.loads((tmp_path / "out.report.json").read_text())["parity"]
    assert parity["passed"]
    assert parity["pixels"] == 4 * 128 * 128


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["missing.safetensors", "-o", "m.onnx"], "missing.safetensors"),
        (["CKPT", "-o", "m.pt"], "m.pt"),
        (["CKPT", "-o", "m.onnx", "--int8"], "--calibrate"),
        (["CKPT", "-o", "m.onnx", "--window", "100"], "100 px"),
        (["CKPT", "-o", "m.onnx", "--scene", "none.tif"], "none.tif"),
        (["CKPT", "-o", "m.onnx", "--argmax", "--for", "deepness"], "deepness"),
        (["CKPT", "-o", "m.onnx", "--int8", "--calibrate", "EMPTY"], "empty"),
        (["CKPT", "-o", "m.onnx", "--int8", "--calibrate", "nowhere"], "nowhere"),
    ],
)
def test_bad_input(
    terradapt: Any,
    exported: tuple[Any, Any, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    known = {"CKPT": exported[2].with_name("checkpoint.safetensors"), "EMPTY": Path("empty")}
    outcome = terradapt("export", *(known.get(a, a) for a in arguments))
    assert outcome.is_user_error(named)
    assert [f.name for f in tmp_path.iterdir()] == ["empty"]
