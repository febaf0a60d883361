"""Two dates of a city: what is told is what is seen, and nothing else has changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from shapely.geometry import shape

from terradapt.classes import ISPRS
from terradapt.config import DataConfig
from terradapt.data import open_dataset, read_mask
from terradapt.data.reading import ItemReader
from terradapt.errors import DataError
from terradapt.raster import rasterize
from terradapt.synthetic import TwoDates, make_scene, make_two_dates
from terradapt.synthetic.pairs import prepare_pairs

BUILDING, CAR = ISPRS.names.index("building"), ISPRS.names.index("car")


@pytest.fixture(scope="module")
def pair() -> TwoDates:
    return make_two_dates(3, 400, 400, 300, 30, shift=(2, -3))


def test_what_is_told_covers_what_changed(pair: TwoDates) -> None:
    size = {"height": 400, "width": 400, "transform": Affine.identity()}
    told = rasterize([(c.outline, 1) for c in pair.changes], **size).astype(bool)
    changed = pair.changed.astype(bool)
    assert 0.01 < changed.mean() < 0.3
    assert changed[told].mean() > 0.7, "outlines are where it changed"
    assert told[changed].mean() > 0.7, "changes are inside the outlines"


def test_a_new_building_stands_at_the_second_date_alone(pair: TwoDates) -> None:
    states = {c.state for c in pair.changes if c.kind == "building"}
    assert states == {"new", "gone"}
    size = {"height": 400, "width": 400, "transform": Affine.identity()}
    for change in pair.changes:
        if change.kind != "building":
            continue
        inside = rasterize([(change.outline, 1)], **size).astype(bool)
        first, second = ((s.labels[inside] == BUILDING).mean() for s in (pair.before, pair.after))
        assert (second > first + 0.4) if change.state == "new" else (first > second + 0.4)
        assert (change.after == BUILDING) == (change.state == "new")


def test_the_second_image_lies_beside_the_first(pair: TwoDates) -> None:
    still = make_two_dates(3, 400, 400, 300, 30)
    rows, cols = pair.shift
    moved, held = pair.after.image, still.after.image
    assert (moved[8 + rows : -8 + rows, 8 + cols : -8 + cols] == held[8:-8, 8:-8]).all()
    assert (pair.after.labels == still.after.labels).all()


def test_without_a_share_nothing_but_cars_and_light_changes() -> None:
    same = make_two_dates(4, 200, 200, share=0.0)
    assert not same.changed.any() and not same.changes
    assert np.abs(same.before.image.astype(int) - same.after.image).mean() > 4
    alike = make_two_dates(4, 200, 200, share=0.0, relit=False)
    cars = (alike.before.labels == CAR) | (alike.after.labels == CAR)
    difference = np.abs(alike.before.image.astype(int) - alike.after.image).mean(2)
    assert difference[~cars].mean() < 8, "the camera's noise, and shadows of cars"


def test_neighbouring_windows_agree() -> None:
    whole = make_two_dates(5, 96, 192)
    left, right = make_two_dates(5, 96, 96), make_two_dates(5, 96, 96, 0, 96)
    joined = np.concatenate([left.after.labels, right.after.labels], 1)
    assert (joined == whole.after.labels).mean() > 0.995
    assert (make_scene(5, 96, 96).roads == left.after.roads).all(), "streets stay"


def test_pairs_are_a_dataset_of_six_bands(tmp_path: Path) -> None:
    dataset = prepare_pairs(Path("1-3"), tmp_path, {"size": 96, "shift": 1, "of": "building"})
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 1, "val": 1, "test": 1}
    opened = open_dataset(tmp_path, DataConfig(bands=(1, 2, 3, 4, 5, 6)))
    item = opened.split("train")[0]
    with ItemReader(opened, item) as reader:
        assert reader.read(reader.window)[0].shape == (6, 96, 96)
    assert set(np.unique(read_mask(opened, item))) <= {0, 1}
    told = json.loads((tmp_path / "changes" / f"{item.id}.geojson").read_text())
    for feature in told["features"]:
        assert feature["properties"]["state"] in ("new", "gone")
        assert shape(feature["geometry"]).is_valid


def test_half_of_the_pairs_may_be_unchanged(tmp_path: Path) -> None:
    dataset = prepare_pairs(
        Path("1-3"), tmp_path, {"size": 96, "scenes": 2, "unchanged": 0.5, "share": 0.5}
    )
    changed = [bool((read_mask(dataset, item) == 1).any()) for item in dataset.items]
    assert changed == [True, False] * 3


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("1-2", {}),
        ("1-3", {"unchanged": 1.5}),
        ("1-3", {"of": "cars"}),
        ("1-3", {"shift": 9}),
        ("1-3", {"sise": 64}),
    ],
)
def test_no_pairs_are_refused(tmp_path: Path, source: str, options: dict[str, object]) -> None:
    with pytest.raises(DataError):
        prepare_pairs(Path(source), tmp_path, options)
    assert not any(tmp_path.iterdir())
