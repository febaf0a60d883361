from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from torchmetrics.classification import MulticlassCalibrationError

from terradapt.classes import ClassMap
from terradapt.metrics.calibration import (
    BINS,
    MOST_SCORES,
    Reliability,
    fit_calibration,
    labelled_sample,
    rescale,
    without,
)

LAND = ClassMap(("ground", "building", "tree"))


def drawn(seed: int, pixels: int = 4000, classes: int = 3, sure: float = 2.0) -> tuple:
    """Scores (K, N) that are right as often as they say, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sure, (classes, pixels))
    honest = softmax(logits, 0)
    target = (rng.random(pixels) > honest.cumsum(0)).sum(0).clip(0, classes - 1)
    return logits, honest.astype(np.float32), target.astype(np.uint8)


def test_hand_values() -> None:
    """Four pixels, two classes; the last is not counted."""
    scores = np.array([[0.9, 0.6, 0.2, 0.5], [0.1, 0.4, 0.8, 0.5]], np.float32)
    found = Reliability(2).update(np.array([0, 1, 1, 255], np.uint8), scores)
    figures = found.figures()
    # bins of the winner: .9 right, .6 wrong, .8 right, each alone in its bin
    assert figures["ece"] == pytest.approx((0.1 + 0.6 + 0.2) / 3)
    assert figures["nll"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.8)) / 3)
    assert figures["brier"] == pytest.approx(2 * (0.01 + 0.36 + 0.04) / 3)
    assert found.per_class(ClassMap(("a", "b"))) == pytest.approx({"a": 0.3, "b": 0.3})
    rows = found.table()
    assert [row["pixels"] for row in rows] == [1, 1, 1]
    assert [row["accuracy"] for row in rows] == [0.0, 1.0, 1.0]
    assert [row["confidence"] for row in rows] == pytest.approx([0.6, 0.8, 0.9])
    assert all(row["low"] <= row["confidence"] < row["high"] for row in rows)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_error_is_torchmetrics(classes: int, seed: int) -> None:
    logits, _, target = drawn(seed, classes=classes)
    scores = softmax(1.7 * logits, 0).astype(np.float32)
    oracle = MulticlassCalibrationError(classes, n_bins=BINS, norm="l1")
    expected = oracle(torch.from_numpy(scores.T.copy()), torch.from_numpy(target.astype(int)))
    found = Reliability(classes).update(target, scores)
    assert found.figures()["ece"] == pytest.approx(float(expected), abs=1e-6)


@given(cuts=st.lists(st.integers(0, 4000), max_size=4), seed=st.integers(0, 9))
@settings(max_examples=10)
def test_images_add_up(cuts: list[int], seed: int) -> None:
    _, scores, target = drawn(seed)
    target[::7] = 255
    whole = Reliability(3).update(target, scores)
    parts = Reliability(3)
    edges = [0, *sorted(cuts), 4000]
    for a, b in itertools.pairwise(edges):
        parts = parts + Reliability(3).update(target[a:b], scores[:, a:b])
    assert parts.pixels == whole.pixels == (target != 255).sum()
    np.testing.assert_array_equal(parts.each[[0, 2]], whole.each[[0, 2]])
    for name, value in whole.figures().items():
        assert parts.figures()[name] == pytest.approx(value, rel=1e-9)


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="scores"):
        Reliability(3).update(np.zeros((4, 5), np.uint8), np.zeros((3, 5, 4), np.float32))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 6.0])
def test_the_temperature_is_found_again(temperature: float) -> None:
    """Logits that are too large by a factor are divided by it."""
    logits, _, target = drawn(3, 60000)
    scores = softmax(temperature * logits, 0)
    found = fit_calibration(scores, target, LAND)
    assert found is not None
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    assert found.after["nll"] <= found.before["nll"] + 1e-6
    assert found.after["ece"] < 0.01
    assert found.pixels == 60000
    assert found.absent == () and found.bias == ()


def test_a_bias_is_found_again_and_classes_without_a_pixel_keep_none() -> None:
    rng = np.random.default_rng(0)
    logits, honest, target = drawn(4, 60000)
    shift = np.array([0.0, 1.2, -0.7])
    scores = softmax(2 * (logits - shift[:, None]), 0)
    found = fit_calibration(scores, target, LAND, bias=True)
    assert found is not None
    assert found.temperature == pytest.approx(2, rel=0.05)
    assert np.subtract(found.bias, found.bias[0]) == pytest.approx(shift, abs=0.06)
    assert found.after["ece"] < 0.01 < found.before["ece"]
    two = np.where(target == 2, rng.integers(0, 2, target.size), target).astype(np.uint8)
    found = fit_calibration(honest, two, LAND, bias=True)
    assert found is not None
    assert found.absent == ("tree",)
    assert found.bias[2] == 0.0


def test_no_labelled_pixel_gives_no_calibration() -> None:
    assert fit_calibration(np.full((3, 9), 1 / 3), np.full(9, 255, np.uint8), LAND) is None


@given(st.floats(0.2, 8), st.integers(0, 20))
@settings(max_examples=25)
def test_a_temperature_never_changes_the_class_and_can_be_taken_away(
    temperature: float, seed: int
) -> None:
    _, scores, target = drawn(seed, 300)
    scaled = rescale(scores, temperature, np.zeros(3))
    np.testing.assert_allclose(scaled.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(scaled.argmax(0), scores.argmax(0))
    found = fit_calibration(scaled, target, LAND, bias=True)
    assert found is not None
    there = rescale(scaled, found.temperature, np.asarray(found.bias))
    np.testing.assert_allclose(without(there, found), scaled, atol=2e-3)


def test_the_sample_is_drawn_by_its_seed_and_bounded() -> None:
    scores = np.random.default_rng(0).random((3, 100, 100), np.float32)
    target = np.arange(10000, dtype=np.uint32).reshape(100, 100) % 256
    target = np.where(target > 2, 255, target).astype(np.uint8)
    everything, ids = labelled_sample(scores, target, 10000, 1, 2)
    assert (ids == target[target != 255]).all()
    np.testing.assert_array_equal(everything, scores[:, target != 255])
    pixels = MOST_SCORES  # of which a third is kept, for three classes
    part, some = labelled_sample(scores, np.zeros((100, 100), np.uint8), pixels, 1, 2)
    again, _ = labelled_sample(scores, np.zeros((100, 100), np.uint8), pixels, 1, 2)
    np.testing.assert_array_equal(part, again)
    assert some.size == pytest.approx(3333, abs=200)
