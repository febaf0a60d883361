"""The temperature at the end of a run: found once, kept, the same after a break."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from terradapt import checkpoint, predictors, training
from terradapt.config import RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.evaluation import evaluate
from terradapt.meta import Meta
from terradapt.report import write_report
from terradapt.training import calibrating as room
from training_files import SMALL, StopError, same_run, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


def small(*more: str) -> RunConfig:
    return load_config("landcover").with_overrides([*SMALL, *more])


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    training.train(small(), folder, run)
    return run


def read(run: Path) -> Meta:
    return checkpoint.read_meta(run / "checkpoint.safetensors")


def events(run: Path) -> list[dict]:
    lines = [json.loads(s) for s in (run / "log.jsonl").read_text().splitlines()]
    return [e for e in lines if e["event"] == "calibration"]


def test_a_run_ends_calibrated(run: Path) -> None:
    found = read(run).calibration
    assert found is not None
    assert found.split == "val" and found.pixels == 96 * 96 and not found.bias
    assert found.after["nll"] <= found.before["nll"] + 1e-6
    (event,) = events(run)
    assert event["temperature"] == found.temperature
    assert event["confidence"] == read(run).confidence
    assert (event["ece"], event["nll_before"]) == (found.after["ece"], found.before["nll"])


def test_a_run_broken_before_its_calibration_ends_the_same(
    folder: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StopError

    with monkeypatch.context() as patched, pytest.raises(StopError):
        patched.setattr(room, "fit_calibration", broken)
        training.train(small(), folder, tmp_path / "run")
    assert read(tmp_path / "run").calibration is None
    training.train(small(), folder, tmp_path / "run", resume=True)
    same_run(run, tmp_path / "run")
    assert read(tmp_path / "run").calibration == read(run).calibration
    training.train(small(), folder, tmp_path / "run", resume=True)  # all is done already
    same_run(run, tmp_path / "run")


def test_the_trained_weights_are_not_touched(folder: Path, run: Path, tmp_path: Path) -> None:
    training.train(small("train.calibrate=none"), folder, tmp_path / "run")
    assert read(tmp_path / "run").calibration is None
    assert events(tmp_path / "run")[0]["confidence"] == "not calibrated"
    (tmp_path / "run" / "log.jsonl").write_bytes((run / "log.jsonl").read_bytes())
    same_run(run, tmp_path / "run")


def test_without_a_validation_split_it_says_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    splits = {"train": ["0", "1", "2"], "val": [], "test": ["3"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    training.train(small("train.calibrate=bias"), folder, tmp_path / "run")
    assert read(tmp_path / "run").calibration is None
    assert read(tmp_path / "run").confidence == "not calibrated"


def test_a_bias_is_an_option_and_missing_classes_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    names = "names: [class0, class1, class2, never]\n"
    (folder / "classes.yaml").write_text(names)
    training.train(small("train.calibrate=bias"), folder, tmp_path / "run")
    found = read(tmp_path / "run").calibration
    assert found is not None
    assert found.absent == ("never",)
    assert len(found.bias) == 4 and found.bias[3] == 0 and found.bias[0] != 0
    assert found.after["nll"] < found.before["nll"]


def test_the_report_shows_before_and_after(folder: Path, run: Path, tmp_path: Path) -> None:
    """On the very split and windows that it was fitted to, the figures are the fit's own."""
    predictor = predictors.load(run / "checkpoint.safetensors", device="cpu")
    predictor.window = 96  # one window, so that nothing is blended
    report = evaluate(predictor, open_dataset(folder), "val")
    before, after = (report.reliability[k] for k in ("before", "after"))
    assert sum(b["pixels"] for b in before) == sum(b["pixels"] for b in after) == 96 * 96
    assert report.metrics["nll"] <= report.metrics["nll_before"] + 1e-4
    assert set(report.metrics["ece_per_class"]) == {"class0", "class1", "class2"}
    assert report.facts["confidence"] == read(run).confidence
    write_report(report, tmp_path / "r.json")
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["reliability"]["after"] == after
    assert told["metrics"]["ece"] == report.metrics["ece"]
    text, page = (tmp_path / "r.md").read_text(), (tmp_path / "r.html").read_text()
    assert "## Confidence, before" in text and "## Confidence, after" in text
    assert "ECE, not calibrated" in text and "| ECE |" in text
    assert "<h2>Confidence</h2>" in page and "as it should be" in page
