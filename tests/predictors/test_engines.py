from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export_files import LAND, pixels, small
from onnx_files import CLASSES, SPEC, write_tiny
from scene_files import noise, write_scene
from terradapt import checkpoint, predictors
from terradapt.errors import ConfigError, MissingExtraError
from terradapt.export import fastest
from terradapt.predictors import engines
from terradapt.predictors.tta import DIHEDRAL, FLIPS, TtaPredictor, apply, undo
from terradapt.scene import Predictor


class Slow(Predictor):
    """A predictor that takes a while."""

    classes, spec, window, multiple = CLASSES, SPEC, 32, 32

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def predict(self, images: np.ndarray, /) -> np.ndarray:
        time.sleep(self.seconds)
        return np.full((len(images), 3, *images.shape[2:]), 1 / 3, np.float32)


def test_the_fastest_is_taken_and_said() -> None:
    slow, fast = Slow(0.05), Slow(0.001)
    makers = {"slow": lambda: slow, "fast": lambda: fast, "slower": lambda: Slow(0.2)}
    chosen, rates = engines.fastest(makers, seconds=0.05)
    assert chosen is fast
    assert list(rates) == ["fast", "slow", "slower"]
    assert engines.describe(rates).startswith("engine fast: ")
    assert "slower" in engines.describe(rates)


def test_the_rate_counts_windows_not_batches() -> None:
    one = engines.rate(Slow(0.05), batch=1, seconds=0.1)
    four = engines.rate(Slow(0.05), batch=4, seconds=0.1)
    assert 3 < four / one < 5


def test_the_rate_is_that_of_all_streams_at_once() -> None:
    many = Slow(0.05)
    many.streams = 3
    told: list[int] = []
    many.share = told.append  # type: ignore[method-assign]
    alone, together = engines.rate(Slow(0.05), seconds=0.2), engines.rate(many, seconds=0.2)
    assert 2 < together / alone < 4
    assert told == [3, 3, 3, 1]


def test_views_may_be_predicted_in_streams(tmp_path: Path) -> None:
    inner = engines.open_engine(write_tiny(tmp_path / "m.onnx"), "onnxruntime")
    inner.streams = 3
    predictor = TtaPredictor(inner)
    images = [noise(64, 64, seed=i)[None] for i in range(9)]
    with ThreadPoolExecutor(3, initializer=lambda: inner.share(3)) as pool:
        found = list(pool.map(predictor.predict, images))
    inner.share(1)
    for image, scores in zip(images, found, strict=True):
        np.testing.assert_allclose(scores, predictor.predict(image), atol=1e-6)


def test_auto_opens_one_of_the_installed(tmp_path: Path) -> None:
    said: list[str] = []
    path = write_tiny(tmp_path / "m.onnx")
    predictor = engines.load_onnx(path, engine="auto", say=said.append, seconds=0.01)
    assert predictor.engine in engines.installed()
    assert said
    assert said[0].startswith(f"engine {predictor.engine}: ")


def test_unknown_engines_are_refused(tmp_path: Path, terradapt: Any) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="tensorrt"):
        engines.load_onnx(path, engine="tensorrt")
    scene = write_scene(tmp_path / "s.tif", noise(64, 64))
    outcome = terradapt("predict", path, scene, "-o", tmp_path / "o.tif", "--engine", "tensorrt")
    assert outcome.is_user_error("tensorrt")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_engine_that_is_missing_names_its_extra(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    path = write_tiny(tmp_path / "m.onnx")
    if engine == "openvino":
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingExtraError, match="openvino"):
            engines.open_engine(path, engine)
    else:
        monkeypatch.setattr(engines, "_has_cuda", lambda: False)
        with pytest.raises(MissingExtraError, match="onnxruntime-gpu"):
            engines.open_engine(path, "onnxruntime-cuda")
        assert "onnxruntime-cuda" not in engines.installed()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, meta = small()
    path = tmp_path_factory.mktemp("engines") / "checkpoint.safetensors"
    checkpoint.save(path, model, meta)
    return path


