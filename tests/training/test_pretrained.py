"""Pretrained weights: who may ask the hub, what is said where it has none, what a run records."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import terradapt as package
from hub_server import COMMIT, HubServer, point_at, serving
from terradapt import checkpoint, training, weights
from terradapt.config import RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.errors import CheckpointError, ConfigError
from terradapt.training.trainer import Trainer
from training_files import SMALL, same_run, write_folder

NAME = "mobilenetv3_small_050"
REPO = "timm/mobilenetv3_small_050.lamb_in1k"


def config(*more: str, weights: str = "hub") -> RunConfig:
    few = ["train.epochs=1", "train.steps_per_epoch=2", f"encoder.weights={weights}"]
    return load_config("landcover").with_overrides([*SMALL, *few, *more])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pretrained"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(NAME, pretrained=False).state_dict(), path)
    return path


@pytest.fixture
def hub(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        server.files[f"{REPO}/model.safetensors"] = file.read_bytes()
        point_at(server.address, tmp_path / "cache", monkeypatch)
        yield server


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    point_at(address, tmp_path / "cache", monkeypatch)
    return address


@pytest.mark.parametrize("recipe", ["landcover", "roads", "landcover-few", "roads-few"])
def test_the_recipes_of_ones_own_data_begin_pretrained(recipe: str) -> None:
    assert load_config(recipe).model.encoder.weights == "hub"
    assert load_config("demo").model.encoder.weights is None


def test_a_run_begins_with_the_hubs_weights_and_goes_on_without_asking(
    hub: HubServer, data: Path, file: Path, tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    trainer = Trainer(config(), open_dataset(data), run)
    begun = timm.create_model(NAME, checkpoint_path=str(file))
    stem = trainer.model.encoder.body.conv_stem.weight
    assert torch.equal(stem, begun.conv_stem.weight)
    assert trainer.warnings == []
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    origin = f"hf://{REPO}@{COMMIT} sha256:{digest}"
    assert any(line.startswith(f"weights   hf://{REPO}@{COMMIT}") for line in trainer.opening())

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(lambda _: trainer.stop())
    hub.asked.clear()
    training.train(config(), data, run, resume=True)
    assert hub.asked == []
    assert checkpoint.read_meta(run / "checkpoint.safetensors").weights == origin
    assert checkpoint.read_meta(run / "last.safetensors").weights == origin
    training.train(config(), data, whole)
    same_run(whole, run)

    hub.asked.clear()
    package.load(run / "checkpoint.safetensors")
    start = f"train.start={run / 'checkpoint.safetensors'}"
    warm = Trainer(config(start), open_dataset(data), tmp_path / "warm")
    assert warm.config.model.encoder.weights is None and warm.warnings == []
    assert hub.asked == []
    for other in ("null", str(file)):
        with pytest.raises(ConfigError, match=r"another config \(model\.encoder\)"):
            training.train(config(weights=other), data, run, resume=True)


def test_what_was_fetched_once_needs_no_hub(
    hub: HubServer, data: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(config(), open_dataset(data), tmp_path / "first")
    monkeypatch.setattr(weights, "hub_fault", lambda _: "no hub")
    hub.asked.clear()
    trainer = Trainer(config(), open_dataset(data), tmp_path / "second")
    assert (hub.asked, trainer.warnings) == ([], [])
    assert trainer.config.model.encoder.weights == "hub"


def test_without_a_hub_a_run_begins_random_says_so_aloud_and_stays_so(
    no_hub: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    run = tmp_path / "run"
    training.train(config(), data, run, say=said.append)
    text = " ".join(" ".join(said).split())
    assert "warning: NO PRETRAINED WEIGHTS." in text
    assert f"{no_hub} cannot be reached" in text
    assert f"https://huggingface.co/{REPO}/resolve/main/model.safetensors" in text
    assert "encoder.weights=FILE" in text
    assert "weights random" in text
    meta = checkpoint.read_meta(run / "checkpoint.safetensors")
    assert meta.weights is None and meta.config.model.encoder.weights is None
    monkeypatch.setattr(weights, "hub_fault", lambda _: pytest.fail("a resumed run asked"))
    trainer = Trainer(config(), open_dataset(data), run, resume=True)
    assert trainer.config.model.encoder.weights is None and trainer.step == 2


def test_a_frozen_encoder_is_never_random(no_hub: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"{no_hub} cannot be reached")) as caught:
        Trainer(config("encoder.freeze=true"), open_dataset(data), tmp_path / "run")
    assert "local file" in caught.value.fix
    assert not (tmp_path / "run").exists()


def test_a_server_that_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PATIENCE", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        point_at(address, tmp_path / "cache", monkeypatch)
        with pytest.raises(CheckpointError, match=r"timed out|does not answer"):
            weights.from_hub(lambda: timm.create_model(NAME, pretrained=True), NAME)


def test_a_resumed_run_refuses_another_file_of_the_same_name(
    data: Path, file: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(file.read_bytes())
    run = tmp_path / "run"
    training.train(config(weights=str(own)), data, run)
    torch.manual_seed(2)
    save_file(timm.create_model(NAME, pretrained=False).state_dict(), own)
    with pytest.raises(CheckpointError, match="is not the file that"):
        training.train(config(weights=str(own)), data, run, resume=True)
