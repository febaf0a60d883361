"""Scores of change become probabilities by pairs whose changes are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from scene_files import PLACE, PlainPredictor, write_scene
from terradapt.changes.calibration import ChangeTable, read_table
from terradapt.changes.fitting import calibrate_changes, expected_error, fitted_table
from terradapt.changes.run import compare
from terradapt.classes import ClassMap
from terradapt.errors import DataError, OutputError
from terradapt.raster import write_raster


def test_a_table_never_falls_and_gives_the_shares_that_it_was_fitted_on() -> None:
    steps = np.arange(251)
    pixels = np.full(251, 1000.0)
    truth = (steps / 250) ** 3
    table = fitted_table(pixels, pixels * truth)
    assert table(np.float32([0.0, 0.5, 1.0])) == pytest.approx([0, 0.125, 1], abs=1e-4)
    assert expected_error(pixels, pixels * truth, table) < 1e-3
    assert expected_error(pixels, pixels * truth, ChangeTable()) == pytest.approx(0.25, abs=0.01)
    noisy = np.random.default_rng(0).binomial(20, truth).astype(float)
    table = fitted_table(np.full(251, 20.0), noisy)
    assert (np.diff(table.probabilities) >= 0).all() and (np.diff(table.scores) > 0).all()
    gaps = np.zeros(251)
    gaps[[10, 100]] = 50
    table = fitted_table(gaps, gaps / 2)
    assert (table.scores[0], table.scores[-1]) == (0, 1)
    assert table(np.float32([0.7]))[0] == pytest.approx(0.5)


class Hazy(PlainPredictor):
    """Sees a building of half a chance where it is grey, of a whole one where it is bright."""

    def __init__(self) -> None:
        super().__init__(2, 64)
        self.classes = ClassMap(("ground", "building"))

    def score(self, x: np.ndarray) -> np.ndarray:
        return np.stack([1 - x.mean(1), x.mean(1)], 1).astype(np.float32)


def write_pairs(folder: Path, unchanged: int = 0) -> Path:
    """Ten pairs: what becomes grey has not changed, what becomes white has; the first are grey."""
    for number in range(10):
        pixels = np.zeros((3, 128, 128), np.uint8)
        later = pixels.copy()
        later[:, 10:40, 10:40] = 150
        later[:, 60:100, 20 + number : 60 + number] = 255 if number >= unchanged else 150
        label = (later[0] == 255).astype(np.uint8)
        name = f"pair{number}.tif"
        write_scene(folder / "A" / name, pixels, transform=PLACE)
        write_scene(folder / "B" / name, later, transform=PLACE)
        write_raster(folder / "label" / name, label, crs=None, transform=PLACE)
    return folder


def test_a_fitted_table_turns_a_false_change_into_a_small_probability(tmp_path: Path) -> None:
    for part in ("A", "B", "label"):
        (tmp_path / "pairs" / part).mkdir(parents=True)
    pairs = write_pairs(tmp_path / "pairs")
    said: list[str] = []
    options = {"model": Hazy(), "align": False, "reach": 0.0}
    table = calibrate_changes(pairs, tmp_path / "t.json", say=said.append, **options)
    stored = read_table(tmp_path / "t.json")
    assert stored == table and "pairs of pairs" in table.source
    assert table.ece is not None and table.ece < 0.01 and "0.1 on" in said[0]
    low, high = table(np.float32([0.59, 1.0])).tolist()
    assert low < 0.05 and high > 0.95
    assert "add pairs without a change" in said[-1]
    sides = (pairs / "A" / "pair0.tif", pairs / "B" / "pair0.tif")
    plain = compare(*sides, tmp_path / "a.gpkg", **options)
    figures = compare(*sides, tmp_path / "b.gpkg", calibration=tmp_path / "t.json", **options)
    assert (plain["polygons"]["new"]["count"], figures["polygons"]["new"]["count"]) == (2, 1)
    assert figures["calibration"].startswith("calibrated on")
    with pytest.raises(OutputError, match="exists already"):
        calibrate_changes(pairs, tmp_path / "t.json", **options)
    shutil.rmtree(pairs / "B")
    with pytest.raises(DataError, match="has no second date"):
        calibrate_changes(pairs, tmp_path / "u.json", **options)
    assert not (tmp_path / "u.json").exists()
    assert json.loads((tmp_path / "t.json").read_text())["ece"] == table.ece


def test_pairs_without_a_change_are_counted_and_need_no_warning(tmp_path: Path) -> None:
    for part in ("A", "B", "label"):
        (tmp_path / "pairs" / part).mkdir(parents=True)
    pairs = write_pairs(tmp_path / "pairs", unchanged=2)
    said: list[str] = []
    options = {"model": Hazy(), "align": False, "reach": 0.0}
    calibrate_changes(pairs, tmp_path / "t.json", say=said.append, **options)
    assert len(said) == 1


@pytest.mark.parametrize(("side", "told"), [(12, 0), (18, 1)])
def test_an_object_has_a_quarter_of_sure_pixels(tmp_path: Path, side: int, told: int) -> None:
    before = np.zeros((3, 128, 128), np.uint8)
    after = before.copy()
    after[:, 40:70, 40:70] = 150  # 900 px of a probability of 0.2
    after[:, 40 : 40 + side, 40 : 40 + side] = 255
    for name, pixels in (("a", before), ("b", after)):
        write_scene(tmp_path / f"{name}.tif", pixels, transform=PLACE)
    table = {"scores": [0, 0.58, 0.6, 1], "probabilities": [0, 0.2, 0.2, 1]}
    (tmp_path / "t.json").write_text(json.dumps(table))
    figures = compare(
        tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "u.gpkg", model=Hazy(), align=False,
        reach=0.0, calibration=tmp_path / "t.json", min_area=0.0,
    )  # fmt: skip
    assert figures["polygons"]["new"]["count"] == told
