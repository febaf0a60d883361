from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from terradapt import checkpoint, models, training
from terradapt.config import EncoderConfig, ModelConfig, OptimConfig, RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.errors import ConfigError, DataError, OutputError
from terradapt.training.loading import RunSampler
from terradapt.training.optim import Average, build_optimizer, set_rates
from terradapt.training.trainer import Trainer
from training_files import SMALL, StopError, same_run, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


def small(*more: str) -> RunConfig:
    return load_config("landcover").with_overrides([*SMALL, *more])


@pytest.fixture(scope="module")
def unbroken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    training.train(small(), folder, run)
    return run


def test_a_run_leaves_config_log_and_two_checkpoints(unbroken: Path) -> None:
    files = {f.name for f in unbroken.iterdir()}
    names = {"config.yaml", "log.jsonl", "checkpoint.safetensors", "last.safetensors"}
    assert files == names | {"splits.json"}
    assert load_config(unbroken / "config.yaml") == small()
    events = [json.loads(s) for s in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "val"] == [4, 8]
    best = checkpoint.read_meta(unbroken / "checkpoint.safetensors").metrics["miou"]
    assert best == max(e["miou"] for e in events if e["event"] == "val")


@pytest.mark.parametrize("after", [1, 3, 5, 7])
def test_a_resumed_run_equals_an_unbroken_one(
    folder: Path, unbroken: Path, tmp_path: Path, after: int
) -> None:
    """Broken in the middle of an epoch, without a word, at any step."""

    def broken(_: int) -> None:
        nonlocal after
        after -= 1
        if not after:
            raise StopError

    trainer = Trainer(small(), open_dataset(folder), tmp_path / "run")
    with pytest.raises(StopError):
        trainer.fit(broken)
    training.train(small(), folder, tmp_path / "run", resume=True)
    same_run(unbroken, tmp_path / "run")


