from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS
from skimage.measure import label

from terradapt.vector.geopackage import write_geopackage
from terradapt.vector.polygons.label import label_equal

LINES = shapely.linestrings([[(500_000, 0), (500_010, 5)], [(500_100, 7), (500_200, 9)]])
POINTS = shapely.points([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)])
NAMES = np.array(["Straße", 'a "quote"', ""], object)


def write(path: Path, crs: CRS | None) -> Path:
    edges = {
        "length": np.array([1.5, 2.5]),
        "count": np.array([1, -2]),
        "ok": np.array([True, False]),
    }
    nodes = {"name": NAMES, 'odd "field"': np.arange(3, dtype=np.uint8)}
    layers = [("edges", "LineString", LINES, edges), ("no des", "Point", POINTS, nodes)]
    write_geopackage(path, layers, crs)
    return path


@pytest.mark.parametrize("code", [32633, 4326, 25832, None])
def test_gdal_reads_back_what_was_written(tmp_path: Path, code: int | None) -> None:
    path = write(tmp_path / "a.gpkg", None if code is None else CRS.from_epsg(code))
    assert pyogrio.list_layers(path).tolist() == [["edges", "LineString"], ["no des", "Point"]]
    meta, fids, wkb, (length, count, ok) = pyogrio.raw.read(path, layer="edges", return_fids=True)
    assert shapely.equals_exact(shapely.from_wkb(wkb), LINES).all()
    assert fids.tolist() == [1, 2]
    np.testing.assert_array_equal(length, [1.5, 2.5])
    np.testing.assert_array_equal(count, [1, -2])
    np.testing.assert_array_equal(ok, [True, False])
    assert ok.dtype == bool
    if code:
        assert CRS.from_user_input(meta["crs"]).to_epsg() == code
    meta, _, wkb, (name, odd) = pyogrio.raw.read(path, layer="no des")
    assert list(meta["fields"]) == ["name", 'odd "field"']
    assert name.tolist() == NAMES.tolist()
    assert odd.tolist() == [0, 1, 2]
    assert shapely.equals_exact(shapely.from_wkb(wkb), POINTS).all()


def test_a_crs_without_a_code_survives(tmp_path: Path) -> None:
    own = CRS.from_proj4("+proj=laea +lat_0=17 +lon_0=33 +datum=WGS84 +units=m +no_defs")
    path = write(tmp_path / "a.gpkg", own)
    assert CRS.from_user_input(pyogrio.read_info(path, layer="edges")["crs"]) == own


def test_the_spatial_index_is_used_and_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", CRS.from_epsg(32633))
    info = pyogrio.read_info(path, layer="edges")
    assert info["capabilities"]["fast_spatial_filter"]
    near = pyogrio.raw.read(path, layer="edges", bbox=(500_090, 0, 500_300, 20))[2]
    assert len(near) == 1
    added = shapely.to_wkb(shapely.linestrings([[(9, 9), (10, 10)]]))
    pyogrio.raw.write(
        path, geometry=added, field_data=[np.array([3.0]), np.array([7]), np.array([True])],
        fields=["length", "count", "ok"], geometry_type="LineString", layer="edges",
        crs="EPSG:32633", driver="GPKG", append=True,
    )  # fmt: skip
    assert len(pyogrio.raw.read(path, layer="edges", bbox=(8, 8, 11, 11))[2]) == 1
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM rtree_edges_geom").fetchone() == (3,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_layers_may_be_empty_and_so_may_shapes(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    shapes = np.array([shapely.Polygon(), shapely.box(0, 0, 1, 1)], object)
    none = np.empty(0, object)
    layers = [("none", "Point", none, {"v": np.empty(0)}), ("some", "Polygon", shapes, {})]
    write_geopackage(path, layers, CRS.from_epsg(4326))
    assert len(pyogrio.raw.read(path, layer="none")[2]) == 0
    back = shapely.from_wkb(pyogrio.raw.read(path, layer="some")[2])
    assert shapely.is_empty(back).tolist() == [True, False]


@given(
    hnp.arrays(
        np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)
    )
)
def test_regions_are_those_of_scikit_image(values: np.ndarray) -> None:
    np.testing.assert_array_equal(
        label_equal(values), label(values, connectivity=1, background=-1) - 1
    )
