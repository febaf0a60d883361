"""Preparation on real samples: a Potsdam and a Vaihingen tile, a 16-bit SpaceNet chip."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ISPRS
from terradapt.data import read_image, read_mask
from terradapt.data.specs import fixed_stretch
from terradapt.grid import Window
from terradapt.prepare.isprs import prepare_potsdam, prepare_vaihingen
from terradapt.prepare.options import PrepareOptions
from terradapt.prepare.spacenet import prepare as prepare_spacenet
from terradapt.raster import SceneReader, read_label, write_raster

FORMATS = Path(os.environ.get("TERRADAPT_DATA", "")) / "formats"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FORMATS.is_dir(), reason="no TERRADAPT_DATA"),
]


def isprs_tile(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A real tile and its real eroded label: file values are 0 boundary, else class id + 1."""
    folder = FORMATS / f"pseudo_{name}_dataset"
    image = next((folder / "img_dir").glob("*.png"))
    with SceneReader(image) as scene:
        pixels, _ = scene.read(Window(0, 0, scene.height, scene.width))
    stored = read_label(folder / "ann_dir" / image.name)
    return pixels[:3], np.where(stored == 0, IGNORE, stored - 1).astype(np.uint8)


def lay_out(root: Path, image: str, label: str, eroded: str, name: str) -> NDArray[np.uint8]:
    pixels, ids = isprs_tile(name)
    colours = np.moveaxis(ISPRS.to_rgb(ids), -1, 0)
    write_raster(root / image, pixels)
    write_raster(root / label, colours)
    write_raster(root / eroded, colours)
    return ids


def test_a_real_potsdam_tile(tmp_path: Path) -> None:
    for tile in ("2_10", "2_11"):
        top = f"top_potsdam_{tile}"
        ids = lay_out(
            tmp_path / "in", f"{top}_RGB.tif", f"{top}_label.tif", f"{top}_label_noBoundary.tif",
            "potsdam",
        )  # fmt: skip
    options = PrepareOptions(split="by_image", workers=1)
    prepared = prepare_potsdam(tmp_path / "in", tmp_path / "out", options)
    item = prepared.dataset.item("2_10")
    np.testing.assert_array_equal(read_mask(prepared.dataset, item), ids)
    np.testing.assert_array_equal(read_image(prepared.dataset, item), isprs_tile("potsdam")[0])
    assert prepared.statistics["classes"]["impervious"]["pixels"] == 2 * int((ids == 0).sum())
    assert item.eroded is not None


def test_a_real_vaihingen_tile(tmp_path: Path) -> None:
    for area in (1, 3):
        top = f"top_mosaic_09cm_area{area}"
        ids = lay_out(
            tmp_path / "in", f"top/{top}.tif", f"gts_for_participants/{top}.tif",
            f"eroded/{top}_noBoundary.tif", "vaihingen",
        )  # fmt: skip
    options = PrepareOptions(split="by_image", workers=1)
    prepared = prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    np.testing.assert_array_equal(read_mask(prepared.dataset, prepared.dataset.item("3")), ids)


def test_a_real_spacenet_chip_agrees_with_the_published_mask(tmp_path: Path) -> None:
    city = tmp_path / "in" / "AOI_2_Vegas"
    for folder, source, name in (
        ("PAN", "road_mask_input.tif", "SN3_roads_train_AOI_2_Vegas_PAN_img{}.tif"),
        (
            "geojson_roads",
            "sample_roads_for_masking.geojson",
            "SN3_roads_train_AOI_2_Vegas_geojson_roads_img{}.geojson",
        ),
    ):
        (city / folder).mkdir(parents=True)
        for number in (1, 2):
            shutil.copy(FORMATS / "spacenet_roads" / source, city / folder / name.format(number))
    options = PrepareOptions(bands="PAN", line_width=4.0, workers=1)
    dataset = prepare_spacenet(tmp_path / "in", tmp_path / "out", options).dataset
    mask = read_mask(dataset, dataset.items[0]).astype(bool)
    truth = read_label(FORMATS / "spacenet_roads" / "sample_road_raster_mask.tif") > 0
    iou = (mask & truth).sum() / (mask | truth).sum()
    print(f"IoU {iou:.5f}")
    assert iou >= 0.999
    assert read_image(dataset, dataset.items[0]).dtype == np.uint16
    (low, high), *_ = fixed_stretch(dataset.items, (1,))
    assert 0 < low < high < 2048
