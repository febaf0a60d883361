"""Whether ground looks as it did: light is taken out, what is left is measured in usual ones."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from terradapt.changes.looks import Looks
from terradapt.grid import Window

SIZE = 120


class Dates:
    """Two dates in memory: the later one brighter by a gain and an offset for each band."""

    def __init__(self, change: float, bands: int = 3, kind: str = "uint8") -> None:
        rng = np.random.default_rng(4)
        self.old = rng.uniform(20, 120, (3, SIZE, SIZE))
        gain, lit = np.array([1.5, 1.2, 0.8])[:, None, None], np.array([9, 0, 30])[:, None, None]
        self.new = self.old * gain + lit + rng.normal(0, 5, self.old.shape)
        self.new[1, 30:50, 30:50] += change
        self.valid = np.ones((SIZE, SIZE), bool)
        self.old, self.new = (v.clip(0, 255).astype(kind) for v in (self.old, self.new[:bands]))

    def dates(self, window: Window) -> tuple[Any, Any, Any]:
        rows, cols = window.slices
        return self.old[:, rows, cols], self.new[:, rows, cols], self.valid[rows, cols]


def unlike(dates: Dates, cuts: tuple[int, ...] = (0, SIZE)) -> np.ndarray:
    """Two objects: where the change is, and where there is none; by strips of columns."""
    number = np.full((SIZE, SIZE), -1)
    number[30:50, 30:50], number[70:90, 30:50] = 0, 1
    looks = Looks(dates, 2)  # type: ignore[arg-type]
    for left, right in pairwise(cuts):
        part = number[:, left:right].ravel()
        at = np.flatnonzero(part >= 0)
        looks.add(Window(0, left, SIZE, right - left), part < 0, part[at], at)
    return looks.unlike


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_light_is_no_difference_and_a_change_of_one_band_is(kind: str) -> None:
    found = unlike(Dates(20.0, kind=kind))
    assert 3.0 < found[0] < 6.0 and found[1] < 0.3  # 20 / E|N(0, 5)| = 5.0; gains spread it
    assert (unlike(Dates(0.0, kind=kind)) < 0.3).all()


def test_an_object_in_two_blocks_is_one_and_bands_that_both_have_count() -> None:
    whole, cut = unlike(Dates(20.0)), unlike(Dates(20.0), (0, 41, SIZE))
    np.testing.assert_allclose(cut, whole, atol=0.5)
    assert unlike(Dates(20.0, bands=1))[0] < 0.3  # the band that changed is not there


def test_what_cannot_be_seen_is_unlike() -> None:
    dates = Dates(20.0)
    dates.valid[30:50, 30:50] = False
    found = unlike(dates)
    assert np.isinf(found[0]) and found[1] < 0.3
    dates.valid[:] = False
    assert np.isinf(unlike(dates)).all()
    assert np.isinf(unlike(Dates(20.0), (0, 20, SIZE))).sum() == 0
