"""The ground around windows: what it shows, and that it is a function of scene and lattice."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_files import ArrayScene, PlainPredictor, noise, write_scene
from terradapt.errors import SceneError
from terradapt.grid import Grid, Window
from terradapt.raster import Clipped, SceneReader
from terradapt.scene import PredictOptions, predict_blocks
from terradapt.scene.blend import Plan, read_chunks
from terradapt.scene.cluster import Task, _unpacked, bands, predict_band
from terradapt.scene.job import Job
from terradapt.scene.scale import search_scale
from terradapt.scene.stream import Wanted, predict_region

laws = settings(max_examples=25, deadline=None)


class Seeing(PlainPredictor):
    """Its scores depend on the window, on the ground around, and on the place in the window."""

    def __init__(self, window: int = 32, context: int = 4) -> None:
        super().__init__(window=window)
        twice = {"mean": self.spec.mean * 2, "std": self.spec.std * 2, "context": context}
        self.spec = self.spec.model_copy(update=twice)

    def score(self, x: np.ndarray) -> np.ndarray:
        assert x.shape[1] == 6
        return super().score(x[:, :3] + 3 * x[:, 3:])


def by_hand(pixels: np.ndarray, window: Window, side: int) -> np.ndarray:
    """Means of the wide window's squares, from a scene with 0 all around it."""
    far = side * (window.height + max(window.height, *pixels.shape[1:]))
    far = -(-far // side) * side
    wide = np.pad(pixels.astype(float), ((0, 0), (far, far), (far, far)))
    row, col = (
        far + side * int(np.floor((n - (side - 1) * size / 2) / side + 0.5))
        for n, size in ((window.row, window.height), (window.col, window.width))
    )
    cut = wide[:, row : row + side * window.height, col : col + side * window.width]
    cells = cut.reshape(len(pixels), window.height, side, window.width, side).mean((2, 4))
    return np.floor(cells + 0.5).astype(np.uint8)


@st.composite
def lattices(draw: st.DrawFn) -> Grid:
    window = draw(st.integers(1, 24))
    stride = draw(st.integers(max(1, window // 4), window))
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    return Grid(height, width, window, stride, block=draw(st.integers(4, 64)))


@laws
@given(lattices(), st.sampled_from([2, 4, 8]), st.sampled_from([1, 16, 24]), st.integers(1, 4))
def test_every_window_comes_with_its_decimated_wide_window(
    grid: Grid, side: int, tall: int, batch: int
) -> None:
    pixels = noise(grid.height, grid.width)
    valid = np.random.default_rng(1).random(pixels.shape[1:]) < 0.7
    source = ArrayScene(pixels, valid, block_height=tall)
    plan = Plan(grid, source.window, batch)
    for chunk in read_chunks(source, plan, side):
        for col, image in zip(chunk.live, chunk.images, strict=True):
            window = grid.window_at(chunk.row, col)
            np.testing.assert_array_equal(image[3:], by_hand(pixels * valid, window, side))
            np.testing.assert_array_equal(image, source.look(window, side)[0])


def test_the_ground_around_is_concentric() -> None:
    pixels = np.zeros((1, 400, 400), np.uint8)
    pixels[:, 192:208, 192:208] = 160
    seen, _ = ArrayScene(pixels).look(Window(168, 168, 64, 64), 4)
    assert seen.shape == (2, 64, 64)
    middle = np.zeros((64, 64), np.uint8)
    middle[30:34, 30:34] = 160
    np.testing.assert_array_equal(seen[1], middle)


@laws
@given(lattices(), st.data())
def test_any_region_equals_the_scene_bit_for_bit(grid: Grid, data: st.DataObject) -> None:
    source, predictor = ArrayScene(noise(grid.height, grid.width)), Seeing(grid.window)
    batch = data.draw(st.integers(1, 5))

    def scores(region: Window) -> np.ndarray:
        wanted = Wanted(scores=True)
        blocks = predict_region(source, predictor, grid, region, batch=batch, wanted=wanted)
        return np.concatenate([b.scores for b in blocks if b.scores is not None], 1)

    row, col = (data.draw(st.integers(0, n - 1)) for n in (grid.height, grid.width))
    height = data.draw(st.integers(1, grid.height - row))
    region = Window(row, col, height, data.draw(st.integers(1, grid.width - col)))
    whole = scores(source.window)
    np.testing.assert_array_equal(scores(region), whole[(slice(None), *region.slices)])


@pytest.mark.parametrize("tiled", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}])
def test_workers_give_the_same_bytes(tmp_path: Path, tiled: dict[str, object]) -> None:
    pixels = noise(300, 170)
    pixels[:, 100:180, 60:] = 0
    path = write_scene(tmp_path / "scene.tif", pixels, nodata=0, **tiled)  # type: ignore[arg-type]
    options = PredictOptions(window=32, overlap=0.25, confidence=True, scores="float16")
    with SceneReader(path, Seeing().spec) as source:
        whole = list(predict_blocks(source, Seeing(), options))
        job = Job.of(source, Seeing(), options)
        parts = [
            block
            for region in bands(job.grid, source.window, 3)
            for block in _unpacked(
                predict_band(Task(Seeing, "seeing", path, options, pixels.shape[1:], region))
            )
        ]
    for name in ("classes", "scores", "confidence"):
        one, other = (
            np.concatenate([getattr(b, name) for b in blocks], -2) for blocks in (whole, parts)
        )
        np.testing.assert_array_equal(one, other)


def test_ground_beyond_the_area_of_interest_is_seen(tmp_path: Path) -> None:
    pixels = noise(96, 96)
    path = write_scene(tmp_path / "scene.tif", pixels)
    area = np.zeros((1, 96, 96), np.uint8)
    area[:, 32:64, 32:64] = 1
    mask = write_scene(tmp_path / "area.tif", area)
    window = Window(32, 32, 32, 32)
    with (
        SceneReader(path, Seeing().spec) as bare,
        Clipped(SceneReader(path, Seeing().spec), mask) as cut,
    ):
        seen, valid = cut.look(window, 4)
        np.testing.assert_array_equal(seen, bare.look(window, 4)[0])
        assert valid.all() and not cut.read(Window(0, 0, 32, 32))[1].any()


def test_memory_does_not_grow_with_the_height() -> None:
    class Tall(ArrayScene):
        """Rows that are made when they are read."""

        def __init__(self, height: int) -> None:
            super().__init__(np.broadcast_to(np.uint8(7), (3, height, 400)))
            self.valid = np.broadcast_to(np.True_, (height, 400))  # type: ignore[assignment]

    def peak(height: int) -> int:
        source, grid = Tall(height), Grid(height, 400, 64, 48)
        tracemalloc.start()
        for _ in read_chunks(source, Plan(grid, source.window, 2), 4):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(6000) < 1.05 * peak(1200)


def test_the_search_for_a_scale_shows_it_too() -> None:
    assert search_scale(ArrayScene(noise(200, 200)), Seeing(64), 64) > 0


def test_pixels_without_the_ground_around_are_refused() -> None:
    with pytest.raises(SceneError) as refused:
        Seeing().check_images(np.zeros((1, 3, 32, 32), np.uint8))
    assert "takes 6 bands" in refused.value.message
    assert "4 times as wide" in refused.value.fix
