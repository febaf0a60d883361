from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terradapt.classes import IGNORE, ISPRS, ROADS, ClassMap
from terradapt.errors import DataError


@given(st.integers(2, 255), st.randoms())
def test_colours_read_back_to_the_ids_they_were_made_from(count: int, random) -> None:
    classes = ClassMap(tuple(f"class {i}" for i in range(count)))
    if len(set(classes.colours)) < count or (0, 0, 0) in classes.colours:
        return
    ids = np.array([random.randrange(count) for _ in range(12)], np.uint8).reshape(3, 4)
    assert np.array_equal(classes.from_rgb(classes.to_rgb(ids), "label.png"), ids)


def test_isprs_colours_are_the_benchmarks() -> None:
    rgb = np.array(
        [[[255, 255, 255], [0, 0, 255], [0, 255, 255]], [[0, 255, 0], [255, 255, 0], [255, 0, 0]]]
    )
    assert ISPRS.from_rgb(rgb.astype(np.uint8), "x").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert ISPRS.from_rgb(np.zeros((1, 1, 3), np.uint8), "x").tolist() == [[IGNORE]]


def test_black_is_background_where_a_class_is_black() -> None:
    assert ROADS.from_rgb(np.zeros((1, 1, 3), np.uint8), "x").tolist() == [[0]]


def test_an_unknown_colour_is_told_with_file_colour_and_count() -> None:
    rgb = np.zeros((2, 5, 3), np.uint8)
    rgb[0, :3] = (10, 20, 30)
    with pytest.raises(DataError, match=r"tile_7\.tif.*10,20,30.*3 pixels"):
        ISPRS.from_rgb(rgb, "tile_7.tif")


def test_dict_round_trip() -> None:
    assert ClassMap.from_dict(ISPRS.to_dict()) == ISPRS


@pytest.mark.parametrize(
    "names", [("one",), tuple(map(str, range(256))), ("road", "road"), ("a", "b", "c")]
)
def test_impossible_maps_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        ClassMap(names, ((1, 2, 3), (4, 5, 6)) if len(names) == 3 else ())
