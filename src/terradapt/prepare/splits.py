"""Splits of benchmarks: the papers', the benchmarks' own, or drawn by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from terradapt.config import DataConfig
from terradapt.data.dataset import Item
from terradapt.data.splits import Splits, make_splits
from terradapt.errors import DataError
from terradapt.prepare.options import Benchmark

GROUP = 100  # crops that are shuffled together (SAM2MS section IV-A)
TEST_SHARE = 0.3


def check_split(benchmark: Benchmark, split: str) -> None:
    """Refuse a split that the benchmark's files cannot make.

    Raises:
        DataError: Tiles of the paper's split are missing, no paper has a split, or the files state
            none.
    """
    if split == "official" and benchmark.official is None:
        raise DataError(
            f"{benchmark.name}: its files state no split",
            "use split=by_image" + ("" if benchmark.paper == {} else " or split=paper"),
        )
    if split == "paper" and benchmark.paper is not None:
        if not benchmark.paper:
            raise DataError(
                f"{benchmark.name}: neither paper has a split of it",
                "use split=by_image" + (" or split=official" if benchmark.official else ""),
            )
        found = {record.id for record in benchmark.records}
        missing = [i for ids in benchmark.paper.values() for i in ids if i not in found]
        if missing:
            raise missing_tiles(benchmark.name, missing)


def missing_tiles(name: str, missing: Sequence[str]) -> DataError:
    """Return the error that names the tiles of the paper's split that are not there."""
    shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
    return DataError(
        f"{name}: {len(missing)} tiles of the paper's split are missing: {shown}",
        "add their image and label files, or use split=by_image for what is there",
    )


def splits_of(
    benchmark: Benchmark, items: Sequence[Item], split: str, seed: int
) -> tuple[Splits, int | None]:
    """Return the items of every split, and the seed that drew them (None where none did)."""
    if split == "official":
        assert benchmark.official is not None
        return _by_group(benchmark.official, items), None
    if split == "paper" and benchmark.paper is not None:
        return _by_group(benchmark.paper, items), None
    if split == "paper":
        return shuffled_groups([item.id for item in items], seed), seed
    config = DataConfig(val_fraction=0.1, test_fraction=TEST_SHARE, split_seed=seed)
    return make_splits(items, config), seed


def _by_group(stated: Mapping[str, Sequence[str]], items: Sequence[Item]) -> Splits:
    """Splits of groups as splits of their items."""
    home = {name: split for split, ids in stated.items() for name in ids}
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for item in items:
        if item.group in home:
            splits[home[item.group]].append(item.id)
    return {name: tuple(ids) for name, ids in splits.items()}


def shuffled_groups(ids: Sequence[str], seed: int) -> Splits:
    """Split shuffled crops as SAM2MS does: groups of 100, 7 : 3. Crops of one image leak.

    Whole groups go to either side, the test's share rounded up: this meets the printed counts of
    DeepGlobe (4326 / 1900) and SpaceNet (7096 / 3100); 70 : 30 inside each group does not.
    """
    rng = np.random.default_rng([seed, 0x5A32])
    shuffled = [ids[i] for i in rng.permutation(len(ids))]
    groups = [shuffled[i : i + GROUP] for i in range(0, len(shuffled), GROUP)]
    count = min(-(-len(groups) * 3 // 10), len(groups) - 1)
    full = [g for g in groups if len(g) == GROUP]
    test = {name for group in full[:count] for name in group}
    if not test:  # fewer than two groups: nothing but the share can be kept
        test = set(shuffled[: max(1, round(len(ids) * TEST_SHARE))])
    return {
        "train": tuple(sorted(set(ids) - test)),
        "val": (),
        "test": tuple(sorted(test)),
    }
