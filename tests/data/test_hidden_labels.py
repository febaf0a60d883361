"""Label pixels that are no data are ignored, whatever hides them; bands of training images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from data_files import UTM, regions, write_folder
from terradapt.config import DataConfig
from terradapt.data import Dataset, input_spec, open_dataset, read_mask
from terradapt.data.scan import class_index
from terradapt.errors import DataError
from terradapt.raster import write_raster


def relabel(root: Path, how: str) -> Path:
    """Hide the upper half of every label, which holds class 0 beneath."""
    for n in range(4):
        path = root / "labels" / f"s{n}.tif"
        ids = regions(96, 128, 3, n)
        ids[:48] = 0
        shown = np.full(ids.shape, 255, np.uint8)
        shown[:48] = 0
        profile: dict[str, Any] = {"driver": "GTiff", "height": 96, "width": 128, "crs": UTM}
        bands, nodata = [ids], None
        if how == "alpha":
            bands, profile["alpha"] = [ids, shown], "YES"
        if how.startswith("nodata"):
            kind, value = how.split()[1:]
            nodata = float(value)
            bands = [np.where(shown > 0, ids, nodata).astype(kind)]
        stack = np.stack(bands)
        with rasterio.open(path) as old:
            profile["transform"] = old.transform
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path, "w", count=len(stack), dtype=stack.dtype, nodata=nodata, **profile
            ) as file,
        ):
            file.write(stack)
            if how == "mask":
                file.write_mask(shown)
    return root


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize(
    "how",
    ["alpha", "mask", "nodata int16 -9999", "nodata uint16 65535", "nodata float32 nan",
     "nodata uint8 9"],
)  # fmt: skip
def test_hidden_label_pixels_are_ignored(tmp_path: Path, how: str, stated: bool) -> None:
    root = relabel(write_folder(tmp_path), how)
    if stated:
        (root / "classes.yaml").write_text("names: [a, b, c]\nignore: [-9999]\n")
    dataset = open_dataset(root)
    assert len(dataset.classes) == 3
    index = class_index(dataset)
    for n in range(4):
        item = dataset.item(f"s{n}")
        ids = regions(96, 128, 3, n)
        expected = ids.copy()
        expected[:48] = 255
        np.testing.assert_array_equal(read_mask(dataset, item), expected)
        assert index.ignored[item.id] == 48 * 128
        assert index.counts[item.id].tolist() == np.bincount(ids[48:].ravel(), minlength=3).tolist()
        assert all(r >= 48 for spots in index.places[item.id].values() for r, _ in spots)


def test_values_beyond_a_byte_may_be_stated(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    for n in range(4):
        path = root / "labels" / f"s{n}.tif"
        with rasterio.open(path) as old:
            frame = {"crs": old.crs, "transform": old.transform}
        ids = np.array([1000, -3, -9999], np.int16)[regions(96, 128, 3, n)]
        write_raster(path, ids, **frame)
    (root / "classes.yaml").write_text("names: [a, b]\nvalues: [1000, -3]\nignore: [-9999]\n")
    dataset = open_dataset(root)
    expected = np.array([0, 1, 255], np.uint8)[regions(96, 128, 3, 2)]
    np.testing.assert_array_equal(read_mask(dataset, dataset.item("s2")), expected)


def test_a_class_that_is_nodata_is_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path, classes=2)
    for path in (root / "labels").iterdir():
        with rasterio.open(path, "r+") as file:
            file.nodata = 0
    with pytest.raises(DataError, match=r"nodata \(0\)") as caught:
        open_dataset(root)
    assert "-unsetnodata" in caught.value.fix


def named(root: Path, orders: list[tuple[str, ...]]) -> Dataset:
    for n, order in enumerate(orders):
        with rasterio.open(root / "images" / f"s{n}.tif", "r+") as file:
            for index, name in enumerate(order, 1):
                file.set_band_description(index, name)
    return open_dataset(root)


def test_names_of_the_bands_are_kept_where_all_agree(tmp_path: Path) -> None:
    rgb = ("Red", "Green", "Blue")
    alike = named(write_folder(tmp_path / "a"), 4 * [rgb])
    assert input_spec(alike, DataConfig()).band_names == rgb
    assert input_spec(alike, DataConfig(bands=(3, 1))).band_names == ("Blue", "Red")
    own = named(write_folder(tmp_path / "b"), [(f"{n} r", f"{n} g", f"{n} b") for n in range(4)])
    assert input_spec(own, DataConfig()).band_names == ()
    mixed = named(write_folder(tmp_path / "c"), [rgb, rgb[::-1], rgb, rgb])
    mixed = open_dataset(mixed.root, DataConfig(val_fraction=0, test_fraction=0))
    dataset = Dataset("x", mixed.root, mixed.items, mixed.classes, mixed.label,
                      {"train": tuple(i.id for i in mixed.items)})  # fmt: skip
    with pytest.raises(DataError, match="Blue, Green, Red") as caught:
        input_spec(dataset, DataConfig())
    assert "gdal_translate -b" in caught.value.fix
