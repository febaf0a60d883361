from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_files import GreyPredictor, blobs, write_dataset, write_raster
from terradapt.classes import ISPRS, ROADS, ClassMap
from terradapt.config import DataConfig, RunConfig
from terradapt.data import Dataset, open_dataset, read_mask
from terradapt.errors import DataError
from terradapt.evaluation import Protocol, evaluate, score_images
from terradapt.evaluation.joining import join_classes
from terradapt.evaluation.places import choose_places, image_places
from terradapt.evaluation.scoring import erode_labels
from terradapt.meta import Meta
from terradapt.metrics import Confusion

LAND = ClassMap(("ground", "building", "tree"), ((90, 90, 90), (200, 0, 0), (0, 160, 0)))
SIZES = [(70, 90), (64, 64), (33, 120)]


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("land")
    write_dataset(root, SIZES, LAND)
    return open_dataset(root)


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("roads")
    write_dataset(root, SIZES, ROADS)
    return open_dataset(root)


def _labels(dataset: Dataset) -> list[np.ndarray]:
    return [read_mask(dataset, item) for item in dataset.split("test")]


def test_a_predictor_that_knows_the_answer_scores_one(land: Dataset) -> None:
    report = evaluate(GreyPredictor(LAND), land, "test", Protocol(boundary=1.0))
    assert report.metrics["miou"] == report.metrics["oa"] == report.metrics["boundary_f1"] == 1.0
    assert report.metrics["pixels"] == sum(h * w - 35 for h, w in SIZES)
    assert report.data["images"] == 3


def test_figures_equal_the_confusion_of_the_arrays(land: Dataset) -> None:
    report = evaluate(GreyPredictor(LAND, {2: 1}), land)
    expected = Confusion(3)
    for label in _labels(land):
        expected.update(label, np.where(label == 2, 1, label))
    np.testing.assert_array_equal(report.confusion, expected.matrix)
    scores = expected.metrics(LAND)
    assert {k: report.metrics[k] for k in scores} == scores
    rows = {row["id"]: row for row in report.images}
    assert sum(row["pixels"] for row in rows.values()) == report.metrics["pixels"]


def test_progress_counts_every_pixel(land: Dataset) -> None:
    seen: list[int] = []
    evaluate(GreyPredictor(LAND), land, progress=seen.append)
    assert sum(seen) == sum(h * w for h, w in SIZES)


@given(order=st.permutations(range(3)))
@settings(max_examples=6, deadline=None)
def test_the_order_of_the_classes_does_not_matter(land: Dataset, order: list[int]) -> None:
    # a checkpoint whose ids are permuted, with the same names, gives the same figures
    names = tuple(LAND.names[i] for i in order)
    predictor = GreyPredictor(ClassMap(names), resolution=0.5)
    predictor.table = np.array([order.index(i) for i in range(3)] + [0] * 253)[
        np.minimum(predictor.table, 3)
    ]
    report = evaluate(predictor, land)
    assert report.metrics["miou"] == 1.0
    assert report.classes.names == LAND.names
    assert not report.notes


