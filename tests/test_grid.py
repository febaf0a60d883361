import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terradapt.grid import Axis, Grid, Window


@st.composite
def axes(draw):
    window = draw(st.integers(1, 64))
    margin = draw(st.integers(0, (window - 1) // 2))
    stride = draw(st.integers(1, window - 2 * margin))
    return Axis(draw(st.integers(1, 300)), window, stride, margin)


@settings(deadline=None)
@given(axes())
def test_weights_sum_to_one_at_every_pixel(axis):
    total = np.zeros(max(axis.length, axis.window))
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        total[start : start + axis.window] += weights
    np.testing.assert_allclose(total[: axis.length], 1, atol=5e-7)
    assert not total[axis.length :].any()


@settings(deadline=None)
@given(axes())
def test_windows_stay_in_the_scene_and_ascend(axis):
    starts = axis.starts
    assert starts[0] == 0
    assert all(b > a and b - a <= axis.stride for a, b in itertools.pairwise(starts))
    assert starts[-1] + axis.window == max(axis.length, axis.window)


@settings(deadline=None)
@given(axes())
def test_margin_weighs_nothing_inside_the_scene(axis):
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        if start > 0:
            assert not weights[: axis.margin].any()
        if start + axis.window < axis.length:
            assert not weights[axis.window - axis.margin :].any()


@settings(deadline=None)
@given(axes(), st.data())
def test_touching_finds_the_windows_of_a_stretch(axis, data):
    first = data.draw(st.integers(0, axis.length - 1))
    stop = data.draw(st.integers(first + 1, axis.length))
    expected = [i for i, s in enumerate(axis.starts) if s < stop and s + axis.window > first]
    assert list(axis.touching(first, stop)) == expected


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 90))
def test_blocks_tile_the_scene(height, width, block):
    grid = Grid(height, width, 32, 24, block=block)
    hits = np.zeros((height, width), np.uint8)
    for area in grid.blocks():
        hits[area.slices] += 1
    assert (hits == 1).all()


rectangles = st.builds(
    Window, st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 20), st.integers(1, 20)
)


@settings(deadline=None)
@given(rectangles, rectangles)
def test_intersection_is_the_common_pixels(a, b):
    canvas = np.zeros((80, 80), np.uint8)
    canvas[a.shift(20, 20).slices] += 1
    canvas[b.shift(20, 20).slices] += 1
    both = a.intersect(b)
    expected = np.zeros_like(canvas, bool)
    if both is not None:
        expected[both.shift(20, 20).slices] = True
    np.testing.assert_array_equal(canvas == 2, expected)


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(AssertionError):
        Axis(100, 32, 33)
