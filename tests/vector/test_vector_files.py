"""``terradapt vectorize`` from file to file, and what it says of files that it cannot use."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from pathlib import Path

import networkx as nx
import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.transform import Affine

from road_files import METRE, UTM, drawn, random_roads, write_mask
from terradapt.classes import ClassMap
from terradapt.errors import DataError
from terradapt.metrics.network_files import compare_files, read_lines
from terradapt.raster import Layer, SceneWriter, write_raster
from terradapt.vector import roads_from_array, vectorize_roads, write_network
from terradapt.vector.files import raster_roads


@pytest.fixture
def mask_file(tmp_path: Path) -> Path:
    return write_mask(tmp_path / "mask.tif", random_roads(5, (220, 260), 4, 7.0))


def read_layer(
    path: Path, layer: str | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    meta, _, wkb, fields = pyogrio.raw.read(path, layer=layer)
    return dict(zip(meta["fields"], fields, strict=True)), shapely.from_wkb(wkb), meta["crs"]


def test_a_geopackage_has_edges_and_nodes(terradapt, tmp_path: Path, mask_file: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "roads.gpkg"
    done = terradapt("vectorize", mask_file, "-o", out, "--roads", "1", "--block", "128")
    assert done.status == 0 and "dead ends" in done.out
    edges, lines, crs = read_layer(out, "edges")
    nodes, points, _ = read_layer(out, "nodes")
    assert crs == UTM and len(lines) == len(edges["length_m"]) > 3
    np.testing.assert_allclose(edges["length_m"], shapely.length(lines) / 0.9996, rtol=1e-6)
    assert np.median(edges["width_m"]) == pytest.approx(7, abs=1.5)  # crossings are wider
    degree = np.bincount(np.concatenate([edges["from_node"], edges["to_node"]]))
    np.testing.assert_array_equal(nodes["degree"], degree)
    starts = shapely.get_point(lines, 0)
    assert shapely.equals_exact(starts, points[edges["from_node"]], 1e-6).all()
    assert not list(tmp_path.glob(".*"))


def test_the_three_formats_hold_the_same_network(tmp_path: Path, mask_file: Path) -> None:
    files = [tmp_path / f"roads.{s}" for s in ("gpkg", "geojson", "graphml")]
    figures = [vectorize_roads(mask_file, f) for f in files]
    assert figures[0] == figures[1] == figures[2]
    assert compare_files(files[0], files[1])["apls"] == pytest.approx(1.0, abs=1e-4)
    graph = nx.read_graphml(files[2], force_multigraph=True)
    assert graph.number_of_edges() == figures[0]["edges"]
    total = sum(float(e["length"]) for _, _, e in graph.edges(data=True))
    assert total == pytest.approx(figures[0]["length_m"])
    lon, lat = np.concatenate([shapely.get_coordinates(g) for g in read_lines(files[1])[0]]).T
    assert 14 < lon.mean() < 16 and 44 < lat.mean() < 46


@pytest.mark.parametrize("step", [1.0, 0.3, 1 / 3])
@pytest.mark.parametrize("turn", [0.0, 30.0])
def test_line_ends_are_their_nodes_to_the_last_bit(
    tmp_path: Path, step: float, turn: float
) -> None:
    y, x = np.mgrid[:300, :300]
    mask = np.abs(np.hypot(y - 150, x - 150) - 40) <= 4  # a roundabout with four arms
    mask[146:154, 190:] = mask[146:154, :110] = True
    mask[190:, 146:154] = mask[:110, 146:154] = True
    mask |= random_roads(11, (300, 300), 5, 6.0)
    transform = Affine.translation(5e5, 5e6) @ Affine.rotation(turn) @ Affine.scale(step, -step)
    network = roads_from_array(mask, transform=transform, crs=UTM)
    ends = np.array([[line.coords[0], line.coords[-1]] for line in network.lines])
    np.testing.assert_array_equal(ends, network.nodes[network.edges])
    files = [tmp_path / f"r.{s}" for s in ("gpkg", "geojson", "graphml")]
    for file in files:
        write_network(file, network)
    lines, points = (read_layer(files[0], layer)[1] for layer in ("edges", "nodes"))
    found = shapely.get_coordinates([shapely.get_point(lines, i) for i in (0, -1)])
    nodes = shapely.get_coordinates(points)[network.edges.T.ravel()]
    np.testing.assert_array_equal(found, nodes)
    features = json.loads(files[1].read_text())["features"]
    coordinates = [f["geometry"]["coordinates"] for f in features]
    places = [c for c in coordinates if np.ndim(c) == 1]
    for (u, v), line in zip(network.edges, coordinates, strict=False):
        assert line[0] == places[u] and line[-1] == places[v]
    graph = nx.read_graphml(files[2], node_type=int, force_multigraph=True)
    for u, v, edge in graph.edges(data=True):
        line = shapely.from_wkt(edge["geometry"])
        at = {(float(graph.nodes[n]["x"]), float(graph.nodes[n]["y"])) for n in (u, v)}
        assert {line.coords[0], line.coords[-1]} == at


def test_graphml_edges_have_ids_of_their_own_and_all_values_are_text(tmp_path: Path) -> None:
    mask = np.zeros((300, 300), bool)
    mask[147:153] = mask[:, 147:153] = True
    y, x = np.mgrid[:300, :300]
    mask |= np.abs(np.hypot(y - 150, x - 150) - 60) <= 4  # parallel edges and loops too
    network = roads_from_array(mask, transform=METRE, crs=UTM)
    write_network(tmp_path / "r.graphml", network)
    text = (tmp_path / "r.graphml").read_text()
    ids = re.findall(r'<edge [^>]*id="(\d+)"', text)
    assert len(set(ids)) == len(ids) == len(network) > 8
    kinds = set(re.findall(r'attr.type="(\w+)"', text))
    assert kinds == {"string"}  # osmnx reads nothing else
    graph = nx.read_graphml(tmp_path / "r.graphml", node_type=int, edge_key_type=int)
    assert graph.graph["crs"] == UTM
    lengths = sorted(float(e["length"]) for _, _, e in graph.edges(data=True))
    np.testing.assert_array_equal(lengths, np.sort(network.length))


def test_classes_are_found_by_name_and_scores_are_read(terradapt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mask = drawn([[(0, 60), (120, 60)], [(140, 60), (300, 60)]], (120, 300), 8)
    labels, scores = tmp_path / "labels.tif", tmp_path / "scores.tif"
    names = json.dumps(ClassMap(("field", "house", "road")).to_dict())
    write_raster(
        labels, mask.astype(np.uint8) * 2, crs=UTM, transform=METRE,
        tags={"TERRADAPT_CLASSES": names},
    )  # fmt: skip
    bands = np.zeros((3, 120, 300), np.float32)
    bands[2] = np.where(mask, 0.8, 0.0)
    write_raster(scores, bands, crs=UTM, transform=METRE)
    out = tmp_path / "roads.gpkg"
    assert (
        terradapt("vectorize", labels, "-o", out, "--roads", "Road", "--scores", scores).status == 0
    )
    edges, _, _ = read_layer(out, "edges")
    assert len(edges["score"]) == 2  # no scores in the gap
    np.testing.assert_allclose(edges["score"], 0.8, atol=0.01)
    again = ("vectorize", labels, "-o", out, "--overwrite", "--roads")
    assert terradapt(*again, "road").status == 0
    assert len(read_layer(out, "edges")[1]) == 1
    wrong = terradapt(*again, "river")
    assert wrong.is_user_error("labels.tif", "river", "house")
    small = write_mask(tmp_path / "small.tif", mask[:50])
    bad = terradapt(*again, "2", "--scores", small)
    assert bad.is_user_error("small.tif", "300 x 50")


def test_float_rasters_are_scores(terradapt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    scores = drawn([[(0, 60), (300, 60)]], (120, 300), 8).astype(np.float32) * 0.6
    scores[:, 200:] = np.nan
    write_raster(tmp_path / "s.tif", scores, crs=UTM, transform=METRE, nodata=float("nan"))
    out = tmp_path / "r.gpkg"
    assert terradapt("vectorize", tmp_path / "s.tif", "-o", out, "--roads", "1").status == 0
    assert read_layer(out, "edges")[0]["length_m"].sum() == pytest.approx(200, abs=3)
    again = ("vectorize", tmp_path / "s.tif", "-o", out, "--overwrite")
    high = terradapt(*again, "--roads", "1", "--threshold", "0.7")
    assert high.status == 0 and "0 edges" in high.out
    assert terradapt(*again).is_user_error("s.tif")


@pytest.mark.parametrize("fill", [0, 255])
def test_all_road_and_no_road_write_empty_layers(terradapt, tmp_path: Path, fill: int) -> None:  # type: ignore[no-untyped-def]
    path = write_mask(tmp_path / "m.tif", np.full((100, 120), fill > 0))
    for name in ("r.gpkg", "r.geojson", "r.graphml"):
        done = terradapt("vectorize", path, "-o", tmp_path / name, "--roads", "1")
        assert done.status == 0 and "0 edges" in done.out
    assert len(read_layer(tmp_path / "r.gpkg", "edges")[1]) == 0


def test_an_output_folder_without_permission(terradapt, tmp_path: Path, mask_file: Path) -> None:  # type: ignore[no-untyped-def]
    closed = tmp_path / "closed"
    closed.write_text("a file where a folder is wanted")
    out = closed / "roads.gpkg"
    assert terradapt("vectorize", mask_file, "-o", out, "--roads", "1").is_user_error("roads.gpkg")
    if os.geteuid() != 0:
        folder = tmp_path / "readonly"
        folder.mkdir(mode=0o500)
        done = terradapt("vectorize", mask_file, "-o", folder / "r.gpkg", "--roads", "1")
        assert done.is_user_error("r.gpkg") and not list(folder.iterdir())


def test_a_geopackage_that_is_open_elsewhere_stays_whole(
    terradapt,
    tmp_path: Path,
    mask_file: Path,  # type: ignore[no-untyped-def]
) -> None:
    out = tmp_path / "roads.gpkg"
    vectorize_roads(mask_file, out)
    before = out.read_bytes()
    other = sqlite3.connect(out, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        done = terradapt("vectorize", mask_file, "-o", out, "--roads", "1")
        assert done.is_user_error("roads.gpkg", "open in another program")
        assert out.read_bytes() == before
    finally:
        other.close()
    again = ("vectorize", mask_file, "-o", out, "--roads", "1", "--overwrite")
    assert terradapt(*again).status == 0


def test_wrong_inputs_and_names_are_told(terradapt, tmp_path: Path, mask_file: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "r.gpkg"
    empty = tmp_path / "empty.tif"
    empty.touch()
    assert terradapt("vectorize", empty, "-o", out, "--roads", "1").is_user_error("empty.tif")
    assert terradapt("vectorize", tmp_path / "no.tif", "-o", out).is_user_error("no.tif")
    shape = terradapt("vectorize", mask_file, "-o", tmp_path / "r.kml", "--roads", "1")
    assert shape.is_user_error("r.kml", ".kml")
    graph = terradapt("vectorize", mask_file, "-o", tmp_path / "p.graphml")
    assert graph.is_user_error("p.graphml")
    assert not out.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.data
def test_the_spacenet_chip_becomes_its_own_centrelines(
    terradapt,
    real_data: Path,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    chip = real_data / "formats" / "spacenet_roads"
    out = tmp_path / "chip.gpkg"
    done = terradapt("vectorize", chip / "sample_road_raster_mask.tif", "-o", out, "--roads", "1")
    assert done.status == 0
    result = compare_files(chip / "sample_roads_for_masking.geojson", out)
    assert result["apls"] >= 0.95 and result["topo_f1"] >= 0.95
    for figure in ("components", "dead_ends", "edges"):
        assert result["truth"][figure] == result["proposal"][figure]


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16"])
def test_a_mask_of_0_and_255_has_polygons_of_class_1(terradapt, tmp_path, kind) -> None:  # type: ignore[no-untyped-def]
    mask = np.zeros((100, 100), kind)
    mask[20:60, 30:70] = 255
    place = {"crs": UTM, "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    write_raster(tmp_path / "m.tif", mask, **place)
    done = terradapt("vectorize", tmp_path / "m.tif", "-o", tmp_path / "m.gpkg")
    assert done.status == 0
    fields, _, _ = read_layer(tmp_path / "m.gpkg", "polygons")
    assert sorted(fields["class_id"].tolist()) == [0, 1]
    assert fields["area_m2"][fields["class_id"] == 1] == pytest.approx(400, rel=1e-3)
    write_raster(tmp_path / "m.tif", mask, nodata=255, **place)  # 255 is no data: no mask
    done = terradapt("vectorize", tmp_path / "m.tif", "-o", tmp_path / "m2.gpkg")
    assert read_layer(tmp_path / "m2.gpkg", "polygons")[0]["class_id"].tolist() == [0]
    mask[0, 0] = 1  # ids of which 255 is ignored
    write_raster(tmp_path / "m.tif", mask, **place)
    done = terradapt("vectorize", tmp_path / "m.tif", "-o", tmp_path / "m3.gpkg")
    fields, _, _ = read_layer(tmp_path / "m3.gpkg", "polygons")
    assert fields["area_m2"][fields["class_id"] == 1] == pytest.approx(0.25, rel=1e-3)


def test_a_class_that_is_absent_is_told(terradapt, tmp_path) -> None:  # type: ignore[no-untyped-def]
    ids = np.zeros((60, 60), np.uint8)
    ids[20:30] = 2
    place = {"crs": UTM, "transform": METRE}
    plain = tmp_path / "ids.tif"
    write_raster(plain, ids, **place)
    done = terradapt("vectorize", plain, "-o", tmp_path / "o.gpkg", "--roads", "5")
    assert done.status == 0
    assert f"{plain}: no pixel is of class 5; it holds 0, 2" in done.out
    assert "no pixel" not in terradapt(
        "vectorize", plain, "-o", tmp_path / "p.gpkg", "--roads", "2"
    ).out  # fmt: skip
    named = tmp_path / "named.tif"
    tags = {"TERRADAPT_CLASSES": json.dumps(ClassMap(("land", "water", "road")).to_dict())}
    write_raster(named, ids, tags=tags, **place)
    done = terradapt("vectorize", named, "-o", tmp_path / "q.gpkg", "--roads", "5")
    assert done.is_user_error("no class '5'; it has: land, water, road")
    scores = tmp_path / "scores.tif"
    write_raster(scores, np.full((60, 60), 0.2, np.float32), **place)
    done = terradapt("vectorize", scores, "-o", tmp_path / "r.gpkg", "--roads", "1")
    assert "no score reaches 0.5" in done.out


def test_stored_scores_are_read_at_their_scale_and_by_their_name(tmp_path: Path) -> None:
    """predict stores 0..250 in steps of 0.004, of the chosen classes alone."""
    mask = drawn([[(0, 60), (300, 60)]], (120, 300), 8)
    names = ClassMap(("ground", "water", "road")).to_dict()
    labels, scores = tmp_path / "map.tif", tmp_path / "map_scores.tif"
    ids = np.where(mask, 2, 0).astype(np.uint8)
    tags = {"TERRADAPT_CLASSES": json.dumps(names)}
    for path, values, bands, more in (
        (labels, ids[None], ("class",), {"tags": tags}),
        (scores, np.stack([250 - mask * 225, mask * 225]), ("ground", "Road"), {"scale": 0.004}),
    ):
        layer = Layer(path, len(values), "uint8", 255, band_names=bands, **more)
        place = {"crs": UTM, "transform": METRE}
        with SceneWriter({"a": layer}, width=300, height=120, signature={}, **place) as writer:
            writer.write_row({"a": values.astype(np.uint8)})
            writer.commit()
    roads = raster_roads(labels, "road", scores=scores)
    np.testing.assert_allclose(roads.score, [0.9], atol=0.005)
    with pytest.raises(DataError, match="no band of the class water"):
        raster_roads(labels, "water", scores=scores)