def test_classes_that_one_side_lacks_are_told_and_cost_what_they_should(land: Dataset) -> None:
    other = ClassMap(("Building", "water", "ground"))
    predictor = GreyPredictor(other)
    predictor.table = np.array([2, 0, 1])[np.minimum(np.arange(256) // 40, 2)]
    report = evaluate(predictor, land)  # trees are said to be water
    assert report.classes.names == ("ground", "building", "tree", "water")
    assert report.classes.evaluated == (0, 1)
    assert report.metrics["miou"] == 1.0
    assert report.metrics["oa"] < 1.0
    assert report.metrics["oa_evaluated"] == 1.0
    assert any("tree" in note for note in report.notes)
    assert any("water" in note for note in report.notes)


def test_a_road_predicted_on_a_class_unknown_to_the_model_lowers_precision() -> None:
    dataset = ClassMap(("background", "building", "road"))
    joined = join_classes(dataset, ROADS)
    target = joined.labels[np.array([[0, 1, 1, 2]], np.uint8)]
    said = joined.predictions[np.array([[0, 1, 0, 1]], np.uint8)]
    scores = Confusion(3).update(target, said).metrics(joined.classes)
    assert scores["per_class"]["road"]["precision"] == 0.5
    assert scores["per_class"]["road"]["recall"] == 1.0
    assert not scores["per_class"]["building"]["evaluated"]


def test_renamed_classes_are_joined(roads: Dataset) -> None:
    streets = ClassMap(("nothing", "street"))
    with pytest.raises(DataError, match="is a class of the checkpoint"):
        evaluate(GreyPredictor(streets), roads)
    match = {"background": "nothing", "road": "street"}
    report = evaluate(GreyPredictor(streets), roads, protocol=Protocol(match=match))
    assert report.metrics["per_class"]["road"]["f1"] == 1.0
    with pytest.raises(DataError, match="no class 'path'"):
        evaluate(GreyPredictor(streets), roads, protocol=Protocol(match={"road": "path"}))


def test_road_figures_equal_those_of_the_arrays(roads: Dataset) -> None:
    predictor = GreyPredictor(ROADS)
    report = evaluate(predictor, roads)
    pairs = []
    for label in _labels(roads):
        clean = np.where(label == 255, 0, label)
        pairs.append((label, np.where(clean == 1, np.float32(0.9), np.float32(0.1))))
    expected = score_images(pairs, ROADS)
    for key in ("mdice", "miou_image", "mdice_dynamic", "miou_dynamic", "rlod"):
        assert report.metrics[key] == pytest.approx(expected[key], abs=1e-3), key
    assert report.metrics["mae"] == pytest.approx(0.1, abs=3e-3)
    high = evaluate(predictor, roads, protocol=Protocol(threshold=0.95))
    assert high.metrics["per_class"]["road"]["recall"] == 0.0
    assert high.metrics["rlod"] == 0.0


@pytest.mark.parametrize("threshold", [0.5, 0.05])
def test_the_road_may_come_first(roads: Dataset, threshold: float) -> None:
    protocol = Protocol(threshold=threshold)
    expected = evaluate(GreyPredictor(ROADS), roads, protocol=protocol).metrics
    predictor = GreyPredictor(ClassMap(("road", "background")))
    predictor.table = np.where(predictor.table == 1, 0, 1)
    assert evaluate(predictor, roads, protocol=protocol).metrics == expected
    assert (expected["rlod"] == 1.0) and (expected["mdice"] == 1.0) == (threshold == 0.5)


def test_one_class_of_many_can_have_road_figures(land: Dataset) -> None:
    report = evaluate(GreyPredictor(LAND, {1: 0}), land, protocol=Protocol(road="building"))
    assert report.metrics["rlod"] == 0.0
    assert report.metrics["images"] == 3
    with pytest.raises(DataError, match="no class 'road'"):
        evaluate(GreyPredictor(LAND), land, protocol=Protocol(road="road"))


def test_geoseg_compat_counts_padding_as_the_first_class(land: Dataset) -> None:
    one = replace(land, splits={"test": ("s1",)})
    predictor = GreyPredictor(LAND, {2: 1}, window=512)
    plain = evaluate(predictor, one)
    padded = evaluate(predictor, one, protocol=Protocol(geoseg_compat=True))
    assert padded.metrics["pixels"] == 1024 * 1024 - 35
    added = padded.confusion - plain.confusion
    assert added[0, 0] == added.sum() == 1024 * 1024 - 64 * 64
    assert padded.metrics["oa"] > plain.metrics["oa"]
    assert any("too high" in note for note in padded.notes)


@pytest.mark.parametrize("resolution", ["auto", 1.0])
def test_resampled_windows_are_counted_on_the_labels_pixels(
    tmp_path: Path, resolution: float | str
) -> None:
    write_dataset(tmp_path, [(128, 128)], LAND, resolution=0.5)
    dataset = open_dataset(tmp_path)
    predictor = GreyPredictor(LAND, resolution=1.0)
    report = evaluate(predictor, dataset, protocol=Protocol(resolution=resolution))  # type: ignore[arg-type]
    native = evaluate(predictor, dataset, protocol=Protocol(resolution="native"))
    assert report.metrics["pixels"] == native.metrics["pixels"] == 128 * 128 - 35
    assert native.metrics["oa"] == 1.0
    assert 0.8 < report.metrics["oa"] < 1.0  # borders blur when a window is halved
    assert any("0.5 m/px" in note for note in report.notes)


def test_eroded_labels_are_counted_and_the_full_ones_stand_beside(land: Dataset) -> None:
    for item, label in zip(land.split("test"), _labels(land), strict=True):
        path = land.root / "eroded" / f"{item.id}.tif"
        write_raster(path, erode_labels(label, 3), 0.5)
    items = tuple(
        replace(i, eroded=land.root / "eroded" / f"{i.id}.tif") for i in land.items if i.id != "s3"
    )
    dataset = replace(land, items=items, splits={"test": land.splits["test"]})
    predictor = GreyPredictor(LAND, {2: 1})
    eroded = evaluate(predictor, dataset)
    full = evaluate(predictor, dataset, protocol=Protocol(labels="full"))
    assert eroded.metrics["pixels"] < full.metrics["pixels"]
    assert eroded.metrics["miou_full_labels"] == full.metrics["miou"]
    assert (eroded.protocol["labels"], full.protocol["labels"]) == ("eroded", "full")
    with pytest.raises(DataError, match="no eroded label"):
        evaluate(predictor, land, protocol=Protocol(labels="eroded"))


def test_eroding_leaves_the_inner_pixels_of_each_patch() -> None:
    label = blobs(1, 64, 64, 3)
    eroded = erode_labels(label, 2)
    assert ((eroded == label) | (eroded == 255)).all()
    flat = np.zeros((20, 20), np.uint8)
    flat[:, 10:] = 1
    kept = (erode_labels(flat, 3) != 255).all(axis=0)
    np.testing.assert_array_equal(np.flatnonzero(~kept), np.arange(7, 13))
    assert erode_labels(flat, 0) is flat


def test_isprs_reports_oa_with_and_without_clutter(tmp_path: Path) -> None:
    write_dataset(tmp_path, [(96, 96)], ISPRS)
    report = evaluate(GreyPredictor(ISPRS, {5: 0}), open_dataset(tmp_path))
    assert report.metrics["oa_evaluated"] == 1.0
    assert report.metrics["oa"] < 1.0
    assert any("Vaihingen" in r.name for r in report.references)


def test_images_without_resolution_have_no_boundary_figure(tmp_path: Path) -> None:
    write_dataset(tmp_path, [(40, 40), (40, 40)], LAND, resolution=None)
    report = evaluate(GreyPredictor(LAND), open_dataset(tmp_path), protocol=Protocol(boundary=1.0))
    assert "boundary_f1" not in report.metrics
    assert any("2 of 2 images have no resolution" in note for note in report.notes)


def test_pictures_are_the_same_every_time(land: Dataset) -> None:
    predictor = GreyPredictor(LAND, {2: 1})
    first, again = (evaluate(predictor, land, pictures=4).pictures for _ in range(2))
    assert [(p.name, p.caption) for p in first] == [(p.name, p.caption) for p in again]
    assert len({p.name for p in first[:3]}) == 3
    for picture in first:
        assert picture.image.shape == (*picture.label.shape, 3)
        np.testing.assert_array_equal(picture.prediction == 1, picture.image[..., 0] >= 40)


@given(side=st.integers(8, 40), seed=st.integers(0, 20), count=st.integers(0, 8))
@settings(deadline=None)
def test_places_are_ranked_by_error(side: int, seed: int, count: int) -> None:
    label = blobs(seed, 60, 80, 3, 8)
    said = np.where(np.random.default_rng(seed).random(label.shape) < 0.3, 0, label)
    places = image_places("a", label, said.astype(np.uint8), 3, side)
    chosen = choose_places(places, count)
    assert len(chosen) == min(count, len(places))
    by_why: dict[str, list[float]] = {"worst": [2.0], "median": [], "best": [-1.0]}
    for why, place in chosen:
        by_why[why].append(place.error)
        stored, predicted = place.arrays()
        np.testing.assert_array_equal(stored, label[place.window.slices])
        np.testing.assert_array_equal(predicted, said[place.window.slices])
    assert min(by_why["worst"]) >= max(by_why["best"])


def test_the_run_s_curves_and_origin_reach_the_report(land: Dataset, tmp_path: Path) -> None:
    lines = [{"event": "step", "step": 10, "loss": 0.5, "lr": 0.001}, {"event": "val", "step": 10}]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"half'
    (tmp_path / "log.jsonl").write_text(text)
    predictor = GreyPredictor(LAND)
    predictor.meta = Meta(RunConfig(), LAND, predictor.spec, 32, data="other")
    report = evaluate(predictor, land, checkpoint=tmp_path / "checkpoint.safetensors")
    assert report.events == lines
    assert any("trained on other" in note for note in report.notes)
    assert report.checkpoint.endswith("checkpoint.safetensors")


def test_score_images_counts_arrays() -> None:
    target = blobs(0, 40, 40, 3)
    scores = score_images([(target, target)] * 2, LAND, Protocol(boundary=1.0), resolution=0.5)
    assert scores["miou"] == scores["boundary_f1"] == 1.0
    assert scores["pixels"] == 2 * target.size
    binary = (target == 1).astype(np.uint8)
    assert score_images([(binary, binary)], ROADS)["mdice"] == 1.0


def test_a_part_of_a_scene_is_evaluated_on_its_own_blocks_alone(tmp_path: Path) -> None:
    """What lies beside a block is neither counted nor seen; ``all`` is the whole scene."""
    label = blobs(3, 240, 300, 3)
    write_raster(tmp_path / "labels" / "s.tif", label, 0.5)
    write_raster(tmp_path / "images" / "s.tif", np.repeat((label * 40 + 1)[None], 3, 0), 0.5)
    (tmp_path / "classes.json").write_text(json.dumps({"names": LAND.names}))
    dataset = open_dataset(tmp_path, DataConfig(crop=48))
    seen: list[np.ndarray] = []

    class Watching(GreyPredictor):
        def predict(self, images: np.ndarray, /) -> np.ndarray:
            seen.extend(images[:, 0])
            return super().predict(images)

    for split in ("train", "val", "test"):
        areas = [i.area for i in dataset.split(split)]
        beside = np.repeat((label * 40 + 1)[None], 3, 0)
        inside = np.zeros(label.shape, bool)
        for area in areas:
            assert area is not None
            inside[area.slices] = True
        beside[:, ~inside] = 200
        write_raster(tmp_path / "images" / "s.tif", beside, 0.5)
        seen.clear()
        report = evaluate(Watching(LAND, window=64), dataset, split)
        assert report.metrics["pixels"] == sum(a.height * a.width for a in areas if a)
        assert report.metrics["oa"] == 1.0
        assert max(int(image.max()) for image in seen) < 200
        assert report.protocol["splits"] == "by_block"
        assert any("split inside one scene (s)" in note for note in report.notes)
    write_raster(tmp_path / "images" / "s.tif", np.repeat((label * 40 + 1)[None], 3, 0), 0.5)
    assert evaluate(Watching(LAND), dataset, "all").metrics["pixels"] == label.size
