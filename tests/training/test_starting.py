"""A warm start: weights by the names of classes, told in the checkpoint, kept when resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from terradapt import checkpoint, training
from terradapt.config import RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.errors import CheckpointError, ConfigError
from terradapt.files import digest
from terradapt.raster import write_raster
from terradapt.training.trainer import Trainer
from training_files import SMALL, StopError, same_run, write_folder

HEAD = "decoder"  # every tensor that a head has lies outside the encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def start(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "first"
    training.train(load_config("landcover").with_overrides(SMALL), folder, run)
    return run / "checkpoint.safetensors"


def warm(start: Path | str, *more: str) -> RunConfig:
    """Another encoder by its recipe, whose weights would be asked of a hub."""
    kept = [o for o in SMALL if "encoder" not in o]
    over = [*kept, "encoder.weights=hub", f"train.start={start}", "train.epochs=1", *more]
    return load_config("landcover").with_overrides(over)


def renamed(folder: Path, target: Path, names: str) -> Path:
    shutil.copytree(folder, target)
    (target / "classes.yaml").write_text(f"names: [{names}]\n")
    return target


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_file(path).items() if not k.startswith("state.")}


def trainer_of(config: RunConfig, folder: Path, run: Path, resume: bool = False) -> Trainer:
    return Trainer(config, open_dataset(folder, config.data), run, resume=resume)


def test_the_same_classes_start_with_the_very_weights(
    folder: Path, start: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(warm(start), folder, tmp_path / "run")
    state = trainer.model.state_dict()
    for name, value in weights(start).items():
        assert torch.equal(state[name], value), name
    training.train(warm(start), folder, tmp_path / "trained")
    meta = checkpoint.read_meta(tmp_path / "trained" / "checkpoint.safetensors")
    assert meta.start == digest(start)
    assert meta.config.model.encoder.name == "mobilenetv3_small_050"
    assert meta.config.model.encoder.weights is None
    assert meta.portable().config.train.start == "checkpoint.safetensors"
    first = json.loads((tmp_path / "trained" / "log.jsonl").read_text().splitlines()[0])
    assert (first["event"], first["new_classes"]) == ("start", "")


def test_a_run_is_a_start_too(folder: Path, start: Path, tmp_path: Path) -> None:
    begun = trainer_of(warm(start.parent), folder, tmp_path / "run").model.state_dict()
    kept = weights(start)
    assert all(torch.equal(begun[name], kept[name]) for name in kept)


def test_classes_are_joined_by_name_and_new_ones_start_at_the_mean(
    folder: Path, start: Path, tmp_path: Path
) -> None:
    data = renamed(folder, tmp_path / "data", "Class2, new, class0, class1")
    trainer = trainer_of(warm(start), data, tmp_path / "run")
    state, old = trainer.model.state_dict(), weights(start)
    grown = [k for k in old if old[k].shape != state[k].shape]
    assert grown
    for name in grown:
        expected = torch.stack([old[name][2], old[name].mean(0), old[name][0], old[name][1]])
        assert torch.equal(state[name], expected), name
    for name in old.keys() - set(grown):
        assert torch.equal(state[name], old[name]), name
    before, _ = checkpoint.load(start)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = before(image).logits, trainer.model.eval()(image).logits
    torch.testing.assert_close(b[:, [2, 3, 0]], a, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(b[:, 1], a.mean(1), atol=1e-5, rtol=1e-5)


def test_a_head_of_several_rows_a_class_is_joined_by_name(folder: Path, tmp_path: Path) -> None:
    """BANet's logits are a shuffle of 8 x 8 pixels: 64 rows a class."""
    training.train(
        load_config("landcover").with_overrides([*SMALL, "model.name=banet"]),
        folder,
        tmp_path / "first",
    )
    start = tmp_path / "first" / "checkpoint.safetensors"
    data = renamed(folder, tmp_path / "data", "class2, new, class0, class1")
    model = trainer_of(warm(start), data, tmp_path / "run").model.eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        a, b = checkpoint.load(start)[0](image).logits, model(image).logits
    torch.testing.assert_close(b[:, [2, 3, 0]], a, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(b[:, 1], a.mean(1), atol=1e-5, rtol=1e-5)


def test_only_the_order_of_the_classes_may_differ_too(
    folder: Path, start: Path, tmp_path: Path
) -> None:
    data = renamed(folder, tmp_path / "data", "class2, class0, class1")
    model = trainer_of(warm(start), data, tmp_path / "run").model.eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = checkpoint.load(start)[0](image).logits, model(image).logits
    torch.testing.assert_close(b[:, [1, 2, 0]], a, atol=1e-5, rtol=1e-5)


def test_a_class_that_the_dataset_lacks_is_named(folder: Path, start: Path, tmp_path: Path) -> None:
    data = renamed(folder, tmp_path / "data", "class0, class1, other")
    with pytest.raises(CheckpointError, match="class2"):
        training.train(warm(start), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_bands_change_nothing_at_first(start: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    for i in range(4):
        image = rng.integers(0, 256, (4, 96, 96)).astype(np.uint8)
        write_raster(data / "images" / f"{i}.tif", image)
        write_raster(data / "labels" / f"{i}.tif", image[0] % 3)
    (data / "classes.yaml").write_text("names: [class0, class1, class2]\n")
    config = warm(start, "data.bands=[4,1,2,3]", "model.in_channels=4")
    trainer = trainer_of(config, data, tmp_path / "run")
    assert trainer.config.model.in_channels == 4
    old = checkpoint.read_meta(start).spec
    assert trainer.spec.mean[1:] == old.mean and trainer.spec.std[1:] == old.std
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        a = checkpoint.load(start)[0](x[:, 1:]).logits
        b = trainer.model.eval()(x).logits
    torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)


def test_a_resumed_run_keeps_its_start_and_needs_its_file_no_more(
    folder: Path, start: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    shutil.copy(start, copy)
    training.train(warm(copy), folder, tmp_path / "whole")
    left = 2

    def broken(_: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise StopError

    trainer = trainer_of(warm(copy, "train.save_every=1"), folder, tmp_path / "run")
    with pytest.raises(StopError):
        trainer.fit(broken)
    copy.unlink()
    kept = [o for o in SMALL if "encoder" not in o]
    again = [*kept, "encoder.weights=hub", "train.epochs=1", "train.save_every=1"]
    config = load_config("landcover").with_overrides(again)  # the start is not named again
    training.train(config, folder, tmp_path / "run", resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")
    meta = checkpoint.read_meta(tmp_path / "run" / "checkpoint.safetensors")
    assert meta.start == digest(start)
    assert meta.config.train.start == str(copy)


def test_another_start_is_refused(folder: Path, start: Path, tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy.safetensors"
    shutil.copy(start, copy)
    training.train(warm(copy), folder, run)
    with pytest.raises(ConfigError, match="began with"):
        training.train(warm(start), folder, run, resume=True)
    other = start.with_name("last.safetensors")
    shutil.copy(other, copy)
    with pytest.raises(CheckpointError, match="is not the checkpoint"):
        training.train(warm(copy), folder, run, resume=True)
    fresh = tmp_path / "fresh"
    config = load_config("landcover").with_overrides([*SMALL, "train.epochs=1"])
    training.train(config, folder, fresh)
    named = load_config("landcover").with_overrides(
        [*SMALL, "train.epochs=1", f"train.start={start}"]
    )
    with pytest.raises(ConfigError, match="began with no start"):
        training.train(named, folder, fresh, resume=True)


@pytest.mark.parametrize("name", ["missing.safetensors", "hf://owner/name"])
def test_what_cannot_be_a_start(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises((CheckpointError, ConfigError)):
        training.train(warm(name), folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
