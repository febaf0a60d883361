"""Synthetic cities: laws of the lattice, of scenes that touch, and of what a scene shows."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terradapt.classes import ISPRS
from terradapt.config import DataConfig
from terradapt.data import open_dataset, read_image, read_mask
from terradapt.grid import Window
from terradapt.metrics.confusion import Confusion
from terradapt.raster import SceneReader, rasterize, read_label
from terradapt.synthetic import (
    CityScene,
    make_scene,
    write_city,
    write_dataset,
    write_large_scene,
)
from terradapt.synthetic.city import City

IMPERVIOUS, BUILDING, LOW, TREE, CAR, CLUTTER = range(6)


@pytest.fixture(scope="module")
def scenes() -> dict[int, CityScene]:
    return {seed: make_scene(seed, 640, 640) for seed in (2, 3, 4)}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 200),
    st.floats(-5000, 5000),
    st.floats(-5000, 5000),
)
def test_the_lattice_inverts_the_position(seed: int, x: float, y: float) -> None:
    city = City(seed)
    u, v = city.lattice(np.array([x]), np.array([y]))
    back = city.position(u, v)
    assert np.hypot(back[0][0] - x, back[1][0] - y) < 0.01


def test_a_scene_is_a_function_of_its_seed_and_place() -> None:
    first, again = make_scene(5, 96, 128, 40, -30), make_scene(5, 96, 128, 40, -30)
    assert first.image.shape == (96, 128, 3) and first.labels.shape == (96, 128)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    other = make_scene(6, 96, 128, 40, -30)
    assert (other.labels != first.labels).mean() > 0.1


def test_scenes_that_touch_fit() -> None:
    whole = make_scene(8, 200, 400)
    right = make_scene(8, 200, 200, 0, 200)
    same = whole.labels[:, 200:] == right.labels
    assert same.mean() > 0.999  # the lattice is solved on points of each window
    np.testing.assert_array_equal(whole.roads[:, 200:], right.roads)
    apart = np.abs(whole.image[:, 200:].astype(int) - right.image.astype(int))
    assert apart.mean() < 6  # the sensor's noise


def test_a_scene_shows_all_that_the_classes_name(scenes: dict[int, CityScene]) -> None:
    counts = sum(np.bincount(s.labels.ravel(), minlength=6) for s in scenes.values())
    share = counts / counts.sum()
    assert (share[[IMPERVIOUS, BUILDING, LOW, TREE]] > 0.05).all()
    assert 0.003 < share[CAR] < 0.05
    assert share[CLUTTER] > 0.001
    assert all(s.labels.max() <= 5 for s in scenes.values())


def test_roads_go_on_under_trees_and_cars(scenes: dict[int, CityScene]) -> None:
    road = np.concatenate([s.roads.ravel() for s in scenes.values()]).astype(bool)
    label = np.concatenate([s.labels.ravel() for s in scenes.values()])
    assert set(np.unique(label[road])) >= {IMPERVIOUS, TREE, CAR}
    assert (label[road] == IMPERVIOUS).mean() > 0.6
    assert np.isin(label[road], [BUILDING, LOW]).mean() < 1e-4


def test_centrelines_lie_on_the_roads_and_cover_them(scenes: dict[int, CityScene]) -> None:
    from affine import Affine
    from shapely import LineString

    for scene in scenes.values():
        shapes = [(LineString(r.line).buffer(r.width / 2 / 0.3), 1) for r in scene.lines]
        drawn = rasterize(shapes, height=640, width=640, transform=Affine.identity()).astype(bool)
        truth = scene.roads.astype(bool)
        assert (drawn & truth).sum() / (drawn | truth).sum() > 0.85


def test_shadows_fall_away_from_the_sun() -> None:
    city = City(3)
    scene = make_scene(3, 512, 512)
    tall = scene.labels == BUILDING
    step = 12
    dx = round(-np.sin(city.style.sun_azimuth) * step)
    dy = round(np.cos(city.style.sun_azimuth) * step)
    ground = scene.labels == LOW
    grey = scene.image.mean(-1)

    def beside(rows: int, cols: int) -> float:
        near = np.roll(tall, (rows, cols), (0, 1)) & ground
        return float(grey[near].mean())

    assert beside(dy, dx) < 0.75 * beside(-dy, -dx)


def test_colour_alone_does_not_solve_an_unseen_city(scenes: dict[int, CityScene]) -> None:
    def binned(scene: CityScene) -> np.ndarray:
        q = (scene.image // 16).astype(np.int64)
        return (q[..., 0] * 16 + q[..., 1]) * 16 + q[..., 2]

    seen = scenes[2]
    votes = np.zeros((4096, 6), np.int64)
    np.add.at(votes, (binned(seen).ravel(), seen.labels.ravel()), 1)
    for other in (3, 4):
        confusion = Confusion(6)
        confusion.update(
            scenes[other].labels, votes.argmax(1)[binned(scenes[other])].astype(np.uint8)
        )
        miou = confusion.metrics(ISPRS)["miou"]
        assert 0.15 < miou < 0.5


def test_a_city_on_disk_is_a_folder_dataset(tmp_path: Path) -> None:
    write_city(tmp_path / "town", 7, scenes=3, size=128)
    dataset = open_dataset(tmp_path / "town", DataConfig())
    assert dataset.classes == ISPRS
    assert len(dataset.items) == 3
    item = dataset.item("city7_1")
    np.testing.assert_array_equal(read_mask(dataset, item), make_scene(7, 128, 128, 0, 128).labels)
    with SceneReader(tmp_path / "town/images/city7_0.tif") as west, SceneReader(item.image) as east:
        assert west.crs.to_epsg() == 32633
        assert abs(west.resolution - 0.3) < 0.001
        assert west.transform.c + 128 * 0.3 == pytest.approx(east.transform.c)
        assert west.transform.f == east.transform.f


def test_centrelines_on_disk_lie_in_their_scene(tmp_path: Path) -> None:
    write_city(tmp_path, 7, scenes=1, size=256)
    roads = json.loads((tmp_path / "roads/city7.geojson").read_text())
    assert roads["features"]
    with SceneReader(tmp_path / "images/city7_0.tif") as image:
        for feature in roads["features"]:
            assert 4 < feature["properties"]["width"] < 20
            for point in feature["geometry"]["coordinates"]:
                col = (point[0] - image.transform.c) / 0.3
                row = (image.transform.f - point[1]) / 0.3
                assert -0.1 <= col <= 256.1 and -0.1 <= row <= 256.1


def test_a_dataset_keeps_cities_in_one_split(tmp_path: Path) -> None:
    cities = {"train": (1, 2), "val": (3,), "test": (4,)}
    write_dataset(tmp_path, cities, scenes=2, size=96)
    dataset = open_dataset(tmp_path)
    assert dataset.protocol == "by_city"
    assert [i.group for i in dataset.split("train")] == ["city1"] * 2 + ["city2"] * 2
    assert {i.group for i in dataset.split("test")} == {"city4"}
    assert read_image(dataset, dataset.split("test")[0]).shape == (3, 96, 96)


def test_roads_as_a_dataset(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": (1,), "val": (2,)}, size=96, roads=True)
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("background", "road")
    mask = read_mask(dataset, dataset.split("train")[0])
    np.testing.assert_array_equal(mask, make_scene(1, 96, 96).roads)


def test_a_large_scene_is_written_by_rows(tmp_path: Path) -> None:
    path = write_large_scene(tmp_path / "large.tif", 3, 700, 900, collar=0.1, side=256)
    tile = make_scene(3, 256, 256).image
    with SceneReader(path) as scene:
        assert (scene.height, scene.width, scene.count) == (700, 900, 3)
        pixels, valid = scene.read(Window(0, 0, 700, 900))
    assert pixels[:, ~valid].max() == 0
    assert pixels[:, valid].min() >= 1
    assert 0.05 < 1 - valid.mean() < 0.15
    shown = np.maximum(tile, 1)[100, 150]
    np.testing.assert_array_equal(pixels[:, 100, 150], shown)
    np.testing.assert_array_equal(pixels[:, 511 - 100, 511 - 150], shown)  # mirrored twice


def test_label_files_hold_ids_with_a_colour_table(tmp_path: Path) -> None:
    write_city(tmp_path, 1, size=64)
    np.testing.assert_array_equal(
        read_label(tmp_path / "labels/city1_0.tif"), make_scene(1, 64, 64).labels
    )
