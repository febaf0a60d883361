"""The laws of scenes: blending, blocks, nodata, georeference, streaming."""

import threading
import time

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from scene_files import (
    UTM,
    ArrayScene,
    ConstantPredictor,
    LinearPredictor,
    PlainPredictor,
    noise,
    write_scene,
)
from terradapt.errors import ConfigError
from terradapt.grid import Grid, Window
from terradapt.raster import SceneReader
from terradapt.scene import PredictOptions, predict_blocks, predict_scene
from terradapt.scene.blend import Plan, read_chunks
from terradapt.scene.pipeline import abreast, ahead
from terradapt.scene.predictor import Wrapped, streams_for
from terradapt.scene.resample import Resampled, fitted, resize_matrix
from terradapt.scene.stream import Wanted, argmax, predict_region, region_pieces


@st.composite
def lattices(draw, largest=90):
    window = draw(st.integers(1, 40))
    margin = draw(st.integers(0, max(0, (window - 1) // 2)))
    most = window - 2 * margin
    stride = draw(st.integers(min(most, max(1, window // 8)), most))
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    return Grid(height, width, window, stride, margin, block=draw(st.integers(4, 64)))


def whole(grid):
    return Window(0, 0, grid.height, grid.width)


def predicted(source, predictor, grid, region=None, batch=3, scores=True):
    blocks = list(
        predict_region(source, predictor, grid, region or whole(grid), batch=batch,
                       wanted=Wanted(scores=scores))
    )  # fmt: skip
    classes = np.concatenate([b.classes for b in blocks])
    return classes, np.concatenate([b.scores for b in blocks], 1) if scores else None


laws = settings(max_examples=40, deadline=None)


@laws
@given(lattices(), st.integers(1, 4))
def test_constant_model_gives_a_constant_scene(grid, batch):
    predictor = ConstantPredictor((0.2, 0.5, 0.3), grid.window)
    source = ArrayScene(noise(grid.height, grid.width))
    classes, scores = predicted(source, predictor, grid, batch=batch)
    assert classes.shape == (grid.height, grid.width)
    assert (classes == 1).all()
    assert np.abs(scores - predictor.values[:, None, None]).max() <= 1e-6


@laws
@given(lattices(), st.data())
def test_any_region_equals_the_scene_bit_for_bit(grid, data):
    source = ArrayScene(noise(grid.height, grid.width))
    predictor = PlainPredictor(window=grid.window)
    batch = data.draw(st.integers(1, 5))
    classes, scores = predicted(source, predictor, grid, batch=batch)
    row = data.draw(st.integers(0, grid.height - 1))
    col = data.draw(st.integers(0, grid.width - 1))
    region = Window(row, col, data.draw(st.integers(1, grid.height - row)),
                    data.draw(st.integers(1, grid.width - col)))  # fmt: skip
    part, part_scores = predicted(source, predictor, grid, region, batch)
    np.testing.assert_array_equal(part, classes[region.slices])
    np.testing.assert_array_equal(part_scores, scores[(slice(None), *region.slices)])


@laws
@given(lattices(), st.floats(0, 1), st.integers(0, 99))
def test_nodata_in_is_nodata_out(grid, share, seed):
    draw = np.random.default_rng(seed)
    valid = np.kron(draw.random((9, 9)) < share, np.ones((10, 10), bool))
    valid = valid[: grid.height, : grid.width]
    source = ArrayScene(noise(grid.height, grid.width), valid)
    predictor = ConstantPredictor(window=grid.window)
    classes, scores = predicted(source, predictor, grid)
    np.testing.assert_array_equal(classes == 255, ~valid)
    np.testing.assert_array_equal(np.isnan(scores).all(0), ~valid)
    assert np.abs(scores[:, valid] - predictor.values[:, None]).max(initial=0) <= 1e-6


@laws
@given(lattices(), st.integers(0, 99))
def test_linear_model_equals_the_whole_scene(grid, seed):
    """A model that sees one pixel around needs a margin of one; a pixel-wise one needs none."""
    grid = Grid(grid.height, grid.width, max(grid.window, 4), min(grid.stride, 2), 1, grid.block)
    predictor = LinearPredictor(window=grid.window)
    pixels = noise(grid.height, grid.width, seed=seed)
    _, scores = predicted(ArrayScene(pixels), predictor, grid)
    expected = predictor.score(pixels[None].astype(np.float32) / 255)[0]
    np.testing.assert_allclose(scores, expected, atol=2e-6)


@laws
@given(lattices())
def test_windows_without_valid_pixels_never_reach_the_model(grid):
    valid = np.zeros((grid.height, grid.width), bool)
    valid[: grid.height // 3, : grid.width // 3] = True
    predictor = PlainPredictor(window=grid.window)
    predicted(ArrayScene(noise(grid.height, grid.width), valid), predictor, grid)
    live = sum(
        valid[grid.window_at(r, c).slices].any()
        for r in range(len(grid.rows.starts))
        for c in range(len(grid.cols.starts))
    )
    assert sum(shape[0] for shape in predictor.seen) == live


@laws
@given(lattices())
def test_every_row_of_the_file_is_read_once(grid):
    rows = []

    class Counting(ArrayScene):
        def read(self, window):
            rows.extend(range(window.row, min(window.bottom, self.height)))
            return super().read(window)

    source = Counting(noise(grid.height, grid.width), block_height=16)
    list(read_chunks(source, Plan(grid, whole(grid), 2)))
    assert rows == list(range(grid.height))


@given(st.integers(1, 6), st.integers(0, 9))
@settings(deadline=None)
def test_argmax_is_numpys(classes, seed):
    scores = np.random.default_rng(seed).integers(0, 3, (classes, 17, 19)).astype(np.float32)
    ids, best = argmax(scores)
    np.testing.assert_array_equal(ids, scores.argmax(0))
    np.testing.assert_array_equal(best, scores.max(0))


class ForgetfulPredictor(PlainPredictor):
    """Runs out of memory above a batch size."""

    def __init__(self, limit, **options):
        super().__init__(**options)
        self.limit = limit

    def predict(self, images):
        if len(images) > self.limit:
            raise MemoryError
        return super().predict(images)


@pytest.mark.parametrize("stride", [7, 16, 24, 32])
def test_pieces_without_data_carry_no_scores(stride):
    valid = np.zeros((300, 260), bool)
    valid[100:140, 90:150] = True
    source, grid = ArrayScene(noise(300, 260), valid), Grid(300, 260, 32, stride)
    predictor, area = PlainPredictor(window=32), Window(0, 0, 300, 260)
    for piece in region_pieces(source, predictor, grid, area, batch=2):
        window = piece.window
        near = window.right > 90 - 32 and window.col < 150 + 32
        near &= window.bottom > 100 - 32 and window.row < 140 + 32
        assert near or piece.scores is None


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_halving_the_batch_changes_nothing(limit):
    grid = Grid(70, 230, 32, 24)
    source = ArrayScene(noise(70, 230))
    expected, _ = predicted(source, PlainPredictor(window=32), grid, batch=8)
    predictor = ForgetfulPredictor(limit, window=32)
    found, _ = predicted(source, predictor, grid, batch=8)
    np.testing.assert_array_equal(found, expected)
    assert max(shape[0] for shape in predictor.seen) <= limit


class StreamingPredictor(PlainPredictor):
    """Pays in several streams; later calls of a pair end first."""

    streams = 3

    def __init__(self, **options):
        super().__init__(**options)
        self.shares, self.threads = [], set()

    def share(self, count):
        self.shares.append(count)

    def predict(self, images):
        self.threads.add(threading.current_thread().name)
        time.sleep(0.002 * (len(self.seen) % 2))
        return super().predict(images)


def test_streams_change_nothing():
    grid = Grid(200, 150, 32, 24)
    source = ArrayScene(noise(200, 150))
    expected, _ = predicted(source, PlainPredictor(window=32), grid, batch=2)
    predictor = StreamingPredictor(window=32)
    found, _ = predicted(source, predictor, grid, batch=2)
    np.testing.assert_array_equal(found, expected)
    assert len(predictor.threads) == 3
    assert predictor.shares == [3, 3, 3, 1]
    assert threading.current_thread().name not in predictor.threads


def test_streams_are_bounded_by_windows_and_memory():
    predictor = StreamingPredictor(window=32)
    assert streams_for(predictor, Grid(32, 56, 32, 24), 1) == 2
    assert streams_for(predictor, Grid(9000, 9000, 1024, 1024), 1) == 1
    assert streams_for(predictor, Grid(9000, 9000, 512, 512), 2) == 2
    assert streams_for(PlainPredictor(), Grid(9000, 9000, 512, 512), 1) == 1


def test_a_window_that_never_fits_is_an_error():
    grid = Grid(40, 40, 32, 24)
    with pytest.raises(MemoryError):
        predicted(ArrayScene(noise(40, 40)), ForgetfulPredictor(0, window=32), grid)
    assert not [t for t in threading.enumerate() if t.name in ("read", "model")]


class ElsewherePredictor(Wrapped):
    """Wraps a predictor; its scores are torch tensors that NumPy must not touch."""

    def __init__(self, inner):
        super().__init__(inner)
        self.device = "elsewhere:0"
        self.moved = 0

    def predict(self, images):
        return self.asarray(self.predictor.predict(images))

    def asarray(self, array):
        return pytest.importorskip("torch").from_numpy(array)

    def numpy(self, array):
        assert not isinstance(array, np.ndarray)
        self.moved += array.numel()
        return array.numpy()

    def fetch(self, array):
        return lambda: self.numpy(array)

    def label(self, scores):
        return scores.argmax(0).byte(), scores.amax(0)


@pytest.mark.parametrize("trained", [None, 0.6])
@pytest.mark.parametrize("subset", [(), ("class 0", "class 2")])
def test_scores_are_blended_where_they_are(trained, subset):
    valid = np.ones((150, 130), bool)
    valid[40:110, 20:90] = False
    source = ArrayScene(noise(150, 130), valid, crs=UTM)
    inner = PlainPredictor(window=32)
    inner.spec = inner.spec.model_copy(update={"resolution": trained})
    far = ElsewherePredictor(inner)
    options = PredictOptions(classes=subset, margin=2)
    (expected,) = predict_blocks(source, inner, options)
    (found,) = predict_blocks(source, far, options)
    np.testing.assert_array_equal(found.classes, expected.classes)
    assert far.moved <= 150 * 130  # labels only


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_off_the_host_the_bits_are_those_of_the_host(batch):
    """Filled-up batches, labels made on the device, results that come later: the same numbers."""
    valid = np.ones((150, 230), bool)
    valid[20:120, 40:200] = False
    source = ArrayScene(noise(150, 230), valid)
    inner = PlainPredictor(window=32)
    far = ElsewherePredictor(inner)
    options = PredictOptions(scores="float16", confidence=True, batch=batch)
    (expected,) = predict_blocks(source, inner, options)
    inner.seen.clear()
    (found,) = predict_blocks(source, far, options)
    for name in ("classes", "scores", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert {shape[0] for shape in inner.seen} <= {4: {4, 2, 1}, 3: {3, 1}, 1: {1}}[batch]


def test_off_the_host_batches_are_even():
    predictor = PlainPredictor(window=512)
    assert PredictOptions().batch_for(predictor, Grid(512, 20_000, 512, 384)) == 1
    far = ElsewherePredictor(predictor)
    for width, columns in ((20_000, 52), (12_000, 31), (600, 2)):
        grid = Grid(512, width, 512, 384)
        assert len(grid.cols.starts) == columns
        batch = PredictOptions().batch_for(far, grid)
        calls = -(-columns // batch)
        assert batch * calls - columns < calls  # less than a window missing in each
        assert PredictOptions(batch=7).batch_for(far, grid) == min(7, columns)


def test_subset_chooses_among_the_named_classes(tmp_path):
    path = write_scene(tmp_path / "scene.tif", noise(90, 80))
    predictor = ConstantPredictor((0.2, 0.5, 0.3), 32)
    with SceneReader(path, predictor.spec) as reader:
        options = PredictOptions(classes=("class 0", "class 2"), scores="float16")
        (block,) = predict_blocks(reader, predictor, options)
    assert (block.classes == 2).all()
    assert block.scores.shape == (2, 90, 80)


@pytest.mark.parametrize(
    "options", [{"window": 33}, {"overlap": 0.95}, {"overlap": -0.1}, {"margin": 16}]
)
def test_options_that_do_not_fit_are_told(options):
    predictor = PlainPredictor(window=32)
    predictor.multiple = 16
    with pytest.raises(ConfigError):
        PredictOptions(**options).grid(predictor, 100, 100)


def test_a_small_scene_gets_a_small_window():
    predictor = PlainPredictor(window=512)
    predictor.multiple = 32
    assert PredictOptions().grid(predictor, 70, 40).window == 96


@given(st.integers(1, 80), st.integers(1, 80))
@settings(deadline=None)
def test_resize_keeps_constants(source, target):
    matrix = resize_matrix(source, target)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    assert (matrix >= 0).all()


def test_resize_is_torchs_antialiased_bilinear():
    torch = pytest.importorskip("torch")
    image = noise(48, 48, 1).astype(np.float32)
    for size in (20, 48, 77):
        matrix = resize_matrix(48, size)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(image)[None], size=(size, size), mode="bilinear", antialias=True
        )
        np.testing.assert_allclose(matrix @ image[0] @ matrix.T, expected[0, 0], atol=1e-3)


@pytest.mark.parametrize(("trained", "side"), [(0.3, 32), (0.6, 64), (0.15, 16), (0.31, 32)])
def test_the_model_sees_its_own_resolution(tmp_path, trained, side):
    path = write_scene(tmp_path / "scene.tif", noise(150, 130))
    predictor = ConstantPredictor(window=32)
    predictor.spec = predictor.spec.model_copy(update={"resolution": trained})
    suited = fitted(predictor, PredictOptions(), 0.3)
    assert suited.window == side
    with SceneReader(path, predictor.spec) as reader:
        (block,) = predict_blocks(reader, predictor, PredictOptions(scores="float16"))
    assert {shape[-1] for shape in predictor.seen} == {32}
    assert np.abs(block.scores - predictor.values[:, None, None]).max() <= 1e-6
    assert fitted(predictor, PredictOptions(resolution="native"), 0.3) is predictor
    doubled = fitted(predictor, PredictOptions(resolution=0.6), 0.3)
    assert isinstance(doubled, Resampled)
    assert doubled.window == 64


@pytest.mark.parametrize(
    ("metres", "resampled"), [(0.15, True), (0.2, False), (0.3, False), (0.6, False), (0.7, True)]
)
def test_magnifications_seen_in_training_are_left_alone(metres, resampled):
    predictor = ConstantPredictor(window=32)
    predictor.spec = predictor.spec.model_copy(update={"resolution": 0.3})
    predictor.scales = (0.5, 1.5)
    for options, expected in (("auto", resampled), (0.31, metres != 0.3)):
        suited = fitted(predictor, PredictOptions(resolution=options), metres)
        assert isinstance(suited, Resampled) == expected


TURNED = Affine(0.2, 0.1, 500_000.1, 0.1, -0.2, 5_400_000.7)
TILTED = Affine(1e-5, 2e-6, 15.1, 2e-6, -1e-5, 48.7)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [(c, Affine(1 / 3, 0, 0.1, 0, -1 / 7, 0.3)) for c in ("EPSG:32633", "EPSG:4326", None)]
    + [("EPSG:32633", TURNED), ("EPSG:4326", TILTED), (None, TURNED)],
)
def test_georeference_is_copied_bit_for_bit(tmp_path, transform, crs):
    path = write_scene(tmp_path / "scene.tif", noise(60, 70), transform=transform, crs=crs)
    predict_scene(PlainPredictor(), path, tmp_path / "out.tif", PredictOptions(confidence=True))
    with rasterio.open(path) as scene:
        for name in ("out.tif", "out_confidence.tif"):
            with rasterio.open(tmp_path / name) as out:
                assert out.transform == scene.transform
                assert out.crs == scene.crs
                assert out.shape == scene.shape


def test_a_scene_without_georeference_stays_plain(tmp_path):
    path = tmp_path / "photo.png"
    from terradapt.raster import write_raster

    write_raster(path, noise(60, 70))
    figures = predict_scene(PlainPredictor(), path, tmp_path / "out.tif")
    assert figures["crs"] is None
    assert figures["classes"][0]["hectares"] is None
    assert figures["valid_pixels"] == 60 * 70


def test_ahead_stays_within_its_depth_and_stops():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    work = ahead(items(), 2, "test")
    assert next(work) == 0
    work.close()
    assert len(made) <= 5


def test_ahead_passes_errors_on():
    def items():
        yield 1
        raise ValueError("broken")

    work = ahead(items(), 2, "test")
    assert next(work) == 1
    with pytest.raises(ValueError, match="broken"):
        next(work)


@pytest.mark.parametrize("workers", [1, 3])
def test_abreast_keeps_the_order_and_passes_errors_on(workers):
    def late(i):
        time.sleep(0.002 * (3 - i % 3))
        return 10 // (7 - i)

    work = abreast(late, range(20), workers, "test")
    assert [next(work) for _ in range(7)] == [(i, 10 // (7 - i)) for i in range(7)]
    with pytest.raises(ZeroDivisionError):
        next(work)
    assert not [t for t in threading.enumerate() if t.name.startswith("test")]
