"""What the pre-flight says of images: types, order of bands, palettes, orientation, collars."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from data_files import write_folder
from scene_files import noise, write_scene
from terradapt.data import open_dataset
from terradapt.errors import DataError
from terradapt.preflight.check import check_dataset
from terradapt.preflight.inspection import VOID


def told(root: Path, level: str) -> list[str]:
    return [f"{p.message} -> {p.fix}" for p in check_dataset(root).of(level)]


def test_images_of_two_types_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    assert not told(root, "error")
    with rasterio.open(root / "images" / "s1.tif") as file:
        pixels, frame = file.read(), {"crs": file.crs, "transform": file.transform}
    write_scene(root / "images" / "s1.tif", pixels.astype(np.uint16), **frame)
    assert "uint16 (s1.tif), uint8 (s3.tif)" in " ".join(told(root, "error"))


def test_images_of_two_orders_of_bands_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    for n, names in enumerate([("Red", "Green", "Blue"), ("Blue", "Green", "Red")]):
        with rasterio.open(root / "images" / f"s{n}.tif", "r+") as file:
            for index, name in enumerate(names, 1):
                file.set_band_description(index, name)
    assert "blue, green, red" in " ".join(told(root, "error"))


def test_a_palette_is_refused_with_its_remedy(tmp_path: Path) -> None:
    root = write_folder(tmp_path, suffix=".png")
    path = root / "images" / "s0.png"
    Image.open(path).quantize(64).save(path)
    errors = told(root, "error")
    assert len(errors) == 1 and "gdal_translate -expand rgb" in errors[0]


@pytest.mark.parametrize("turned", ["images", "labels"])
@pytest.mark.parametrize("turn", [3, 6])
def test_an_orientation_is_named(tmp_path: Path, turn: int, turned: str) -> None:
    root = write_folder(tmp_path, suffix=".png", size=(96, 96))
    for path in (root / turned).iterdir():
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.open(path).save(path, exif=exif)
    errors = told(root, "error")
    assert len(errors) == 4
    assert all(f"EXIF orientation {turn}" in e and "resample" not in e for e in errors)
    with pytest.raises(DataError, match=f"EXIF orientation {turn}"):
        open_dataset(root)
    other = "labels" if turned == "images" else "images"
    for path in (root / other).iterdir():  # both turned alike: they fit as they are stored
        Image.open(path).save(path, exif=exif)
    assert not told(root, "error")


def test_a_collar_that_jpeg_blurred_proposes_to_grow_the_void(tmp_path: Path) -> None:
    root = write_folder(tmp_path, size=(256, 256))
    for n in range(4):
        path = root / "images" / f"s{n}.tif"
        with rasterio.open(path) as file:
            pixels, frame = file.read(), {"crs": file.crs, "transform": file.transform}
        turned = np.add.outer(np.arange(256), np.arange(256)) < 150
        pixels[:, turned] = 0
        lossy = {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"}
        write_scene(path, pixels, nodata=0, **frame, **(lossy if n else {}))
    warned = [w for w in told(root, "warning") if "lossy" in w]
    assert len(warned) == 3 and not any("s0.tif" in w for w in warned)
    assert all(f"data.grow_void={VOID}" in w and f"--grow-void {VOID}" in w for w in warned)


def test_a_measured_band_that_is_tagged_alpha_is_noted(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    path = root / "images" / "s0.tif"
    with rasterio.open(path) as file:
        frame = {"crs": file.crs, "transform": file.transform}
    write_scene(path, noise(96, 128, 4), alpha=True, **frame)
    assert "band 4 is tagged as alpha" in " ".join(told(root, "note"))
    clear = np.concatenate([noise(96, 128), np.full((1, 96, 128), 255, np.uint8)])
    write_scene(path, clear, alpha=True, **frame)
    assert "tagged as alpha" not in " ".join(told(root, "note"))


def test_label_nodata_that_may_be_a_class_is_noted(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    with rasterio.open(root / "labels" / "s0.tif", "r+") as file:
        file.nodata = 0
    notes = " ".join(told(root, "note"))
    assert "nodata (0), which is ignored" in notes and "-unsetnodata" in notes
