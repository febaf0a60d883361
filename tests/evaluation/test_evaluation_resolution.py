"""Evaluation at another resolution: resampled where both sides say theirs, told where not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval_files import GreyPredictor, write_dataset
from terradapt.classes import ClassMap
from terradapt.config import RunConfig
from terradapt.data import Dataset, open_dataset
from terradapt.errors import ConfigError, DataError
from terradapt.evaluation import Protocol, evaluate
from terradapt.meta import Meta
from terradapt.prepare.folder import prepare

CLASSES = ClassMap(("a", "b", "c"))


def bare(root: Path, stated: float | None = None) -> Dataset:
    """Images without georeference, prepared with a stated resolution or without."""
    write_dataset(root / "in", [(96, 96), (64, 128)], CLASSES, resolution=None)
    options: dict[str, Any] = {} if stated is None else {"resolution": stated}
    prepare(root / "in", root / "out", options)
    return open_dataset(root / "out")


class Seeing(GreyPredictor):
    """Keeps the sides of the windows that it saw."""

    def predict(self, images: Any) -> Any:
        self.sides = {*getattr(self, "sides", ()), images.shape[-1]}
        return super().predict(images)


def run(dataset: Dataset, trained: float | None, seen: Any, **more: Any) -> tuple[set[int], str]:
    """Return the sides of the windows that the model saw, and the report's notes."""
    predictor = Seeing(CLASSES, window=32, resolution=trained)
    for name, value in more.items():
        setattr(predictor, name, value)
    report = evaluate(predictor, dataset, protocol=Protocol(resolution=seen), pictures=0)
    assert report.metrics["oa"] > 0.8
    return predictor.sides, " ".join(report.notes)


def test_a_stated_resolution_is_resampled_from(tmp_path: Path) -> None:
    dataset = bare(tmp_path, 0.25)
    assert {i.resolution for i in dataset.items} == {0.25}
    blocks: list[Any] = []

    class Wide(Seeing):
        def predict(self, images: Any) -> Any:
            blocks.append(images.shape)
            return super().predict(images)

    predictor = Wide(CLASSES, window=32, resolution=0.5)
    report = evaluate(predictor, dataset, protocol=Protocol(), pictures=0)
    halved = sum(b[0] for b in blocks)
    blocks.clear()
    evaluate(predictor, dataset, protocol=Protocol(resolution="native"), pictures=0)
    assert halved < sum(b[0] for b in blocks) / 2
    assert any("0.25 m/px" in n and "resampled to 0.5" in n for n in report.notes)
    assert report.data["resolution_m"] == 0.25


def test_images_that_do_not_say_their_resolution_are_told(tmp_path: Path) -> None:
    dataset = bare(tmp_path)
    _, notes = run(dataset, 0.5, "auto")
    assert "2 of 2 images do not say their metres per pixel" in notes
    assert "trained at 0.5" in notes and "resolution=METRES" in notes


def test_a_checkpoint_that_does_not_say_its_resolution_is_told(tmp_path: Path) -> None:
    _, notes = run(bare(tmp_path, 0.25), None, "auto")
    assert "Nothing was resampled: the checkpoint does not say" in notes


def test_other_data_without_any_resolution_is_told(tmp_path: Path) -> None:
    dataset = bare(tmp_path)
    predictor = GreyPredictor(CLASSES)
    predictor.meta = Meta(RunConfig(), CLASSES, predictor.spec, 32, data=dataset.name)
    assert evaluate(predictor, dataset, pictures=0).notes == []
    predictor.meta = replace(predictor.meta, data="elsewhere")
    notes = " ".join(evaluate(predictor, dataset, pictures=0).notes)
    assert "neither checkpoint nor images say their metres per pixel" in notes


def test_native_and_magnified_training_are_told(tmp_path: Path) -> None:
    dataset = bare(tmp_path, 0.25)
    assert "nothing was resampled (--resolution auto does)" in run(dataset, 0.5, "native")[1]
    notes = run(dataset, 0.5, "auto", scales=(0.4, 2.5))[1]
    assert "random crops of its training were magnified as much" in notes
    assert run(dataset, 0.26, "auto")[1] == ""


def test_a_number_without_any_resolution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image says its own metres") as caught:
        run(bare(tmp_path), None, 0.5)
    assert "resolution=METRES" in caught.value.fix
    assert "resampled to 0.5" in run(bare(tmp_path / "b", 0.25), None, 0.5)[1]


@pytest.mark.parametrize("wrong", [0, -1, "wide", True])
def test_a_stated_resolution_is_a_length(tmp_path: Path, wrong: Any) -> None:
    write_dataset(tmp_path / "in", [(40, 40)], CLASSES, resolution=None)
    with pytest.raises(DataError, match="option resolution"):
        prepare(tmp_path / "in", tmp_path / "out", {"resolution": wrong})


def test_a_file_that_says_its_resolution_is_believed(tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", [(40, 40)], CLASSES, resolution=0.5)
    prepare(tmp_path / "in", tmp_path / "out", {"resolution": 3})
    rows = json.loads((tmp_path / "out" / "dataset.json").read_text())["items"]
    assert {round(r["resolution"], 3) for r in rows} == {0.5}
