"""Preparation of the benchmarks: real layouts in, one normal form out; resumable, never half."""

import json
import os
import pickle
import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark_files import (
    POTSDAM_TILES,
    eroded,
    fake_ids,
    pack_tar,
    pack_zip,
    write_deepglobe,
    write_massachusetts,
    write_potsdam,
    write_spacenet,
    write_vaihingen,
)
from terradapt.classes import ISPRS, ROADS
from terradapt.data import open_dataset, read_image, read_mask
from terradapt.errors import DataError, MissingExtraError, OutputError, TerradaptError
from terradapt.prepare.deepglobe import prepare as prepare_deepglobe
from terradapt.prepare.isprs import POTSDAM, VAIHINGEN, prepare_potsdam, prepare_vaihingen
from terradapt.prepare.jobs import pure_ids, starts
from terradapt.prepare.massachusetts import prepare as prepare_massachusetts
from terradapt.prepare.options import PrepareOptions
from terradapt.prepare.spacenet import prepare as prepare_spacenet
from terradapt.prepare.splits import shuffled_groups
from terradapt.raster import SceneReader, read_label, write_raster

ONE = PrepareOptions(workers=1)
FEW = ("1", "3", "30", "2")


def test_vaihingen_as_its_archives_come(tmp_path: Path) -> None:
    files = write_vaihingen(tmp_path / "files", height=32, width=32)
    source = tmp_path / "download"
    pack_zip(files / "dsm", tmp_path / "inner" / "dsm.zip")
    shutil.copytree(files / "top", tmp_path / "inner" / "top")
    pack_zip(tmp_path / "inner", source / "ISPRS_semantic_labeling_Vaihingen.zip")
    truth = source / "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip"
    pack_zip(files / "gts_for_participants", truth)
    pack_zip(files / "gts_eroded", source / "ISPRS_ground_truth_eroded_COMPLETE.zip")
    options = PrepareOptions(dsm=True, workers=1)
    prepared = prepare_vaihingen(source, tmp_path / "out", options)
    assert (prepared.done, prepared.kept) == (33, 0)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.classes == ISPRS and dataset.protocol == "paper"
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 15, "val": 1, "test": 17}
    assert {i.id for i in dataset.split("test")} == set(VAIHINGEN["test"])
    item = dataset.item("3")  # the third area written
    assert item.resolution == 0.09
    ids = fake_ids(2, 34, 32)
    np.testing.assert_array_equal(read_mask(dataset, item), ids)
    hard = dataset.with_eroded_labels()
    np.testing.assert_array_equal(read_mask(hard, hard.item("3")), eroded(ids))
    assert read_image(dataset, dataset.item("3")).shape == (4, 34, 32)  # NIR, R, G, DSM


@pytest.mark.parametrize("bands", ["RGB", "IRRG", "RGBIR"])
def test_potsdam_as_nested_archives(tmp_path: Path, bands: str) -> None:
    files = write_potsdam(tmp_path / "files", ("2_10", "2_11", "2_13", "7_10"), side=32)
    packed = tmp_path / "packed"
    for folder in sorted(files.iterdir()):
        pack_zip(folder, packed / f"{folder.name}.zip")
    pack_tar(packed, tmp_path / "download" / "Potsdam.tar")
    options = PrepareOptions(split="by_image", bands=bands, workers=1)
    prepare_potsdam(tmp_path / "download", tmp_path / "out", options)
    dataset = open_dataset(tmp_path / "out")
    assert [i.id for i in dataset.items] == ["2_10", "2_11", "2_13"]  # 7_10 is left out
    item = dataset.item("2_11")
    with SceneReader(files / "4_Ortho_RGBIR/top_potsdam_2_11_RGBIR.tif") as truth:
        pixels, _ = truth.read(item.window)
    channels = {"RGB": [0, 1, 2], "IRRG": [3, 0, 1], "RGBIR": [0, 1, 2, 3]}[bands]
    np.testing.assert_array_equal(read_image(dataset, item), pixels[channels])
    np.testing.assert_array_equal(read_mask(dataset, item), fake_ids(101, 32, 32))


def test_the_potsdam_split_is_the_papers(tmp_path: Path) -> None:
    write_potsdam(tmp_path / "in", side=16, bands=("RGB",), dsm=False)
    prepared = prepare_potsdam(tmp_path / "in", tmp_path / "out", ONE)
    assert prepared.dataset.protocol == "paper"
    counts = {k: len(v) for k, v in prepared.dataset.splits.items()}
    assert counts == {"train": 22, "val": 1, "test": 14}
    listed = [i for ids in POTSDAM.values() for i in ids]
    assert sorted(listed) == sorted(set(POTSDAM_TILES) - {"7_10"})


