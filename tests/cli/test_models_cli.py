"""Weight files and names that cannot be used, through ``terradapt train`` and ``models``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from terradapt.synthetic import write_dataset

SMALL = "mobilenetv3_small_100"
STUDENT = [f"encoder.name={SMALL}", "data.crop=64", "train.batch=1", "train.steps_per_epoch=1"]


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city") / "data"
    write_dataset(folder, {"train": (1,), "val": (2,)}, size=128)
    return folder


def weight_file(kind: str, path: Path) -> Path:
    state = timm.create_model(SMALL).state_dict()
    if kind == "partial":
        del state["blocks.0.0.conv_dw.weight"]
    if kind == "size":
        state = timm.create_model("mobilenetv3_small_075").state_dict()
    if kind == "code":
        path = path.with_suffix(".pth")
        torch.save({"state_dict": {"conv_stem.weight": Bomb()}}, path)
        return path
    save_file(state, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])
    return path


@pytest.mark.parametrize("kind", ["partial", "size", "truncated", "code"])
def test_train_refuses_a_backbone_file(
    terradapt: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = weight_file(kind, tmp_path / "weights.safetensors")
    run = tmp_path / "run"
    keys = [*STUDENT, f"encoder.weights={path}"]
    shown = terradapt("train", "landcover", *keys, "--data", str(data), "-o", str(run))
    assert shown.is_user_error(path.name)
    assert not (run / "checkpoint.safetensors").exists()
    assert not (tmp_path / "exploded").exists()


def test_train_refuses_a_file_of_another_sam2_trunk(
    terradapt: Any, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "sam2.1_hiera_small.pt"
    trunk = timm.create_model("sam2_hiera_small").state_dict()
    torch.save({"model": {f"image_encoder.trunk.{k}": v for k, v in trunk.items()}}, path)
    keys = [
        *STUDENT,
        "model.name=sam2-arafnet",
        "encoder.name=sam2_hiera_tiny",
        f"encoder.weights={path}",
    ]
    run = tmp_path / "run"
    shown = terradapt("train", "landcover", *keys, "--data", str(data), "-o", str(run))
    assert shown.is_user_error(path.name)
    assert "image_encoder.trunk.blocks." in shown.err


@pytest.mark.parametrize("keys", [["--encoder", "resnet1"], ["--model", "segnet"]])
def test_models_refuses_unknown_names(terradapt: Any, keys: list[str]) -> None:
    assert terradapt("models", *keys).is_user_error(keys[1])
