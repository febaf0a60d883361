"""LoveDA, OpenEarthMap and LEVIR-CD in their real layouts, and what is wrong with them in words."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_files import (
    fake_ids,
    pack_zip,
    write_levir_cd,
    write_loveda,
    write_openearthmap,
)
from terradapt.classes import CHANGES, IGNORE
from terradapt.config import DataConfig
from terradapt.data import input_spec, open_dataset, read_image, read_mask
from terradapt.errors import DataError
from terradapt.prepare.levir_cd import prepare_levir_cd
from terradapt.prepare.loveda import LOVEDA, prepare_loveda
from terradapt.prepare.openearthmap import OPEN_EARTH_MAP, prepare_openearthmap
from terradapt.prepare.options import PrepareOptions
from terradapt.raster import SceneReader, read_label, write_raster

ONE = PrepareOptions(workers=1)
SIX = (1, 2, 3, 4, 5, 6)
DATA = Path(os.environ.get("TERRADAPT_DATA", ""))
real = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "change_levir").is_dir(), reason="no TERRADAPT_DATA"),
]


def with_corner(ids: np.ndarray) -> np.ndarray:
    """Ids where the first 4 x 4 px are unknown."""
    out = ids.copy()
    out[:4, :4] = IGNORE
    return out


def pixels_of(path: Path) -> np.ndarray:
    """All bands of a file."""
    with SceneReader(path) as file:
        return file.read(file.window)[0]


def sizes(splits: Any) -> dict[str, int]:
    return {name: len(ids) for name, ids in splits.items()}


def test_loveda_as_its_archives_come(tmp_path: Path) -> None:
    files = write_loveda(tmp_path / "files")
    for split in ("Train", "Val", "Test"):
        shutil.move(files / split, tmp_path / split / split)
        pack_zip(tmp_path / split, tmp_path / "in" / f"{split}.zip")
    prepare_loveda(tmp_path / "in", tmp_path / "out", ONE)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.classes == LOVEDA and dataset.protocol == "official"
    assert sizes(dataset.splits) == {"train": 4, "val": 4, "test": 0}
    assert dataset.splits["val"] == tuple(
        f"val_{s}" for s in ("rural_4", "rural_5", "urban_6", "urban_7")
    )
    item = dataset.item("train_urban_3")
    assert item.resolution == 0.3 and read_image(dataset, item).shape == (3, 64, 64)
    np.testing.assert_array_equal(read_mask(dataset, item), with_corner(fake_ids(3, 64, 64, 7)))


def test_loveda_as_a_toolbox_converts_it(tmp_path: Path) -> None:
    files = write_loveda(tmp_path / "files")
    for split in ("Train", "Val"):
        for role, folder in (("images_png", "img_dir"), ("masks_png", "ann_dir")):
            target = tmp_path / "in" / folder / split.lower()
            target.mkdir(parents=True)
            for path in (files / split).rglob(f"{role}/*.png"):
                shutil.copy(path, target)
    dataset = prepare_loveda(tmp_path / "in", tmp_path / "out", ONE).dataset
    assert sizes(dataset.splits) == {"train": 4, "val": 4, "test": 0}
    mask = read_mask(dataset, dataset.item("val_5"))
    np.testing.assert_array_equal(mask, with_corner(fake_ids(5, 64, 64, 7)))


def test_loveda_without_train_is_split_by_image(tmp_path: Path) -> None:
    files = write_loveda(tmp_path / "files")
    shutil.rmtree(files / "Train")
    dataset = prepare_loveda(files, tmp_path / "out", ONE).dataset
    assert dataset.protocol == "by_image" and len(dataset.items) == 4
    assert all(dataset.splits[name] for name in ("train", "test"))


def test_openearthmap(tmp_path: Path) -> None:
    files = write_openearthmap(tmp_path / "OpenEarthMap_wo_xBD")
    told: list[str] = []
    prepare_openearthmap(files, tmp_path / "out", ONE, tell=told.append)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.classes == OPEN_EARTH_MAP and dataset.protocol == "official"
    assert sizes(dataset.splits) == {"train": 5, "val": 3, "test": 0}
    assert dataset.splits["val"] == ("aachen_3", "kyoto_3", "santa-rosa_3")
    assert "1 tiles are left out: their images are xBD's" in told[0]
    mask = read_mask(dataset, dataset.item("kyoto_2"))
    np.testing.assert_array_equal(mask, with_corner(fake_ids(5, 64, 64, 8)))
    assert dataset.item("kyoto_2").resolution == pytest.approx(0.3, rel=1e-3)


def test_openearthmap_with_the_xbd_images_added(tmp_path: Path) -> None:
    files = write_openearthmap(tmp_path / "in")
    image = np.full((3, 64, 64), 90, np.uint8)  # without a CRS, as the benchmark's script has it
    write_raster(files / "santa-rosa/images/santa-rosa_1.tif", image)
    told: list[str] = []
    dataset = prepare_openearthmap(files, tmp_path / "out", ONE, tell=told.append).dataset
    assert sizes(dataset.splits) == {"train": 6, "val": 3, "test": 0}
    assert not any("xBD" in line for line in told)


def test_openearthmap_without_lists_is_split_by_image(tmp_path: Path) -> None:
    files = write_openearthmap(tmp_path / "in")
    for name in ("train.txt", "val.txt", "test.txt"):
        (files / name).unlink()
    with pytest.raises(DataError, match=r"aachen_4\.tif has no labels"):
        prepare_openearthmap(files, tmp_path / "out", ONE)
    for path in files.rglob("images/*_4.tif"):
        path.unlink()
    dataset = prepare_openearthmap(files, tmp_path / "out", ONE).dataset
    assert dataset.protocol == "by_image" and len(dataset.items) == 8


def test_levir_cd_is_six_bands(tmp_path: Path, terradapt: Any) -> None:
    files = write_levir_cd(tmp_path / "in")
    done = terradapt("data", "levir-cd", files, "-o", tmp_path / "out", "workers=1")
    assert done.status == 0, done.err
    assert "data.bands=[1,2,3,4,5,6] model.in_channels=6" in done.err
    assert "3 x uint8 and 3 of a second raster" in done.out
    dataset = open_dataset(tmp_path / "out")
    assert dataset.classes == CHANGES and dataset.protocol == "official"
    assert sizes(dataset.splits) == {"train": 4, "val": 1, "test": 2}
    item = dataset.item("train_3")
    assert item.resolution == 0.5 and item.image.parent.name == "A"
    dates = [pixels_of(files / "train" / date / "train_3.png") for date in "AB"]
    np.testing.assert_array_equal(read_image(dataset, item), np.concatenate(dates))
    np.testing.assert_array_equal(read_mask(dataset, item), fake_ids(2, 64, 64, 2))
    spec = input_spec(dataset, DataConfig(bands=SIX))
    np.testing.assert_array_equal(read_image(dataset, item, spec=spec), np.concatenate(dates))
    for bands in ((6, 1, 5), (5, 6), (4, 1, 2, 3), (2, 3, 1)):
        spec = input_spec(dataset, DataConfig(bands=bands))
        chosen = np.concatenate(dates)[[b - 1 for b in bands]]
        np.testing.assert_array_equal(read_image(dataset, item, spec=spec), chosen)
    with pytest.raises(DataError, match=r"has 6 bands, data\.bands asks for 7"):
        input_spec(dataset, DataConfig(bands=(1, 7)))


def test_crops_of_pairs_hold_both_dates(tmp_path: Path) -> None:
    files = write_levir_cd(tmp_path / "in")
    options = PrepareOptions(crop=32, workers=1)
    dataset = prepare_levir_cd(files, tmp_path / "out", options).dataset
    assert sizes(dataset.splits) == {"train": 16, "val": 4, "test": 8}
    dates = [pixels_of(files / "test" / date / "test_2.png") for date in "AB"]
    found = read_image(dataset, dataset.item("test_2_32_0"))
    np.testing.assert_array_equal(found, np.concatenate(dates)[:, 32:, :32])


def test_levir_cd_cut_into_crops_keeps_them_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for image in ("train_7", "train_8", "test_1"):
        for crop in ("0000_0000", "0000_0256"):
            for date in "AB":
                pixels = rng.integers(0, 255, (3, 32, 32), np.uint8)
                write_raster(tmp_path / "in" / date / f"{image}_{crop}.png", pixels)
            mask = rng.integers(0, 2, (32, 32)).astype(np.uint8)  # of one bit
            write_raster(tmp_path / "in/label" / f"{image}_{crop}.png", mask)
    dataset = prepare_levir_cd(tmp_path / "in", tmp_path / "out", ONE).dataset
    assert sizes(dataset.splits) == {"train": 4, "val": 0, "test": 2}
    assert dataset.item("train_8_0000_0256").group == "train_8"
    assert read_mask(dataset, dataset.items[0]).max() == 1


WRITERS = {"loveda": write_loveda, "openearthmap": write_openearthmap, "levir-cd": write_levir_cd}


def break_value(value: int, path: str) -> Any:
    def broken(root: Path) -> None:
        mask = read_label(root / path).copy()
        mask[10:12, 10:15] = value
        write_raster(root / path, mask)

    return broken


def without(*paths: str) -> Any:
    def broken(root: Path) -> None:
        for path in (p for pattern in paths for p in list(root.glob(pattern))):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return broken


def also(name: str, text: str) -> Any:
    def broken(root: Path) -> None:
        with (root / name).open("a") as file:
            file.write(text)

    return broken


@pytest.mark.parametrize(
    ("name", "broken", "words"),
    [
        ("loveda", without("*/*/masks_png"), ["no files for masks_png", "(found: 8 images_png"]),
        ("loveda", without("Train/Rural/masks_png"), ["(8 images_png, 6 masks_png)", "0.png has"]),
        ("loveda", without("*/*/images_png"), ["no files for images_png", "8 masks_png"]),
        ("loveda", without("Val/Urban/images_png/6.png"), ["masks_png/6.png has no images_png"]),
        ("loveda", without("*"), ["no files for images_png and masks_png"]),
        ("loveda", break_value(9, "Train/Urban/masks_png/2.png"), ["2.png: label value 9", "10 p"]),
        ("openearthmap", without("*/labels"), ["no files for labels", "images"]),
        ("openearthmap", without("*/images"), ["no files for images", "8 labels"]),
        ("openearthmap", without("kyoto/labels/kyoto_1.tif"), ["kyoto_1.tif has no labels"]),
        ("openearthmap", without("kyoto/images/kyoto_1.tif"), ["kyoto_1.tif has no images"]),
        (
            "openearthmap",
            without("xbd_files.csv"),
            ["(8 images, 9 labels)", "santa-rosa_1.tif has"],
        ),
        (
            "openearthmap",
            without("kyoto"),
            ["3 tiles of train.txt and val.txt", "kyoto_1, kyoto_2"],
        ),
        (
            "openearthmap",
            also("val.txt", "aachen_1.tif\n"),
            ["aachen_1 stands in train.txt and in"],
        ),
        (
            "openearthmap",
            break_value(12, "kyoto/labels/kyoto_1.tif"),
            ["kyoto_1.tif: label value 12"],
        ),
        ("levir-cd", without("*/B"), ["no files for B in it (found: 7 A, 0 B, 7 label)"]),
        ("levir-cd", without("val/label"), ["(7 A, 7 B, 6 label)", "val_1.png has no label"]),
        ("levir-cd", without("test/A/test_2.png"), ["test/label/test_2.png has no A"]),
        ("levir-cd", break_value(128, "train/label/train_1.png"), ["train_1.png: label value 128"]),
    ],
)
def test_broken_benchmarks_are_told_in_words(
    tmp_path: Path, terradapt: Any, name: str, broken: Any, words: list[str]
) -> None:
    source = WRITERS[name](tmp_path / "in")
    broken(source)
    out = terradapt("data", name, source, "-o", tmp_path / "out", "workers=1")
    assert out.is_user_error(*words)
    assert not (tmp_path / "out/dataset.json").exists()


def test_a_second_date_of_another_size_or_damaged(tmp_path: Path, terradapt: Any) -> None:
    source = write_levir_cd(tmp_path / "in", side=96)
    path = source / "train/B/train_2.png"
    write_raster(path, np.zeros((3, 96, 90), np.uint8))
    call = ("data", "levir-cd", source, "-o", tmp_path / "out", "workers=1")
    assert terradapt(*call).is_user_error("B/train_2.png", "90 x 96 px")
    path.unlink()
    path = path.with_suffix(".tif")
    write_raster(path, np.random.default_rng(1).integers(0, 255, (3, 96, 96), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert terradapt(*call).is_user_error("B/train_2.tif")
    assert not (tmp_path / "out/dataset.json").exists()


@pytest.mark.parametrize("name", list(WRITERS))
def test_no_paper_has_a_split_of_them(tmp_path: Path, terradapt: Any, name: str) -> None:
    source = WRITERS[name](tmp_path / "in")
    out = terradapt("data", name, source, "-o", tmp_path / "out", "split=paper")
    assert out.is_user_error("neither paper has a split of it")
    assert "split=by_image or split=official" in out.errors[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["loveda", "openearthmap"])
def test_land_cover_by_the_command(tmp_path: Path, terradapt: Any, name: str) -> None:
    source = WRITERS[name](tmp_path / "in")
    call = ("data", name, source, "-o", tmp_path / "out", "workers=1")
    done = terradapt(*call)
    assert done.status == 0, done.err
    assert "images are prepared already" in terradapt(*call).err
    assert json.loads((tmp_path / "out/statistics.json").read_text())["ignored"] >= 8 * 16


@pytest.mark.parametrize("name", [pytest.param("pseudo_loveda_dataset", marks=real)])
def test_real_loveda_tiles(tmp_path: Path, name: str) -> None:
    source = DATA / "formats" / name
    dataset = prepare_loveda(source, tmp_path / "out", ONE).dataset
    assert [i.id for i in dataset.items] == ["0", "1", "2"]
    stored = read_label(source / "ann_dir/1.png")
    np.testing.assert_array_equal(
        read_mask(dataset, dataset.item("1")), np.where(stored == 0, IGNORE, stored - 1)
    )


@pytest.mark.parametrize("name", [pytest.param("change_levir", marks=real)])
def test_real_levir_pairs(tmp_path: Path, name: str) -> None:
    dataset = prepare_levir_cd(DATA / name, tmp_path / "out", ONE).dataset
    assert sizes(dataset.splits) == {"train": 1, "val": 1, "test": 4}
    item = dataset.item("test_2_0000_0000")
    assert read_image(dataset, item).shape == (6, 256, 256)
    stored = read_label(DATA / name / "label/test_2_0000_0000.png")
    np.testing.assert_array_equal(read_mask(dataset, item), stored // 255)
