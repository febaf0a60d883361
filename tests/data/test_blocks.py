"""One labelled image is split into blocks of it, with a gap as wide as a crop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from data_files import box, picture, place, regions, write_features, write_folder
from terradapt.config import AugmentConfig, DataConfig, RunConfig
from terradapt.data import open_dataset, read_image, read_mask
from terradapt.data.blocks import gap_of
from terradapt.data.leaks import find_leaks
from terradapt.data.reading import ItemReader
from terradapt.data.sampling import CropDataset
from terradapt.data.scan import class_index
from terradapt.data.specs import input_spec
from terradapt.errors import DataError
from terradapt.grid import Window
from terradapt.preflight.check import check_dataset
from terradapt.preflight.text import render_text
from terradapt.raster import write_raster

SIZE = (420, 500)
SMALL = DataConfig(crop=64)


def scene(root: Path, name: str = "s0.tif") -> np.ndarray:
    """One image of blobs as wide as a street block, and its label."""
    ids = np.kron(regions(42, 50, 3, 5), np.ones((10, 10), np.uint8))
    for folder, pixels in (("images", picture(ids, 5)), ("labels", ids)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        write_raster(root / folder / name, pixels, crs="EPSG:32633", transform=place())
    return ids


def distance(one: Window, other: Window) -> int:
    """Pixels between two windows, 0 where they touch."""
    rows = max(one.row - other.bottom, other.row - one.bottom)
    cols = max(one.col - other.right, other.col - one.right)
    return max(rows, cols)


@pytest.mark.parametrize("seed", range(2))
def test_blocks_lie_a_crop_apart_and_hold_every_class(tmp_path: Path, seed: int) -> None:
    ids = scene(tmp_path)
    config = DataConfig(crop=64, split_seed=seed)
    dataset = open_dataset(tmp_path, config)
    areas = {n: [i.area for i in dataset.split(n)] for n in ("train", "val", "test")}
    assert dataset.protocol == "by_block"
    for name, windows in areas.items():
        others = [w for n, ws in areas.items() if n != name for w in ws]
        assert all(distance(w, o) >= 64 for w in windows for o in others)
        shown = np.concatenate([np.unique(ids[w.slices]) for w in windows])
        assert set(shown.tolist()) == {0, 1, 2}
    sizes = {n: sum(w.height * w.width for w in ws) / ids.size for n, ws in areas.items()}
    assert sizes["train"] > 0.4 and min(sizes["val"], sizes["test"]) > 0.05
    assert find_leaks(dataset) == []
    again = open_dataset(tmp_path, DataConfig(crop=32, split_seed=seed + 1))
    assert {i.id: i.area for i in again.items} == {i.id: i.area for i in dataset.items}


def test_a_block_is_read_as_an_image_of_its_own(tmp_path: Path) -> None:
    ids = scene(tmp_path)
    dataset = open_dataset(tmp_path, SMALL)
    pixels = picture(ids, 5)
    index = class_index(dataset)
    for item in dataset.items:
        np.testing.assert_array_equal(read_mask(dataset, item), ids[item.area.slices])
        np.testing.assert_array_equal(read_image(dataset, item), pixels[:, *item.area.slices])
        counts = np.bincount(ids[item.area.slices].ravel(), minlength=3)
        assert index.counts[item.id].tolist() == counts.tolist()
        beyond = Window(-5, -5, item.height + 10, item.width + 10)
        for loaded in (False, True):
            with ItemReader(dataset, item) as reader:
                assert reader.georef.transform.c == 500_000 + item.area.col * 0.5
                if loaded:
                    reader.load()
                seen, valid = reader.read(beyond)
                assert valid.sum() == item.height * item.width and not seen[:, ~valid].any()
                assert (reader.mask(beyond)[~valid] == 255).all()


def test_no_crop_of_train_sees_another_block(tmp_path: Path) -> None:
    ids = scene(tmp_path)
    dataset = open_dataset(tmp_path, SMALL)
    secret = picture(ids, 5)
    for item in (*dataset.split("val"), *dataset.split("test")):
        secret[:, *item.area.slices] = 255
    write_raster(tmp_path / "images" / "s0.tif", secret, crs="EPSG:32633", transform=place())
    still = AugmentConfig(brightness=0, contrast=0, saturation=0, sharpness=0)
    config = RunConfig(data=SMALL, augment=still)
    crops = CropDataset(dataset, "train", config, input_spec(dataset, SMALL), length=60)
    assert all(int(crops.sample(0, i)["image"].max()) < 255 for i in range(60))


def test_drawn_shapes_in_one_corner_give_every_part_labels(tmp_path: Path) -> None:
    """A fifth of the scene is labelled; the strip is cut where the labels are."""
    ids = scene(tmp_path)
    (tmp_path / "labels" / "s0.tif").unlink()
    shapes = [
        (box(r, c, 30, 30), {"class": ("field", "water")[(r // 40 + c // 40) % 2]})
        for r in range(0, 360, 40)
        for c in range(0, 200, 40)
    ]
    write_features(tmp_path / "labels.geojson", shapes, 32633)
    for name in ("far0.tif", "far1.tif"):
        at = Affine.translation(50_000, 0) @ place()
        write_raster(tmp_path / "images" / name, picture(ids, 6), crs="EPSG:32633", transform=at)
    dataset = open_dataset(tmp_path, SMALL)
    assert [i.id for i in dataset.unlabelled] == ["far0", "far1"]
    assert all(i.label is None for i in dataset.unlabelled)
    for name in ("train", "val", "test"):
        masks = [read_mask(dataset, i) for i in dataset.split(name)]
        assert {0, 1} <= set(np.concatenate([m.ravel() for m in masks]).tolist())
    text = render_text(check_dataset(tmp_path, SMALL))
    assert "images   3 (2 of them without a label)" in text
    assert "by_block" in text and "geometries lie outside" not in text


def test_the_gap_is_a_crop_on_the_ground(tmp_path: Path) -> None:
    scene(tmp_path)
    dataset = open_dataset(tmp_path, DataConfig(crop=40, resolution=1.0))
    assert gap_of(dataset.scenes[0], DataConfig(crop=40, resolution=1.0)) == 80
    assert json.loads((tmp_path / "splits.json").read_text())["gap"] == 80


def test_a_scene_that_is_too_small_names_a_crop_that_fits(tmp_path: Path) -> None:
    scene(tmp_path)
    with pytest.raises(DataError, match="500 x 420 px are too few") as caught:
        open_dataset(tmp_path)
    assert "data.crop=192" in caught.value.fix
    assert not (tmp_path / "splits.json").exists()
    dataset = open_dataset(tmp_path, DataConfig(crop=192))
    assert dataset.split("train") and dataset.split("val")


def test_no_fractions_train_on_the_whole_scene(tmp_path: Path) -> None:
    scene(tmp_path)
    dataset = open_dataset(tmp_path, DataConfig(val_fraction=0, test_fraction=0))
    assert [(i.id, i.area) for i in dataset.split("train")] == [("s0", None)]
    assert not dataset.splits["val"] and not dataset.splits["test"]


def test_the_whole_scene_stays_at_hand_and_is_what_is_saved(tmp_path: Path) -> None:
    scene(tmp_path)
    dataset = open_dataset(tmp_path, SMALL)
    whole = dataset.split("all")
    assert [(i.id, i.height, i.width) for i in whole] == [("s0", *SIZE)]
    assert dataset.item("s0") == whole[0]
    dataset.save()
    again = open_dataset(tmp_path, SMALL)
    assert {i.id: i.area for i in again.items} == {i.id: i.area for i in dataset.items}


def test_another_image_of_the_same_name_is_refused(tmp_path: Path) -> None:
    scene(tmp_path)
    open_dataset(tmp_path, SMALL)
    for folder in ("images", "labels"):
        values = (
            regions(100, 100, 3, 1) if folder == "labels" else picture(regions(100, 100, 3, 1), 1)
        )
        write_raster(tmp_path / folder / "s0.tif", values, crs="EPSG:32633", transform=place())
    with pytest.raises(DataError, match=r"reaches beyond .*s0\.tif, which has 100 x 100 px"):
        open_dataset(tmp_path, SMALL)


def test_it_is_told_once_and_stands_in_the_notes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene(tmp_path)
    open_dataset(tmp_path, SMALL)
    assert "one labelled image (s0): split into blocks of it, train" in caplog.text
    caplog.clear()
    dataset = open_dataset(tmp_path, SMALL)
    assert caplog.text == ""
    assert "into blocks with gaps of" in dataset.notes[0]
    open_dataset(tmp_path, DataConfig(crop=128))
    assert "narrower than a crop (128 px)" in caplog.text


def test_a_second_image_joins_train_beside_the_blocks(tmp_path: Path) -> None:
    scene(tmp_path)
    open_dataset(tmp_path, SMALL)
    other = write_folder(tmp_path / "other", 2)
    for folder in ("images", "labels"):
        (other / folder / "s1.tif").rename(tmp_path / folder / "new.tif")
        # s1 lies 256 px east of s0's corner: on the scene's ground
    dataset = open_dataset(tmp_path, SMALL)
    assert "new" in (*dataset.splits["train"], *dataset.left_out)
    assert not {"new"} & {*dataset.splits["val"], *dataset.splits["test"]}
