"""What a model says of itself: read from any terradapt's files, checked to the last value."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from onnx_files import META
from terradapt import checkpoint, predictors
from terradapt.classes import ClassMap
from terradapt.config import InputSpec, RunConfig
from terradapt.errors import CheckpointError, DataError
from terradapt.meta import FORMAT, Exported, Meta, Trunk
from terradapt.predictors.onnx_file import read_onnx
from terradapt.version import __version__

FILES = Path(__file__).parent / "files"
OLD_CHECKPOINT, OLD_ONNX = FILES / "checkpoint_0.1.0.safetensors", FILES / "model_0.1.0.onnx"
CLASSES = ClassMap(("ground", "roof", "tree"), ((1, 2, 3), (255, 0, 128), (0, 255, 0)), (1, 2))
TRUNK = Trunk("sam2_hiera_tiny", "trunk.safetensors", "0a" * 32, bundled=False)
FULL = Meta(
    RunConfig(name="full").with_values({"augment.scale": [0.4, 1.6], "data.split_seed": 7}),
    CLASSES,
    InputSpec(dtype="uint16", stretch=((0, 9), (1, 8), (2, 7)), resolution=0.3),
    64,
    {"miou": 0.5, "per_class": {"roof": {"iou": None}}},
    30,
    TRUNK,
    "abc",
    data="Harvey",
    progress={"best": 0.5},
)


# Files of 0.1.0


def test_a_checkpoint_and_an_exported_model_of_0_1_0_say_the_same() -> None:
    meta, (_, told) = checkpoint.read_meta(OLD_CHECKPOINT), read_onnx(OLD_ONNX)
    assert (meta.window, told.window, told.multiple) == (64, 96, 32)
    assert (told.precision, told.parameters, told.exported_by) == ("fp32", 14537, "0.1.0")
    for found in (meta, told):
        assert found.classes == CLASSES
        assert found.scales == (0.4, 1.6)
        assert found.spec == InputSpec(resolution=0.3)
        data = found.config.data
        assert (data.line_width, data.split_seed, data.test_fraction) == (12.0, 7, 0.4)
        assert found.config.model.encoder.args == {"channels": [4, 4, 8, 8], "stem_width": 8}
        assert (found.metrics, found.step, found.trunk) == ({"miou": 0.5}, 30, None)
        assert (found.commit, found.version, found.data) == ("cb215aa", "0.1.0", "Harvey")


@pytest.mark.parametrize(
    ("path", "engine"),
    [(OLD_CHECKPOINT, "own"), (OLD_ONNX, "onnxruntime"), (OLD_ONNX, "openvino")],
)
def test_a_file_of_0_1_0_predicts_what_it_did(path: Path, engine: str) -> None:
    rows, cols = np.mgrid[:64, :64]
    image = np.stack([4 * rows, 4 * cols, 2 * (rows + cols)])[None].astype(np.uint8)
    predictor = predictors.load(path, engine=engine)
    scores = predictor.numpy(predictor.predict(image))[:, :, ::8, ::8]
    np.testing.assert_allclose(scores, np.load(FILES / "scores_0.1.0.npy"), atol=1e-4)
    assert (predictor.scales, predictor.classes) == ((0.4, 1.6), CLASSES)


def test_a_file_of_0_1_0_is_written_anew_in_todays_form(tmp_path: Path) -> None:
    model, meta = checkpoint.load(OLD_CHECKPOINT)
    checkpoint.save(tmp_path / "new.safetensors", model, meta)
    assert checkpoint.read_meta(tmp_path / "new.safetensors") == meta
    assert json.loads(meta.to_json())["format"] == FORMAT


def test_a_trunk_of_0_1_0_is_kept() -> None:
    values = json.loads(FULL.to_json())
    values["classes"]["ignore"] = 255
    old = json.dumps(values | {"format": "terradapt-1", "version": "0.1.0"})
    assert Meta.from_json(old, "old") == replace(FULL, version="0.1.0")


# Both ways


@pytest.mark.parametrize("meta", [FULL, replace(FULL, trunk=None), META])
def test_a_text_gives_back_what_was_said(meta: Meta) -> None:
    assert type(meta).from_json(meta.to_json(), "here") == meta


def test_what_is_exported_holds_the_checkpoint_without_its_machine() -> None:
    config = FULL.config.with_values(
        {
            "model.encoder.weights": "/home/me/a.safetensors",
            "objective.distill.teacher": "hf://someone/teacher@v1",
            "objective.distill.cache": "/home/me/cache",
            "objective.lossnet": {"weights": "/home/me/b.safetensors"},
        }
    )
    told = replace(FULL, config=config).portable()
    assert "/home/me" not in told.to_json()
    assert told.config.model.encoder.weights == "a.safetensors"
    assert told.config.objective.distill.teacher == "hf://someone/teacher@v1"
    assert told.config.objective.lossnet is not None
    assert told.config.objective.lossnet.weights == "b.safetensors"
    assert (told.progress, told.metrics) == ({}, FULL.metrics)
    plain = FULL.portable()
    assert plain.config == FULL.config


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Later(Meta):
    """A later terradapt's, which says more; two lines of it."""

    temperature: Annotated[float, Field(gt=0)] | None = None


