"""What of a dataset is counted: its labels, checked; the class of the road; its threshold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from terradapt.classes import ClassMap
from terradapt.data import Dataset, Item
from terradapt.data.reading import ItemReader
from terradapt.errors import ConfigError, DataError
from terradapt.evaluation.joining import JoinedClasses
from terradapt.evaluation.options import Protocol
from terradapt.evaluation.predicting import Road, score_item
from terradapt.evaluation.scoring import one_against_all
from terradapt.grid import Window
from terradapt.meta import Meta
from terradapt.metrics.per_image import ImageHistogram, best_threshold
from terradapt.scene import Predictor
from terradapt.training.aligning import ALIGNED, align_labels

_REST = {"background", "other", "rest", "none"}  # names of what is not the road


def as_trained(dataset: Dataset, meta: Meta | None, splits: Collection[str | None]) -> Dataset:
    """Return the dataset with its labels where a training on it read them.

    A model that was trained with ``data.align=auto`` has learnt labels of ``train`` and ``val``
    that were moved onto their images; where they lie in the files they are no measure of it.

    Args:
        dataset: With its splits.
        meta: Of the model.
        splits: Those that are asked for.
    """
    own = meta is not None and meta.alignment is not None and meta.data == dataset.name
    if not own or not set(ALIGNED) & set(splits):
        return dataset
    moved, told = align_labels(dataset)
    return replace(moved, notes=(*moved.notes, f"as in training, {told}")) if told else dataset


def counted_labels(dataset: Dataset, split: str, protocol: Protocol) -> Dataset:
    """Return the dataset with the labels that the protocol counts."""
    items = dataset.split(split)
    if protocol.labels == "eroded":
        for item in items:
            if item.eroded is None:
                raise DataError(
                    f"{item.image}: has no eroded label",
                    "evaluate with --labels full, or with --erode 3",
                )
    some = any(item.eroded is not None for item in items)
    return dataset.with_eroded_labels() if some and protocol.labels != "full" else dataset


def road_of(joined: JoinedClasses, checkpoint: ClassMap, name: str | None) -> Road | None:
    """The class with per-image figures, where the checkpoint has it."""
    if name is None and len(checkpoint) != 2:
        return None
    if name is not None:
        score = checkpoint.index(name)
    else:
        score = 0 if checkpoint.names[1].casefold() in _REST else 1
    return Road(int(joined.predictions[score]), score)


def check_items(dataset: Dataset, items: Sequence[Item], predictor: Predictor) -> None:
    """Meet the faults that would come up after hours: labels missing or of another size."""
    for item in items:
        if not dataset.is_labelled(item):
            raise DataError(
                f"{item.image}: has no label to be evaluated against",
                "label it, or leave it out of the split in splits.json",
            )
    for item in items:
        with ItemReader(dataset, item, predictor.spec) as reader:
            reader.mask(Window(0, 0, 1, 1))


def choose_threshold(
    full: Dataset,
    predictor: Predictor,
    joined: JoinedClasses,
    protocol: Protocol,
    road: Road | None,
) -> float:
    """Choose the threshold with the highest F1 on the images of ``protocol.threshold_from``.

    Args:
        full: The dataset, with its full labels.
        predictor: The model.
        joined: Classes of labels and predictions.
        protocol: What is counted.
        road: The class that has a threshold.

    Raises:
        ConfigError: The model has more than two classes.
        DataError: No such split, or no labelled pixel of the road in it.
    """
    assert protocol.threshold_from is not None
    if road is None or len(predictor.classes) != 2:
        raise ConfigError(
            f"a threshold is chosen for 2 classes, the model has {len(predictor.classes)}",
            "leave the threshold out: the class with the highest score is taken",
        )
    dataset = counted_labels(full, protocol.threshold_from, protocol)
    items = dataset.split(protocol.threshold_from)
    check_items(dataset, items, predictor)
    histogram = ImageHistogram()
    for item in items:
        image = score_item(dataset, item, predictor, joined, protocol, road)
        assert image.grey is not None
        histogram.update(one_against_all(image.target, road.joined), image.grey)
    if not histogram.counts[1].any():
        raise DataError(
            f"{dataset.root}: no pixel of '{joined.classes.names[road.joined]}' is labelled in the "
            f"split '{protocol.threshold_from}', no threshold can be chosen there",
            "give a threshold as a number, or label images of the split",
        )
    return best_threshold(histogram)