def test_deepglobe(tmp_path: Path) -> None:
    pack_zip(write_deepglobe(tmp_path / "files"), tmp_path / "download" / "archive.zip")
    prepared = prepare_deepglobe(tmp_path / "download/archive.zip", tmp_path / "out", ONE)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.classes == ROADS and len(dataset.items) == 6
    item = dataset.item("100037")
    assert item.resolution == 0.5
    np.testing.assert_array_equal(read_mask(dataset, item), fake_ids(1, 64, 64, 2))
    total = sum(c["pixels"] for c in prepared.statistics["classes"].values())
    assert total == 6 * 64 * 64


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_spacenet(tmp_path: Path, dtype: str) -> None:
    files = write_spacenet(tmp_path / "files", dtype=dtype)
    pack_tar(files, tmp_path / "download" / "SN3_roads_train_AOI_2_Vegas.tar.gz")
    prepare_spacenet(tmp_path / "download", tmp_path / "out", ONE)
    dataset = open_dataset(tmp_path / "out")
    assert [i.id for i in dataset.items] == [f"AOI_2_Vegas_img{n}" for n in (1, 2, 3)]
    mask = read_mask(dataset, dataset.item("AOI_2_Vegas_img1"))
    rows = np.flatnonzero((mask == 1).all(1))  # a line from west to east, 4 m of 0.3 m pixels
    assert 12 <= len(rows) <= 15 and 56 <= rows.min() <= rows.max() <= 72
    assert (read_mask(dataset, dataset.item("AOI_2_Vegas_img3")) == 0).all()
    assert read_image(dataset, dataset.items[0]).dtype == np.dtype(dtype)
    assert 0.2 < dataset.items[0].resolution < 0.35


@pytest.mark.parametrize("mirror", [False, True])
def test_massachusetts(tmp_path: Path, mirror: bool) -> None:
    write_massachusetts(tmp_path / "in", mirror=mirror)
    options = PrepareOptions(split="official", workers=1)
    dataset = prepare_massachusetts(tmp_path / "in", tmp_path / "out", options).dataset
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 4, "val": 1, "test": 2}
    mask = read_mask(dataset, dataset.split("val")[0])
    np.testing.assert_array_equal(mask, fake_ids(4, 96, 96, 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0, 1, 3, 252, 254]), st.booleans())
def test_colours_by_bits_are_the_class_maps(seed: int, odd: int, unknown: bool) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice(np.array([0, 1, 2, 3, 4, 5, 255], np.uint8), (5, 9))
    rgb = ISPRS.to_rgb(ids)
    raw = np.moveaxis(rgb, -1, 0).copy()
    np.testing.assert_array_equal(pure_ids(raw, ISPRS, ((0, 0, 0),)), ISPRS.from_rgb(rgb, "x"))
    raw[:, 2, 3] = (255, 0, 255) if unknown else (odd, 255, 255 - odd)
    expected: object = None
    with suppress(DataError):
        expected = ISPRS.from_rgb(np.moveaxis(raw, 0, -1), "x")
    found = pure_ids(raw, ISPRS, ((0, 0, 0),))
    if expected is None:
        assert found is None  # the slow way tells the colour
    elif found is not None:
        np.testing.assert_array_equal(found, expected)


def test_crops_overlap_and_keep_their_place(tmp_path: Path) -> None:
    write_spacenet(tmp_path / "in", side=130)
    options = PrepareOptions(crop=100, workers=1)
    dataset = prepare_spacenet(tmp_path / "in", tmp_path / "out", options).dataset
    assert len(dataset.items) == 12
    assert {i.group for i in dataset.items} == {f"AOI_2_Vegas_img{n}" for n in (1, 2, 3)}
    whole = tmp_path / "in/AOI_2_Vegas/PS-RGB/SN3_roads_train_AOI_2_Vegas_PS-RGB_img2.tif"
    item = dataset.item("AOI_2_Vegas_img2_30_30")
    with SceneReader(whole) as scene, SceneReader(item.image) as crop:
        pixels, _ = scene.read(item.window.shift(30, 30))
        np.testing.assert_array_equal(crop.read(item.window)[0], pixels)
        assert crop.transform.c == pytest.approx(scene.transform.c + 30 * scene.transform.a)
    plain = prepare_spacenet(tmp_path / "in", tmp_path / "plain", ONE).dataset
    mask = read_mask(plain, plain.item("AOI_2_Vegas_img2"))
    np.testing.assert_array_equal(read_mask(dataset, item), mask[30:, 30:])


