from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops

from eval_files import write_dataset, write_raster
from terradapt.classes import ROADS, ClassMap
from terradapt.data import open_dataset
from terradapt.data.study import GLCM, LEVELS, feature_names, item_features, window_features
from terradapt.errors import DataError
from terradapt.evaluation.study import add_study, embed, standardize, study
from terradapt.report import Report


def test_features_are_what_their_names_say() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 40, 50)).astype(np.uint8)
    mask = (rng.random((40, 50)) < 0.3).astype(np.uint8)
    mask[:4] = 255
    values = dict(zip(feature_names(2), window_features(pixels, mask, 2), strict=True))
    assert values["density"] == pytest.approx((mask[4:] == 1).mean())
    assert values["mean green"] == pytest.approx(pixels[1].mean() / 255)
    assert values["std blue"] == pytest.approx(pixels[2].std() / 255)
    assert 0 <= values["edges"] <= 1
    levels = np.minimum(pixels.mean(0) / 255 * LEVELS, LEVELS - 1).astype(np.uint8)
    one = graycomatrix(levels, [1], [0], LEVELS, symmetric=True, normed=True)
    assert values["contrast"] == pytest.approx(float(graycoprops(one, "contrast")[0, 0]), rel=0.1)


def test_a_flat_image_has_no_texture_and_many_classes_have_shares() -> None:
    flat = np.full((1, 32, 32), 9, np.uint16)
    mask = np.repeat(np.arange(4, dtype=np.uint8), 8)[:, None] * np.ones((1, 32), np.uint8)
    values = dict(zip(feature_names(4), window_features(flat, mask, 4), strict=True))
    assert [values[f"share {k}"] for k in range(4)] == [0.25] * 4
    expected = {"contrast": 0.0, "dissimilarity": 0.0, "homogeneity": 1.0, "energy": 1.0}
    assert {k: values[k] for k in GLCM} == pytest.approx(expected)
    assert np.isfinite(list(values.values())).all()


def test_large_images_are_sampled_by_windows(tmp_path: Path) -> None:
    write_dataset(tmp_path, [(700, 530)], ROADS)
    dataset = open_dataset(tmp_path)
    features = item_features(dataset, dataset.split("test")[0])
    assert features.shape == (len(feature_names(2)),)
    np.testing.assert_array_equal(features, item_features(dataset, dataset.split("test")[0]))


def test_embeddings_are_repeatable_and_part_what_is_apart() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(0, 1, (15, 6)), rng.normal(9, 1, (15, 6))])
    features = standardize(np.column_stack([rows, np.ones(30)]))
    assert np.allclose(features[:, :6].std(axis=0), 1) and not features[:, 6].any()
    panels, shares = embed(features)
    again, _ = embed(features)
    for name, points in panels.items():
        np.testing.assert_array_equal(points, again[name])
        gap = np.linalg.norm(points[:15].mean(0) - points[15:].mean(0))
        assert gap > 2 * max(points[:15].std(0).mean(), points[15:].std(0).mean()), name
    assert 0 < shares.sum() <= 1 + 1e-9


def test_study_tells_datasets_apart(tmp_path: Path) -> None:
    for name, size in (("a", 40), ("b", 56)):
        write_dataset(tmp_path / name, [(size, size)] * 5, ROADS, resolution=None)
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 256, (3, 56, 56)).astype(np.uint8)
        size = (32, 32) if i == 5 else (56, 56)
        write_raster(tmp_path / "b" / "images" / f"s{i}.tif", noise[:, : size[0], : size[1]])
    one, other = (open_dataset(tmp_path / name) for name in ("a", "b"))
    drawn, told = study({"a": (one, one.items), "b": (other, other.items)})
    ElementTree.fromstring(drawn)
    assert "same group in 100 % of cases, by chance in 45 %" in told
    report = Report(metrics={"per_class": {}}, classes=ROADS)
    add_study(report, one, [tmp_path / "b"])
    assert list(report.figures) == ["Split study", "Dataset study"]
    assert report.protocol["dataset_study"] == told


def test_too_few_images_or_other_tasks_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", [(40, 40)], ROADS)
    write_dataset(tmp_path / "c", [(40, 40)] * 4, ClassMap(("x", "y", "z")))
    one, other = open_dataset(tmp_path / "a"), open_dataset(tmp_path / "c")
    with pytest.raises(DataError, match="too few"):
        study({"a": (one, one.items)})
    with pytest.raises(DataError, match="numbers of classes"):
        study({"a": (one, one.items), "c": (other, other.items)})
