"""Vectors as people use them: styles for QGIS, Shapefiles, pixels without a scale, no edit lost."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.transform import Affine

from road_files import METRE, UTM, drawn, random_labels, random_roads, write_mask
from terradapt.classes import ClassMap
from terradapt.errors import OutputError
from terradapt.raster import CRS, write_raster
from terradapt.vector import roads_from_array, vectorize_polygons, vectorize_roads, write_network
from terradapt.vector.shapefile import shapefile
from terradapt.vector.style import class_style

CLASSES = ClassMap(("field", "house & <garden>", "tree"), ((9, 8, 7), (200, 60, 60), (30, 120, 50)))
PLAIN = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def label_file(tmp_path: Path) -> Path:
    write_raster(
        tmp_path / "l.tif", random_labels(3, (150, 170), 3, 6.0), crs=UTM, transform=METRE,
        nodata=255, tags={"TERRADAPT_CLASSES": json.dumps(CLASSES.to_dict())},
    )  # fmt: skip
    return tmp_path / "l.tif"


def read(path: Path, layer: str | int | None = None) -> tuple[dict[str, np.ndarray], np.ndarray]:
    meta, _, wkb, fields = pyogrio.raw.read(path, layer=layer)
    return dict(zip(meta["fields"], fields, strict=True)), shapely.from_wkb(wkb)


def categories(qml: str) -> dict[str, tuple[str, str]]:
    """Return label and colour by value, as QGIS would take them from a style."""
    root = ElementTree.fromstring(qml[qml.index("<qgis") :])
    colours = {
        symbol.get("name"): symbol.find(".//Option[@name='color']").get("value")  # type: ignore[union-attr]
        for symbol in root.iter("symbol")
    }
    return {
        str(c.get("value")): (str(c.get("label")), str(colours[c.get("symbol")]))
        for c in root.iter("category")
    }


EXPECTED = {
    "0": ("field", "9,8,7,255"),
    "1": ("house & <garden>", "200,60,60,255"),
    "2": ("tree", "30,120,50,255"),
}


def test_a_geopackage_carries_the_colours_of_its_classes(label_file: Path) -> None:
    out = label_file.with_name("p.gpkg")
    vectorize_polygons(label_file, out)
    with closing(sqlite3.connect(out)) as database:
        [row] = database.execute(
            "SELECT f_table_schema, f_geometry_column, styleQML, useAsDefault FROM layer_styles "
            "WHERE f_table_name = 'polygons'"
        )
        assert row[:2] == ("", "geom") and row[3] == 1
        assert categories(row[2]) == EXPECTED
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    layers = [name for name, kind in pyogrio.list_layers(out) if kind is not None]
    assert layers == ["polygons"]


def test_styles_stand_beside_other_files_but_not_in_a_rasters_place(label_file: Path) -> None:
    for suffix in ("geojson", "shp"):
        vectorize_polygons(label_file, label_file.with_name(f"p_{suffix}.{suffix}"))
        text = label_file.with_name(f"p_{suffix}.qml").read_text("utf-8")
        assert categories(text) == EXPECTED
    raster = label_file.with_suffix(".qml")
    raster.write_text("<qgis><pipe><rasterrenderer/></pipe></qgis>")
    vectorize_polygons(label_file, label_file.with_suffix(".geojson"))
    assert "rasterrenderer" in raster.read_text()


def test_ids_without_names_get_colours_of_their_own() -> None:
    found = categories(
        class_style("class_id", [(0, "0", None), (7, "7", None), (9, "9", (1, 2, 3))])
    )
    assert [label for label, _ in found.values()] == ["0", "7", "9"]
    assert len({colour for _, colour in found.values()}) == 3 and found["9"][1] == "1,2,3,255"


def test_edges_and_nodes_have_a_style(tmp_path: Path) -> None:
    roads = roads_from_array(random_roads(5, (220, 260), 4, 7.0), transform=METRE, crs=UTM)
    write_network(tmp_path / "r.gpkg", roads)
    with closing(sqlite3.connect(tmp_path / "r.gpkg")) as database:
        styles = dict(database.execute("SELECT f_table_name, styleQML FROM layer_styles"))
    assert "SimpleLine" in styles["edges"] and "SimpleMarker" in styles["nodes"]


def test_a_shapefile_holds_what_the_geopackage_holds(label_file: Path) -> None:
    one, two = (label_file.with_name(f"p.{s}") for s in ("gpkg", "shp"))
    assert vectorize_polygons(label_file, one) == vectorize_polygons(label_file, two)
    (fields, shapes), (others, parts) = read(one, "polygons"), read(two)
    assert shapely.is_valid(parts).all()
    assert shapely.equals(shapes, parts).all()
    assert others["class"].tolist() == fields["class"].tolist()
    assert others["class_id"].tolist() == fields["class_id"].tolist()
    np.testing.assert_allclose(others["area_m2"], fields["area_m2"], atol=1e-6)
    assert CRS.from_user_input(pyogrio.read_info(two)["crs"]).to_epsg() == 32633
    mask = write_mask(label_file.with_name("m.tif"), random_roads(5, (220, 260), 4, 7.0))
    vectorize_roads(mask, label_file.with_name("r.gpkg"))
    vectorize_roads(mask, label_file.with_name("r.shp"))
    for layer, name in (("edges", "r.shp"), ("nodes", "r_nodes.shp")):
        (fields, shapes), (others, parts) = (
            read(label_file.with_name("r.gpkg"), layer),
            read(label_file.with_name(name)),
        )
        assert shapely.equals_exact(shapes, parts, 0).all() and list(fields) == list(others)


def test_a_shapefile_may_be_empty_and_has_its_texts_whole(tmp_path: Path) -> None:
    points = shapely.points([(1, 2), (3, 4)])
    texts = np.array(["Straße", "ö" * 200], object)
    values = {"name": texts, "ok": np.array([True, False]), "x": np.array([-1.5, np.nan])}
    for geometries, rows in ((points, values), (points[:0], {k: v[:0] for k, v in values.items()})):
        for suffix, content in shapefile("Point", geometries, rows, None).items():
            (tmp_path / f"a{suffix}").write_bytes(content)
        fields, shapes = read(tmp_path / "a.shp")
        assert len(shapes) == len(geometries) and list(fields) == ["name", "ok", "x"]
        if len(geometries):
            assert fields["name"].tolist() == ["Straße", "ö" * 127]
            assert fields["x"][0] == -1.5 and np.isnan(fields["x"][1])
            assert shapely.equals(shapes, points).all()


@PLAIN
@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "graphml"])
def test_roads_of_an_image_without_scale_are_in_pixels_and_lie_on_it(
    terradapt,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    suffix: str,
) -> None:
    mask = drawn([[(0, 60), (300, 60)]], (120, 300), 8)
    write_raster(tmp_path / "photo.png", mask.astype(np.uint8) * 255, crs=None, transform=None)
    out = tmp_path / f"r.{suffix}"
    done = terradapt("vectorize", tmp_path / "photo.png", "-o", out, "--roads", "1")
    assert done.status == 0, done.err
    assert "300.0 pixels" in done.out and "km" not in done.out and "no CRS" in done.out
    if suffix == "graphml":
        text = out.read_text()
        assert ">px<" in text and "LINESTRING (0 -60.5, 300 -60.5)" in text
        return
    fields, shapes = read(out, "edges" if suffix == "gpkg" else 0)
    assert "length_px" in fields and "width_px" in fields and "length_m" not in fields
    assert fields["length_px"][0] == pytest.approx(300, abs=0.5)
    np.testing.assert_allclose(shapes[0].bounds, [0, -60, 300, -60], atol=0.51)


@PLAIN
def test_polygons_of_an_image_without_scale_are_in_pixels(terradapt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20, 30:50] = 1
    write_raster(tmp_path / "photo.png", labels, crs=None, transform=None)
    done = terradapt("vectorize", tmp_path / "photo.png", "-o", tmp_path / "p.gpkg")
    assert "200 pixels" in done.out and " ha" not in done.out
    fields, shapes = read(tmp_path / "p.gpkg", "polygons")
    assert fields["area_px"].tolist() == pytest.approx([2200, 200])
    assert shapes[1].bounds == (30, -20, 50, -10)


def test_a_transform_without_a_crs_is_in_its_units(terradapt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mask = drawn([[(0, 60), (300, 60)]], (120, 300), 8).astype(np.uint8)
    transform = Affine(0.5, 0, 1000, 0, -0.5, 2000)
    write_raster(tmp_path / "m.tif", mask, crs=None, transform=transform)
    done = terradapt("vectorize", tmp_path / "m.tif", "-o", tmp_path / "r.gpkg", "--roads", "1")
    assert "150.0 units" in done.out and "km" not in done.out
    fields, shapes = read(tmp_path / "r.gpkg", "edges")
    assert fields["length_units"][0] == pytest.approx(150, abs=0.5)
    np.testing.assert_allclose(shapes[0].bounds, [1000, 1970, 1150, 1970], atol=0.26)


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "graphml"])
def test_a_vector_file_is_replaced_only_when_told(terradapt, tmp_path: Path, suffix: str) -> None:  # type: ignore[no-untyped-def]
    mask = write_mask(tmp_path / "m.tif", random_roads(5, (220, 260), 4, 7.0))
    out = tmp_path / f"r.{suffix}"
    vectorize_roads(mask, out)
    edited = {p: p.read_bytes() for p in tmp_path.glob("r*")}
    again = ("vectorize", mask, "-o", out, "--roads", "1")
    done = terradapt(*again)
    assert done.is_user_error(f"r.{suffix}", "exists") and "--overwrite" in done.errors[1]
    with pytest.raises(OutputError, match="exists"):
        vectorize_roads(mask, out)
    with pytest.raises(OutputError, match="exists"):
        write_network(out, roads_from_array(np.zeros((9, 9), bool)))
    assert edited == {p: p.read_bytes() for p in tmp_path.glob("r*")}
    assert terradapt(*again, "--overwrite", "--max-gap", "0").status == 0


def test_a_table_left_of_a_shapefile_is_not_replaced_either(label_file: Path) -> None:
    out = label_file.with_name("p.shp")
    out.with_suffix(".dbf").write_text("edited")
    with pytest.raises(OutputError, match=r"p\.dbf"):
        vectorize_polygons(label_file, out)
    vectorize_polygons(label_file, out, overwrite=True)
    out.with_suffix(".qix").write_text("an index of what was there")
    vectorize_polygons(label_file, out, overwrite=True)
    assert not out.with_suffix(".qix").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_have_the_rights_of_the_umask(label_file: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for suffix in ("gpkg", "geojson", "shp"):
            vectorize_polygons(label_file, label_file.with_name(f"p.{suffix}"))
    finally:
        os.umask(before)
    found = {p.name: stat.S_IMODE(p.stat().st_mode) for p in label_file.parent.glob("p.*")}
    assert len(found) == 8 and set(found.values()) == {0o666 & ~umask}, found
