"""The folder dataset: layouts, class files, label forms, readers by window."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_files import picture, place, regions, write_folder
from terradapt.classes import ISPRS
from terradapt.config import DataConfig, InputSpec
from terradapt.data import (
    Dataset,
    Item,
    input_spec,
    open_dataset,
    read_image,
    read_mask,
    read_sample,
)
from terradapt.data.labels import (
    ColourForm,
    IndexForm,
    LabelForm,
    ThresholdForm,
    VectorForm,
    label_form,
)
from terradapt.data.reading import ItemReader, ReaderCache
from terradapt.data.scan import class_index
from terradapt.errors import DataError
from terradapt.grid import Window
from terradapt.raster import write_raster


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
@pytest.mark.parametrize("home", ["labels", "masks"])
def test_a_bare_folder_opens(tmp_path: Path, suffix: str, home: str) -> None:
    dataset = open_dataset(write_folder(tmp_path, suffix=suffix, home=home))
    assert [i.id for i in dataset.items] == ["s0", "s1", "s2", "s3"]
    assert dataset.classes.names == ("class 0", "class 1", "class 2")
    image, mask = read_sample(dataset, dataset.item("s1"))
    assert image.shape == (3, 96, 128) and image.dtype == np.uint8
    assert np.array_equal(mask, regions(96, 128, 3, 1))


def test_0_and_255_are_background_and_road(tmp_path: Path) -> None:
    dataset = open_dataset(write_folder(tmp_path, classes=2, values=(0, 255), home="masks"))
    assert dataset.classes.names == ("background", "road")
    assert set(np.unique(read_mask(dataset, dataset.items[0]))) == {0, 1}


def test_values_with_gaps_become_ids_and_255_is_ignored(tmp_path: Path) -> None:
    dataset = open_dataset(write_folder(tmp_path, classes=4, values=(2, 5, 9, 255)))
    assert dataset.classes.names == ("class 2", "class 5", "class 9")
    ids = regions(96, 128, 4, 0)
    assert np.array_equal(read_mask(dataset, dataset.item("s0")), np.where(ids == 3, 255, ids))


def test_a_class_that_only_one_image_holds_keeps_its_id(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, classes=2)
    write_raster(tmp_path / "labels" / "s2.tif", regions(96, 128, 3, 2), crs="EPSG:32633",
                 transform=place(0, 512))  # fmt: skip
    dataset = open_dataset(tmp_path)
    assert len(dataset.classes) == 3
    assert class_index(dataset).counts["s0"][2] == 0
    assert class_index(dataset).counts["s2"][2] > 0


def test_a_class_file_gives_names_values_colours_and_ignore(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=3, values=(7, 3, 0))
    (tmp_path / "classes.yaml").write_text(
        "names: [field, forest]\nvalues: [3, 7]\ncolours: ['#ff0000', [0, 128, 0]]\nignore: [0]\n"
    )
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("field", "forest")
    assert dataset.classes.colours == ((255, 0, 0), (0, 128, 0))
    ids = regions(96, 128, 3, 0)
    expected = np.array([1, 0, 255], np.uint8)[ids]
    assert np.array_equal(read_mask(dataset, dataset.item("s0")), expected)


def test_colour_labels_need_a_class_file_and_are_then_read(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, suffix=".png", classes=6)
    for n in range(3):
        rgb = ISPRS.to_rgb(regions(96, 128, 6, n))
        rgb[:4] = 0
        Image.fromarray(rgb).save(tmp_path / "labels" / f"s{n}.png")
    with pytest.raises(DataError, match=r"s0\.png.*colour label"):
        open_dataset(tmp_path)
    names = {"names": list(ISPRS.names), "colours": [list(c) for c in ISPRS.colours]}
    (tmp_path / "classes.json").write_text(json.dumps(names))
    dataset = open_dataset(tmp_path)
    mask = read_mask(dataset, dataset.item("s2"))
    assert (mask[:4] == 255).all()
    assert np.array_equal(mask[4:], regions(96, 128, 6, 2)[4:])
    total = class_index(dataset).total(dataset.items)
    assert total.sum() == 3 * 92 * 128


def test_grey_labels_saved_as_rgb_are_index_labels(tmp_path: Path) -> None:
    write_folder(tmp_path, 3, suffix=".png")
    for n in range(3):
        grey = regions(96, 128, 3, n)
        Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "labels" / f"s{n}.png")
    dataset = open_dataset(tmp_path)
    assert np.array_equal(read_mask(dataset, dataset.item("s1")), regions(96, 128, 3, 1))
    assert class_index(dataset).counts["s1"].sum() == 96 * 128


def test_split_folders_state_the_splits(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        write_folder(tmp_path / part, count)
    dataset = open_dataset(tmp_path)
    assert dataset.splits["test"] == ("test/s0", "test/s1")
    assert dataset.protocol == "given"


def test_a_saved_index_reads_the_same(tmp_path: Path) -> None:
    dataset = open_dataset(write_folder(tmp_path / "a"))
    out = tmp_path / "b"
    out.mkdir()
    dataset.save(out)
    again = open_dataset(out)
    assert again.items == dataset.items
    assert (again.classes, again.label) == (dataset.classes, dataset.label)


def test_moving_a_dataset_with_its_files_keeps_it_whole(tmp_path: Path) -> None:
    dataset = open_dataset(write_folder(tmp_path / "a"))
    dataset.save()
    (tmp_path / "a").rename(tmp_path / "moved")
    moved = open_dataset(tmp_path / "moved")
    assert moved.items[0].image.is_file()
    assert moved.splits == dataset.splits


BLOCKS = st.tuples(
    st.integers(-40, 120), st.integers(-40, 150), st.integers(1, 90), st.integers(1, 90)
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_folder(tmp_path_factory.mktemp("folder"), 3))


@given(BLOCKS)
def test_a_window_is_that_part_of_the_whole(dataset: Dataset, block: tuple[int, ...]) -> None:
    """Whether the item is held in memory or read from the file; outside is 0 and ignored."""
    window = Window(*block)
    item = dataset.items[0]
    whole, ids = read_sample(dataset, item)
    padded = np.pad(whole, ((0, 0), (200, 200), (200, 200)))
    ignored = np.pad(ids, 200, constant_values=255)
    rows, cols = window.shift(200, 200).slices
    with ItemReader(dataset, item) as reader:
        for _ in ("file", "memory"):
            pixels, mask = reader.sample(window)
            assert np.array_equal(pixels, padded[:, rows, cols])
            assert np.array_equal(mask, ignored[rows, cols])
            reader.load()


def test_pixels_without_data_are_ignored(tmp_path: Path) -> None:
    write_folder(tmp_path, 3)
    pixels = picture(regions(96, 128, 3, 0), 0)
    pixels[:, :10] = 0
    where = {"crs": "EPSG:32633", "transform": place()}
    write_raster(tmp_path / "images" / "s0.tif", pixels, nodata=0, **where)
    mask = read_mask(open_dataset(tmp_path), open_dataset(tmp_path).item("s0"))
    assert (mask[:10] == 255).all() and (mask[10:] != 255).all()


def test_the_reader_cache_stays_within_its_bytes_and_reads_right(dataset: Dataset) -> None:
    cache = ReaderCache(dataset, None, memory=96 * 128 * 6)
    for item in (*dataset.items, *dataset.items):
        assert np.array_equal(
            cache.get(item).mask(item.window), regions(96, 128, 3, int(item.id[1]))
        )
    assert len(cache._kept) <= 1


@given(st.dictionaries(st.integers(0, 254), st.integers(0, 4), min_size=1), st.integers(0, 2**32))
def test_index_labels_decode_by_their_table(values: dict[int, int], seed: int) -> None:
    form = IndexForm(values)
    keys = np.array([*values, 255])
    raw = np.random.default_rng(seed).choice(keys, (1, 5, 7)).astype(np.uint8)
    ids = form.decode(raw, ISPRS, "x.tif")
    assert all(ids[i, j] == {**values, 255: 255}[raw[0, i, j]] for i in range(5) for j in range(7))
    assert label_form(json.loads(json.dumps(form.to_dict()))) == form


STORED: list[tuple[dict[str, Any], LabelForm]] = [
    ({"kind": "index", "values": {"0": 0, "7": 1}, "ignored": [3]}, IndexForm({0: 0, 7: 1}, (3,))),
    (
        {"kind": "binary", "values": {"0": 0, "255": 1}, "ignored": []},
        IndexForm({0: 0, 255: 1}, ()),
    ),
    ({"kind": "binary", "threshold": 128}, ThresholdForm(128)),
    ({"kind": "colour", "ignored_colours": [[1, 2, 3]]}, ColourForm(((1, 2, 3),))),
    (
        {"kind": "vector", "vector": {"column": "class", "classes": {"road": 1}, "line_width": 4}},
        VectorForm("class", {"road": 1}, line_width=4),
    ),
]


@pytest.mark.parametrize(("own", "form"), STORED)
def test_label_forms_of_every_index_stay_readable(own: dict[str, Any], form: LabelForm) -> None:
    """``dataset.json`` has had the same keys from the first version on, used or not."""
    unused = {
        "values": {},
        "ignored": [255],
        "ignored_colours": [[0, 0, 0]],
        "threshold": None,
        "vector": None,
    }
    assert label_form({**unused, **own}) == form
    assert label_form(json.loads(json.dumps(form.to_dict()))) == form
    assert list(form.to_dict()) == ["kind", *unused]


def test_a_label_form_of_another_kind_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 2)
    open_dataset(root).save()
    index = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**index, "label": {"kind": "sound"}}))
    with pytest.raises(DataError, match="no kind of labels is called 'sound'"):
        open_dataset(root)


def test_grey_labels_of_three_bands_count_as_their_first_one(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 2, crs=None)
    for path in (root / "labels").iterdir():
        write_raster(path, np.stack([regions(96, 128, 3, int(path.stem[1]))] * 3))
    dataset = open_dataset(root)
    counts = class_index(dataset).counts["s0"]
    assert counts.tolist() == np.bincount(read_mask(dataset, dataset.item("s0")).ravel()).tolist()
    narrow = replace(dataset, label=IndexForm({0: 0, 1: 1}))
    with pytest.raises(DataError, match="label value 2 is no class"):
        class_index(narrow)


def test_unknown_values_name_the_file_the_value_and_the_pixels() -> None:
    raw = np.zeros((1, 4, 4), np.uint8)
    raw[0, 0, :3] = 9
    with pytest.raises(DataError, match=r"x\.tif: label value 9 is no class \(3 pixels"):
        IndexForm.identity(2).decode(raw, ISPRS, "x.tif")


def test_16_bit_imagery_gets_a_fixed_stretch_from_the_train_split(tmp_path: Path) -> None:
    write_folder(tmp_path, 5, crs=None)
    for n in range(5):
        wide = picture(regions(96, 128, 3, n), n, bands=4).astype(np.uint16) * 16 + 1000
        write_raster(tmp_path / "images" / f"s{n}.tif", wide)
    dataset = open_dataset(tmp_path)
    config = DataConfig(bands=(1, 2, 3, 4))
    spec = input_spec(dataset, config)
    assert spec.dtype == "uint16" and len(spec.mean) == len(spec.std) == 4
    train = np.concatenate(
        [read_image(dataset, i).reshape(4, -1) for i in dataset.split("train")], axis=1
    )
    expected = np.percentile(train, (2, 98), axis=1).T
    assert np.allclose(spec.stretch, expected, rtol=0.02)
    pixels = read_image(dataset, dataset.items[0], spec=spec)
    assert pixels.dtype == np.uint8 and pixels.min() < 10 and pixels.max() > 245


def test_a_surface_model_is_one_more_band(tmp_path: Path) -> None:
    write_folder(tmp_path, 3)
    ramp = np.linspace(30.0, 60.0, 96 * 128, dtype=np.float32).reshape(96, 128)
    where = {"crs": "EPSG:32633", "transform": place()}
    write_raster(tmp_path / "dsm.tif", ramp, **where)
    plain = open_dataset(tmp_path)
    items = tuple(
        Item(i.id, i.image, i.label, i.group, tmp_path / "dsm.tif", i.height, i.width)
        for i in plain.items
    )
    dataset = Dataset("x", tmp_path, items, plain.classes, plain.label, plain.splits)
    spec = input_spec(dataset, DataConfig(bands=(1, 2, 3, 4)))
    assert isinstance(spec.stretch, tuple) and spec.stretch[0] == (0.0, 255.0)
    assert np.allclose(spec.stretch[3], np.percentile(ramp, (2, 98)), atol=0.1)
    pixels = read_image(dataset, items[0], spec=spec)
    assert np.array_equal(pixels[:3], read_image(plain, plain.items[0]))
    assert pixels[3, 0, 0] == 0 and pixels[3, -1, -1] == 255
    assert (np.diff(pixels[3].astype(int).ravel()) >= 0).all()


def test_a_missing_band_names_file_and_setting(tmp_path: Path) -> None:
    dataset = open_dataset(write_folder(tmp_path))
    with pytest.raises(DataError, match=r"s\d\.tif: has 3 bands") as caught:
        input_spec(dataset, DataConfig(bands=(1, 2, 3, 4)))
    assert "data.bands" in caught.value.fix


def test_the_spec_of_8_bit_imagery_leaves_it_as_it_is(dataset: Dataset) -> None:
    spec = input_spec(dataset, DataConfig())
    assert spec == InputSpec(resolution=0.5, band_names=("red", "green", "blue"))


def test_labels_are_scanned_once_and_again_when_they_change(tmp_path: Path) -> None:
    dataset = open_dataset(write_folder(tmp_path))
    before = class_index(dataset).counts["s0"].copy()
    (tmp_path / "label-index.json").write_text("{ damaged")
    assert np.array_equal(class_index(open_dataset(tmp_path)).counts["s0"], before)
    changed = np.where(regions(96, 128, 3, 0) == 2, 1, regions(96, 128, 3, 0)).astype(np.uint8)
    where = {"crs": "EPSG:32633", "transform": place()}
    write_raster(tmp_path / "labels" / "s0.tif", changed, **where)
    after = class_index(open_dataset(tmp_path)).counts["s0"]
    assert after.tolist() == np.bincount(changed.ravel(), minlength=3).tolist()


def test_the_index_counts_and_places_every_class(dataset: Dataset) -> None:
    index = class_index(dataset)
    for item in dataset.items:
        ids = regions(96, 128, 3, int(item.id[1]))
        assert index.counts[item.id].tolist() == np.bincount(ids.ravel(), minlength=3).tolist()
        for class_id, places in index.places[item.id].items():
            assert len(set(places)) == len(places) == 16
            assert all(ids[place] == class_id for place in places)


def test_masks_saved_as_jpeg_are_read_by_a_threshold(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 3, suffix=".png", classes=2, values=(0, 255), home="masks")
    for path in sorted((root / "masks").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"), quality=60)
        path.unlink()
    with pytest.raises(DataError, match="distinct label values") as caught:
        open_dataset(root)
    assert "threshold: 128" in caught.value.fix
    (root / "classes.yaml").write_text("names: [background, road]\nthreshold: 128\n")
    dataset = open_dataset(root)
    mask, exact = read_mask(dataset, dataset.item("s1")), regions(96, 128, 2, 1)
    assert set(np.unique(mask)) == {0, 1} and np.mean(mask == exact) > 0.97
