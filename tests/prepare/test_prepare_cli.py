"""terradapt data NAME SRC -o DIR, with good and with bad benchmarks."""

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_files import (
    pack_tar,
    pack_zip,
    write_deepglobe,
    write_massachusetts,
    write_potsdam,
    write_spacenet,
    write_vaihingen,
)
from terradapt.classes import ISPRS
from terradapt.config import RunConfig
from terradapt.data import input_spec, open_dataset
from terradapt.data.sampling import CropDataset
from terradapt.prepare.isprs import prepare_potsdam
from terradapt.prepare.options import PrepareOptions
from terradapt.raster import write_raster
from terradapt.synthetic import prepare as prepare_synthetic

TILES = ("2_10", "2_11", "2_13", "3_13")


def test_one_command_prepares_an_archive(tmp_path: Path, terradapt: Any) -> None:
    pack_zip(write_potsdam(tmp_path / "files", TILES, side=64), tmp_path / "in/Potsdam.zip")
    call = ("data", "potsdam", tmp_path / "in", "split=by_image", "bands=IRRG", "workers=1")
    first = terradapt(*call, "-o", tmp_path / "out")
    assert first.status == 0, first.err
    assert "4 of 4 images to prepare, about" in first.err
    again = terradapt(*call, "-o", tmp_path / "out")
    assert again.status == 0 and "all 4 images are prepared already" in again.err
    dataset = open_dataset(tmp_path / "out")
    assert len(dataset.items) == 4 and dataset.classes == ISPRS


def test_synthetic_cities_by_seeds(tmp_path: Path, terradapt: Any) -> None:
    out = terradapt("data", "synthetic", "3,5-6", "scenes=2", "size=64", "-o", tmp_path / "out")
    assert out.status == 0, out.err
    splits = open_dataset(tmp_path / "out").splits
    assert splits["train"] == ("city3_0", "city3_1")
    assert splits["test"] == ("city6_0", "city6_1")


def test_one_synthetic_city_is_split_by_scene(tmp_path: Path) -> None:
    dataset = prepare_synthetic(Path("7"), tmp_path, {"size": 48, "roads": True})
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 4, "val": 1, "test": 1}
    assert open_dataset(tmp_path).splits == dataset.splits


@pytest.mark.parametrize("seeds", ["x", "4-", "-3", "9-8", "1-9999", "1,,2"])
def test_seeds_that_are_none(tmp_path: Path, terradapt: Any, seeds: str) -> None:
    out = terradapt("data", "synthetic", "-o", tmp_path / "out", "--", seeds)
    assert out.is_user_error(f"'{seeds}'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("colour=red", "colour"),
        ("crop=8", "crop"),
        ("crop=tall", "crop"),
        ("workers=-1", "workers"),
        ("split=mine", "split"),
        ("line_width=0", "line_width"),
    ],
)
def test_options_that_are_none(tmp_path: Path, terradapt: Any, option: str, named: str) -> None:
    write_deepglobe(tmp_path / "in")
    out = terradapt("data", "deepglobe", tmp_path / "in", option, "-o", tmp_path / "out")
    assert out.is_user_error(named)
    assert not (tmp_path / "out").exists()


def test_missing_tiles(tmp_path: Path, terradapt: Any) -> None:
    write_vaihingen(tmp_path / "in", ("1", "3", "30"), 16, 16)
    out = terradapt("data", "vaihingen", tmp_path / "in", "-o", tmp_path / "out")
    assert out.is_user_error("30 tiles of the paper's split are missing: 5, 7, 11")
    assert "split=by_image" in out.errors[1]
    assert not (tmp_path / "out").exists()


def test_a_missing_label(tmp_path: Path, terradapt: Any) -> None:
    write_massachusetts(tmp_path / "in")
    (tmp_path / "in/valid/map/10078664_15.tif").unlink()
    out = terradapt("data", "massachusetts", tmp_path / "in", "-o", tmp_path / "out")
    assert out.is_user_error("without a map: valid/sat/10078664_15.tiff")


def test_a_label_of_another_size(tmp_path: Path, terradapt: Any) -> None:
    write_potsdam(tmp_path / "in", TILES, side=32)
    write_raster(
        tmp_path / "in/5_Labels_all/top_potsdam_2_13_label.tif", np.zeros((3, 30, 32), np.uint8)
    )
    call = ("data", "potsdam", tmp_path / "in", "split=by_image", "workers=1")
    out = terradapt(*call, "-o", tmp_path / "out")
    assert out.is_user_error("top_potsdam_2_13_label.tif", "32 x 30 px")
    assert not (tmp_path / "out/dataset.json").exists()


def test_an_unknown_colour_in_another_process(tmp_path: Path, terradapt: Any) -> None:
    write_potsdam(tmp_path / "in", TILES, side=32)
    label = np.zeros((3, 32, 32), np.uint8)
    label[0] = 77
    write_raster(tmp_path / "in/5_Labels_all/top_potsdam_3_13_label.tif", label)
    call = ("data", "potsdam", tmp_path / "in", "split=by_image", "workers=2")
    out = terradapt(*call, "-o", tmp_path / "out")
    assert out.is_user_error("top_potsdam_3_13_label.tif", "colour 77,0,0", "1024 pixels")
    assert not (tmp_path / "out/dataset.json").exists()


