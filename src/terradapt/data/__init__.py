"""Datasets, splits, crops and augmentation.

All datasets come to one form: ``dataset.json`` (items, class map, label form) beside
``splits.json``; a bare folder of images and labels is read without either.
"""

from __future__ import annotations

from pathlib import Path

from terradapt.classes import ClassMap
from terradapt.config import DataConfig
from terradapt.data.corrections import corrections_file, on_ground, with_corrections
from terradapt.data.dataset import INDEX_NAME, Dataset, Item, load_index
from terradapt.data.labels import LabelForm
from terradapt.data.new_splits import with_splits
from terradapt.data.reading import read_image, read_mask, read_sample
from terradapt.data.specs import input_spec
from terradapt.errors import DataError
from terradapt.progress import Advance

__all__ = [
    "Dataset",
    "Item",
    "LabelForm",
    "input_spec",
    "open_dataset",
    "read_image",
    "read_mask",
    "read_sample",
]


def open_dataset(
    root: Path | str,
    config: DataConfig | None = None,
    progress: Advance | None = None,
    known: ClassMap | None = None,
    held: Path | None = None,
) -> Dataset:
    """Open a prepared dataset (``dataset.json``) or a bare folder, with its splits.

    The splits are read from ``splits.json``; where there is none, they are drawn and written.
    Images that came after the draw join ``train``, which is logged.

    Args:
        root: Folder of the dataset.
        config: Fractions and seed of new splits, and how vector labels are read.
        progress: Called with 1 for each label scanned.
        known: Classes of the model that a run starts from, where the folder states none and
            corrections are the only labels.
        held: Splits of a run that goes on, instead of the dataset's.

    Raises:
        DataError: No such folder, no images, no labels, or files that do not fit each other.
    """
    root, config = Path(root), config or DataConfig()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", "give the folder of a dataset")
    if (root / INDEX_NAME).is_file():
        corrections_file(config)
        dataset, given = with_corrections(on_ground(load_index(root), config), config), None
    else:
        from terradapt.data.folder import open_folder

        dataset, given = open_folder(root, config, progress, known)
    return with_splits(dataset, config, given, held)
