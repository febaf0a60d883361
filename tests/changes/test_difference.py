"""The score of change: a formula, checked against a plain loop, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from terradapt.changes.calibration import IDENTITY, ChangeTable, read_table
from terradapt.changes.difference import disc, score_of_change
from terradapt.changes.sampling import as_steps, exact_steps
from terradapt.errors import DataError


def steps(seed: int, size: int, classes: int, sure: bool) -> np.ndarray:
    values = np.random.default_rng(seed).random((classes, size, size)).astype(np.float32)
    shares = values == values.max(axis=0) if sure else values / values.sum(axis=0)
    return exact_steps(as_steps(shares), np.ones((size, size), bool))[0]


def looped(old: np.ndarray, new: np.ndarray, seen: np.ndarray, reach: int) -> np.ndarray:
    old, new = old / 250, new / 250
    size = old.shape[1] - 4 * reach
    far = np.zeros((size + 2 * reach,) * 2)
    for r in range(far.shape[0]):
        for c in range(far.shape[1]):
            y, x = r + reach, c + reach
            both = [np.minimum(old[:, y, x], new[:, y + a, x + b]).sum() for a, b in disc(reach)]
            far[r, c] = (1 - max(both)) if seen[y, x] else 0
    score = np.zeros((size, size))
    for r in range(size):
        for c in range(size):
            y, x = r + 2 * reach, c + 2 * reach
            near = max(far[r + reach + a, c + reach + b] for a, b in disc(reach))
            score[r, c] = min(1 - np.minimum(old[:, y, x], new[:, y, x]).sum(), near)
    return np.where(seen[2 * reach : 2 * reach + size, 2 * reach : 2 * reach + size], score, 0)


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(0, 2), st.integers(2, 4), st.booleans())
def test_it_is_the_formula(seed: int, reach: int, classes: int, sure: bool) -> None:
    size = 6 + 4 * reach
    old, new = steps(seed, size, classes, sure), steps(seed + 1, size, classes, sure)
    seen = np.random.default_rng(seed).random((2, size, size)) < 0.9
    old, new = old * seen[0], new * seen[1]
    found, valid = score_of_change(old, new, (seen[0], seen[1]), reach)
    both = seen[0] & seen[1]
    np.testing.assert_allclose(found / 250, looped(old, new, both, reach).clip(0, 1), atol=1e-9)
    inner = slice(2 * reach, size - 2 * reach)
    np.testing.assert_array_equal(valid, both[inner, inner])


@given(st.integers(0, 999), st.booleans())
def test_a_date_does_not_differ_from_itself_nor_from_itself_moved_within_reach(
    seed: int, sure: bool
) -> None:
    wide = steps(seed, 22, 3, sure)
    seen = np.ones((20, 20), bool)
    still = score_of_change(wide[:, 1:-1, 1:-1], wide[:, 1:-1, 1:-1], (seen, seen), 2)[0]
    moved = score_of_change(wide[:, 1:-1, 1:-1], wide[:, :-2, 2:], (seen, seen), 2)[0]
    assert not still.any() and not moved.any()


@given(st.integers(0, 999), st.integers(2, 24))
def test_stored_steps_are_made_to_sum_to_one_and_none_moves_by_more_than_rounding_did(
    seed: int, classes: int
) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.ones(classes), (9, 9)).transpose(2, 0, 1)
    valid = np.random.default_rng(seed).random((9, 9)) < 0.8
    stored = as_steps((shares * valid).astype(np.float32))
    exact, ids = exact_steps(stored.copy(), valid)
    np.testing.assert_array_equal(exact.sum(axis=0), 250 * valid)
    np.testing.assert_array_equal(ids, stored.argmax(axis=0))
    assert (np.abs(exact.astype(int) - stored).sum(axis=0) <= (classes + 1) // 2).all()


def test_what_is_new_keeps_its_rim_and_a_moved_border_is_none() -> None:
    old, new = np.zeros((2, 2, 48, 48), np.uint8)
    old[0], new[0] = 250, 250
    for p, rows in ((new, slice(20, 30)),):
        p[1, rows, 20:28], p[0, rows, 20:28] = 250, 0
    for p, rows in ((old, slice(36, 44)), (new, slice(37, 45))):
        p[1, rows, 10:20], p[0, rows, 10:20] = 250, 0
    seen = np.ones((48, 48), bool)
    score = score_of_change(old, new, (seen, seen), 1)[0]
    expected = np.zeros((44, 44), np.uint8)
    expected[18:28, 18:26] = 250
    expected[[18, 18, 27, 27], [18, 25, 18, 25]] = 0  # a disc rounds corners
    np.testing.assert_array_equal(score, expected)


def test_a_table_makes_scores_probabilities(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "table.json"
    path.write_text('{"scores": [0, 0.5, 1], "probabilities": [0, 0.1, 0.9], "source": "pairs"}')
    table = read_table(path)
    found = table(np.array([0, 0.25, 0.5, 0.75, 1], np.float32))
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.5, 0.9], atol=1e-6)
    assert str(table) == "calibrated on pairs" and "not calibrated" in str(read_table(None))
    assert read_table(None) == IDENTITY
    for text in ('{"scores": [0, 1], "probabilities": [0.9, 0.1]}', '{"scores": [0, 1]', "[]"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"table\.json"):
            read_table(path)
    with pytest.raises(ValidationError, match="rise"):
        ChangeTable(scores=(0.5, 0.5), probabilities=(0.0, 1.0))