def test_labels_shifted_or_in_another_crs(tmp_path: Path, terradapt: Any) -> None:
    write_massachusetts(tmp_path / "in")
    path = tmp_path / "in/test/map/10078665_15.tif"
    ids = np.zeros((96, 96), np.uint8)
    write_raster(path, ids, crs="EPSG:32619")
    call = ("data", "massachusetts", tmp_path / "in", "workers=1", "-o", tmp_path / "out")
    assert terradapt(*call).is_user_error(path.name, "EPSG:32619", "EPSG:26986")
    from affine import Affine

    place = Affine(1, 0, 230000 + 5 * 96 + 3, 0, -1, 900000)
    write_raster(path, ids, crs="EPSG:26986", transform=place)
    assert terradapt(*call).is_user_error(path.name, "3.0 columns off")


def test_a_damaged_archive(tmp_path: Path, terradapt: Any) -> None:
    archive = pack_tar(write_spacenet(tmp_path / "files"), tmp_path / "in/AOI_2_Vegas.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-2000])
    out = terradapt("data", "spacenet", tmp_path / "in", "-o", tmp_path / "out")
    assert out.is_user_error("AOI_2_Vegas.tar.gz: damaged or truncated")
    assert not any(p.is_file() for p in (tmp_path / "out").rglob("*"))


def test_an_archive_that_leads_out(tmp_path: Path, terradapt: Any) -> None:
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in/evil.zip", "w") as packed:
        packed.writestr("../../1_sat.jpg", b"evil")
    out = terradapt("data", "deepglobe", tmp_path / "in", "-o", tmp_path / "out")
    assert out.is_user_error("evil.zip: refused", "../../1_sat.jpg")
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


def test_a_damaged_image(tmp_path: Path, terradapt: Any) -> None:
    write_potsdam(tmp_path / "in", TILES, side=64)
    path = tmp_path / "in/2_Ortho_RGB/top_potsdam_2_10_RGB.tif"
    path.write_bytes(path.read_bytes()[:6000])
    call = ("data", "potsdam", tmp_path / "in", "split=by_image", "workers=1")
    out = terradapt(*call, "-o", tmp_path / "out")
    assert out.is_user_error("top_potsdam_2_10_RGB.tif")
    assert not (tmp_path / "out/dataset.json").exists()


def test_a_result_that_cannot_be_written(tmp_path: Path, terradapt: Any) -> None:
    write_deepglobe(tmp_path / "in")
    (tmp_path / "out").write_text("a file where the folder should be")
    out = terradapt("data", "deepglobe", tmp_path / "in", "workers=1", "-o", tmp_path / "out")
    assert out.is_user_error(str(tmp_path / "out"))


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    write_potsdam(tmp_path / "in", TILES, side=512, bands=("RGB",), dsm=False)
    call = [sys.executable, "-m", "terradapt", "data", "potsdam", str(tmp_path / "in")]
    call += ["split=by_image", "workers=1", "-o"]
    run = subprocess.Popen([*call, str(tmp_path / "out")], stderr=subprocess.DEVNULL)
    receipts = tmp_path / "out/.prepared"
    while run.poll() is None and not (receipts.is_dir() and any(receipts.glob("*.json"))):
        time.sleep(0.001)
    run.kill()
    run.wait()
    options = PrepareOptions(split="by_image", workers=1)
    resumed = prepare_potsdam(tmp_path / "in", tmp_path / "out", options)
    whole = prepare_potsdam(tmp_path / "in", tmp_path / "whole", options)
    assert resumed.kept >= 1 and whole.done == 4
    for path in (tmp_path / "whole").rglob("*.tif"):
        other = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes()
    assert not list((tmp_path / "out").rglob("*.part"))


def test_the_surface_model_is_a_fourth_band_of_the_crops(tmp_path: Path) -> None:
    write_potsdam(tmp_path / "in", TILES, side=96, bands=("RGB",))
    options = PrepareOptions(split="by_image", dsm=True, workers=1)
    prepare_potsdam(tmp_path / "in", tmp_path / "out", options)
    dataset = open_dataset(tmp_path / "out")
    config = RunConfig().with_overrides(["data.crop=64", "data.bands=[1,2,3,4]"])
    spec = input_spec(dataset, config.data)
    sample = CropDataset(dataset, "train", config, spec)[0]
    assert sample["image"].shape == (4, 64, 64)
    assert sample["image"][3].float().std() > 10  # stretched, not clipped away


@pytest.mark.skipif(os.name == "nt", reason="process groups of POSIX")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    write_potsdam(tmp_path / "in", TILES, side=512, bands=("RGB",), dsm=False)
    call = [sys.executable, "-m", "terradapt", "data", "potsdam", str(tmp_path / "in")]
    call += ["split=by_image", "workers=2", "-o", str(tmp_path / "out")]
    run = subprocess.Popen(call, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    parent, workers = psutil.Process(run.pid), []
    while run.poll() is None and len(workers) < 2:
        workers = [p for p in parent.children() if "spawn_main" in " ".join(p.cmdline())]
        time.sleep(0.01)
    assert len(workers) == 2
    time.sleep(1)  # until they have begun
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(workers, 60)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
