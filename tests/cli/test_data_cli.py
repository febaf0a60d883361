"""``terradapt data``: prepared folders, the pre-flight's outputs, and every kind of bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_files import place, regions, write_folder
from terradapt.data import open_dataset
from terradapt.raster import write_raster

Call = Callable[..., Any]


def test_check_prints_text_json_and_a_page(tmp_path: Path, terradapt: Call) -> None:
    root = write_folder(tmp_path / "data", 4, size=(120, 160))
    done = terradapt("data", "check", root, "-o", tmp_path / "page.html")
    assert done.status == 0, done.err
    for text in ("EPSG:32633", "0.5 m/px", "class 1", "leaks    none", "0 errors"):
        assert text in done.out
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/") == 12
    assert not re.search(r'(src|href)="(?!data:)', page)
    done = terradapt("data", "check", root, "--json")
    values = json.loads(done.out)
    assert done.status == 0
    assert values["class_pixels"]["all"] == [
        int(sum((regions(120, 160, 3, n) == k).sum() for n in range(4))) for k in range(3)
    ]
    assert len(values["items"]) == 4 and values["splits"]["train"]


def test_check_estimates_a_recipe(tmp_path: Path, terradapt: Call) -> None:
    from terradapt.config import load_config

    small = load_config("landcover").with_overrides(
        ["data.crop=64", "train.batch=2", "train.epochs=3", "train.steps_per_epoch=5"]
    )
    (tmp_path / "small.yaml").write_text(small.to_yaml())
    root = write_folder(tmp_path / "data", 4)
    done = terradapt("data", "check", root, "--recipe", tmp_path / "small.yaml", "--json")
    estimate = json.loads(done.out)["estimate"]
    assert done.status == 0, done.err
    assert estimate["steps"] == 15 and estimate["crops_per_second"] > 0
    assert estimate["hours"] == pytest.approx(15 * estimate["step_seconds"] / 3600)
    assert estimate["memory_bytes"] > 10e6


def test_a_folder_is_prepared_once_and_trains_from_its_index(
    tmp_path: Path, terradapt: Call
) -> None:
    source = write_folder(tmp_path / "source", 6)
    out = tmp_path / "ready"
    done = terradapt("data", "folder", source, "split_seed=3", "name=mine", "-o", out)
    assert done.status == 0, done.err
    assert {p.name for p in out.iterdir()} >= {
        "dataset.json", "splits.json", "check.json", "report.html",
    }  # fmt: skip
    dataset = open_dataset(out)
    assert dataset.name == "mine" and dataset.items[0].image.parent == source / "images"
    assert json.loads((out / "splits.json").read_text())["seed"] == 3
    before = (out / "splits.json").read_bytes()
    assert terradapt("data", "folder", source, "split_seed=4", "-o", out).status == 0
    assert (out / "splits.json").read_bytes() == before


def test_datasets_are_listed(terradapt: Call) -> None:
    rows = json.loads(terradapt("datasets", "--json").out)
    assert {"folder", "synthetic", "potsdam"} <= {r["name"] for r in rows}
    assert all(r["description"] for r in rows)


def test_usage_mistakes(tmp_path: Path, terradapt: Call) -> None:
    root = write_folder(tmp_path / "d", 3)
    assert terradapt("data", "nothere", root, "-o", tmp_path / "o").is_user_error("'nothere'")
    assert terradapt("data", "folder", root).is_user_error("no folder for the result")
    assert terradapt("data", "folder", root, "x=1", "-o", tmp_path / "o").is_user_error("'x'")
    assert terradapt("data", "folder", root, "oops", "-o", tmp_path / "o").is_user_error("'oops'")
    assert terradapt("data", "check", tmp_path / "void").is_user_error("void")
    assert not (tmp_path / "o").exists()


def zero(root: Path) -> None:
    (root / "images" / "s1.tif").write_bytes(b"")


def cut_image(root: Path) -> None:
    path = root / "images" / "s1.tif"
    path.write_bytes(path.read_bytes()[:4000])


def cut_label(root: Path) -> None:
    path = root / "labels" / "s1.tif"
    path.write_bytes(path.read_bytes()[:300])


def small_label(root: Path) -> None:
    write_raster(root / "labels" / "s1.tif", regions(90, 128, 3, 1))


def other_crs(root: Path) -> None:
    write_raster(root / "labels" / "s1.tif", regions(96, 128, 3, 1), crs="EPSG:4326",
                 transform=place(0, 256, 1e-6))  # fmt: skip


def off_grid(root: Path) -> None:
    write_raster(root / "labels" / "s1.tif", regions(96, 128, 3, 1), crs="EPSG:32633",
                 transform=place(10, 256))  # fmt: skip


def unknown(root: Path) -> None:
    (root / "classes.yaml").write_text("names: [a, b, c]\n")
    ids = regions(96, 128, 3, 1)
    ids[0, :7] = 9
    write_raster(root / "labels" / "s1.tif", ids)


def float_label(root: Path) -> None:
    write_raster(root / "labels" / "s1.tif", regions(96, 128, 3, 1).astype(np.float32) + 0.5)


def lone_label(root: Path) -> None:
    (root / "images" / "s1.tif").unlink()


def no_labels(root: Path) -> None:
    for path in (root / "labels").iterdir():
        path.unlink()


def no_images(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.unlink()


def no_folder(root: Path) -> None:
    (root / "images").rename(root / "pictures")


def bad_classes(root: Path) -> None:
    (root / "classes.yaml").write_text("names: [a\n")


def few_names(root: Path) -> None:
    (root / "classes.yaml").write_text("names: [a]\n")


def two_suffixes(root: Path) -> None:
    write_raster(root / "images" / "s1.png", regions(96, 128, 3, 1))


CASES = [
    (zero, "s1.tif"), (cut_image, "s1.tif"), (cut_label, "s1.tif"), (small_label, "s1.tif"),
    (other_crs, "s1.tif"), (off_grid, "s1.tif"), (unknown, "s1.tif"), (float_label, "s1.tif"),
    (lone_label, "s1.tif"), (no_labels, "no labels"),
    (no_images, "no images"), (no_folder, "images/"), (bad_classes, "classes.yaml"),
    (few_names, "1 classes"), (two_suffixes, "s1.png"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "named"), CASES)
def test_bad_input_is_named_by_check_and_by_preparation(
    tmp_path: Path, terradapt: Call, spoil: Callable[[Path], None], named: str
) -> None:
    root = write_folder(tmp_path / "data", 4)
    spoil(root)
    assert terradapt("data", "check", root).is_user_error(named)
    out = tmp_path / "out"
    assert terradapt("data", "folder", root, "-o", out).is_user_error(named)
    if spoil is not cut_image:  # which shows only when its pixels are read
        assert not out.exists()


def test_all_errors_are_listed_before_the_first_is_raised(tmp_path: Path, terradapt: Call) -> None:
    root = write_folder(tmp_path / "data", 5)
    zero(root)
    (root / "labels" / "s3.tif").write_bytes(b"x")
    done = terradapt("data", "check", root)
    assert done.is_user_error("s1.tif", "and 1 more errors")
    assert "ERROR" in done.out and "s3.tif" in done.out
