"""The pre-flight as text and as a page: what is shown, and what is only counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_files import UTM, picture, place, regions, write_folder
from terradapt.classes import IGNORE
from terradapt.data import open_dataset
from terradapt.preflight.check import CheckReport, check_dataset
from terradapt.preflight.page import render_page
from terradapt.preflight.text import render_text, to_dict
from terradapt.preflight.thumbnails import SIDE, borders, choose_items, thumbnail
from terradapt.raster import write_raster

TRAIN, TEST = 6, 5
PAIRS = TRAIN * TEST


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> CheckReport:
    """Images of one place, so that every pair of train and test leaks."""
    root = write_folder(tmp_path_factory.mktemp("leaking"), TRAIN + TEST, crs=None)
    for n in range(TRAIN + TEST):
        ids = regions(96, 128, 3, n)
        at = {"crs": UTM, "transform": place(0, 6 * n)}
        write_raster(root / "images" / f"s{n}.tif", picture(ids, n), **at)
        write_raster(root / "labels" / f"s{n}.tif", ids, **at)
    names = [f"s{n}" for n in range(TRAIN + TEST)]
    splits = {"train": names[:TRAIN], "test": names[TRAIN:]}
    (root / "splits.json").write_text(json.dumps(splits))
    return check_dataset(root, pictures=True)


def test_leaks_are_counted_and_the_largest_are_printed(leaking: CheckReport) -> None:
    told = render_text(leaking)
    assert f"leaks    {TEST} of {TEST} test images show ground of train ({PAIRS} pairs)" in told
    assert told.count("overlaps train") == 8
    assert f"and {PAIRS - 8} more warnings like these: see --json" in told
    shares = [leak.share for leak in leaking.leaks]
    assert shares == sorted(shares, reverse=True) and f"({shares[0]:.0%})" in told
    assert f"{len(leaking.of('warning'))} warnings" in told


def test_the_json_has_every_leak(leaking: CheckReport) -> None:
    values = to_dict(leaking)
    assert len(values["leaks"]) == PAIRS
    assert sum("overlaps train" in p["message"] for p in values["problems"]) == PAIRS


def test_the_page_shows_some_leaks_and_counts_the_rest(leaking: CheckReport) -> None:
    page = render_page(leaking)
    assert page.count("overlaps train") == 20
    assert f"and {PAIRS - 20} more warnings like these" in page
    assert page.count("<figure>") == TRAIN + TEST
    assert "row 0, column" in page and "nothing outside" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_close_up_shows_the_labels_borders_at_full_scale(tmp_path: Path) -> None:
    ids = np.zeros((900, 1200), np.uint8)
    for row in range(700, 800, 20):
        ids[row : row + 10, 900:1100] = 1
    for folder, array in (("images", np.full((3, 900, 1200), 90, np.uint8)), ("labels", ids)):
        for n in range(3):
            write_raster(tmp_path / folder / f"s{n}.tif", array, crs=UTM, transform=place())
    dataset = open_dataset(tmp_path)
    thumb = thumbnail(dataset, dataset.items[0])
    assert thumb.image.shape == thumb.label.shape == thumb.close.shape == (SIDE * 3 // 4, SIDE, 3)
    near = ids[thumb.place.slices]
    assert (near == 1).sum() > 0.8 * (ids == 1).sum()
    drawn = (thumb.close == (255, 0, 255)).all(-1)
    assert (drawn == borders(near)).all() and 0 < drawn.mean() < 0.2


def test_borders_are_between_classes() -> None:
    ids = np.array([[0, 0, 1], [0, 0, 1], [IGNORE, 0, 1]], np.uint8)
    assert borders(ids).tolist() == [
        [False, True, False],
        [True, True, False],
        [True, True, False],
    ]


def test_pictures_begin_with_what_was_warned_of(leaking: CheckReport) -> None:
    assert leaking.dataset is not None
    items = leaking.dataset.items
    told = {str(items[7].label), str(items[4].image)}
    chosen = choose_items(items, 4, told)
    assert len(chosen) == 4 and {items[4].id, items[7].id} <= {i.id for i in chosen}
    assert [i.id for i in chosen] == [i.id for i in items if i in chosen]
    assert choose_items(items, 100, told) == list(items)
