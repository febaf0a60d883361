"""Precision and threads: settled once, told, kept by a resumed run."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from terradapt import checkpoint, machine, training
from terradapt.config import RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.training import arithmetic
from terradapt.training.trainer import Trainer
from training_files import SMALL, StopError, same_run, write_folder


def small(*more: str) -> RunConfig:
    return load_config("landcover").with_overrides([*SMALL, *more])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(("gain", "chosen"), [(1.3, "bf16"), (1.05, "fp32")])
def test_auto_takes_what_is_faster_and_says_it(
    monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(arithmetic, "_has_bfloat16", lambda: True)
    monkeypatch.setattr(arithmetic, "speed_up", lambda *_: gain)
    config, told = arithmetic.settle_precision(small("train.precision=auto"), 3)
    assert config.train.precision == chosen
    assert f"{gain:.2f} times" in told
    assert arithmetic.settle_precision(small(), 3) == (small(), "")


def test_auto_without_bfloat16_or_with_several_processes_is_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(arithmetic, "_has_bfloat16", lambda: False)
    auto = small("train.precision=auto")
    assert arithmetic.settle_precision(auto, 3)[0].train.precision == "fp32"
    monkeypatch.setattr(arithmetic, "_has_bfloat16", lambda: True)
    config, told = arithmetic.settle_precision(auto, 3, processes=2)
    assert config.train.precision == "fp32"
    assert "several processes" in told


def test_the_speed_up_is_a_measured_ratio_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    gain = arithmetic.speed_up(small(), 3, seconds=0.0)
    assert 0.01 < gain < 100
    assert torch.equal(before, torch.get_rng_state())


def test_depthwise_convolutions_train_in_float32_beside_bfloat16() -> None:
    """Where they are slow in it; a copy computes with its own weights."""
    torch.manual_seed(0)
    kinds = (5, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 1)
    convs = [
        nn.Conv2d(8, 8, size, step, padding=2, dilation=apart, groups=8, bias=False)
        for size, step, apart in kinds
    ]
    model = nn.Sequential(*convs, nn.Conv2d(8, 8, 5, padding=2, groups=2, bias=False))
    arithmetic.spare_depthwise(model)
    model = copy.deepcopy(model)
    with torch.no_grad():
        model[0].weight *= 2
    x = torch.randn(1, 8, 16, 16)
    for i, layer in enumerate(model):
        assert isinstance(layer, nn.Conv2d)
        exact = nn.Conv2d.forward(layer, x)
        with torch.autocast("cpu", torch.bfloat16):
            half = nn.Conv2d.forward(layer, x)
            out = layer(x)
            with torch.no_grad():
                assert torch.equal(layer(x), half)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, exact.to(torch.bfloat16) if i < 3 else half)
        assert torch.equal(layer(x), exact)
    assert not torch.equal(exact.to(torch.bfloat16), half)


def test_a_run_in_auto_is_stored_with_what_it_took_and_resumes_bit_for_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(arithmetic, "_has_bfloat16", lambda: True)
    monkeypatch.setattr(arithmetic, "speed_up", lambda *_: 1.5)
    auto, said = small("train.precision=auto"), []
    training.train(auto, folder, tmp_path / "whole", say=said.append)
    assert any("precision bf16" in line for line in said)
    assert load_config(tmp_path / "whole" / "config.yaml").train.precision == "bf16"
    meta = checkpoint.read_meta(tmp_path / "whole" / "checkpoint.safetensors")
    assert meta.config.train.precision == "bf16"
    left = 3

    def stop(_: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise StopError

    with pytest.raises(StopError):
        Trainer(auto, open_dataset(folder), tmp_path / "broken").fit(stop)
    monkeypatch.setattr(arithmetic, "speed_up", lambda *_: 0.5)  # another day, another machine
    training.train(auto, folder, tmp_path / "broken", resume=True)
    same_run(tmp_path / "whole", tmp_path / "broken")


def test_threads_leave_taken_cores_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(arithmetic, "cpu_threads", lambda: 4)
    for taken, threads in ((0.2, 4), (1.1, 3), (9.0, 1)):
        monkeypatch.setattr(arithmetic, "taken_cores", lambda taken=taken: taken)
        found, told = arithmetic.settle_threads()
        assert found == threads
        assert bool(told) == (threads < 4)
    assert arithmetic.settle_threads(2) == (2, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert arithmetic.settle_threads() == (4, "")


def test_a_resumed_run_has_the_threads_of_its_first_part(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = torch.get_num_threads()
    training.train(small("train.epochs=1"), folder, tmp_path / "run")
    assert torch.get_num_threads() == before
    meta = checkpoint.read_meta(tmp_path / "run" / "last.safetensors")
    assert meta.progress["threads"] == machine.cpu_threads()
    monkeypatch.setattr(arithmetic, "cpu_threads", lambda: 7)
    dataset = open_dataset(folder)
    again = Trainer(small("train.epochs=1"), dataset, tmp_path / "run", resume=True)
    assert again.threads == meta.progress["threads"]


def test_others_cores_are_counted_without_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.time, "sleep", lambda _: None)
    monkeypatch.setattr(machine, "_busy_seconds", iter([10.0, 11.0]).__next__)
    monkeypatch.setattr(machine.time, "process_time", iter([5.0, 5.25]).__next__)
    assert machine.taken_cores(0.5) == pytest.approx(1.5)  # 0.75 s of work in half a second
    monkeypatch.setattr(machine, "_busy_seconds", iter([10.0, 10.0]).__next__)
    monkeypatch.setattr(machine.time, "process_time", iter([5.0, 5.25]).__next__)
    assert machine.taken_cores(0.5) == 0
