from __future__ import annotations

import math

import numpy as np
import py_sod_metrics as sod
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terradapt.metrics.per_image import (
    ImageHistogram,
    PerImage,
    best_threshold,
    grey_map,
    image_scores,
)


def _images(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    images = []
    for i in range(count):
        target = (rng.random((31, 17)) < 0.2 * i / count).astype(np.uint8)
        low, high = sorted(rng.integers(0, 256, 2))
        grey = rng.integers(low, high + 1, target.shape).astype(np.uint8)
        images.append((target, np.where(target == 1, np.maximum(grey, 120), grey).astype(np.uint8)))
    return images


@pytest.mark.parametrize("stretch", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_dice_and_iou_equal_pysodmetrics(stretch: bool, seed: int) -> None:
    options = {"with_dynamic": True, "with_adaptive": False, "with_binary": True}
    oracle = sod.FmeasureV2(
        {"dice": sod.DICEHandler(**options), "iou": sod.IOUHandler(**options)}  # type: ignore[arg-type]
    )
    ours = PerImage(stretch=stretch)
    for target, grey in _images(6, seed):
        ours.add(ImageHistogram().update(target, grey))
        if stretch:
            oracle.step(grey, target * np.uint8(255))
        else:
            oracle.step(grey / 255, target == 1, normalize=False)
    theirs, scores = oracle.get_results(), ours.metrics()
    assert scores["mdice_dynamic"] == pytest.approx(theirs["dice"]["dynamic"].mean(), abs=1e-12)
    assert scores["miou_dynamic"] == pytest.approx(theirs["iou"]["dynamic"].mean(), abs=1e-12)
    if not stretch:
        assert scores["mdice"] == pytest.approx(theirs["dice"]["binary"], abs=1e-12)
        assert scores["miou_image"] == pytest.approx(theirs["iou"]["binary"], abs=1e-12)


def test_mae_equals_pysodmetrics() -> None:
    oracle, ours = sod.MAE(), PerImage()
    for target, grey in _images(8, 5):
        ours.add(ImageHistogram().update(target, grey))
        oracle.step(grey / 255, target == 1, normalize=False)
    scores = ours.metrics()
    assert scores["mae"] == pytest.approx(oracle.get_results()["mae"], abs=1e-12)
    assert scores["mae_x100"] == pytest.approx(100 * oracle.get_results()["mae"], abs=1e-10)


def test_rlod_skips_images_without_road() -> None:
    road = np.array([[1, 1, 0, 0]], np.uint8)
    ours = PerImage()
    ours.update(road, np.array([[0.9, 0.1, 0.9, 0.2]], np.float32))
    ours.update(np.zeros((1, 4), np.uint8), np.full((1, 4), 0.9, np.float32))
    scores = ours.metrics()
    assert scores["rlod"] == 0.5
    assert (scores["images"], scores["images_without_road"]) == (2, 1)


@given(
    cut=st.integers(0, 40),
    threshold=st.sampled_from([0.3, 0.5, 0.9]),
    seed=st.integers(0, 50),
)
@settings(deadline=None)
def test_blocks_of_an_image_add_up(cut: int, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.choice(np.array([0, 1, 255], np.uint8), (40, 13))
    grey = rng.integers(0, 256, target.shape).astype(np.uint8)
    whole = ImageHistogram().update(target, grey)
    parts = ImageHistogram().update(target[:cut], grey[:cut]) + ImageHistogram().update(
        target[cut:], grey[cut:]
    )
    assert whole.counts.sum() == np.count_nonzero(target != 255)
    assert image_scores(parts, threshold) == image_scores(whole, threshold)
    kept = target != 255
    hits = (grey[kept] / 255 > threshold) & (target[kept] == 1)
    either = (grey[kept] / 255 > threshold) | (target[kept] == 1)
    assert image_scores(whole, threshold)["iou"] == pytest.approx(hits.sum() / either.sum())


def test_processes_add_up() -> None:
    images = _images(6, 1)
    one, two, both = PerImage(), PerImage(), PerImage()
    for i, (target, grey) in enumerate(images):
        histogram = ImageHistogram().update(target, grey)
        both.add(histogram)
        (one if i < 3 else two).add(histogram)
    assert (one + two).metrics() == both.metrics()


def test_empty_images_have_a_stated_value() -> None:
    blank = np.zeros((4, 4), np.uint8)
    for empty in (0.0, 1.0):
        ours = PerImage(empty=empty)
        ours.update(blank, np.zeros((4, 4), np.float32))
        assert ours.metrics()["mdice"] == ours.metrics()["miou_image"] == empty
    ignored = PerImage()
    assert ignored.update(np.full((4, 4), 255, np.uint8), np.ones((4, 4), np.float32)) == {}
    assert all(math.isfinite(v) for v in ignored.metrics().values())
    assert ignored.metrics()["images"] == 0


def test_grey_map_agrees_with_the_larger_of_two_classes() -> None:
    probability = np.linspace(0, 1, 4097, dtype=np.float32)
    clear = np.abs(probability - 0.5) > 1e-6
    np.testing.assert_array_equal((grey_map(probability) > 127)[clear], (probability > 0.5)[clear])


def test_the_best_threshold_has_the_highest_f1_of_all() -> None:
    rng = np.random.default_rng(0)
    target = (rng.random((64, 64)) < 0.2).astype(np.uint8)
    target[0] = 255
    probability = np.clip(0.3 * target % 255 + rng.normal(0.25, 0.1, target.shape), 0, 1)
    found = best_threshold(ImageHistogram().update(target, grey_map(probability)))

    def f1(threshold: float) -> float:
        said, road = (grey_map(probability) > 255 * threshold)[1:], target[1:] == 1
        return 2 * (said & road).sum() / (said.sum() + road.sum())

    assert f1(found) == max(f1((level + 0.5) / 255) for level in range(255))
    assert f1(found) > f1(0.5)


def test_of_equal_thresholds_the_nearest_to_a_half_is_taken() -> None:
    target = np.array([[1, 0]], np.uint8)
    found = best_threshold(ImageHistogram().update(target, np.array([[200, 20]], np.uint8)))
    assert found == pytest.approx(127.5 / 255)
    high = best_threshold(ImageHistogram().update(target, np.array([[50, 20]], np.uint8)))
    assert high == pytest.approx(49.5 / 255)
