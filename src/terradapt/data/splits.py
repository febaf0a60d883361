"""Splits by group, and ``splits.json``: written once, read by every later step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from terradapt.config import DataConfig
from terradapt.data.dataset import SPLITS_NAME, Dataset, Item
from terradapt.documents import validated
from terradapt.errors import DataError
from terradapt.files import read_json, write_json
from terradapt.grid import Window

NAMES = ("train", "val", "test")
UNLABELLED = "unlabelled"
"""A list in the file that is no split: labelled images that are used without their labels."""

Splits = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class SplitsFile:
    """What ``splits.json`` says.

    Args:
        splits: Item ids by split.
        protocol: How the splits were made.
        seed: Of the draw; None where the splits were not drawn here: written by hand, a paper's.
        joined: Ids that came after the draw and were added to ``train``.
        left_out: Ids that came after the draw and show ground of another split, or that their
            owner wants left out.
        blocks: Blocks of a scene that are items, by id: the scene's id, a colon, a name.
        gap: Pixels that lie between blocks of two splits.
        unlabelled: Ids of labelled images that are used without their labels.
    """

    splits: Splits
    protocol: str = "given"
    seed: int | None = None
    joined: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    blocks: Mapping[str, Window] = field(default_factory=dict)
    gap: int = 0
    unlabelled: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> SplitsFile:
        """Read a file, own or written by hand: ``{"train": [ids], "val": .., "test": ..}``.

        Raises:
            DataError: No valid JSON, or another kind of value.
        """
        values = read_json(path)
        own = {k: values.pop(k) for k in _Marks.model_fields if k in values}
        fix = "write each split as a JSON list of item ids"
        lists = validated(dict[str, list[str]], values, path, DataError, fix)
        marks = validated(_Marks, own, path, DataError, "remove the file to draw new splits")
        splits = {name: tuple(ids) for name, ids in lists.items()}
        unlabelled = splits.pop(UNLABELLED, ())
        return cls(
            {**dict.fromkeys(NAMES, ()), **splits},
            marks.protocol,
            marks.seed,
            marks.joined,
            marks.left_out,
            {name: Window(*place) for name, place in marks.blocks.items()},
            marks.gap,
            unlabelled,
        )

    def write(self, path: Path) -> Path:
        """Write the file; what is empty is left out, splits aside."""
        values: dict[str, Any] = {"protocol": self.protocol, "seed": self.seed}
        values |= {name: list(ids) for name, ids in self.splits.items()}
        if self.blocks:
            places = {k: [w.row, w.col, w.height, w.width] for k, w in self.blocks.items()}
            values |= {"gap": self.gap, "blocks": places}
        lists = {"joined": self.joined, "left_out": self.left_out, UNLABELLED: self.unlabelled}
        values |= {k: list(ids) for k, ids in lists.items() if ids}
        return write_json(path, values)


class _Marks(BaseModel):
    """What ``splits.json`` holds beside the lists of items."""

    protocol: str = "given"
    seed: int | None = None
    joined: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    blocks: dict[str, tuple[int, int, int, int]] = {}
    gap: int = 0


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
            "add images of other ground, or write splits.json by hand",
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


def write_splits(
    path: Path, splits: Mapping[str, Sequence[str]], protocol: str, seed: int | None
) -> Path:
    """Write splits with the protocol and seed that made them."""
    return SplitsFile({k: tuple(v) for k, v in splits.items()}, protocol, seed).write(path)


def read_splits(path: Path, items: Sequence[Item]) -> tuple[Splits, str]:
    """Read the splits of a file; items that none of them lists are left out.

    Raises:
        DataError: An unknown id, an id or a group in two splits, or nothing listed.
    """
    file = SplitsFile.read(path)
    check_splits(file.splits, items, str(path))
    return file.splits, file.protocol


def listed_ids(root: Path) -> frozenset[str]:
    """Return the images of a folder's drawn splits: a label of one may outlive its image."""
    with suppress(DataError):
        file = SplitsFile.read(root / SPLITS_NAME)
        if file.seed is not None:
            ids = {i for part in file.splits.values() for i in part}
            return frozenset(ids | {i.rpartition(":")[0] for i in file.blocks})
    return frozenset()


def splits_digest(dataset: Dataset) -> str:
    """Return what tells a dataset's splits from others: names and ids, whatever their order."""
    held = {name: sorted(ids) for name, ids in dataset.splits.items() if ids}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


def check_splits(
    splits: Mapping[str, Sequence[str]],
    items: Sequence[Item],
    source: str,
    unlabelled: Sequence[Item] = (),
) -> None:
    """Refuse splits with unknown, unlabelled or shared items.

    Raises:
        DataError: An id without a label or an image, one or a group in two splits, or none listed.
    """
    bare = {item.id for item in unlabelled}
    groups = {item.id: item.group for item in items}
    owner: dict[str, tuple[str, str]] = {}
    for name, ids in splits.items():
        for item_id in ids:
            if item_id in bare:
                raise DataError(
                    f"{source}: '{item_id}' in '{name}' has no label",
                    "label it, list it under 'unlabelled', or give data.corrections=FILE",
                )
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
