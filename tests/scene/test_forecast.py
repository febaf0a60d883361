"""What a prediction will take, said before it begins."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from scene_files import PlainPredictor, noise, write_scene
from terradapt.grid import Grid, Window
from terradapt.scene import PredictOptions
from terradapt.scene import forecast as forecasts
from terradapt.scene.cluster import bands
from terradapt.scene.forecast import Forecast, forecast
from terradapt.scene.job import open_job, row_memory


def test_a_few_windows_stand_for_the_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scene(tmp_path / "scene.tif", noise(2100, 2000))
    predictor = PlainPredictor()
    now = iter(range(10_000))
    monkeypatch.setattr(forecasts.time, "monotonic", lambda: float(next(now)))
    with ExitStack() as stack:
        job = open_job(predictor, path, PredictOptions(batch=4), "", stack)
        predictor.seen.clear()
        told = forecast(job, "scene.tif")
        memory = row_memory(job.predictor, job.grid, job.wanted)
    sampled = sum(shape[0] for shape in predictor.seen) // 2
    assert 0 < sampled < len(job.grid) / 10
    assert told.window_seconds == pytest.approx(1 / sampled), "one tick of the clock a sample"
    assert told.seconds() == pytest.approx(len(job.grid) / sampled)
    assert told.memory is not None and told.memory > memory


def test_a_sample_lies_where_the_scene_has_data(tmp_path: Path) -> None:
    pixels = noise(2048, 2048)
    pixels[:, 700:1400] = 0
    path = write_scene(tmp_path / "holed.tif", pixels, nodata=0)
    empty = write_scene(tmp_path / "empty.tif", np.zeros_like(pixels), nodata=0)
    for scene, known in ((path, True), (empty, False)):
        predictor = PlainPredictor()
        with ExitStack() as stack:
            told = forecast(open_job(predictor, scene, PredictOptions(), "", stack), "scene")
        assert (told.window_seconds is not None) == known == bool(predictor.seen)
        assert (told.seconds() is not None) == known


def test_workers_share_block_rows_and_repeat_what_two_of_them_need() -> None:
    grid = Grid(4096, 4096, 256, 192)
    told = Forecast("scene", grid, 1, 0.5, None)
    whole = Window(0, 0, 4096, 4096)
    across = len(grid.cols.starts)
    assert told.seconds() == len(grid) * 0.5
    rows = [len(grid.rows.touching(b.row, b.bottom)) for b in bands(grid, whole, 4)]
    assert sum(rows) > len(grid.rows.starts)
    assert told.seconds(4) == sum(rows) * across * 0.5 / 4
    assert told.seconds(100) == told.seconds(8), "no more than block rows"
    assert told.to_dict(3)["hours"].keys() == {1, 2, 3, 4, 8, 16}


def test_it_is_one_line() -> None:
    told = Forecast("scene.tif", Grid(4096, 4096, 256, 192), 1, 10.0, 3_000_000_000)
    assert told.line() == "scene.tif: 441 windows of 256 px, about 74 min, 3.0 GB of memory"
    assert "with 4 workers" in told.line(4)
