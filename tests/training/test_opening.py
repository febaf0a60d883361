"""A run that speaks: its opening screen, the time left, and its answer to Ctrl-C."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from terradapt import checkpoint, training
from terradapt.config import RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.progress import Show, duration_text
from terradapt.training.opening import WIDTH, narrow
from terradapt.training.pace import WITH_UNLABELLED, Pace
from terradapt.training.trainer import Trainer
from training_files import SMALL, same_run, write_folder


def small(*more: str) -> RunConfig:
    return load_config("landcover").with_overrides([*SMALL, *more])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("opening"))


class Shown:
    """A track that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, str, float | None]] = []
        self.totals: dict[str, int | None] = {}

    @contextmanager
    def __call__(self, total: int | None, label: str, unit: str) -> Iterator[Show]:
        self.totals[label] = total

        def advance(n: int, /, note: str = "", left: float | None = None) -> None:
            self.told.append((label, n, note, left))

        yield advance

    def done(self, label: str) -> int:
        return sum(n for name, n, _, _ in self.told if name == label)


def test_the_screen_says_what_is_trained_on_what_with_what(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(folder)
    items = [replace(i, resolution=0.5) for i in dataset.items]
    items[1] = replace(items[1], label=None)
    dataset = replace(dataset, items=tuple(items))
    trainer = Trainer(small(), dataset, tmp_path / "run")
    lines = trainer.opening()
    assert max(map(len, lines)) <= WIDTH
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert shown["images"] == "2 train (1 unlabelled), 1 val, 1 test"
    assert shown["scale"] == "0.5 m per pixel; a crop of 64 px is 32 m wide"
    assert shown["classes"] == "3: class0, class1, class2"
    count = sum(p.numel() for p in trainer.model.parameters())
    assert f"mobilenetv3_small_050, {count / 1e6:.2f} M parameters" in shown["model"]
    assert shown["weights"] == "random"
    assert shown["device"].endswith("fp32")
    assert shown["steps"] == "8: 2 epochs of 4, 2 crops each"
    assert trainer.warnings == []


def test_a_crop_of_few_metres_is_warned_of(folder: Path) -> None:
    spec = training_spec(folder, 0.0162)
    told = narrow(small("data.crop=512"), spec)
    assert told and "8.29 m wide" in told and "data.resolution=0.039" in told
    assert narrow(small("data.crop=512"), training_spec(folder, 0.05)) is None
    assert narrow(small("data.crop=512"), training_spec(folder, None)) is None


def training_spec(folder: Path, resolution: float | None):
    from terradapt.data import input_spec

    dataset = open_dataset(folder)
    return input_spec(dataset, small().data).model_copy(update={"resolution": resolution})


def test_validation_and_calibration_are_phases_with_loss_and_miou_beside_the_steps(
    folder: Path, tmp_path: Path
) -> None:
    shown, said = Shown(), []
    training.train(small(), folder, tmp_path / "run", bar=shown, say=said.append)
    assert shown.totals["train landcover"] == shown.done("train landcover") == 8
    assert shown.done("validate") == 2 * shown.totals["validate"] > 0
    assert shown.done("calibrate") == shown.totals["calibrate"] > 0
    steps = [(note, left) for label, _, note, left in shown.told if label == "train landcover"]
    assert steps[0][0].startswith("loss ") and "mIoU" not in steps[0][0]
    events = [json.loads(s) for s in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    last = [e["miou"] for e in events if e["event"] == "val"][-1]
    assert steps[-1][0].endswith(f"mIoU {last:.3f}")
    assert steps[0][1] is None and steps[2][1] > 0
    assert sum(line.startswith("time ") for line in said) == 1


def test_the_time_left_counts_what_comes_beside_the_steps() -> None:
    pace = Pace(crops=4, validations=(10, 20), windows=30, after=12)
    assert pace.left(0, 20) is None
    for step, seconds in enumerate((9.0, 2.0, 2.0), 1):
        pace.stepped(seconds, step)
    guessed = 2.0 / 4 / 3  # s a window, a third of a crop's training
    assert pace.left(3, 20) == pytest.approx(17 * 2.0 + (2 * 30 + 12) * guessed)
    pace.predicted(30, 60.0)
    assert pace.left(10, 20) == pytest.approx(10 * 2.0 + (30 + 12) * 2.0)
    assert pace.left(20, 20) == pytest.approx(12 * 2.0)


def test_the_time_left_knows_when_unlabelled_crops_begin() -> None:
    pace = Pace(crops=4, validations=(), windows=0, after=0, begin=10)
    for step in range(1, 21):
        plain = step <= 10
        pace.stepped(1.0 if plain else WITH_UNLABELLED, step)
        if step > 1:
            left = max(0, 10 - step) + WITH_UNLABELLED * min(10, 20 - step)
            assert pace.left(step, 20) == pytest.approx(left)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (89, "89 s"), (100, "2 min"), (5000, "83 min"), (7300, "2 h 02 min")],
)
def test_a_time_is_said_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_the_first_ctrl_c_is_answered_and_leaves_a_validation_for_later(
    folder: Path, tmp_path: Path
) -> None:
    """Stopped within the first validation, the run goes on with it and ends as an unbroken one."""
    training.train(small(), folder, tmp_path / "whole")
    answered = threading.Event()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        answered.set()

    class Stopping(Shown):
        @contextmanager
        def __call__(self, total: int | None, label: str, unit: str) -> Iterator[Show]:
            with super().__call__(total, label, unit) as show:
                if label == "validate":
                    signal.raise_signal(signal.SIGINT)
                yield show

    trainer = Trainer(small(), open_dataset(folder), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(bar=Stopping(), say=say)
    assert answered.wait(10) and any("stopping after this step" in s for s in said)
    meta = checkpoint.read_meta(tmp_path / "run" / "last.safetensors")
    assert (meta.step, meta.progress["due"]) == (4, True)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    training.train(small(), folder, tmp_path / "run", resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")


def test_a_second_ctrl_c_stops_at_once(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(), open_dataset(folder), tmp_path / "run")
    before = signal.getsignal(signal.SIGINT)

    def twice(_: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(twice)
    assert not (tmp_path / "run" / "last.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "nothing was written yet"),
        (("config.yaml",), "no step was saved yet"),
        (("config.yaml", "last.safetensors"), "the state is in"),
    ],
)
def test_a_state_is_only_said_to_be_where_it_is(
    tmp_path: Path, files: tuple[str, ...], said: str
) -> None:
    from terradapt.cli.train import _how_to_go_on

    run = tmp_path / "run"
    for name in files:
        run.mkdir(exist_ok=True)
        (run / name).touch()
    assert said in _how_to_go_on(run)
    shutil.rmtree(run, ignore_errors=True)


def test_a_run_of_hours_names_a_shorter_one(folder: Path, tmp_path: Path) -> None:
    class Slow(Pace):
        def left(self, step: int, total: int) -> float:
            return 4 * 3600.0

    trainer = Trainer(small("train.epochs=24"), open_dataset(folder), tmp_path / "run")
    trainer.pace = Slow(2, (), 0, 0)
    said: list[str] = []
    trainer._tell(lambda *_, **__: None, said.append, 1)
    assert said[0].startswith("time      about 4 h 00 min")
    assert said[1] == "          a first map sooner: a new run with epochs=2, about 20 min"
