from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from skimage.segmentation import find_boundaries

from terradapt.classes import ClassMap
from terradapt.metrics.boundary import BoundaryF1, boundary

_CLASSES = ClassMap(("a", "b", "c"))


def _blobs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    small = rng.integers(0, 3, (shape[0] // 4 + 1, shape[1] // 4 + 1)).astype(np.uint8)
    return np.kron(small, np.ones((4, 4), np.uint8))[: shape[0], : shape[1]]


def _counts(target: np.ndarray, prediction: np.ndarray, reach: float) -> np.ndarray:
    """Brute force: all distances between the boundary pixels of one class."""
    table = np.zeros((4, 3), np.int64)
    prediction = np.where(target == 255, 255, prediction)
    for k in range(3):
        t = np.argwhere(boundary(target) & (target == k))
        p = np.argwhere(boundary(prediction.astype(np.uint8)) & (prediction == k))
        near = cdist(p, t) <= reach
        table[:, k] = len(p), near.any(1).sum(), len(t), near.any(0).sum()
    return table


@given(
    tolerance=st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]),
    resolution=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 30),
)
@settings(deadline=None, max_examples=40)
def test_counts_equal_brute_force(tolerance: float, resolution: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, prediction = _blobs(rng, (33, 22)), _blobs(rng, (33, 22))
    target[rng.random(target.shape) < 0.05] = 255
    ours = BoundaryF1(3, tolerance).update(target, prediction, resolution)
    np.testing.assert_array_equal(ours.counts, _counts(target, prediction, tolerance / resolution))


def test_boundary_is_scikit_image_s_thick_one() -> None:
    ids = _blobs(np.random.default_rng(1), (40, 40))
    np.testing.assert_array_equal(boundary(ids), find_boundaries(ids, connectivity=1, mode="thick"))


def test_tolerance_is_in_metres() -> None:
    target, moved = np.zeros((30, 30), np.uint8), np.zeros((30, 30), np.uint8)
    target[:, 10:], moved[:, 13:] = 1, 1
    for resolution, expected in ((0.1, 1.0), (1.0, 0.0)):
        scores = BoundaryF1(3, 0.3).update(target, moved, resolution).metrics(_CLASSES)
        assert scores["boundary_f1"] == pytest.approx(expected)


def test_a_perfect_map_scores_one_and_images_add() -> None:
    rng = np.random.default_rng(4)
    images = [_blobs(rng, (24, 24)) for _ in range(3)]
    total = BoundaryF1(3, 0.0)
    for image in images:
        total = total + BoundaryF1(3, 0.0).update(image, image, 1.0)
    scores = total.metrics(_CLASSES)
    assert scores["boundary_f1"] == 1.0
    assert scores["per_class"]["b"] == {
        "boundary_f1": 1.0,
        "boundary_precision": 1.0,
        "boundary_recall": 1.0,
    }


def test_without_boundaries_the_score_is_zero() -> None:
    flat = np.zeros((8, 8), np.uint8)
    scores = BoundaryF1(3, 1.0).update(flat, flat, 1.0).metrics(_CLASSES)
    assert scores["boundary_f1"] == 0.0
    ignored = np.full((8, 8), 255, np.uint8)
    ignored[:, :4] = 0
    assert not boundary(ignored).any()