def test_a_further_field_leaves_old_files_readable_and_new_ones_where_it_says_nothing() -> None:
    assert Later.from_json(FULL.to_json(), "old").temperature is None
    told = {f.name: getattr(FULL, f.name) for f in fields(FULL)}
    assert Meta.from_json(Later(**told).to_json(), "new") == FULL
    warm = Later(**told, temperature=1.5)
    assert Later.from_json(warm.to_json(), "new") == warm
    with pytest.raises(CheckpointError, match=f"terradapt {__version__} knows no 'temperature'"):
        Meta.from_json(warm.to_json(), "new")


# What is refused


def test_a_newer_format_is_told() -> None:
    text = json.dumps({"format": FORMAT + 1, "version": "9.1\n0", "anything": [1]})
    with pytest.raises(
        CheckpointError, match=r"c\.st: was written by a newer terradapt \(9\.1 0\)"
    ) as caught:
        Meta.from_json(text, "c.st")
    assert "update terradapt" in caught.value.fix


BAD: list[tuple[dict[str, Any], str]] = [
    ({"format": "other"}, "format 'other'"),
    ({"format": True}, "format 'True'"),
    ({"format": None}, "format 'None'"),
    ({"window": "64"}, "window"),
    ({"window": 0}, "window"),
    ({"window": 64.5}, "window"),
    ({"window": 10**9}, "window"),
    ({"step": -1}, "step"),
    ({"step": True}, "step"),
    ({"metrics": [1]}, "metrics"),
    ({"progress": "done"}, "progress"),
    ({"commit": 5}, "commit"),
    ({"data": ["a"]}, "data"),
    ({"data": "\ud800"}, "hex escape"),
    ({"version": None}, "version"),
    ({"trunk": {"name": "x"}}, "trunk"),
    ({"trunk": {"name": "x", "source": None, "sha256": "zz", "bundled": True}}, "sha256"),
    ({"trunk": {"name": "x", "source": 3, "sha256": "0a" * 32, "bundled": True}}, "source"),
    ({"trunk": {"name": "x", "source": None, "sha256": "0a" * 32, "bundled": 1}}, "bundled"),
    ({"surprise": 1}, "knows no 'surprise'"),
    ({"config": {"nosuch": 1}}, "knows no 'config.nosuch'"),
    ({"config": {"data": {"line_width": -2}}}, "line_width"),
    ({"config": {"augment": {"scale": [0.5]}}}, "scale"),
    ({"config": {"augment": {"scale": [0, 1.5]}}}, "augment.scale"),
    ({"config": {"augment": {"scale": [1, float("inf")]}}}, "augment.scale"),
    ({"config": {"model": {"in_channels": 4}}}, "3 bands for a model of 4"),
    ({"config": []}, "config"),
    ({"classes": {"names": ["one"]}}, "1 classes"),
    ({"classes": {"names": ["a", "a"]}}, "doubled"),
    ({"classes": {"names": ["a", 2]}}, "names"),
    ({"classes": {"names": ["a", "b"], "colours": [[1, 2], [3, 4]]}}, "colours"),
    ({"classes": {"names": ["a", "b"], "colours": [[0, 0, 0], [0, 0, 256]]}}, "0..255"),
    ({"classes": {"names": ["a", "b"], "evaluated": [2]}}, "evaluated"),
    ({"classes": {"names": ["a", "b"], "more": 1}}, "knows no 'classes.more'"),
    ({"classes": ["a", "b"]}, "classes"),
    ({"spec": None}, "spec"),
    ({"spec": {"bands": []}}, "bands"),
    ({"spec": {"bands": [0, 1, 2]}}, "bands"),
    ({"spec": {"band_names": ["red"]}}, "bands"),
    ({"spec": {"mean": [0, 0]}}, "2 means"),
    ({"spec": {"std": [0, 1, 1]}}, "std"),
    ({"spec": {"mean": [float("nan")] * 3}}, "mean"),
    ({"spec": {"resolution": 0}}, "resolution"),
    ({"spec": {"resolution": 10**400}}, "resolution"),
    ({"spec": {"resolution": float("inf")}}, "resolution"),
    ({"spec": {"dtype": "object"}}, "object"),
    ({"spec": {"stretch": []}}, "stretch"),
    ({"spec": {"stretch": [[0, 1]]}}, "stretch"),
    ({"spec": {"stretch": [[0, 1], [2, 1], [0, 1]]}}, "stretch"),
    ({"spec": {"stretch": [2, 101]}}, "percentiles"),
    ({"spec": {"stretch": [98, 2]}}, "stretch"),
]
BAD_EXPORTED: list[tuple[dict[str, Any], str]] = [
    ({"multiple": 0}, "multiple"),
    ({"multiple": 48}, "window 64 px in multiples of 48"),
    ({"multiple": 128}, "window 64 px in multiples of 128"),
    ({"parameters": -1}, "parameters"),
    ({"precision": "int4"}, "precision"),
    ({"exported_by": 2}, "exported_by"),
]


