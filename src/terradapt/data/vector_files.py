"""Read vector label files, and find out which column names the class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ROADS, ClassMap
from terradapt.config import DataConfig
from terradapt.data.class_files import MOST_CLASSES, ClassFile
from terradapt.data.labels import VectorForm
from terradapt.errors import DataError
from terradapt.raster import FeatureLayer, read_layer
from terradapt.raster.features import IMAGE_COLUMN

CLASS_COLUMNS = (
    "class",
    "class_id",
    "classid",
    "class_name",
    "classname",
    "label",
    "label_id",
    "category",
    "landcover",
    "land_cover",
    "landuse",
    "land_use",
    "cover",
    "code",
    "klasse",
)
"""Column names that say that they name the class."""
_BACKGROUND = {"background", "other", "none"}


def column_texts(features: FeatureLayer, name: str, path: Path) -> list[str | None]:
    """Return a column's values as text, None where missing or blank.

    Raises:
        DataError: There is no such column.
    """
    if name not in features.columns:
        known = ", ".join(features.columns) or "none"
        raise DataError(f"{path}: no column '{name}'", f"columns: {known}")
    return [_text(v) for v in features.columns[name]]


def vector_classes(
    path: Path, config: DataConfig, stated: ClassFile | None
) -> tuple[ClassMap, VectorForm]:
    """Return class map and label form of a vector label file.

    The class column is ``data.class_column``, else the one whose name says so, else the only one
    with few distinct values. Without any, all features are of one class: ``road`` for lines, the
    file's name for polygons. Where no feature lies is class ``background`` if there is one, and
    ignored otherwise; ``data.background`` says which instead.

    Raises:
        DataError: No such column, several that may be meant, or a value that no class has.
    """
    features = read_layer(path)
    lines = bool((shapely.get_dimensions(features.geometries) == 1).any())
    column, keys = _column_keys(features, path, config, lines)
    if column is None or keys is None:
        return _one_class(path, lines, config, stated)
    wanted = lines or config.background == "class"
    classes, table = _class_table(keys, stated, path, column, wanted)
    background = background_of(classes, config, IGNORE, path)
    return classes, VectorForm(column, table, 1, background, config.line_width)


def background_of(classes: ClassMap, config: DataConfig, otherwise: int, path: Path) -> int:
    """Return the class id of ground without a feature, as the config or the classes say.

    Args:
        classes: The class map.
        config: ``data.background``.
        otherwise: Where the config says nothing and no class is called background.
        path: The label file, for errors.

    Raises:
        DataError: Background is to be a class, and none is called so.
    """
    if config.background == "ignore":
        return IGNORE
    names = [n.lower() for n in classes.names]
    found = next((i for i, n in enumerate(names) if n in _BACKGROUND), None)
    if found is None and config.background == "class":
        raise DataError(
            f"{path}: no class is the background ({', '.join(classes.names)})",
            f"call one {' or '.join(sorted(_BACKGROUND))}, or set data.background=ignore",
        )
    return otherwise if found is None else found


def class_keys(path: Path, config: DataConfig) -> tuple[str | None, list[str] | None]:
    """Return the class column of a vector file and its values as text; None without one.

    Raises:
        DataError: As :func:`vector_classes`.
    """
    features = read_layer(path)
    lines = bool((shapely.get_dimensions(features.geometries) == 1).any())
    return _column_keys(features, path, config, lines)


def _column_keys(
    features: FeatureLayer, path: Path, config: DataConfig, lines: bool
) -> tuple[str | None, list[str] | None]:
    column = config.class_column or _class_column(features, path, lines)
    if column is None:
        return None, None
    texts = Counter(k for k in column_texts(features, column, path) if k is not None)
    if not texts:
        raise DataError(
            f"{path}: column '{column}' names no class: all {len(features.geometries)} values are "
            "missing or blank",
            "fill it in, or name another column with data.class_column=NAME",
        )
    return column, sorted(texts, key=lambda k: (_order(k), -texts[k], k))


def spellings(form: VectorForm, classes: ClassMap) -> Iterator[str]:
    """Say which texts of a column stand for a class whose name they differ from by case or blanks.

    Args:
        form: How the column's texts become classes.
        classes: The class map.
    """
    for class_id, name in enumerate(classes.names):
        texts = sorted(text for text, found in form.classes.items() if found == class_id)
        odd = [t for t in texts if t != name and t.strip().casefold() == name.casefold()]
        if odd:
            yield f"{', '.join(map(repr, odd))} read as '{name}'"


def _one_class(
    path: Path, lines: bool, config: DataConfig, stated: ClassFile | None
) -> tuple[ClassMap, VectorForm]:
    classes = ROADS if lines else ClassMap(("background", path.stem))
    if stated is not None:
        classes = stated.classes
        if len(classes) != 2:
            raise DataError(
                f"{path}: no class column, and {stated.path.name} has {len(classes)} classes",
                "name the column with data.class_column=NAME",
            )
    background = IGNORE if config.background == "ignore" else 0
    return classes, VectorForm(None, {}, 1, background, config.line_width)


def _class_column(features: FeatureLayer, path: Path, lines: bool) -> str | None:
    named = [c for c in features.columns if c.lower() in CLASS_COLUMNS]
    if len(named) == 1:
        return named[0]
    rest = [c for c in features.columns if c.lower() != IMAGE_COLUMN]
    likely = named or [c for c in rest if _is_likely(features.columns[c])]
    if not likely or (lines and not named):
        return None
    if len(likely) == 1:
        return likely[0]
    raise DataError(
        f"{path}: several columns may name the class: {', '.join(likely[:8])}",
        f"say which: data.class_column={likely[0]}",
    )


def _is_likely(values: NDArray[Any]) -> bool:
    """Few distinct texts or integers, some of them repeated."""
    if values.dtype.kind == "f" or not len(values):
        return False
    distinct = len({_text(v) for v in values})
    return 2 <= distinct <= min(MOST_CLASSES, len(values) - 1)


def _class_table(
    keys: Sequence[str], stated: ClassFile | None, path: Path, column: str, background: bool
) -> tuple[ClassMap, dict[str, int]]:
    if stated is not None:
        return stated.classes, _stated_table(keys, stated, path, column)
    if len(keys) > MOST_CLASSES:
        raise DataError(
            f"{path}: column '{column}' has {len(keys)} distinct values, too many for classes",
            "name another column with data.class_column=NAME",
        )
    spellings: dict[str, list[str]] = {}  # of a class, the commonest first
    for key in keys:
        spellings.setdefault(key.strip().casefold(), []).append(key)
    own = [alike[0].strip() for alike in spellings.values()]
    names = [f"class {k}" if is_number(k) else k for k in own]
    if (background or len(names) == 1) and not any(n.lower() in _BACKGROUND for n in names):
        names = ["background", *names]
    first = len(names) - len(own)
    table = {key: i + first for i, alike in enumerate(spellings.values()) for key in alike}
    return ClassMap(tuple(names)), table


def _stated_table(
    keys: Sequence[str], stated: ClassFile, path: Path, column: str
) -> dict[str, int]:
    names = {n.strip().casefold(): i for i, n in enumerate(stated.classes.names)}
    values = stated.values or tuple(range(len(stated.classes)))
    numbers = {str(v): i for i, v in enumerate(values)}
    ignored = {str(v): IGNORE for v in stated.ignored}
    table: dict[str, int] = {}
    for key in keys:
        text = key.strip()
        found = names.get(text.casefold(), numbers.get(text, ignored.get(text)))
        if found is None:
            raise DataError(
                f"{path}: '{text}' in column '{column}' is no class of {stated.path.name}",
                f"classes: {', '.join(stated.classes.names)}",
            )
        table[key] = found
    return table


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    return text if text.strip() else None


def is_number(text: str) -> bool:
    """Tell whether a class value is an integer as text."""
    return text.strip().lstrip("-").isdecimal()


def _order(key: str) -> tuple[int, int, str]:
    text = key.strip()
    return (0, int(text), "") if is_number(text) else (1, 0, text.casefold())
