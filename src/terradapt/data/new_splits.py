"""Splits of a dataset: read where they are, else drawn so that no ground is in two of them."""

from __future__ import annotations

import logging
from dataclasses import replace

from terradapt.config import DataConfig
from terradapt.data.dataset import SPLITS_NAME, Corrections, Dataset, Item
from terradapt.data.labels import VectorForm
from terradapt.data.splits import Splits, make_splits, open_splits
from terradapt.data.vector_labels import touches
from terradapt.errors import DataError

COMPARED = 250_000_000  # px; datasets up to this size are compared by pixels before a split
_LOG = logging.getLogger("terradapt")


def with_splits(dataset: Dataset, config: DataConfig, given: Splits | None = None) -> Dataset:
    """Return the dataset with the splits of its ``splits.json``, or with new ones.

    Before new splits are drawn, images of the same ground (overlapping footprints, near-duplicate
    crops) are grouped. Where that is not possible, and where the splits are given, what leaks is
    told as a warning.

    Args:
        dataset: Without splits.
        config: Fractions and seed of new splits.
        given: Splits that the folder's layout states.

    Raises:
        DataError: Splits that cannot be used, or too few images.
    """
    if (dataset.root / SPLITS_NAME).is_file():
        splits, protocol = open_splits(dataset.root, dataset.items, config)
        return replace(dataset, splits=splits, protocol=protocol)
    from terradapt.data.leaks import find_leaks, group_by_ground

    pixels = sum(i.height * i.width for i in dataset.items) <= COMPARED
    grouped = None if given else group_by_ground(dataset.items, pixels=pixels)
    items = grouped or dataset.items
    if config.corrections is not None and not given:
        given = corrected_splits(replace(dataset, items=items), config)
    splits, protocol = open_splits(dataset.root, items, config, given)
    dataset = replace(dataset, items=items, splits=splits, protocol=protocol)
    leaks = [] if grouped else find_leaks(dataset, pixels=pixels)
    if leaks:
        text = "%s: %d leaks between train and the other splits: %s; see: terradapt data check %s"
        _LOG.warning(text, dataset.root, len(leaks), leaks[0], dataset.root)
    return dataset


def corrected_splits(dataset: Dataset, config: DataConfig) -> Splits:
    """Draw splits among the images with labels; those without train, and so does a single one.

    Raises:
        DataError: No correction lies on any image, and there are no other labels.
    """
    above = dataset.corrections
    told = [i for i in dataset.items if _is_told(dataset, i, above)]
    if not told:
        raise DataError(
            f"{config.corrections}: no correction lies on an image of {dataset.root}",
            "check the CRS of the corrections and of the images",
        )
    if len({i.group for i in told}) < 2:
        return {"train": tuple(i.id for i in dataset.items), "val": (), "test": ()}
    splits = make_splits(told, config)
    home = {dataset.item(i).group: name for name, ids in splits.items() for i in ids}
    parts: dict[str, list[str]] = {name: [] for name in splits}
    for item in dataset.items:
        parts[home.get(item.group, "train")].append(item.id)
    return {name: tuple(ids) for name, ids in parts.items()}


def _is_told(dataset: Dataset, item: Item, above: Corrections | None) -> bool:
    if above is not None and touches(above.path, above.form, item):
        return True
    if isinstance(dataset.label, VectorForm) and item.label is not None:
        return touches(item.label, dataset.label, item)
    return item.label is not None