@pytest.mark.parametrize(
    ("meta", "change", "told"),
    [(FULL, *case) for case in BAD] + [(META, *case) for case in [*BAD, *BAD_EXPORTED]],
)
def test_a_wrong_value_is_told_with_its_name(meta: Meta, change: dict[str, Any], told: str) -> None:
    text = json.dumps(json.loads(meta.to_json()) | change)
    with pytest.raises(CheckpointError) as caught:
        type(meta).from_json(text, "file.st")
    assert caught.value.message.startswith("file.st: its metadata is damaged")
    assert told in caught.value.message
    assert "\n" not in caught.value.message + caught.value.fix


@pytest.mark.parametrize("missing", ["config", "classes", "spec", "window"])
def test_a_missing_value_is_told(missing: str) -> None:
    values = json.loads(FULL.to_json())
    del values[missing]
    with pytest.raises(CheckpointError, match=missing):
        Meta.from_json(json.dumps(values), "file")


def test_a_checkpoint_is_no_exported_model_nor_the_other_way_round() -> None:
    with pytest.raises(CheckpointError, match="multiple"):
        Exported.from_json(FULL.to_json(), "file")
    with pytest.raises(
        CheckpointError, match=r"knows no '(exported_by|multiple|parameters|precision)'"
    ):
        Meta.from_json(META.to_json(), "file")


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "3", '"x"', "[" * 100_000, "{}"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="metadata is damaged"):
        Meta.from_json(text, "file")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIRST = ["terradapt-1", "terradapt-onnx-1", FORMAT]


@given(st.sampled_from(sorted(json.loads(META.to_json()))), JSON, st.sampled_from(FIRST))
def test_any_value_anywhere_is_read_or_refused(key: str, value: Any, form: Any) -> None:
    values = json.loads(META.to_json()) | {"format": form, key: value}
    read_or_refuse(Exported, values)


@given(
    st.sampled_from(["config", "classes", "spec"]),
    st.sampled_from(["names", "colours", "evaluated", "mean", "stretch", "model", "data", "dtype"]),
    JSON,
)
def test_any_value_further_inside_too(part: str, key: str, value: Any) -> None:
    values = json.loads(FULL.to_json())
    values[part][key] = value
    read_or_refuse(Meta, values)


def read_or_refuse(kind: type[Meta], values: dict[str, Any]) -> None:
    try:
        meta = kind.from_json(json.dumps(values), "file")
    except CheckpointError as error:
        assert error.message.startswith("file: ")
        assert "\n" not in error.message
    else:
        assert kind.from_json(meta.to_json(), "file").to_json() == meta.to_json()


def test_what_is_made_here_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="3 means"):
        replace(
            FULL, spec=InputSpec(bands=(1, 2, 3, 4)), config=RunConfig(model={"in_channels": 4})
        )
    with pytest.raises(DataError, match=r"0\.\.255"):
        ClassMap(("a", "b"), ((0, 0, 0), (-1, 0, 0)))
