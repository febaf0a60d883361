"""Corrections above labels, corrections alone, and what ground without a feature is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Call
from data_files import box, picture, place, write_features, write_folder
from terradapt.classes import ISPRS, ClassMap
from terradapt.config import DataConfig, RunConfig, load_config
from terradapt.data import Dataset, open_dataset, read_mask
from terradapt.data.sampling import CropDataset
from terradapt.data.scan import class_index
from terradapt.data.specs import input_spec
from terradapt.errors import DataError
from terradapt.preflight.check import check_dataset
from terradapt.preflight.text import render_text, to_dict
from terradapt.raster import write_raster
from terradapt.training.distillation import settle_teacher


def read(root: Path, file: Path | None = None, **values: Any) -> Dataset:
    config = DataConfig(corrections=None if file is None else str(file), **values)
    return open_dataset(root, config)


def plain(root: Path, count: int = 1, side: int = 96) -> Path:
    """Images side by side without any label."""
    (root / "images").mkdir(parents=True)
    for n in range(count):
        ids = np.zeros((side, side), np.uint8)
        where = {"crs": "EPSG:32633", "transform": place(0, n * side)}
        write_raster(root / "images" / f"s{n}.tif", picture(ids, n), **where)
    return root


def strokes(tmp_path: Path, *shapes: Any, name: str = "c.geojson") -> Path:
    return write_features(tmp_path / name, list(shapes), 32633)


def test_inside_a_correction_its_class_counts_elsewhere_the_older_label(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 2)
    (root / "classes.yaml").write_text("names: [ground, building, tree]\n")
    before = read(root)
    old = [read_mask(before, item) for item in before.items]
    file = strokes(
        tmp_path,
        (box(10, 20, 30, 40), {"class": "Building"}),
        (box(50, 60, 10, 10), {"class": "pond"}),
        (box(0, 0, 5, 5), {"class": "2"}),
    )
    dataset = read(root, file)
    assert dataset.classes.names == ("ground", "building", "tree", "pond")
    assert dataset.classes.colours[:3] == before.classes.colours
    assert len(set(dataset.classes.colours)) == 4
    assert dataset.classes.evaluated == (0, 1, 2, 3)
    expected = old[0].copy()
    expected[10:40, 20:60], expected[50:60, 60:70], expected[:5, :5] = 1, 3, 2
    np.testing.assert_array_equal(read_mask(dataset, dataset.items[0]), expected)
    where_0 = before.items[0]
    assert where_0.id == dataset.items[0].id
    index = class_index(dataset)
    for item in dataset.items:
        mask = read_mask(dataset, item)
        counts = np.bincount(mask.ravel(), minlength=256)
        assert index.counts[item.id].tolist() == counts[:4].tolist()
        for class_id, spots in index.places[item.id].items():
            assert all(mask[spot] == class_id for spot in spots)


def test_colours_ids_and_values_of_labels_are_corrected_alike(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 2, values=(10, 20, 30))
    (root / "classes.yaml").write_text("names: [a, b, c]\nvalues: [10, 20, 30]\n")
    dataset = read(root, strokes(tmp_path, (box(10, 10, 8, 8), {"class": 30})))
    assert (read_mask(dataset, dataset.items[0])[10:18, 10:18] == 2).all()
    with pytest.raises(DataError, match="'7' in column 'class' is no class"):
        read(root, strokes(tmp_path, (box(10, 10, 8, 8), {"class": 7})))
    rgb = tmp_path / "rgb"
    ids = np.kron(np.arange(4).reshape(2, 2), np.ones((32, 32), int))
    for n in range(2):
        where = {"crs": "EPSG:32633", "transform": place(0, n * 64)}
        write_raster(rgb / "images" / f"s{n}.tif", picture(ids.astype(np.uint8), n), **where)
        colours = np.array(ISPRS.colours, np.uint8)[ids].transpose(2, 0, 1)
        write_raster(rgb / "labels" / f"s{n}.tif", colours, **where)
    stated = "\n".join(f"  - {list(c)}" for c in ISPRS.colours)
    names = ", ".join(ISPRS.names)
    (rgb / "classes.yaml").write_text(f"names: [{names}]\ncolours:\n{stated}\n")
    dataset = read(rgb, strokes(tmp_path, (box(2, 3, 4, 5), {"class": "pool"})))
    expected = ids.copy()
    expected[2:6, 3:8] = len(ISPRS)
    np.testing.assert_array_equal(read_mask(dataset, dataset.items[0]), expected)


def test_a_scene_without_any_label_trains_from_corrections_alone(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    file = strokes(
        tmp_path,
        (box(4, 4, 10, 10), {"class": "field"}),
        (box(40, 50, 10, 20), {"class": "water"}),
    )
    dataset = read(root, file)
    assert dataset.classes.names == ("field", "water")
    assert dataset.splits == {"train": ("s0",), "val": (), "test": ()}
    expected = np.full((96, 96), 255, np.uint8)
    expected[4:14, 4:14], expected[40:50, 50:70] = 0, 1
    np.testing.assert_array_equal(read_mask(dataset, dataset.items[0]), expected)


def test_images_without_a_correction_train_the_others_are_split(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", 6)
    shapes = [(box(4, 96 * n + 4, 10, 10), {"class": "a" if n else "b"}) for n in range(3)]
    dataset = read(root, strokes(tmp_path, *shapes))
    told = {name: set(ids) & {"s0", "s1", "s2"} for name, ids in dataset.splits.items()}
    assert [len(told[name]) for name in ("train", "val", "test")] == [1, 1, 1]
    assert {"s3", "s4", "s5"} <= set(dataset.splits["train"])


def test_a_models_classes_are_kept_where_corrections_name_some(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    file = strokes(
        tmp_path, (box(4, 4, 9, 9), {"class": "tree"}), (box(20, 4, 9, 9), {"class": "x"})
    )
    known = ClassMap(("ground", "tree", "water"), ((9, 9, 9), (8, 8, 8), (7, 7, 7)))
    dataset = open_dataset(root, DataConfig(corrections=str(file)), known=known)
    assert dataset.classes.names == ("ground", "tree", "water", "x")
    assert dataset.classes.colours[:3] == known.colours
    mask = read_mask(dataset, dataset.items[0])
    assert mask[5, 5] == 1 and mask[21, 5] == 3 and mask[60, 60] == 255


@pytest.mark.parametrize(("background", "elsewhere"), [(None, 0), ("class", 0), ("ignore", 255)])
def test_ground_beside_roads(tmp_path: Path, background: Any, elsewhere: int) -> None:
    root = plain(tmp_path / "set", 2)
    line = {
        "type": "LineString",
        "coordinates": [list(place() @ (0, 40)), list(place() @ (192, 40))],
    }
    write_features(root / "labels.geojson", [(line, {"kind": "road"})], 32633)
    dataset = read(root, background=background)
    mask = read_mask(dataset, dataset.items[0])
    assert mask[40, 40] == 1
    assert mask[80, 40] == elsewhere
    text = render_text(check_dataset(root, DataConfig(background=background)))
    said = "ignored" if background == "ignore" else "class 'background'"
    assert f"ground   without a feature: {said} (data.background)" in text


@pytest.mark.parametrize(("background", "elsewhere"), [(None, 255), ("class", 0), ("ignore", 255)])
def test_ground_beside_polygons_of_classes(tmp_path: Path, background: Any, elsewhere: int) -> None:
    root = plain(tmp_path / "set", 2)
    fields = [(box(0, 0, 20, 20), {"class": "field"}), (box(30, 30, 9, 9), {"class": "water"})]
    write_features(root / "labels.geojson", fields, 32633)
    dataset = read(root, background=background)
    mask = read_mask(dataset, dataset.items[0])
    assert dataset.classes.names[mask[5, 5]] == "field"
    assert dataset.classes.names[mask[31, 31]] == "water"
    assert mask[80, 80] == elsewhere
    (root / "classes.yaml").write_text("names: [field, water]\n")
    if background == "class":
        with pytest.raises(DataError, match="no class is the background"):
            read(root, background="class")


@pytest.mark.parametrize("alone", [True, False])
def test_crops_of_a_nearly_empty_scene_lie_around_its_labels(tmp_path: Path, alone: bool) -> None:
    """A thousandth of a large scene is labelled, in four corners of it; no crop misses it."""
    root = plain(tmp_path / "set", 1 if alone else 2, side=800)
    file = strokes(
        tmp_path,
        *[(box(r, c, 8, 8), {"class": "ab"[i % 2]}) for i, (r, c) in enumerate(
            [(20, 30), (30, 700), (600, 40), (720, 710)])],
    )  # fmt: skip
    dataset = read(root, file)
    config = RunConfig(data=DataConfig(crop=64, corrections=str(file), workers=0))
    crops = CropDataset(dataset, "train", config, input_spec(dataset, config.data), length=40)
    masks = [crops.sample(0, i)["mask"] for i in range(40)]
    assert all(bool((m != 255).any()) for m in masks)
    seen = torch.cat([m[m != 255].unique() for m in masks])
    assert torch.bincount(seen).min() >= 10
    again = CropDataset(dataset, "train", config, input_spec(dataset, config.data), length=40)
    assert all(torch.equal(again.sample(0, i)["mask"], masks[i]) for i in range(40))


@pytest.mark.parametrize(
    ("shapes", "fault"),
    [
        ([(box(4000, 4000, 9, 9), {"class": "a"})], "no correction lies on an image"),
        ([(box(4, 4, 9, 9), {"class": "a", "label": "b"})], "several columns"),
    ],
)
def test_bad_corrections(tmp_path: Path, shapes: Any, fault: str) -> None:
    root = plain(tmp_path / "set", 2)
    with pytest.raises(DataError, match=fault):
        read(root, strokes(tmp_path, *shapes))
    assert not (root / "splits.json").exists()


def test_a_correction_of_no_class_is_asked_about(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 2)
    with pytest.raises(DataError, match="no column says which"):
        read(root, strokes(tmp_path, (box(4, 4, 9, 9), {"note": "wrong here"})))


def test_the_check_reads_corrections_too(terradapt: Call, tmp_path: Path) -> None:
    root = plain(tmp_path / "set", 2)
    missing = terradapt("data", "check", root, f"corrections={tmp_path / 'none.gpkg'}")
    assert missing.is_user_error("none.gpkg")
    shapes = [(box(4, 96 * n + 4, 10, 10), {"class": c}) for n in range(2) for c in "ab"]
    file = strokes(tmp_path, *shapes, (box(5000, 0, 9, 9), {"class": "a"}))
    report = check_dataset(root, DataConfig(corrections=str(file)))
    assert to_dict(report)["ground"] == "ignored"
    assert any("1 of 5 geometries lie outside" in p.message for p in report.problems)
    done = terradapt("data", "check", root, f"corrections={file}")
    assert "ground   without a feature: ignored" in done.out
    labelled = write_folder(tmp_path / "labelled", 2)
    layered = check_dataset(labelled, DataConfig(corrections=str(file)))
    assert f"above    the labels: {file}" in render_text(layered)


def test_single_pixels_of_a_retraining_are_in_its_crops(tmp_path: Path) -> None:
    """300 clicks, a teacher for the rest of the ground: crops show them, also at half the size."""
    side = 1200
    root = plain(tmp_path / "set", 1, side)
    spots = np.random.default_rng(3).choice(side * side, 300, replace=False)
    at = [divmod(int(spot), side) for spot in spots]
    file = strokes(
        tmp_path, *[(box(r, c, 1, 1), {"class": "abc"[n % 3]}) for n, (r, c) in enumerate(at)]
    )
    changes = [f"data.corrections={file}", "data.crop=128", "augment.scale=[0.5,0.5]"]
    config = load_config("retrain").with_overrides(changes)
    dataset = open_dataset(root, config.data)
    config, _ = settle_teacher(config, dataset)
    assert config.objective.distill.where == "unlabelled"
    crops = CropDataset(dataset, "train", config, input_spec(dataset, config.data), length=80)
    masks = torch.stack([crops.sample(0, i)["mask"] for i in range(80)])
    share = 300 * (2 * 128 / side) ** 2  # of a crop anywhere
    count = (masks != 255).sum((1, 2)).float()
    assert count.min() >= 1
    assert count.mean() > 0.9 * share, "none is lost between pixels"
    assert torch.bincount(masks[masks != 255]).min() > 0.2 * count.sum()


def test_what_is_corrected_is_told_where_it_weighs(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 2)
    (root / "classes.yaml").write_text("names: [ground, building, tree]\n")
    (root / "splits.json").write_text('{"train": ["s0"], "val": ["s1"]}')
    file = strokes(tmp_path, (box(10, 20, 30, 40), {"class": "water"}))
    changes = [f"data.corrections={file}", "data.crop=64", "data.resolution=null"]
    config = RunConfig().with_overrides(changes)
    dataset = open_dataset(root, config.data)
    water = dataset.classes.names.index("water")
    spec = input_spec(dataset, config.data)
    assert "corrected" not in CropDataset(dataset, "train", config, spec).sample(0, 0)
    weighed = config.with_overrides(["objective.corrections=0.5"])
    crops = CropDataset(dataset, "train", weighed, spec, length=24)
    samples = [crops.sample(0, i) for i in range(24)]
    assert all(torch.equal(s["corrected"], s["mask"] == water) for s in samples)
    assert any(s["corrected"].any() for s in samples)


def pictures(root: Path, *names: str) -> Path:
    """PNGs, which have no place."""
    (root / "images").mkdir(parents=True)
    for name in names:
        pixels = np.random.default_rng(1).integers(0, 255, (50, 60, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / name)
    (root / "classes.yaml").write_text("names: [ground, water]\n")
    return root


@pytest.mark.parametrize("up", [False, True])
def test_a_shape_counts_on_the_image_that_it_names(tmp_path: Path, up: bool) -> None:
    root = pictures(tmp_path / "set", "a.png", "b.png")
    sign = -1 if up else 1

    def ring(row: int, col: int) -> dict[str, Any]:
        corners = [(col, row), (col + 8, row), (col + 8, row + 6), (col, row + 6), (col, row)]
        return {"type": "Polygon", "coordinates": [[[x, sign * y] for x, y in corners]]}

    told = [
        ("a.png", "water", ring(3, 5)),
        ("b", "ground", ring(20, 30)),
        ("c", "water", ring(9, 9)),
    ]
    features = [
        {"type": "Feature", "properties": {"class": name, "image": image}, "geometry": shape}
        for image, name, shape in told
    ]
    file = tmp_path / "drawn.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    dataset = read(root, file)
    a, b = (read_mask(dataset, item) for item in dataset.items)
    wanted = np.full((50, 60), 255, np.uint8)
    wanted[3:9, 5:13] = dataset.classes.names.index("water")
    assert np.array_equal(a, wanted)
    wanted[:] = 255
    wanted[20:26, 30:38] = dataset.classes.names.index("ground")
    assert np.array_equal(b, wanted)
    lines = [p.message for p in check_dataset(root, DataConfig(corrections=str(file))).problems]
    assert any("1 shapes lie on c, which is not here" in line for line in lines)
