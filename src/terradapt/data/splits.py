"""Splits by group, written once to ``splits.json`` and read by every later step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from terradapt.config import DataConfig
from terradapt.data.dataset import SPLITS_NAME, Dataset, Item
from terradapt.documents import validated
from terradapt.errors import DataError
from terradapt.files import read_json, write_json

NAMES = ("train", "val", "test")

Splits = dict[str, tuple[str, ...]]


def make_splits(items: Sequence[Item], config: DataConfig) -> Splits:
    """Draw train, val and test by group, from the seed and the ids alone.

    With three groups or more, val and test hold at least one each when their fraction is not 0;
    with two, one trains and one validates.

    Args:
        items: All items; those of one group stay together.
        config: ``val_fraction``, ``test_fraction``, ``split_seed``.

    Raises:
        DataError: Fewer than two groups.
    """
    groups: dict[str, list[str]] = {}
    for item in sorted(items, key=lambda i: i.id):
        groups.setdefault(item.group, []).append(item.id)
    if len(groups) < 2:
        raise DataError(
            f"{items[0].image.parent if items else 'dataset'}: {len(groups)} image "
            "(or group of images) cannot be split into train and val",
            "cut the scene into two or more images, or write splits.json by hand",
        )
    names = sorted(groups)
    order = np.random.default_rng([config.split_seed, 0x5711]).permutation(len(names))
    drawn = [names[i] for i in order]
    counts = _group_counts(len(names), config)
    bounds = np.cumsum([0, *counts])
    parts = {
        part: [i for g in drawn[a:b] for i in groups[g]]
        for part, a, b in zip(("test", "val", "train"), bounds[:-1], bounds[1:], strict=True)
    }
    return {part: tuple(sorted(parts[part])) for part in NAMES}


def _group_counts(total: int, config: DataConfig) -> tuple[int, int, int]:
    def share(fraction: float, least: int) -> int:
        return max(round(total * fraction), 1 if total >= least else 0) if fraction else 0

    test = share(config.test_fraction, 3)
    val = share(config.val_fraction, 2)
    while test + val >= total:
        test, val = (test - 1, val) if test >= val and test else (test, val - 1)
    return test, val, total - test - val


def open_splits(
    root: Path, items: Sequence[Item], config: DataConfig, given: Splits | None = None
) -> tuple[Splits, str]:
    """Read ``root/splits.json``, or make the splits and write it.

    Args:
        root: Folder of the dataset. Where it cannot be written, the splits are made anew each
            time, which gives the same ones.
        items: All items.
        config: Fractions and seed for new splits.
        given: Splits that the folder's layout states; they are used instead of drawn ones.

    Returns:
        Item ids by split name, and the protocol's name.

    Raises:
        DataError: An unknown id, an id or a group in two splits, or nothing listed.
    """
    path = root / SPLITS_NAME
    if path.exists():
        return read_splits(path, items)
    protocol = "given" if given else "by_image"
    splits = given or make_splits(items, config)
    check_splits(splits, items, str(path))
    with suppress(OSError):
        write_splits(path, splits, protocol, config.split_seed)
    return splits, protocol


def write_splits(
    path: Path, splits: Mapping[str, Sequence[str]], protocol: str, seed: int | None
) -> Path:
    """Write splits with the protocol and seed that made them."""
    values = {"protocol": protocol, "seed": seed, **{k: list(v) for k, v in splits.items()}}
    return write_json(path, values)


def read_splits(path: Path, items: Sequence[Item]) -> tuple[Splits, str]:
    """Read a splits file, own or written by hand: ``{"train": [ids], "val": .., "test": ..}``.

    Items that no split lists are left out.

    Raises:
        DataError: An unknown id, an id or a group in two splits, or nothing listed.
    """
    values = read_json(path)
    protocol = str(values.pop("protocol", "given"))
    values.pop("seed", None)
    fix = "write each split as a JSON list of item ids"
    lists = validated(dict[str, list[str]], values, path, DataError, fix)
    splits = {**dict.fromkeys(NAMES, ()), **{name: tuple(ids) for name, ids in lists.items()}}
    check_splits(splits, items, str(path))
    return splits, protocol


def splits_digest(dataset: Dataset) -> str:
    """Return what tells a dataset's splits from others: names and ids, whatever their order."""
    held = {name: sorted(ids) for name, ids in dataset.splits.items() if ids}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


def check_splits(splits: Mapping[str, Sequence[str]], items: Sequence[Item], source: str) -> None:
    """Refuse splits with unknown or shared items.

    Raises:
        DataError: An unknown id, an id or a group in two splits, or nothing listed.
    """
    groups = {item.id: item.group for item in items}
    owner: dict[str, tuple[str, str]] = {}
    for name, ids in splits.items():
        for item_id in ids:
            if item_id not in groups:
                raise DataError(
                    f"{source}: '{item_id}' in '{name}' is no image of this dataset",
                    "correct the id, or remove the file to draw new splits",
                )
            for key in (f"item '{item_id}'", f"group '{groups[item_id]}'"):
                other, _ = owner.setdefault(key, (name, item_id))
                if other != name:
                    raise DataError(
                        f"{source}: {key} is in both '{other}' and '{name}'",
                        "list it in one split only: a score on trained images means nothing",
                    )
    if not any(splits.values()):
        raise DataError(f"{source}: no items in any split", "list item ids under 'train' or 'test'")