def test_the_papers_crops_are_four_of_each_image() -> None:
    assert starts(1300, 1024, 0) == [0, 276]  # SpaceNet
    assert starts(1500, 1024, 0) == [0, 476]  # Massachusetts
    assert starts(1024, 1024, 0) == [0]  # DeepGlobe


@settings(max_examples=60)
@given(st.integers(1, 5000), st.integers(32, 1024), st.integers(0, 31))
def test_crops_cover_a_side(length: int, crop: int, overlap: int) -> None:
    first = starts(length, crop, overlap)
    assert first[0] == 0 and first == sorted(set(first))
    assert first[-1] + crop == max(length, crop)
    assert all(b - a <= crop - overlap for a, b in pairwise(first))


@pytest.mark.parametrize(
    ("images", "train", "test"), [(6226, 4326, 1900), (10196, 7096, 3100), (4615, 3115, 1500)]
)
def test_the_papers_shuffled_split_has_its_counts(images: int, train: int, test: int) -> None:
    ids = [str(i) for i in range(images)]
    splits = shuffled_groups(ids, 0)
    assert (len(splits["train"]), len(splits["test"])) == (train, test)
    assert sorted(splits["train"] + splits["test"]) == sorted(ids)
    assert splits == shuffled_groups(ids, 0) != shuffled_groups(ids, 1)


def test_the_papers_road_split_can_be_read_although_it_leaks(tmp_path: Path) -> None:
    write_massachusetts(tmp_path / "in", side=64)
    options = PrepareOptions(split="paper", crop=48, workers=1)
    prepare_massachusetts(tmp_path / "in", tmp_path / "out", options)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.protocol == "paper"
    assert len(dataset.split("train")) + len(dataset.split("test")) == 28


def test_by_image_keeps_crops_together(tmp_path: Path) -> None:
    write_massachusetts(tmp_path / "in", side=64)
    options = PrepareOptions(split="by_image", crop=48, workers=1)
    dataset = prepare_massachusetts(tmp_path / "in", tmp_path / "out", options).dataset
    groups = {s: {i.group for i in dataset.split(s)} for s in ("train", "val", "test")}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["val"]


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()
    }


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    pack_zip(write_vaihingen(tmp_path / "files", FEW, 32, 32), tmp_path / "in" / "v.zip")
    options = PrepareOptions(split="by_image", workers=1)
    prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    before = state(tmp_path / "out")
    told: list[str] = []
    again = prepare_vaihingen(tmp_path / "in", tmp_path / "out", options, tell=told.append)
    assert (again.done, again.kept) == (0, 4)
    assert state(tmp_path / "out") == before
    assert "prepared already" in told[0]


