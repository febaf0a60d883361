"""What a run says of the weights that its encoder began with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from terradapt import checkpoint, training
from terradapt.config import load_config
from terradapt.weights import weights_origin
from training_files import SMALL, write_folder


def test_a_run_names_the_file_by_its_hash(tmp_path: Path) -> None:
    name = "mobilenetv3_small_050"
    file = tmp_path / "own.safetensors"
    save_file(timm.create_model(name, pretrained=False).state_dict(), file)
    config = load_config("landcover").with_overrides(
        [*SMALL, "train.epochs=1", f"encoder.weights={file}"]
    )
    training.train(config, write_folder(tmp_path / "data"), tmp_path / "run")
    meta = checkpoint.read_meta(tmp_path / "run" / "checkpoint.safetensors")
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert meta.weights == f"own.safetensors sha256:{expected}"


def test_weights_of_the_hub_are_named_by_their_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert weights_origin("mobilenetv2_100", "hub") == "hub"
    refs = tmp_path / "models--timm--mobilenetv2_100.ra_in1k" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("0123456789abcdef\n")
    assert weights_origin("mobilenetv2_100", "hub") == (
        "hf://timm/mobilenetv2_100.ra_in1k@0123456789abcdef"
    )
    assert weights_origin("mobilenetv2_100", None) is None
    assert weights_origin("mit_b0", "hub") == "hub"
