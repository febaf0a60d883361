"""Prepare anyone's own folder: an index with absolute paths, splits and class statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from terradapt.config import DataConfig
from terradapt.data.dataset import SPLITS_NAME, Dataset, Item
from terradapt.data.folder import open_folder
from terradapt.data.new_splits import with_splits
from terradapt.data.splits import SplitsFile
from terradapt.documents import validated
from terradapt.errors import DataError, one_of
from terradapt.files import check_output
from terradapt.owner import owned
from terradapt.progress import Track, silent

OPTIONS = (
    "crop",
    "val_fraction",
    "test_fraction",
    "split_seed",
    "class_column",
    "line_width",
    "background",
    "corrections",
)
OWN = ("name", "resolution")  # that are no part of a run's config


def prepare(source: Path, out: Path, options: Mapping[str, Any], track: Track = silent) -> Dataset:
    """Index a folder of images and labels into ``out``; the files stay where they are.

    Args:
        source: The folder: ``images/`` with ``labels/`` or ``masks/``, or a vector label file.
        out: Where ``dataset.json`` and ``splits.json`` go.
        options: ``crop`` (px, the gap between blocks of a single image), ``val_fraction``,
            ``test_fraction``, ``split_seed``, ``class_column``, ``line_width`` (m), ``background``
            (ignore or class), ``name``, ``resolution`` (m/px of images that do not say it).
        track: Progress.

    Raises:
        DataError: An unknown option, or a folder that is no dataset.
    """
    config = folder_config(options)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder", "give a folder with images/ and labels/")
    check_output(out, folder=True)
    with track(None, "labels", "files") as advance:
        dataset, given = open_folder(source, config, advance)
    if dataset.corrections is not None:
        raise DataError(
            f"{source}: an index holds no corrections above labels",
            "leave them out here, and give them to each run: data.corrections=FILE",
        )
    stated = options.get("resolution")
    items, bare = (_measured(part, stated) for part in (dataset.items, dataset.unlabelled))
    name = str(options.get("name", dataset.name))
    dataset = replace(dataset, root=out, name=name, items=items, unlabelled=bare)
    with owned(out, folder=True):
        dataset.save()
        if out.resolve() != source.resolve() and (source / SPLITS_NAME).is_file():
            SplitsFile.read(source / SPLITS_NAME).write(out / SPLITS_NAME)
        return with_splits(dataset, config, given)


def folder_config(options: Mapping[str, Any]) -> DataConfig:
    """Return the config of a folder's options.

    Raises:
        DataError: An unknown option, or a value of the wrong kind.
    """
    known = (*OPTIONS, *OWN)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise DataError(
            f"no option '{unknown[0]}' for a folder", one_of(unknown[0], known, "options: ")
        )
    own = {k: v for k, v in options.items() if k in OPTIONS}
    return validated(DataConfig, own, "options", DataError, "correct its value")


def _measured(items: tuple[Item, ...], resolution: Any) -> tuple[Item, ...]:
    """Items with a stated resolution where their files have none."""
    if resolution is None:
        return items
    if isinstance(resolution, bool) or not isinstance(resolution, int | float) or resolution <= 0:
        raise DataError(
            f"option resolution: {resolution} is no length", "give metres per pixel above 0"
        )
    return tuple(replace(i, resolution=i.resolution or float(resolution)) for i in items)
