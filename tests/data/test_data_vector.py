"""Vector labels: any CRS, polygons and lines, classes by column, bad geometry counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from data_files import box, picture, place, regions, write_features, write_folder
from terradapt.config import DataConfig
from terradapt.data import Dataset, open_dataset, read_mask
from terradapt.data.labels import IndexForm, VectorForm
from terradapt.data.scan import class_index
from terradapt.data.vector_labels import vector_source
from terradapt.errors import DataError
from terradapt.grid import Window
from terradapt.preflight.check import check_dataset
from terradapt.raster import Georef, read_label, write_raster
from terradapt.raster.georef import move_points, parse_crs


def images(root: Path, count: int = 2, size: tuple[int, int] = (96, 128)) -> Path:
    """Images side by side on one grid in UTM 33N, 0.5 m; the labels are still to come."""
    (root / "images").mkdir(parents=True)
    for n in range(count):
        where = {"crs": "EPSG:32633", "transform": place(0, n * size[1])}
        write_raster(root / "images" / f"s{n}.tif", picture(regions(*size, 2, n), n), **where)
    return root


def to_crs(geometry: dict[str, Any], crs: int) -> dict[str, Any]:
    source, target = (parse_crs(f"EPSG:{c}", "test") for c in (32633, crs))
    shape = shapely.geometry.shape(geometry)
    moved = shapely.transform(shape, lambda p: move_points(p, source, target))
    return shapely.geometry.mapping(moved)


FIELDS = [
    (box(0, 0, 96, 60), {"class": "field", "n": 1}),
    (box(0, 60, 96, 100), {"class": "water", "n": 2}),
    (box(30, 20, 20, 20), {"class": "forest", "n": 3}),
]
"""Field and water side by side across both images; a forest drawn over the field."""


def expected() -> np.ndarray:
    ids = np.full((96, 256), 255, np.uint8)
    ids[:, :60], ids[:, 60:160], ids[30:50, 20:40] = 0, 2, 1
    return ids


@pytest.mark.parametrize("crs", [32633, 4326, 3857, 32632, 3035])
def test_polygons_of_any_crs_fall_on_their_pixels(tmp_path: Path, crs: int) -> None:
    root = images(tmp_path)
    write_features(root / "labels.geojson", [(to_crs(g, crs), p) for g, p in FIELDS], crs)
    dataset = open_dataset(root)
    assert dataset.classes.names == ("field", "forest", "water")
    both = np.hstack([read_mask(dataset, i) for i in dataset.items])
    assert np.mean(both != expected()) <= (0 if crs == 32633 else 0.002)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".geojson"])
def test_every_vector_format_reads_the_same(tmp_path: Path, suffix: str) -> None:
    root = images(tmp_path)
    source = write_features(tmp_path / "source.json", FIELDS, 32633)
    meta, _, geometry, fields = pyogrio.raw.read(source)
    source.unlink()
    pyogrio.raw.write(
        root / f"labels{suffix}", geometry, fields, meta["fields"], crs="EPSG:32633",
        geometry_type="Polygon", **({"SPATIAL_INDEX": "NO"} if suffix == ".fgb" else {}),
    )  # fmt: skip
    dataset = open_dataset(root, DataConfig(class_column="class"))
    both = np.hstack([read_mask(dataset, i) for i in dataset.items])
    assert np.array_equal(both, expected())


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = images(tmp_path_factory.mktemp("fields"))
    write_features(root / "labels.geojson", [(to_crs(g, 4326), p) for g, p in FIELDS], 4326)
    return open_dataset(root)


@given(st.integers(-20, 90), st.integers(-20, 120), st.integers(1, 60), st.integers(1, 60))
def test_a_window_burns_that_part_of_the_whole(
    fields: Dataset, row: int, col: int, height: int, width: int
) -> None:
    item = fields.items[0]
    source = vector_source(item.label, fields.label)
    georef = Georef(place(), parse_crs("EPSG:32633", "test"), item.height, item.width)
    whole = source.burn(item.window, georef, "whole")
    window = Window(row, col, height, width).intersect(item.window)
    assert window is not None or row + height <= 0 or col + width <= 0 or row >= 96 or col >= 128
    if window is not None:
        assert np.array_equal(source.burn(window, georef, "whole"), whole[window.slices])


def test_a_line_is_buffered_in_metres_whatever_its_crs(tmp_path: Path) -> None:
    """A road of 6 m on 0.5 m pixels: 12 pixels across, in degrees and in Web Mercator too."""
    line = {
        "type": "LineString",
        "coordinates": [[500_000 + 10, 5_399_976.0], [500_000 + 60, 5_399_976.0]],
    }
    for crs in (32633, 4326, 3857):
        root = images(tmp_path / str(crs))
        write_features(root / "roads.geojson", [(to_crs(line, crs), {"lanes": 2})], crs)
        dataset = open_dataset(root)
        assert dataset.classes.names == ("background", "road")
        across = read_mask(dataset, dataset.items[0])[:, 70]
        assert across.sum() == 12
        assert np.flatnonzero(across).mean() == pytest.approx(47.5, abs=0.5)
        wide = open_dataset(root, DataConfig(line_width=10.0))
        assert read_mask(wide, wide.items[0])[:, 70].sum() == 20


def test_bad_geometry_is_counted_and_told(tmp_path: Path) -> None:
    root = images(tmp_path)
    far = box(5000, 5000, 10, 10)
    bow_ring = [[500_001, 5_399_990], [500_011, 5_399_999], [500_011, 5_399_990],
                [500_001, 5_399_999], [500_001, 5_399_990]]  # fmt: skip
    odd = [
        ({"type": "Polygon", "coordinates": [bow_ring]}, {"class": "field"}),
        ({"type": "Polygon", "coordinates": []}, {"class": "field"}),
        (None, {"class": "field"}),
        ({"type": "Point", "coordinates": [500_001, 5_399_999]}, {"class": "field"}),
        (box(60, 0, 5, 5), {"class": None}),
        (far, {"class": "water"}),
    ]
    write_features(root / "labels.geojson", [*FIELDS, *odd], 32633)
    dataset = open_dataset(root)
    census = vector_source(dataset.items[0].label, dataset.label).census
    assert (census.features, census.used, census.empty, census.invalid) == (9, 5, 2, 1)
    assert (census.points, census.unclassed) == (1, 1)
    told = "\n".join(p.message for p in check_dataset(root).problems)
    for text in ("2 of 9 features are empty", "invalid geometry", "are points", "have no class",
                 "1 of 6 geometries lie outside"):  # fmt: skip
        assert text in told


def test_labels_that_meet_no_image_are_an_error(tmp_path: Path) -> None:
    root = images(tmp_path)
    write_features(root / "labels.geojson", [(box(9000, 0, 9, 9), {"class": "a"})], 32633)
    errors = check_dataset(root).of("error")
    assert any("outside all images" in e.message and "labels.geojson" in e.message for e in errors)


def test_the_class_column_is_found_stated_or_asked_for(tmp_path: Path) -> None:
    root = images(tmp_path)
    many = [(g, {"kind": p["class"], "owner": o}) for g, p in FIELDS * 2 for o in ("x", "y")]
    write_features(root / "labels.geojson", many, 32633)
    with pytest.raises(
        DataError, match="several columns may name the class: kind, owner"
    ) as caught:
        open_dataset(root)
    assert "data.class_column" in caught.value.fix
    dataset = open_dataset(root, DataConfig(class_column="owner"))
    assert dataset.classes.names == ("x", "y")
    with pytest.raises(DataError, match=r"labels\.geojson: no column 'nothere'"):
        open_dataset(root, DataConfig(class_column="nothere"))


def test_names_and_numbers_meet_a_class_file(tmp_path: Path) -> None:
    root = images(tmp_path)
    (root / "classes.yaml").write_text(
        "names: [background, Water, Field, Forest]\nvalues: [0, 2, 1, 3]\n"
    )
    for column in ("class", "n"):
        write_features(root / "labels.geojson", FIELDS, 32633)
        dataset = open_dataset(root, DataConfig(class_column=column))
        both = np.hstack([read_mask(dataset, i) for i in dataset.items])
        table = np.zeros(256, np.uint8)
        table[[0, 1, 2, 255]] = 2, 3, 1, 0
        assert np.array_equal(both, table[expected()])
    write_features(root / "labels.geojson", [*FIELDS, (box(0, 0, 2, 2), {"class": "lava"})], 32633)
    with pytest.raises(DataError, match="'lava' in column 'class' is no class"):
        open_dataset(root, DataConfig(class_column="class"))


def test_one_kind_of_polygon_stands_against_background(tmp_path: Path) -> None:
    root = images(tmp_path)
    write_features(root / "buildings.geojson", [(box(10, 10, 20, 30), {"id": 1})], 32633)
    dataset = open_dataset(root)
    assert dataset.classes.names == ("background", "buildings")
    assert class_index(dataset).counts["s0"].tolist() == [96 * 128 - 600, 600]


def test_label_rasters_go_before_a_vector_file_of_another_name(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 3)
    write_features(root / "centrelines.geojson", FIELDS, 32633)
    assert isinstance(open_dataset(root).label, IndexForm)
    write_features(root / "labels.geojson", FIELDS, 32633)
    assert isinstance(open_dataset(root).label, VectorForm)


@pytest.mark.parametrize(
    ("text", "named"), [("", "empty"), ("{", "cannot be read"), ("hello", "cannot be read")]
)
def test_broken_vector_files_are_named(tmp_path: Path, text: str, named: str) -> None:
    root = images(tmp_path)
    (root / "labels.gpkg").write_text(text)
    with pytest.raises(DataError, match=rf"labels\.gpkg.*{named}"):
        open_dataset(root)


def test_an_image_without_crs_cannot_take_placed_labels(tmp_path: Path) -> None:
    root = images(tmp_path)
    write_raster(root / "images" / "s1.tif", picture(regions(96, 128, 2, 0), 0))
    write_features(root / "labels.geojson", FIELDS, 32633)
    dataset = open_dataset(root)
    with pytest.raises(DataError, match=r"s1\.tif: has no CRS"):
        read_mask(dataset, dataset.item("s1"))


@pytest.mark.data
def test_spacenet_centrelines_agree_with_the_mask_beside_them(
    real_data: Path, tmp_path: Path
) -> None:
    """Buffered by 2 m on either side, in the chip's UTM zone, pixel centres inside."""
    chip = real_data / "formats" / "spacenet_roads"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "chip.tif").symlink_to(chip / "road_mask_input.tif")
    (tmp_path / "images" / "again.tif").symlink_to(chip / "road_mask_input.tif")
    (tmp_path / "roads.geojson").symlink_to(chip / "sample_roads_for_masking.geojson")
    dataset = open_dataset(tmp_path, DataConfig(line_width=4.0))
    ours = read_mask(dataset, dataset.item("chip")) == 1
    theirs = read_label(chip / "sample_road_raster_mask.tif") > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.999


