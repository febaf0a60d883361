"""Splits of a dataset: read where they are, else drawn so that no ground is in two of them."""

from __future__ import annotations

import logging
from dataclasses import replace

from terradapt.config import DataConfig
from terradapt.data.dataset import SPLITS_NAME, Dataset
from terradapt.data.splits import Splits, open_splits

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
    splits, protocol = open_splits(dataset.root, items, config, given)
    dataset = replace(dataset, items=items, splits=splits, protocol=protocol)
    leaks = [] if grouped else find_leaks(dataset, pixels=pixels)
    if leaks:
        text = "%s: %d leaks between train and the other splits: %s; see: terradapt data check %s"
        _LOG.warning(text, dataset.root, len(leaks), leaks[0], dataset.root)
    return dataset