def test_a_changed_source_is_noticed(tmp_path: Path) -> None:
    write_vaihingen(tmp_path / "in", FEW, 32, 32)
    options = PrepareOptions(split="by_image", workers=1)
    prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    label = tmp_path / "in/gts_for_participants/top_mosaic_09cm_area3.tif"
    stamp = label.stat()
    ids = np.zeros((33, 32), np.uint8)
    write_raster(label, np.moveaxis(ISPRS.to_rgb(ids), -1, 0), compress=None)
    os.utime(label, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same time
    again = prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    assert (again.done, again.kept) == (1, 3)
    assert (read_mask(again.dataset, again.dataset.item("3")) == 0).all()


def test_a_lost_output_is_made_again(tmp_path: Path) -> None:
    write_vaihingen(tmp_path / "in", FEW, 32, 32)
    options = PrepareOptions(split="by_image", workers=1)
    prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    (tmp_path / "out/labels/2.tif").write_bytes(b"cut")
    again = prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    assert again.done == 1
    assert read_label(tmp_path / "out/labels/2.tif").shape == (32, 32)


def test_other_settings_leave_nothing_of_the_old_ones(tmp_path: Path) -> None:
    write_vaihingen(tmp_path / "in", FEW, 40, 40)
    own = tmp_path / "out" / "labels" / "mine.tif"
    write_raster(own, np.zeros((4, 4), np.uint8))
    crops = PrepareOptions(split="by_image", crop=32, workers=1)
    prepare_vaihingen(tmp_path / "in", tmp_path / "out", crops)
    assert len(list((tmp_path / "out/images").iterdir())) == 16
    whole = PrepareOptions(split="by_image", workers=1)
    dataset = prepare_vaihingen(tmp_path / "in", tmp_path / "out", whole).dataset
    assert len(dataset.items) == 4 and not (tmp_path / "out/images").exists()
    assert own.exists()  # what preparation did not write, it does not remove
    assert open_dataset(tmp_path / "out").items == dataset.items


def test_a_split_is_written_once(tmp_path: Path) -> None:
    write_vaihingen(tmp_path / "in", FEW, 32, 32)
    prepare_vaihingen(tmp_path / "in", tmp_path / "out", PrepareOptions("by_image", workers=1))
    path = tmp_path / "out/splits.json"
    path.write_text(json.dumps({"train": ["1", "2"], "test": ["3"]}))
    prepare_vaihingen(tmp_path / "in", tmp_path / "out", ONE)
    assert open_dataset(tmp_path / "out").splits["train"] == ("1", "2")


def test_two_processes_give_the_same_as_one(tmp_path: Path) -> None:
    write_potsdam(tmp_path / "in", POTSDAM_TILES[:5], side=32, bands=("RGB",), dsm=False)
    for name, workers in (("one", 1), ("two", 2)):
        options = PrepareOptions(split="by_image", workers=workers)
        prepare_potsdam(tmp_path / "in", tmp_path / name, options)
    for path in sorted((tmp_path / "one").rglob("*.tif")):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()
    index = [(tmp_path / n / "dataset.json").read_text() for n in ("one", "two")]
    assert index[0] == index[1]


def test_an_interrupted_preparation_goes_on(tmp_path: Path) -> None:
    write_vaihingen(tmp_path / "in", FEW, 32, 32)
    broken = tmp_path / "in/top/top_mosaic_09cm_area3.tif"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    options = PrepareOptions(split="by_image", workers=1)
    with pytest.raises(TerradaptError, match="area3"):
        prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    assert not (tmp_path / "out/dataset.json").exists()
    broken.write_bytes(whole)
    again = prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    assert again.kept >= 1 and again.done + again.kept == 4


def test_disk_use_is_told_and_too_little_room_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vaihingen(tmp_path / "in", FEW, 32, 32)
    told: list[str] = []
    options = PrepareOptions(split="by_image", workers=1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"1\.0 kB are free"):
        prepare_vaihingen(tmp_path / "in", tmp_path / "out", options, tell=told.append)
    assert "4 of 4 images to prepare, about" in told[0]
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terradapt.prepare import jobs as prepare_jobs

    write_vaihingen(tmp_path / "in", FEW, 32, 32)
    real, written = prepare_jobs.write_raster, []

    def full(path: Path, *args: object, **kwargs: object) -> None:
        written.append(path)
        if len(written) == 4:  # the second area's eroded label
            raise OutputError(f"{path}: No space left on device", "free some space")
        real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare_jobs, "write_raster", full)
    options = PrepareOptions(split="by_image", workers=1)
    with pytest.raises(OutputError, match="No space"):
        prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    assert len(list((tmp_path / "out/.prepared").iterdir())) == 1
    assert not (tmp_path / "out/dataset.json").exists()
    monkeypatch.undo()
    again = prepare_vaihingen(tmp_path / "in", tmp_path / "out", options)
    assert (again.done, again.kept) == (3, 1)


def test_missing_tiles_are_named(tmp_path: Path) -> None:
    write_potsdam(tmp_path / "in", ("2_10", "2_11"), side=16, bands=("RGB",), dsm=False)
    with pytest.raises(DataError, match=r"35 tiles .* missing: 2_12, 3_10") as error:
        prepare_potsdam(tmp_path / "in", tmp_path / "out", ONE)
    assert "by_image" in error.value.fix
    assert not (tmp_path / "out").exists()