def test_a_class_may_be_spelt_in_several_ways_and_that_is_told(tmp_path: Path) -> None:
    root = images(tmp_path)
    spelt = ["Field", "water ", "field", " FIELD", "field", "", "  "]
    boxes = [box(0, 20 * i, 96, 20) for i in range(len(spelt))]
    write_features(
        root / "labels.geojson",
        [(b, {"class": s}) for b, s in zip(boxes, spelt, strict=True)],
        32633,
    )
    dataset = open_dataset(root)
    assert dataset.classes.names == ("field", "water")
    ids = np.hstack([read_mask(dataset, i) for i in dataset.items])[0]
    assert ids[10:140:20].tolist() == [0, 1, 0, 0, 0, 255, 255]
    told = [p.message for p in check_dataset(root).problems]
    assert any("' FIELD', 'Field' read as 'field'" in t for t in told), told
    assert any("'water ' read as 'water'" in t for t in told), told
    assert any("2 of 7 features have no class" in t for t in told), told


def test_a_column_that_names_no_class_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path)
    fields = [(box(0, 20 * i, 96, 20), {"class": t}) for i, t in enumerate([" ", ""])]
    write_features(root / "labels.geojson", fields, 32633)
    with pytest.raises(DataError, match="column 'class' names no class: all 2 values"):
        open_dataset(root)


def test_an_unknown_class_of_a_column_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path)
    write_features(root / "labels.geojson", FIELDS, 32633)
    (root / "classes.yaml").write_text("names: [Field, ' water']\n")
    with pytest.raises(DataError, match=r"'forest' in column 'class' is no class of classes.yaml"):
        open_dataset(root)
