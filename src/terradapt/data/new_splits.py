"""Splits of a dataset: read where they are, else drawn so that no ground is in two of them."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from terradapt.config import DataConfig
from terradapt.data.blocks import blocks_text, cut_blocks, draw_blocks, gap_note
from terradapt.data.corrections import is_corrected, lie_nowhere
from terradapt.data.dataset import SPLITS_NAME, Dataset, Item
from terradapt.data.joining import Tell, with_stored
from terradapt.data.labels import VectorForm
from terradapt.data.leaks import COMPARED, find_leaks, group_by_ground
from terradapt.data.splits import Splits, SplitsFile, check_splits, make_splits
from terradapt.data.vector_labels import touches
from terradapt.errors import DataError, OutputError

_LOG = logging.getLogger("terradapt")


def with_splits(
    dataset: Dataset,
    config: DataConfig,
    given: Splits | None = None,
    held: Path | None = None,
    tell: Tell = _LOG.warning,
) -> Dataset:
    """Return the dataset with the splits of its ``splits.json``, or with new ones.

    Before new splits are drawn, images of the same ground (overlapping footprints, near-duplicate
    crops) are grouped. Where that is not possible, and where the splits are given, what leaks is
    told as a warning. A single labelled image is cut into blocks. Where there are splits, new
    images join them: see :func:`terradapt.data.joining.with_stored`.

    Args:
        dataset: Without splits. Where its folder cannot be written, the splits are made anew each
            time, which gives the same ones.
        config: Fractions and seed of new splits; its crop is the gap between blocks.
        given: Splits that the folder's layout states.
        held: Splits of a run that goes on.
        tell: Called with a line for each thing that should be known.

    Raises:
        DataError: Splits that cannot be used, or too few images.
    """
    if held is not None or (dataset.root / SPLITS_NAME).is_file():
        return with_stored(dataset, config, tell, given, held)
    if not dataset.items:
        raise DataError(f"{dataset.root}: no image has a label", "label some of its images")
    pixels = sum(i.height * i.width for i in dataset.items) <= COMPARED
    alone = len(dataset.items) == 1
    grouped = None if given or alone else group_by_ground(dataset.items, pixels=pixels)
    items = grouped or dataset.items
    if config.corrections is not None and not given:
        given = corrected_splits(replace(dataset, items=items), config)
    path = dataset.root / SPLITS_NAME
    if given is not None:
        file = SplitsFile(given, "given", config.split_seed)
    elif alone:
        file = draw_blocks(dataset, items[0], config)
        tell(f"{dataset.root}: {blocks_text(file, items[0])}")
    else:
        file = SplitsFile(make_splits(items, config), "by_image", config.split_seed)
    dataset = cut_blocks(replace(dataset, items=items), file.blocks, path)
    check_splits(file.splits, dataset.items, str(path))
    with suppress(OutputError):
        file.write(path)
    notes = (gap_note(dataset.scenes, file.gap),) if file.gap else ()
    dataset = replace(dataset, splits=file.splits, protocol=file.protocol, notes=notes)
    leaks = [] if grouped else find_leaks(dataset, pixels=pixels)
    if leaks:
        text = f"{dataset.root}: {len(leaks)} leaks between train and the other splits: {leaks[0]}"
        tell(f"{text}; see: terradapt data check {dataset.root}")
    return dataset


def corrected_splits(dataset: Dataset, config: DataConfig) -> Splits:
    """Draw splits among the images with labels; those without train, and so does a single one.

    Raises:
        DataError: No correction lies on any image, and there are no other labels.
    """
    told = [i for i in dataset.items if _is_told(dataset, i)]
    if not told:
        raise lie_nowhere(config.corrections or "", dataset.root)
    if len({i.group for i in told}) < 2:
        return {"train": tuple(i.id for i in dataset.items), "val": (), "test": ()}
    splits = make_splits(told, config)
    home = {dataset.item(i).group: name for name, ids in splits.items() for i in ids}
    parts: dict[str, list[str]] = {name: [] for name in splits}
    for item in dataset.items:
        parts[home.get(item.group, "train")].append(item.id)
    return {name: tuple(ids) for name, ids in parts.items()}


def _is_told(dataset: Dataset, item: Item) -> bool:
    if is_corrected(dataset, item):
        return True
    if isinstance(dataset.label, VectorForm) and item.label is not None:
        return touches(item.label, dataset.label, item)
    return item.label is not None
