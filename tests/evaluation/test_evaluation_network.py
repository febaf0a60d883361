from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from test_evaluation_cli import _checkpoint

from conftest import Call
from eval_files import STEP, GreyPredictor, write_dataset, write_raster
from terradapt.classes import ROADS, ClassMap
from terradapt.data import Dataset, open_dataset
from terradapt.errors import ConfigError, DataError
from terradapt.evaluation import Protocol, evaluate
from terradapt.evaluation.networks import NetworkScorer
from terradapt.evaluation.scoring import Scored

SIDE, SPACING, HALF = 240, 80, 4  # px; at 1 m
ORIGIN = (4e5, 5e6)


def _grid(closed: int | None = None) -> np.ndarray:
    """Streets every 80 m; ``closed`` leaves one north-south street out."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for i, middle in enumerate(range(SPACING // 2, SIDE, SPACING)):
        mask[middle - HALF : middle + HALF, :] = 1
        if i != closed:
            mask[:, middle - HALF : middle + HALF] = 1
    return mask


def _lines() -> list[shapely.LineString]:
    """Streets beyond the image's edges, meeting at shared vertices."""
    x, y = ORIGIN
    middles = range(SPACING // 2, SIDE, SPACING)
    east = [[(x - 50, y - m), (x + SIDE + 50, y - m)] for m in middles]
    north = [[(x + m, y + 50), (x + m, y - SIDE - 50)] for m in middles]
    return list(shapely.get_parts(shapely.node(shapely.MultiLineString(east + north))))


@pytest.fixture
def streets(tmp_path: Path) -> Dataset:
    write_dataset(tmp_path / "data", [(SIDE, SIDE)], ROADS, resolution=1.0)
    image = np.repeat((_grid() * STEP)[None], 3, axis=0)
    write_raster(tmp_path / "data" / "images" / "s0.tif", image, 1.0)
    write_raster(tmp_path / "data" / "labels" / "s0.tif", _grid(), 1.0)
    return open_dataset(tmp_path / "data")


def _centrelines(path: Path) -> Path:
    features = [
        {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(line))}
        for line in _lines()
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    return path


def test_a_perfect_map_has_a_perfect_network(streets: Dataset) -> None:
    report = evaluate(GreyPredictor(ROADS, window=64), streets, protocol=Protocol(network=True))
    assert report.metrics["apls"] == report.metrics["topo_f1"] == 1.0
    assert report.metrics["network_components_prediction"] == 1
    assert report.images[0]["apls"] == 1.0
    assert len(report.protocol["network"]) == 2
    assert len(report.networks) == 1


def test_centrelines_are_clipped_to_the_image(streets: Dataset, tmp_path: Path) -> None:
    line = _centrelines(tmp_path / "lines" / "s0.geojson")
    for place in (line, line.parent):
        protocol = Protocol(network=True, centrelines=place)
        report = evaluate(GreyPredictor(ROADS, window=64), streets, protocol=protocol)
        assert report.metrics["apls"] > 0.95
        assert report.protocol["network_truth"] == str(place)
    with pytest.raises(DataError, match="no centrelines of the image 's0'"):
        evaluate(
            GreyPredictor(ROADS),
            streets,
            protocol=Protocol(network=True, centrelines=tmp_path / "data"),
        )


def test_a_missing_street_lowers_apls_and_is_drawn_as_missed(streets: Dataset) -> None:
    image = np.repeat((_grid(closed=1) * STEP)[None], 3, axis=0)
    write_raster(streets.split("test")[0].image, image, 1.0)
    report = evaluate(GreyPredictor(ROADS, window=64), streets, protocol=Protocol(network=True))
    assert 0 < report.metrics["apls"] < 0.95
    assert report.metrics["topo_recall"] < report.metrics["topo_precision"]
    drawn = report.networks[0].image
    colours = dict(report.network_legend)
    missed = (drawn == colours["road missed"]).all(axis=2)
    found = (drawn == colours["road found"]).all(axis=2)
    middle = SPACING // 2 + SPACING
    assert missed[:, middle - 2 : middle + 2].any(axis=1).mean() > 0.5
    assert not missed[:, : SPACING // 2].any()
    assert found[:, SPACING // 2 - 2 : SPACING // 2 + 2].any(axis=1).mean() > 0.5


def test_a_network_needs_a_road_class(tmp_path: Path) -> None:
    land = ClassMap(("ground", "house", "road"))
    write_dataset(tmp_path, [(64, 64)], land)
    dataset = open_dataset(tmp_path)
    with pytest.raises(ConfigError, match="which class"):
        evaluate(GreyPredictor(land), dataset, protocol=Protocol(network=True))
    report = evaluate(GreyPredictor(land), dataset, protocol=Protocol(network=True, road="road"))
    assert report.metrics["apls"] == 1.0


def test_the_verb_draws_the_network(terradapt: Call, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", [(64, 64)], ROADS, resolution=1.0)
    model = _checkpoint(tmp_path / "m.safetensors", ROADS)
    lines = _centrelines(tmp_path / "s0.geojson")
    out = tmp_path / "out.json"
    ran = terradapt("eval", model, "--data", tmp_path / "data", "-o", out, "--centrelines", lines)
    assert ran.status == 0, ran.err
    assert "APLS" in ran.out
    assert "Road network" in out.with_suffix(".html").read_text()
    wrong = terradapt(
        "eval", model, "--data", tmp_path / "data", "--centrelines", tmp_path / "gone"
    )
    assert wrong.is_user_error("gone")


def _scored(prediction: np.ndarray, grey: np.ndarray | None = None, **about: object) -> Scored:
    return Scored("s0", _grid(), prediction, grey, **about)  # type: ignore[arg-type]


def test_images_without_a_crs_are_measured_in_their_metres_or_a_note_says_so() -> None:
    shifted = np.roll(_grid(), 6, axis=(0, 1))
    bare, told, own = NetworkScorer(1), NetworkScorer(1, pixel=0.4), NetworkScorer(1, pixel=9.0)
    strict = bare.add(_scored(shifted))["apls"]
    assert told.add(_scored(shifted))["apls"] > max(strict, 0.8)
    assert own.add(_scored(shifted, resolution=0.4)) == told.add(_scored(shifted))
    assert "1 of 1 images have no resolution" in bare.notes()[0] and not told.notes()
    assert [s.compared[0].reach for s in (bare, told)] == [4.0, 10.0]


def test_gaps_are_closed_by_the_models_probabilities() -> None:
    prediction, grey = _grid(), np.uint8(200) * _grid()
    near = (
        slice(SPACING // 2 + 20, SPACING // 2 + 38),
        slice(SPACING // 2 - HALF, SPACING // 2 + HALF),
    )
    prediction[near] = grey[near] = 0
    doubted, sure = grey.copy(), grey.copy()
    doubted[near] = 100
    apls = [NetworkScorer(1).add(_scored(prediction, g))["apls"] for g in (doubted, sure)]
    assert apls[0] > 0.99 > apls[1]
