"""Corrections: a vector file above the labels that are there, or the only labels.

Inside a correction its class counts; elsewhere the older label, or 255 where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from terradapt.classes import IGNORE, ClassMap, Colour, default_colours
from terradapt.config import DataConfig
from terradapt.data.class_files import CLASS_FILES, ClassFile
from terradapt.data.dataset import Corrections, Dataset, Item
from terradapt.data.labels import BLACK, IndexForm, LabelForm, VectorForm
from terradapt.data.vector_files import background_of, class_keys, is_number, vector_classes
from terradapt.data.vector_labels import touches
from terradapt.errors import DataError


def only_corrections(
    path: Path, config: DataConfig, stated: ClassFile | None, known: ClassMap | None
) -> tuple[ClassMap, VectorForm]:
    """Return class map and label form where corrections are the only labels.

    Unlabelled ground is ignored unless ``data.background=class``.

    Args:
        path: The corrections.
        config: Class column, line width, background.
        stated: The folder's classes file.
        known: Classes of the model that a run starts from.

    Raises:
        DataError: The file cannot be read, or a class is not clear.
    """
    config = config.model_copy(update={"background": config.background or "ignore"})
    classes = stated.classes if stated else known
    if classes is None:
        return vector_classes(path, config, None)
    _, keys = class_keys(path, config)
    more = _with_new(classes, keys)
    empty = ClassFile(path.parent / CLASS_FILES[0], more, None, False, (), (), None)
    given = replace(stated, classes=more) if stated else empty
    if keys is None and len(more) > 2:
        raise _unclear(path, more)
    return vector_classes(path, config, given)


def with_corrections(dataset: Dataset, config: DataConfig) -> Dataset:
    """Lay a run's corrections above a dataset's labels; new names become further classes.

    Raises:
        DataError: The file cannot be read, or a value is no class.
    """
    if config.corrections is None:
        return dataset
    path = Path(config.corrections)
    every = (*dataset.items, *dataset.unlabelled)  # corrections may label any of them
    dataset = replace(dataset, items=tuple(sorted(every, key=lambda i: i.id)), unlabelled=())
    column, keys = class_keys(path, config)
    if column is None or keys is None:
        if len(dataset.classes) > 2:
            raise _unclear(path, dataset.classes)
        form = VectorForm(None, {}, 1, IGNORE, config.line_width)
        return replace(dataset, corrections=Corrections(path, form))
    classes = _with_new(dataset.classes, keys)
    names = {name.casefold(): i for i, name in enumerate(classes.names)}
    values = _values(dataset.label, len(dataset.classes))
    texts = {key: key.strip() for key in keys}
    table = {k: names.get(t.casefold(), values.get(t, -1)) for k, t in texts.items()}
    lost = [key for key, found in table.items() if found < 0]
    if lost:
        raise DataError(
            f"{path}: '{lost[0]}' in column '{column}' is no class",
            f"classes: {', '.join(classes.names)}; a new one needs a name, not a number",
        )
    form = VectorForm(column, table, 1, IGNORE, config.line_width)
    return replace(dataset, classes=classes, corrections=Corrections(path, form))


def is_corrected(dataset: Dataset, item: Item) -> bool:
    """Tell whether a correction lies on an item.

    Raises:
        DataError: The image has no place for them, and no label.
    """
    above = dataset.corrections
    return above is not None and touches(above.path, above.form, item)


def lie_nowhere(file: str | Path, root: Path) -> DataError:
    """Return the error of corrections that lie on no image."""
    return DataError(
        f"{file}: no correction lies on an image of {root}",
        "check the CRS of the corrections and of the images",
    )


def on_ground(dataset: Dataset, config: DataConfig) -> Dataset:
    """Let ``data.background`` say what ground without a feature is in a prepared dataset.

    Raises:
        DataError: Background is to be a class, and none is called so.
    """
    label = dataset.label
    if config.background is None or not isinstance(label, VectorForm):
        return dataset
    ground = background_of(dataset.classes, config, label.background, dataset.root)
    return replace(dataset, label=replace(label, background=ground))


def corrections_file(config: DataConfig) -> Path | None:
    """Return the corrections that a config names.

    Raises:
        DataError: No such file.
    """
    if config.corrections is None:
        return None
    path = Path(config.corrections)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file of corrections", "give a vector file: data.corrections=FILE"
        )
    return path


def _with_new(classes: ClassMap, keys: Sequence[str] | None) -> ClassMap:
    """The classes, then those that only the corrections name."""
    known = {name.casefold() for name in classes.names}
    texts = [k.strip() for k in keys or ()]
    new = [k for k in texts if k.casefold() not in known and not is_number(k)]
    new = list({k.casefold(): k for k in reversed(new)}.values())[::-1]  # the commonest spelling
    if not new:
        return classes
    names = (*classes.names, *new)
    colours: list[Colour] = list(classes.colours)
    offered = (*default_colours(names)[len(classes) :], *default_colours([""] * 255))
    for _ in new:
        colours.append(next(c for c in offered if c not in colours and c != BLACK))
    evaluated = (*classes.evaluated, *range(len(classes), len(names)))
    return ClassMap(names, tuple(colours), evaluated)


def _values(label: LabelForm, count: int) -> dict[str, int]:
    """What numbers stand for in the older labels: their values, else the classes' ids."""
    if isinstance(label, IndexForm):
        return {str(v): i for v, i in label.values.items()}
    if isinstance(label, VectorForm) and label.column is not None:
        return {k: i for k, i in label.classes.items() if i != IGNORE}
    return {str(i): i for i in range(count)}


def _unclear(path: Path, classes: ClassMap) -> DataError:
    return DataError(
        f"{path}: no column says which of {', '.join(classes.names)} a feature is",
        "name the column 'class', or say which it is with data.class_column=NAME",
    )