def test_a_stopped_run_saves_its_state_first(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(), open_dataset(folder), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(lambda _: signal.raise_signal(signal.SIGINT))
    assert checkpoint.read_meta(tmp_path / "run" / "last.safetensors").step == 1
    training.train(small(), folder, tmp_path / "run", resume=True)
    same_run(unbroken, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "terradapt", "train", "landcover", *SMALL]
    command += ["--data", str(folder), "-o", str(run), "--resume", "--no-report"]
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (run / "last.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    same_run(unbroken, run)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["supervised", "consistency"])
def test_two_processes_train_one_model(objective: str, folder: Path, tmp_path: Path) -> None:
    """Data-parallel on two CPU processes: one log, one model, every image validated once."""
    run = tmp_path / "run"
    page = (Path(__file__).parents[2] / "docs" / "gpus.md").read_text("utf-8")
    lines = page.replace("\\\n", " ").splitlines()
    (line,) = (text for text in lines if text.startswith("accelerate launch --cpu"))
    words = shlex.split(line.removeprefix("accelerate launch"))
    words = [{"DIR": str(folder), "RUN": str(run)}.get(word, word) for word in words]
    command = [sys.executable, "-m", "accelerate.commands.launch", *words, *SMALL, "train.batch=4"]
    command += [f"objective.name={objective}", "objective.consistency.dropout=0.5"]
    if objective == "consistency":  # the model is asked three times before a gradient
        more = write_folder(tmp_path / "more", size=80) / "images"
        command.append(f"data.unlabelled={more}")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    events = [json.loads(s) for s in (run / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "val"] == [4, 8]
    metrics = checkpoint.read_meta(run / "checkpoint.safetensors").metrics
    assert metrics["pixels"] == 96 * 96
    assert checkpoint.load(run / "last.safetensors")


def test_workers_change_nothing(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    training.train(small("data.workers=2"), folder, tmp_path / "run")
    same_run(unbroken, tmp_path / "run")


def test_training_learns(folder: Path, tmp_path: Path) -> None:
    faster = ["optim.warmup=0", "optim.lr=3e-3", "optim.lr_backbone=3e-3", "train.batch=4"]
    gentle = ["augment.brightness=0", "augment.contrast=0", "train.ema=null"]
    config = small(*faster, *gentle, "train.epochs=1", "train.steps_per_epoch=40")
    best = training.train(config, folder, tmp_path / "run")
    assert best["miou"] > 0.8


def test_another_config_or_a_held_folder_is_refused(folder: Path, unbroken: Path) -> None:
    with pytest.raises(OutputError, match="holds a run already"):
        training.train(small(), folder, unbroken)
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        training.train(small("optim.lr=1e-2"), folder, unbroken, resume=True)


def test_a_loss_that_is_not_finite_ends_the_run(folder: Path, tmp_path: Path) -> None:
    config = small("optim.lr=1e30", "optim.clip=null", "steps_per_epoch=40", "optim.warmup=0")
    with pytest.raises(ConfigError, match="not finite"):
        training.train(config, folder, tmp_path / "run")


def test_the_monitored_metric_must_exist(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        training.train(small("train.monitor=nosuch"), folder, tmp_path / "run")


def test_a_single_image_is_no_batch_for_norms_of_single_pixels(
    folder: Path, tmp_path: Path
) -> None:
    model = ["model.name=pspnet", "train.accumulate=2"]
    with pytest.raises(ConfigError, match="a batch of 1 is too small") as caught:
        training.train(small(*model, "train.batch=1"), folder, tmp_path / "run")
    assert "train.batch to 2" in caught.value.fix
    assert not (tmp_path / "run").exists()


def test_bands_must_fit_the_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match="bands"):
        training.train(small("data.bands=[1,2]"), folder, tmp_path / "run")


def test_accumulated_batches_are_one_step_over_all_their_crops(
    folder: Path, tmp_path: Path
) -> None:
    trainer = Trainer(small("train.accumulate=3"), open_dataset(folder), tmp_path / "run")
    assert trainer.crops_per_step == 6
    seen: list[torch.Tensor] = []
    inner = trainer.objective

    def watched(model, batch):
        seen.append(batch["image"])
        return inner(model, batch)

    trainer.objective = watched
    steps: list[int] = []
    with pytest.raises(StopError):
        trainer.fit(lambda n: steps.append(n) or _stop_at(steps, 2))
    assert len(seen) == 6
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def _stop_at(steps: list[int], count: int) -> None:
    if len(steps) == count:
        raise StopError


def test_processes_share_each_batch_without_overlap() -> None:
    keys = [list(RunSampler(8, 32, 8, rank, 4)) for rank in range(4)]
    for start in range(0, 6, 2):
        batch = sorted(k for part in keys for k in part[start : start + 2])
        assert batch == list(range(8 + start * 4, 16 + start * 4))


@pytest.fixture(scope="module")
def student() -> models.SegmentationModel:
    encoder = EncoderConfig(name="mobilenetv3_small_050")
    return models.build(ModelConfig(name="kd-arafnet", encoder=encoder), 3)


def test_two_rates_and_no_decay_on_bias_and_norm(student) -> None:
    config = OptimConfig(lr=6e-4, lr_backbone=6e-5, weight_decay=0.01)
    optimizer = build_optimizer(student, config)
    by_id = {id(p): n for n, p in student.named_parameters()}
    held = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = by_id[id(parameter)]
            held.add(name)
            assert group["peak"] == (6e-5 if name.startswith("encoder.") else 6e-4), name
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1), name
    assert held == {n for n, p in student.named_parameters() if p.requires_grad}


def test_the_rate_is_a_cosine_of_the_step_after_a_warm_up(student) -> None:
    config = OptimConfig(lr=1e-4, min_lr=1e-7, warmup=10)
    optimizer = build_optimizer(student, config)

    def rate(step: int) -> float:
        set_rates(optimizer, config, step, 110)
        return optimizer.param_groups[-1]["lr"]

    assert rate(0) == pytest.approx(1e-5)
    assert rate(10) == pytest.approx(1e-4)
    assert rate(60) == pytest.approx((1e-4 + 1e-7) / 2)
    assert rate(110) == pytest.approx(1e-7)
    assert all(rate(i) >= rate(i + 1) for i in range(10, 110))


def test_the_average_of_constant_weights_is_the_weights(student) -> None:
    average = Average(student, 0.99)
    for step in range(3):
        average.update(student, step)
    state = average.state_dict(student)
    for name, value in student.state_dict().items():
        assert torch.allclose(state[name].float(), value.float()), name


def test_train_through_the_command_line(terradapt, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = ["train", "landcover", *SMALL, "epochs=1", "--data", folder, "-o", run]
    done = terradapt(*args)
    assert done.status == 0, done.err
    assert (run / "report.html").stat().st_size > 1000
    assert json.loads((run / "report.json").read_text())["metrics"]["miou"] >= 0
    assert terradapt(*args).is_user_error("holds a run already")
    assert terradapt("train", "landcover", "--data", tmp_path / "none").is_user_error("none")
    assert terradapt("train", "landcover", "trian.x=1", "--data", folder).is_user_error("trian")


def test_a_run_killed_before_its_first_state_tells_its_steps_once(
    folder: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(unbroken / "config.yaml", run)
    first = (unbroken / "log.jsonl").read_text().splitlines()[0]
    (run / "log.jsonl").write_text(f"{first}\n")
    training.train(small(), folder, run, resume=True)
    same_run(unbroken, run)


def test_a_resumed_run_keeps_its_split_whatever_joins(
    folder: Path, unbroken: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its images, in their order; a new run takes the new image too."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(folder, data)
    stated = json.loads((data / "splits.json").read_text())
    (data / "splits.json").write_text(json.dumps({"protocol": "by_image", "seed": 0, **stated}))
    steps = iter(range(5))

    def broken(_: int) -> None:
        if next(steps) == 3:
            raise StopError

    trainer = Trainer(small(), open_dataset(data), run)
    with pytest.raises(StopError):
        trainer.fit(broken)
    for part in ("images", "labels"):
        shutil.copy(data / part / "0.tif", data / part / "new.tif")
    assert "new" in open_dataset(data).splits["train"]
    caplog.clear()
    training.train(small(), data, run, resume=True)
    assert "1 image (new): came after the run began" in caplog.text
    same_run(run, unbroken)
