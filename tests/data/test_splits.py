"""Splits: by group, from the seed alone, written once, never shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_files import picture, place, regions, write_folder
from terradapt.config import DataConfig
from terradapt.data import Item, open_dataset
from terradapt.data.splits import check_splits, make_splits, read_splits
from terradapt.errors import DataError
from terradapt.raster import write_raster


def items(groups: list[int]) -> list[Item]:
    return [Item(f"i{n:03}", Path("x"), None, f"g{g}") for n, g in enumerate(groups)]


CONFIGS = st.builds(
    DataConfig,
    val_fraction=st.floats(0, 0.5),
    test_fraction=st.floats(0, 0.5),
    split_seed=st.integers(0, 9),
)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), CONFIGS)
def test_splits_part_the_items_and_keep_groups_whole(groups: list[int], config: DataConfig) -> None:
    every = items(groups)
    if len(set(groups)) < 2:
        with pytest.raises(DataError, match="cannot be split"):
            make_splits(every, config)
        return
    splits = make_splits(every, config)
    assert sorted(i for ids in splits.values() for i in ids) == [i.id for i in every]
    owner = {i: name for name, ids in splits.items() for i in ids}
    assert all(len({owner[i.id] for i in every if i.group == g.group}) == 1 for g in every)
    assert splits["train"]
    assert splits == make_splits(every[::-1], config)
    check_splits(splits, every, "here")


@pytest.mark.parametrize(
    ("count", "sizes"), [(2, (1, 1, 0)), (3, (1, 1, 1)), (8, (6, 1, 1)), (100, (70, 15, 15))]
)
def test_the_sizes_of_splits(count: int, sizes: tuple[int, ...]) -> None:
    splits = make_splits(items(list(range(count))), DataConfig())
    assert tuple(len(splits[n]) for n in ("train", "val", "test")) == sizes


def test_another_seed_draws_another_split() -> None:
    every = items(list(range(40)))
    one, two = (make_splits(every, DataConfig(split_seed=s)) for s in (0, 1))
    assert one["test"] != two["test"]


def test_the_file_is_written_once_and_rules_from_then_on(tmp_path: Path) -> None:
    first = open_dataset(write_folder(tmp_path, 6), DataConfig(split_seed=1))
    values = json.loads((tmp_path / "splits.json").read_text())
    assert (values["seed"], values["protocol"]) == (1, "by_image")
    again = open_dataset(tmp_path, DataConfig(split_seed=2, test_fraction=0.5))
    assert again.splits == first.splits


def test_a_split_by_hand_is_taken(tmp_path: Path) -> None:
    write_folder(tmp_path, 4)
    (tmp_path / "splits.json").write_text('{"train": ["s0", "s1"], "test": ["s3"]}')
    dataset = open_dataset(tmp_path)
    assert [i.id for i in dataset.split("train")] == ["s0", "s1"]
    assert len(dataset.split("all")) == 4
    with pytest.raises(DataError, match="'val' is empty"):
        dataset.split("val")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"train": ["s0"], "test": ["s0"]}', "item 's0' is in both"),
        ('{"train": ["s0"], "test": ["nothere"]}', "'nothere'"),
        ('{"train": []}', "no items in any split"),
        ('{"train": "s0"}', "train: Input should be a valid list"),
        ("[1]", "no JSON object"),
        ("{", "no valid JSON"),
    ],
)
def test_bad_splits_are_refused(tmp_path: Path, text: str, named: str) -> None:
    write_folder(tmp_path, 3)
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(DataError, match=named) as caught:
        open_dataset(tmp_path)
    assert "splits.json" in caught.value.message


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    every = items([0, 0, 1])
    path = tmp_path / "splits.json"
    path.write_text('{"train": ["i000"], "test": ["i001"]}')
    with pytest.raises(DataError, match="group 'g0' is in both"):
        read_splits(path, every)


def test_images_of_the_same_ground_share_a_split(tmp_path: Path) -> None:
    """s1 overlaps s0 by half; whatever the seed, they stay together."""
    write_folder(tmp_path, 6)
    where = {"crs": "EPSG:32633", "transform": place(0, 64)}
    for folder in ("images", "labels"):
        write_raster(tmp_path / folder / "s1.tif", regions(96, 128, 3, 1), **where)
    for seed in range(3):
        (tmp_path / "splits.json").unlink(missing_ok=True)
        splits = open_dataset(tmp_path, DataConfig(split_seed=seed)).splits
        assert sum({"s0", "s1"} <= set(ids) for ids in splits.values()) == 1


def test_near_duplicates_without_georeference_share_a_split(tmp_path: Path) -> None:
    """Crops of one photograph, cut at another place and without a CRS."""
    root = write_folder(tmp_path, 6, size=(300, 300), suffix=".png")
    whole = picture(regions(500, 500, 3, 77), 77)
    for name, (row, col) in {"s2": (0, 0), "s4": (90, 120)}.items():
        write_raster(root / "images" / f"{name}.png", whole[:, row : row + 300, col : col + 300])
    for seed in range(3):
        (tmp_path / "splits.json").unlink(missing_ok=True)
        splits = open_dataset(tmp_path, DataConfig(split_seed=seed)).splits
        assert sum({"s2", "s4"} <= set(ids) for ids in splits.values()) == 1


def test_given_splits_that_leak_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part, count in (("train", 2), ("test", 1)):
        write_folder(tmp_path / part, count)
    open_dataset(tmp_path)
    assert "1 leaks" in caplog.text and "test/s0" in caplog.text and "train/s0" in caplog.text
