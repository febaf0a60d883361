from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from terradapt.classes import ISPRS, ClassMap
from terradapt.metrics.confusion import Confusion
from terradapt.metrics.counting import count_codes, count_pairs, count_planes, counter_for


def _classes(k: int) -> ClassMap:
    return ClassMap(tuple(f"c{i}" for i in range(k)))


def _ids(rng: np.random.Generator, k: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    target = rng.integers(0, k, size, dtype=np.uint8)
    prediction = np.where(rng.random(size) < 0.6, target, rng.integers(0, k, size)).astype(np.uint8)
    target[rng.random(size) < 0.1] = 255
    return target, prediction


@given(
    k=st.sampled_from([2, 3, 4, 5, 6, 15, 16, 19, 255]),
    size=st.integers(0, 3000),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_matrix_equals_scikit_learn(k: int, size: int, seed: int) -> None:
    target, prediction = _ids(np.random.default_rng(seed), k, size)
    ours = Confusion(k).update(target, prediction).matrix
    kept = target != 255
    assert ours.sum() == kept.sum()
    if kept.any():
        theirs = sk.confusion_matrix(target[kept], prediction[kept], labels=range(k))
        np.testing.assert_array_equal(ours, theirs)


@given(
    k=st.integers(2, 20), cut=st.integers(0, 400), width=st.integers(1, 40), seed=st.integers(0, 99)
)
@settings(deadline=None)
def test_parts_add_up_to_the_whole(k: int, cut: int, width: int, seed: int) -> None:
    target, prediction = _ids(np.random.default_rng(seed), k, 400)
    whole = Confusion(k).update(target.reshape(20, 20), prediction.reshape(20, 20))
    parts = [Confusion(k).update(target[s], prediction[s]) for s in (slice(cut), slice(cut, None))]
    shuffled = np.random.default_rng(seed + width).permutation(400)
    again = Confusion(k).update(target[shuffled], prediction[shuffled])
    assert parts[0] + parts[1] == whole == again
    assert (parts[0] + parts[1]).metrics(_classes(k)) == whole.metrics(_classes(k))


@given(k=st.integers(2, 15), size=st.integers(0, 2000), seed=st.integers(0, 99))
@settings(deadline=None)
def test_every_way_of_counting_gives_the_same(k: int, size: int, seed: int) -> None:
    target, prediction = _ids(np.random.default_rng(seed), k, size)
    prediction[target == 255] = seed  # not looked at there
    ways = [way(target, prediction, k) for way in (count_planes, count_pairs, count_codes)]
    np.testing.assert_array_equal(ways[0], ways[1])
    np.testing.assert_array_equal(ways[1], ways[2])
    assert counter_for(k)(target, prediction, k).sum() == np.count_nonzero(target != 255)


def test_chunks_longer_than_one_step_and_odd_ends() -> None:
    rng = np.random.default_rng(0)
    target, prediction = _ids(rng, 6, (1 << 21) + 7)
    kept = target != 255
    expected = np.bincount(target[kept].astype(int) * 6 + prediction[kept], minlength=36)
    ours = Confusion(6).update(target, prediction).matrix
    np.testing.assert_array_equal(ours, expected.reshape(6, 6))
    halves = (np.where(target == 255, 255, target // 3), prediction // 3)
    two = Confusion(2).update(*halves).matrix
    np.testing.assert_array_equal(two, expected.reshape(2, 3, 2, 3).sum(axis=(1, 3)))


@pytest.mark.parametrize("k", [2, 6, 16])
def test_scores_equal_scikit_learn(k: int) -> None:
    target, prediction = _ids(np.random.default_rng(k), k, 5000)
    kept = target != 255
    t, p = target[kept], prediction[kept]
    ours = Confusion(k).update(target, prediction).metrics(_classes(k))
    assert ours["miou"] == pytest.approx(sk.jaccard_score(t, p, average="macro"))
    assert ours["mf1"] == pytest.approx(sk.f1_score(t, p, average="macro"))
    assert ours["precision"] == pytest.approx(sk.precision_score(t, p, average="macro"))
    assert ours["recall"] == pytest.approx(sk.recall_score(t, p, average="macro"))
    assert ours["oa"] == pytest.approx(sk.accuracy_score(t, p))
    assert ours["kappa"] == pytest.approx(sk.cohen_kappa_score(t, p))
    iou = sk.jaccard_score(t, p, average=None)
    for i, row in enumerate(ours["per_class"].values()):
        assert row["iou"] == pytest.approx(iou[i])
        assert row["pixels"] == (t == i).sum()


def test_scores_equal_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tm = pytest.importorskip("torchmetrics.functional.classification")
    target, prediction = _ids(np.random.default_rng(3), 6, 4000)
    t, p = torch.from_numpy(target.astype(np.int64)), torch.from_numpy(prediction.astype(np.int64))
    ours = Confusion(6).update(target, prediction)
    theirs = tm.multiclass_confusion_matrix(p, t, 6, ignore_index=255)
    np.testing.assert_array_equal(ours.matrix, theirs.numpy())
    scores = ours.metrics(_classes(6))
    iou = tm.multiclass_jaccard_index(p, t, 6, ignore_index=255)
    f1 = tm.multiclass_f1_score(p, t, 6, ignore_index=255)
    assert scores["miou"] == pytest.approx(float(iou))
    assert scores["mf1"] == pytest.approx(float(f1))


def test_isprs_means_leave_clutter_out_but_keep_its_errors() -> None:
    # clutter taken for building lowers building's precision, though clutter has no row in the mean
    target = np.array([0, 0, 1, 1, 5, 5], np.uint8)
    prediction = np.array([0, 0, 1, 1, 1, 5], np.uint8)
    scores = Confusion(6).update(target, prediction).metrics(ISPRS)
    assert scores["per_class"]["building"]["iou"] == pytest.approx(2 / 3)
    assert scores["miou"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["oa"] == pytest.approx(5 / 6)
    assert scores["oa_evaluated"] == 1.0
    assert scores["absent"] == ["low vegetation", "tree", "car"]


def test_a_class_predicted_but_never_labelled_scores_zero_and_counts() -> None:
    scores = Confusion(3).update(np.zeros(4, np.uint8), np.array([0, 0, 0, 2])).metrics(_classes(3))
    assert scores["absent"] == ["c1"]
    assert scores["miou"] == pytest.approx((0.75 + 0.0) / 2)


@given(st.integers(2, 6), st.integers(0, 50), st.integers(0, 9))
@settings(deadline=None)
def test_never_nan(k: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.choice(np.array([0, 255], np.uint8), size)
    scores = Confusion(k).update(target, rng.integers(0, k, size)).metrics(_classes(k))
    flat = [v for v in scores.values() if isinstance(v, float)]
    flat += [v for row in scores["per_class"].values() for v in row.values()]
    assert all(math.isfinite(v) for v in flat)


@pytest.mark.parametrize("k", [2, 6, 16])
@pytest.mark.parametrize("bad", [20, 254])
def test_ids_without_a_class_are_refused(k: int, bad: int) -> None:
    good = np.zeros(9, np.uint8)
    wrong = good.copy()
    wrong[4] = bad
    with pytest.raises(ValueError, match=f"target {bad}"):
        Confusion(k).update(wrong, good)
    with pytest.raises(ValueError, match=f"prediction {bad}"):
        Confusion(k).update(good, wrong)


def test_ids_that_would_wrap_are_refused() -> None:
    good = np.zeros(3, np.uint8)
    for wrong in (np.array([0, 256, 1]), np.array([0, -1, 1])):
        with pytest.raises(ValueError, match="outside"):
            Confusion(2).update(good, wrong)
    with pytest.raises(ValueError, match="differ"):
        Confusion(2).update(good, good[:2])
    with pytest.raises(ValueError, match="not class ids"):
        Confusion(2).update(good, np.zeros(3))


def test_ignored_pixels_may_hold_any_prediction() -> None:
    target, prediction = np.array([0, 255, 1], np.uint8), np.array([0, 255, 1], np.uint8)
    assert Confusion(2).update(target, prediction).pixels == 2
