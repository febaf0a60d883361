"""Joining the classes of a checkpoint and of a dataset by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, MAX_CLASSES, ClassMap
from terradapt.errors import DataError


@dataclass(frozen=True)
class JoinedClasses:
    """One class map for labels and predictions.

    Attributes:
        classes: The dataset's classes, then those that only the checkpoint has; the evaluated ones
            are evaluated in the dataset and known to the checkpoint.
        labels: (256,) from the dataset's ids to the joined ones; 255 stays.
        predictions: (256,) from the checkpoint's ids to the joined ones; 255 stays.
        notes: What a reader of the figures must know; empty when both class maps are alike.
    """

    classes: ClassMap
    labels: NDArray[np.uint8]
    predictions: NDArray[np.uint8]
    notes: tuple[str, ...]


def join_classes(
    dataset: ClassMap, checkpoint: ClassMap, renamed: Mapping[str, str] | None = None
) -> JoinedClasses:
    """Join two class maps by name, letter case aside.

    A label of a class that the checkpoint does not know stays in the confusion matrix, so that a
    road predicted on it counts against the road's precision; the class itself has no score.

    Args:
        dataset: Classes of the labels.
        checkpoint: Classes of the predictions.
        renamed: Dataset's name -> checkpoint's name, for classes with two names.

    Raises:
        DataError: No common class, or a renamed class that is in neither.
    """
    renamed = dict(renamed or {})
    for ours, theirs in renamed.items():
        dataset.index(ours)
        checkpoint.index(theirs)
    wanted = [renamed.get(name, name).casefold() for name in dataset.names]
    known = {name.casefold(): i for i, name in enumerate(checkpoint.names)}
    common = [i for i, name in enumerate(wanted) if name in known]
    if not common:
        raise DataError(
            f"no class of the dataset ({', '.join(dataset.names)}) is a class of the checkpoint "
            f"({', '.join(checkpoint.names)})",
            "name the same classes alike with --match DATASET=CHECKPOINT, "
            "for example --match street=road",
        )
    extra = [i for name, i in known.items() if name not in wanted]
    names = (*dataset.names, *_free(dataset.names, [checkpoint.names[i] for i in extra]))
    if len(names) > MAX_CLASSES:
        raise DataError(f"{len(names)} classes together", "join fewer than 255 classes")
    colours = (*dataset.colours, *(checkpoint.colours[i] for i in extra))
    evaluated = tuple(i for i in dataset.evaluated if i in common) or tuple(common)
    predictions = np.full(256, IGNORE, np.uint8)
    for new, name in enumerate(wanted):
        if name in known:
            predictions[known[name]] = new
    for new, old in enumerate(extra, len(dataset)):
        predictions[old] = new
    labels = np.arange(256, dtype=np.uint8)
    unknown = [dataset.names[i] for i, name in enumerate(wanted) if name not in known]
    notes = _notes(unknown, [checkpoint.names[i] for i in extra], [names[i] for i in evaluated])
    return JoinedClasses(ClassMap(names, colours, evaluated), labels, predictions, notes)


def _free(taken: tuple[str, ...], names: list[str]) -> list[str]:
    return [f"{n} (checkpoint)" if n in taken else n for n in names]


def _notes(unknown: list[str], extra: list[str], evaluated: list[str]) -> tuple[str, ...]:
    notes = []
    if unknown:
        notes.append(
            f"The checkpoint does not know {_listed(unknown)}: these pixels stay in the confusion "
            "matrix, the classes are left out of the means."
        )
    if extra:
        notes.append(
            f"The dataset has no label {_listed(extra)}: pixels predicted so count as missed."
        )
    if notes:
        notes.append(f"The means are over {_listed(evaluated)}.")
    return tuple(notes)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