def test_an_unknown_colour_names_file_colour_and_pixels(tmp_path: Path) -> None:
    write_potsdam(tmp_path / "in", ("2_10", "2_11"), side=32, bands=("RGB",), dsm=False)
    path = tmp_path / "in/5_Labels_all/top_potsdam_2_11_label.tif"
    label = np.moveaxis(ISPRS.to_rgb(fake_ids(101, 32, 32)), -1, 0).copy()
    label[:, 3, 4:7] = np.array((252, 253, 1), np.uint8)[:, None]
    write_raster(path, label)
    options = PrepareOptions(split="by_image", workers=1)
    with pytest.raises(DataError, match=r"top_potsdam_2_11_label.tif: colour 252,253,1 .*3 pixels"):
        prepare_potsdam(tmp_path / "in", tmp_path / "out", options)
    near = PrepareOptions(split="by_image", snap=4, workers=1)
    dataset = prepare_potsdam(tmp_path / "in", tmp_path / "out", near).dataset
    assert (read_mask(dataset, dataset.item("2_11"))[3, 4:7] == ISPRS.index("car")).all()


def test_a_label_of_another_size_is_refused(tmp_path: Path) -> None:
    write_deepglobe(tmp_path / "in")
    mask = tmp_path / "in/train/100074_mask.png"
    write_raster(mask, np.zeros((3, 64, 60), np.uint8))
    with pytest.raises(DataError, match=r"100074_mask\.png: 60 x 64 px"):
        prepare_deepglobe(tmp_path / "in", tmp_path / "out", ONE)


@pytest.mark.parametrize(
    ("remove", "message"),
    [("100037_mask.png", "images without a mask"), ("100037_sat.jpg", "masks without an image")],
)
def test_deepglobe_pairs_must_be_whole(tmp_path: Path, remove: str, message: str) -> None:
    write_deepglobe(tmp_path / "in")
    (tmp_path / "in/train" / remove).unlink()
    with pytest.raises(DataError, match=f"{message}: 100037"):
        prepare_deepglobe(tmp_path / "in", tmp_path / "out", ONE)


def test_spacenet_chips_must_have_centrelines(tmp_path: Path) -> None:
    write_spacenet(tmp_path / "in")
    next((tmp_path / "in/AOI_2_Vegas/geojson_roads").glob("*img2.geojson")).unlink()
    with pytest.raises(DataError, match="1 chips without their centrelines: AOI_2_Vegas_img2"):
        prepare_spacenet(tmp_path / "in", tmp_path / "out", ONE)


def test_a_missing_surface_model_is_named(tmp_path: Path) -> None:
    write_vaihingen(tmp_path / "in", FEW, 16, 16)
    (tmp_path / "in/dsm/dsm_09cm_matching_area30.tif").unlink()
    with pytest.raises(DataError, match="no surface model for 30"):
        prepare_vaihingen(tmp_path / "in", tmp_path / "out", PrepareOptions("by_image", dsm=True))


@pytest.mark.parametrize(
    "prepare",
    [prepare_vaihingen, prepare_potsdam, prepare_deepglobe, prepare_spacenet,
     prepare_massachusetts],
)  # fmt: skip
def test_an_empty_folder_is_told(tmp_path: Path, prepare: object) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=str(tmp_path / "in")):
        prepare(tmp_path / "in", tmp_path / "out", ONE)  # type: ignore[operator]
    assert not (tmp_path / "out").exists()


def test_the_result_may_lie_in_the_source(tmp_path: Path) -> None:
    source = tmp_path / "in"
    pack_zip(write_massachusetts(tmp_path / "files"), source / "m.zip")
    first = prepare_massachusetts(source, source / "prepared", ONE)
    again = prepare_massachusetts(source, source / "prepared", ONE)
    assert (first.done, again.done, again.kept) == (7, 0, 7)


def test_disk_use_counts_crops(tmp_path: Path) -> None:
    write_spacenet(tmp_path / "in", side=130)
    crops = PrepareOptions(crop=100, workers=1)
    told: list[str] = []
    prepare_spacenet(tmp_path / "in", tmp_path / "out", crops, tell=told.append)
    told_kb = float(told[0].split("about ")[1].split(" kB")[0])
    raw_kb = 3 * 4 * 100 * 100 * 6 / 1000  # images, crops, pixels, bytes
    assert raw_kb < told_kb < 1.4 * raw_kb
    written = sum(p.stat().st_size for p in (tmp_path / "out").rglob("*.tif"))
    assert written < told_kb * 1000


@pytest.mark.parametrize("error", [DataError("a", "b"), MissingExtraError("x", "train")])
def test_errors_come_back_from_another_process(error: TerradaptError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), back.message, back.fix) == (type(error), error.message, error.fix)
