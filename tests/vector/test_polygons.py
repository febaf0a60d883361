"""Polygons: exact areas, valid shapes, shared borders, the same however a scene is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.transform import Affine

from road_files import METRE, UTM, drawn, random_labels
from terradapt.raster import Georef, polygonize, write_raster
from terradapt.vector import PolygonOptions, Polygons, polygonize_labels
from terradapt.vector.polygons.extract import ArrayLabels

SEEDS = st.integers(0, 10_000)


def polygons(labels: NDArray[np.uint8], **options: object) -> Polygons:
    source = ArrayLabels(labels, Georef(METRE, None, *labels.shape))
    return polygonize_labels(source, PolygonOptions(**options))  # type: ignore[arg-type]


def canonical(found: Polygons) -> list[tuple[int, str]]:
    shapes = shapely.normalize(found.shapes)
    return sorted(zip(found.value.tolist(), shapely.to_wkt(shapes), strict=True))


def labels_of(seed: int, size: tuple[int, int] = (60, 70)) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    if seed % 5 == 0:  # noise: checkerboards, regions that touch at corners
        return rng.integers(0, 3, (20, 24)).astype(np.uint8)
    return random_labels(seed, size, int(rng.integers(2, 5)), float(rng.uniform(0.5, 4)))


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_polygons_are_valid_and_have_exactly_the_rasters_areas(seed: int) -> None:
    labels = labels_of(seed)
    found = polygons(labels)
    assert shapely.is_valid(found.shapes).all()
    area = np.round(shapely.area(found.shapes))
    np.testing.assert_allclose(found.area, area, rtol=1e-9)
    for value in range(5):
        assert area[found.value == value].sum() == (labels == value).sum()
    reference = polygonize(labels, mask=labels != 255)
    expected = sorted((v, shapely.geometry.shape(g).area) for g, v in reference)
    assert sorted(zip(found.value.tolist(), area.tolist(), strict=True)) == expected


@given(SEEDS, st.integers(7, 40), st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from([0.0, 12.0]))
@settings(max_examples=15, deadline=None)
def test_the_polygons_of_a_cut_scene_are_those_of_one_piece(
    seed: int, block: int, simplify: float, min_area: float
) -> None:
    labels = labels_of(seed)
    whole, cut = (
        polygons(labels, simplify=simplify, min_area=min_area, block=b) for b in (500, block)
    )
    assert canonical(whole) == canonical(cut)


@given(SEEDS)
@settings(max_examples=8, deadline=None)
def test_simplified_borders_stay_shared_and_areas_stay(seed: int) -> None:
    labels = random_labels(seed, (200, 200), 3, 9.0)
    found = polygons(labels, simplify=1.0, min_area=20.0)
    assert shapely.is_valid(found.shapes).all() and shapely.coverage_is_valid(found.shapes)
    plain = polygons(labels, min_area=20.0)
    assert shapely.get_num_coordinates(found.shapes).sum() < 0.7 * (
        shapely.get_num_coordinates(plain.shapes).sum()
    )
    for value in np.unique(plain.value):
        before = plain.area[plain.value == value].sum()
        assert found.area[found.value == value].sum() == pytest.approx(
            before, rel=0.005, abs=0.0005 * labels.size
        )
    assert found.area.sum() == pytest.approx(plain.area.sum(), rel=0.005)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_small_regions_join_a_neighbour(seed: int) -> None:
    labels = random_labels(seed, (60, 60), 4, 1.5)
    found = polygons(labels, min_area=15.0)
    assert found.area.sum() == pytest.approx((labels != 255).sum())
    touching = shapely.STRtree(found.shapes)
    for i in np.flatnonzero(found.area < 14.5):
        near = touching.query(found.shapes[i], predicate="intersects")
        shared = shapely.length(shapely.intersection(found.shapes[near], found.shapes[i]))
        assert (np.delete(shared, np.flatnonzero(near == i)) == 0).all()  # an island of its own


def test_holes_and_a_hole_in_a_hole() -> None:
    labels = np.zeros((30, 30), np.uint8)
    labels[5:25, 5:25], labels[10:20, 10:20] = 1, 0
    found = polygons(labels)
    area = np.round(found.area, 6)
    assert sorted(zip(found.value, area, strict=True)) == [(0, 100), (0, 500), (1, 300)]
    assert [len(s.interiors) for s in found.shapes] == [1, 1, 0]


def test_one_class_no_class_and_one_pixel() -> None:
    assert polygons(np.full((9, 9), 255, np.uint8)).area.tolist() == []
    whole = polygons(np.full((9, 12), 3, np.uint8), block=4)
    assert whole.area == pytest.approx([108.0]) and whole.value.tolist() == [3]
    assert shapely.get_num_coordinates(whole.shapes[0]) == 5
    assert polygons(np.zeros((1, 1), np.uint8)).area == pytest.approx([1.0])


def test_buildings_get_right_angles_and_nothing_overlaps() -> None:
    corner = np.array([[30, 30], [80, 55], [60, 95], [10, 70]], float)
    labels = drawn([], (110, 110), 1).astype(np.uint8)
    y, x = np.mgrid[:110, :110] + 0.5
    labels[shapely.contains_xy(shapely.Polygon(corner), x, y)] = 1
    found = polygons(labels, right_angles=1)
    house = found.shapes[found.value == 1][0]
    ring = np.asarray(house.exterior.coords)
    assert len(ring) == 5
    sides = np.diff(ring, axis=0)
    cosines = (sides * np.roll(sides, 1, axis=0)).sum(1)
    np.testing.assert_allclose(cosines / (np.hypot(*sides.T) ** 2).max(), 0, atol=1e-6)
    assert house.area == pytest.approx((labels == 1).sum(), rel=0.04)
    ground = found.shapes[found.value == 0]
    assert shapely.area(shapely.intersection(ground, house)).sum() == pytest.approx(0, abs=1e-6)
    assert shapely.is_valid(found.shapes).all()


def town(seed: int, size: int = 160) -> NDArray[np.uint8]:
    """Draw houses (3) at all angles on other classes, over the edges and beside missing data."""
    rng = np.random.default_rng(seed)
    labels = random_labels(seed, (size, size), 3, 7.0)
    y, x = np.mgrid[:size, :size]
    for _ in range(14):
        col, row = rng.uniform(0, size, 2)
        angle, wide, high = rng.uniform(0, np.pi), *rng.uniform(3, 14, 2)
        u = (x - col) * np.cos(angle) + (y - row) * np.sin(angle)
        v = -(x - col) * np.sin(angle) + (y - row) * np.cos(angle)
        labels[(np.abs(u) < wide) & (np.abs(v) < high)] = 3
        if rng.random() < 0.3:  # a courtyard
            labels[(np.abs(u) < wide / 3) & (np.abs(v) < high / 3)] = 0
    return labels


@given(SEEDS, st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from([0.0, 5.0, 20.0]))
@settings(max_examples=25, deadline=None)
def test_right_angles_keep_the_coverage_closed_valid_inside_and_large_enough(
    seed: int, simplify: float, min_area: float
) -> None:
    labels = town(seed)
    plain = polygons(labels, simplify=simplify, min_area=min_area)
    found = polygons(labels, simplify=simplify, min_area=min_area, right_angles=3)
    assert shapely.is_valid(found.shapes).all() and shapely.coverage_is_valid(found.shapes)
    before, after = shapely.union_all(plain.shapes), shapely.union_all(found.shapes)
    assert shapely.area(found.shapes).sum() == pytest.approx(before.area, rel=1e-6)
    assert shapely.symmetric_difference(before, after).area < 1e-3
    least = min_area or (0.98 if simplify == 0 else 0)
    for i in np.flatnonzero(found.area < least * (1 - 1e-6)):
        others = np.delete(found.shapes, i)
        shared = shapely.length(shapely.intersection(others, found.shapes[i]))
        assert shared.max(initial=0) == 0, "only islands in missing data may be smaller"
    changed = found.area[found.value == 3].sum() / max(plain.area[plain.value == 3].sum(), 1)
    assert changed == pytest.approx(1, abs=0.15)


@given(SEEDS, st.integers(20, 90))
@settings(max_examples=6, deadline=None)
def test_right_angles_do_not_depend_on_blocks(seed: int, block: int) -> None:
    labels = town(seed)
    whole, cut = (polygons(labels, right_angles=3, min_area=8.0, block=b) for b in (500, block))
    assert canonical(whole) == canonical(cut)


def test_right_angles_are_right_on_the_ground_where_pixels_are_not_square() -> None:
    north = 0.5 / 111_320.0
    georef = Georef(Affine(north, 0, 20.0, 0, -north, 60.0), "EPSG:4326", 120, 240)
    y, x = np.mgrid[:120, :240]
    east = (x - 120) / 2  # half as wide on the ground as it is high
    u, v = east * 0.8 + (y - 60) * 0.6, -east * 0.6 + (y - 60) * 0.8
    labels = ((np.abs(u) < 30) & (np.abs(v) < 18)).astype(np.uint8)
    found = polygonize_labels(ArrayLabels(labels, georef), PolygonOptions(right_angles=1))
    ring = shapely.get_coordinates(found.shapes[found.value == 1][0])
    assert len(ring) == 5
    sides = np.diff(ring, axis=0) * [np.cos(np.radians(60)), 1]
    cosine = (sides * np.roll(sides, 1, axis=0)).sum(1) / np.hypot(*sides.T).prod() ** 0.5
    np.testing.assert_allclose(cosine, 0, atol=0.02)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_nothing_that_was_simplified_is_smaller_than_the_least_area(seed: int) -> None:
    labels = np.minimum(town(seed), 3)  # no missing data, so no islands
    found = polygons(labels, simplify=2.0, min_area=25.0)
    assert found.area.min() >= 25 * (1 - 1e-6) and shapely.coverage_is_valid(found.shapes)
    assert found.area.sum() == pytest.approx(labels.size)


def test_square_metres_of_degrees() -> None:
    north = 2.0 / 111_320.0
    georef = Georef(Affine(north, 0, 20.0, 0, -north, 60.0), "EPSG:4326", 50, 40)
    found = polygonize_labels(ArrayLabels(np.zeros((50, 40), np.uint8), georef))
    assert found.area.sum() == pytest.approx(2000 * 2 * 2 * np.cos(np.radians(60)), rel=0.01)


def test_the_verb_writes_polygons_with_names(terradapt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import json

    from terradapt.classes import ClassMap

    labels = random_labels(3, (150, 170), 3, 6.0)
    names = json.dumps(ClassMap(("field", "house", "tree")).to_dict())
    write_raster(
        tmp_path / "l.tif", labels, crs=UTM, transform=METRE, nodata=255,
        tags={"TERRADAPT_CLASSES": names},
    )  # fmt: skip
    for suffix in ("gpkg", "geojson"):
        out = tmp_path / f"p.{suffix}"
        done = terradapt("vectorize", tmp_path / "l.tif", "-o", out, "--block", "64")
        assert done.status == 0 and "house:" in done.out
        meta, _, wkb, fields = pyogrio.raw.read(out, layer=0)
        row = dict(zip(meta["fields"], fields, strict=True))
        for value, name in enumerate(("field", "house", "tree")):
            area = row["area_m2"][row["class"] == name].sum()
            assert area == pytest.approx((labels == value).sum() / 0.9996**2, rel=1e-6)
        assert shapely.is_valid(shapely.from_wkb(wkb)).all()
    options = ("--simplify", "1", "--min-area", "10", "--buildings", "house")
    done = terradapt("vectorize", tmp_path / "l.tif", "-o", tmp_path / "s.gpkg", *options)
    assert done.status == 0
    assert not list(tmp_path.glob(".*"))
