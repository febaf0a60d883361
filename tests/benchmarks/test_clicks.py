"""Simulated clicks and few labels: which pixels are clicked, what moves, what the tables say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terradapt.data import open_dataset
from terradapt.data.reading import read_mask
from terradapt.grid import Window
from terradapt.raster import write_raster

HOME = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HOME))
    return importlib.import_module


def pool_of(
    clicks: Any, logits: list[float], image: list[int], spots: list[tuple[int, int]]
) -> Any:
    """Two classes, one feature that is the logit itself; 0 is as unsure as can be."""
    features = torch.tensor(logits)[:, None]
    truth = np.array([value > 0 for value in logits], np.uint8)
    head = torch.ones(1, 1), torch.zeros(1)
    return clicks.Pool(features, truth, np.array(image), np.array(spots), head, 1.0)


def test_the_least_sure_place_is_clicked_first_and_its_least_sure_pixels(script: Any) -> None:
    clicks = script("clicks")
    # image 0 is sure, image 1 is not; its pixels 4 and 5 lie side by side
    logits = [9.0, 8.0, 7.0, 2.0, 0.1, 0.2, 1.0]
    spots = [(0, 0), (0, 90), (90, 0), (0, 0), (50, 50), (50, 51), (90, 90)]
    pool = pool_of(clicks, logits, [0, 0, 0, 1, 1, 1, 1], spots)
    assert clicks.ask(pool, 3, 1, 2, 10).tolist() == [4, 6, 2]
    assert clicks.ask(pool, 3, 1, 3, 1).tolist() == [4, 5, 6]
    chosen = clicks.ask(pool, 6, 3, 1, 1).tolist()
    assert len(chosen) == len(set(chosen)) == 6
    assert clicks.ask(pool, 99, 2, 5, 10).tolist().count(5) == 0  # too near to the pixel 4


def test_windows_cover_an_image_and_end_with_it(script: Any) -> None:
    seen = np.zeros((70, 40), int)
    found = list(script("clicks").windows(70, 40, 32))
    for window in found:
        seen[window.slices] += 1
    assert seen.min() == 1
    assert found[-1] == Window(38, 8, 32, 32)
    assert list(script("clicks").windows(20, 20, 32)) == [Window(0, 0, 32, 32)]


def test_draws_that_dense_labels_hardly_help_do_not_count(script: Any) -> None:
    def row(seed: int, arm: str, figure: float) -> dict[str, Any]:
        return {"data": "epfl", "seed": seed, "arm": arm, "test": {"figure": figure}}

    clicks = script("clicks")
    figures = {0: {"few": 0.5, "dense": 0.6, "queue": 0.59, "random": 0.55}}
    figures[1] = {"few": 0.5, "dense": 0.57, "queue": 0.5, "random": 0.5}
    figures[2] = {"few": 0.4, "dense": 0.6, "queue": 0.5}
    rows = [row(seed, arm, v) for seed, arms in figures.items() for arm, v in arms.items()]
    rows = [{**r, "val": r["test"]} for r in rows]
    lines = {line["arm"]: line for line in clicks.summary(rows, 8)}
    assert lines["queue"]["adds"] == pytest.approx([9, 0, 10])
    assert lines["queue"]["share"] == pytest.approx([90, 50])
    assert lines["queue"]["ahead"] == pytest.approx([4])
    assert lines["random"]["ahead"] == []
    settings = {"budget": 300, "steps": 5, "crop": 64, "least": 8}
    line = "| epfl | queue | +6.33 ± 5.51 | +9.00, +0.00, +10.00 | +6.33 ± 5.51 | 2 "
    assert f"{line}| 70.00 ± 28.28 | +4.00 |" in clicks.page(settings, rows)


def test_labels_are_moved_by_whole_pixels_and_unknown_where_nothing_came(script: Any) -> None:
    moved, ids = script("few").moved, np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(moved(ids, 1, 0), [[255] * 4, ids[0], ids[1]])
    np.testing.assert_array_equal(moved(ids, 0, -2)[:, :2], ids[:, 2:])
    assert (moved(ids, 0, -2)[:, 2:] == 255).all()
    np.testing.assert_array_equal(moved(ids, 0, 0), ids)


def test_aligning_is_told_as_a_share_of_the_iou_that_was_lost(script: Any) -> None:
    def row(way: str, px: int, figure: float) -> dict[str, Any]:
        return {"data": "dubai", "way": way, "px": px, "seed": 0, "test": {"figure": figure}}

    rows = [row("right", 0, 0.6), row("moved", 3, 0.5), row("moved, align=auto", 3, 0.59)]
    rows += [row("moved", 6, 0.4), row("moved, align=auto", 6, 0.5)]
    assert script("few").given_back(rows) == pytest.approx([90, 50])
    rows[0]["test"] |= {"f1": 0.6}  # two classes: the figure is F1, and IoU = F1 / (2 - F1)
    assert script("few").iou_of(rows[0]) == pytest.approx(100 * 0.6 / 1.4)


def test_folders_hold_the_splits_of_a_draw_and_the_labels_that_were_given(
    script: Any, tmp_path: Path
) -> None:
    draws, shared = script("draws"), tmp_path / "given"
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 255
    for name in "abc":
        pixels = np.full((3, 40, 40), ord(name), np.uint8)
        write_raster(shared / "roads_epfl/images" / f"{name}.png", pixels)
        write_raster(shared / "roads_epfl/masks" / f"{name}.png", mask)
    splits = {"train": ["a"], "unlabelled": ["b"], "val": ["c"], "test": []}
    (shared / "splits").mkdir()
    (shared / "splits/epfl.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c"]}))
    (shared / "splits/epfl_few0.json").write_text(json.dumps(splits))
    full = draws.base(shared, tmp_path / "home", "epfl")
    dataset = open_dataset(full)
    assert dataset.classes.names == ("background", "road")
    assert dataset.splits["train"] == ("a", "b")
    np.testing.assert_array_equal(read_mask(dataset, dataset.item("b")), mask > 0)
    known = np.full((40, 40), 255, np.uint8)
    known[3, 4] = 1
    few = draws.splits_of(shared, "epfl", 0)
    sparse = draws.variant(full, tmp_path / "sparse", {"train": ["b"], "val": ["c"]}, {"b": known})
    dataset = open_dataset(sparse)
    np.testing.assert_array_equal(read_mask(dataset, dataset.item("b")), known)
    np.testing.assert_array_equal(read_mask(dataset, dataset.item("c")), mask > 0)
    assert draws.variant(full, tmp_path / "draw", few) == tmp_path / "draw"
    assert [i.id for i in open_dataset(tmp_path / "draw").unlabelled] == ["b"]


def test_rows_stay_and_other_settings_are_refused(script: Any, tmp_path: Path) -> None:
    draws = script("draws")
    kept = draws.Kept(tmp_path / "out", {"steps": 3}, lambda rows: f"{len(rows)} rows")
    kept.add({"seed": 0, "figure": 0.5})
    again = draws.Kept(tmp_path / "out", {"steps": 3}, lambda rows: "")
    assert again.find({"seed": 0}) == {"seed": 0, "figure": 0.5}
    assert again.find({"seed": 1}) is None
    assert (tmp_path / "out.md").read_text() == "1 rows"
    jobs = [draws.Job({"seed": n}, None, None, 90.0) for n in range(3)]
    assert again.told(jobs) == "2 of 3 runs are left: about 3 core minutes"
    with pytest.raises(SystemExit, match="other settings"):
        draws.Kept(tmp_path / "out", {"steps": 4}, lambda rows: "")