@pytest.mark.parametrize(
    ("engine", "tolerance"),
    [("own", 0), ("onnxruntime", 1e-3), ("openvino", 1e-3), ("openvino-bf16", 0.02)],
)
def test_a_checkpoint_runs_on_any_engine(trained: Path, engine: str, tolerance: float) -> None:
    images = pixels(2, 128, 128, seed=7)
    torch = predictors.load(trained)
    expected = torch.numpy(torch.predict(images))
    other = fastest.load(trained, engine=engine)
    scores = other.numpy(other.predict(images))
    assert other.classes == LAND
    assert (scores.argmax(1) == expected.argmax(1)).mean() > 0.95
    assert np.abs(scores - expected).mean() <= tolerance


@pytest.mark.slow
def test_auto_measures_a_checkpoint_too(trained: Path) -> None:
    said: list[str] = []
    predictor = fastest.load(trained, engine="auto", say=said.append, seconds=0.01)
    assert predictor.engine in {"torch", *engines.installed()}
    for name in ("torch", *engines.installed()):
        assert name in said[0]


def test_bf16_is_never_chosen_unasked() -> None:
    assert not set(engines.FASTER) & set(engines.installed())


@given(st.integers(0, 3), st.booleans(), st.integers(1, 6), st.integers(1, 6))
def test_undo_inverts_apply(turns: int, flip: bool, height: int, width: int) -> None:
    array = np.arange(2 * height * width).reshape(2, height, width)
    np.testing.assert_array_equal(undo(apply(array, (turns, flip)), (turns, flip)), array)


def test_the_eight_views_are_different() -> None:
    array = np.arange(9).reshape(3, 3)
    assert len({apply(array, view).tobytes() for view in DIHEDRAL}) == 8
    assert set(FLIPS) <= {(t, f) for t, f in DIHEDRAL}


class Gradient(Slow):
    """A predictor that depends on the direction: each pixel counts those above and to the left."""

    def __init__(self) -> None:
        super().__init__(0)

    def predict(self, images: np.ndarray, /) -> np.ndarray:
        total = images.astype(np.float64).cumsum(3).cumsum(2)
        total /= total.max()
        return total.astype(np.float32)


@pytest.mark.parametrize("view", DIHEDRAL)
def test_a_turned_window_gets_the_turned_prediction(view: tuple[int, bool]) -> None:
    images = np.stack([noise(32, 32, seed=i) for i in range(2)])
    plain, tta = Gradient(), TtaPredictor(Gradient())
    turned = tta.predict(np.ascontiguousarray(apply(images, view)))
    np.testing.assert_allclose(turned, apply(tta.predict(images), view), atol=1e-6)
    if view not in {(0, False), (3, True)}:  # the double sum commutes with the transpose
        direct = plain.predict(np.ascontiguousarray(apply(images, view)))
        assert np.abs(direct - apply(plain.predict(images), view)).max() > 0.1


def test_tta_of_one_view_is_the_predictor_itself() -> None:
    images = noise(32, 32)[None]
    only = TtaPredictor(Gradient(), views=((0, False),))
    np.testing.assert_array_equal(only.predict(images), Gradient().predict(images))
    assert (only.window, only.multiple, only.classes) == (32, 32, CLASSES)


def test_compiled_engines_ask_for_their_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    monkeypatch.setattr(torch, "compile", lambda model, mode: modes.append(mode) or model)
    model, meta = small()
    checkpoint.save(tmp_path / "c.safetensors", model, meta)
    for engine in ("torch", "compiled", "reduce-overhead"):
        assert fastest.load(tmp_path / "c.safetensors", engine=engine).engine == engine
    assert modes == ["default", "reduce-overhead"]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_reduced_overhead_gives_the_scores_of_eager_torch(tmp_path: Path, precision: str) -> None:
    model, meta = small()
    checkpoint.save(tmp_path / "c.safetensors", model, meta)
    eager, recorded = (
        fastest.load(tmp_path / "c.safetensors", engine=e, device="cuda:0", precision=precision)
        for e in ("torch", "reduce-overhead")
    )
    for batch, side, seed in ((1, 64, 0), (1, 64, 1), (2, 64, 2), (1, 96, 3), (1, 64, 4)):
        images = pixels(batch, side, side, seed)
        expected = eager.numpy(eager.predict(images))
        found = recorded.numpy(recorded.predict(images))
        np.testing.assert_allclose(found, expected, atol=1e-5 if precision == "fp32" else 2e-2)
