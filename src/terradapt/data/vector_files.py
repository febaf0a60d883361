"""Read vector label files, and find out which column names the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Features:
    """The features of a layer.

    Args:
        geometries: (N,) shapely geometries, None where missing.
        columns: Column name to (N,) values.
        crs: The layer's CRS as text, or None.
    """

    geometries: NDArray[Any]
    columns: dict[str, NDArray[Any]]
    crs: str | None

    def column(self, name: str, path: Path) -> list[str | None]:
        """Return a column's values as text, None where missing.

        Raises:
            DataError: There is no such column.
        """
        if name not in self.columns:
            known = ", ".join(self.columns) or "none"
            raise DataError(f"{path}: no column '{name}'", f"columns: {known}")
        return [_text(v) for v in self.columns[name]]


def read_features(path: Path, layer: str | None = None) -> Features:
    """Read all features of a vector file.

    Raises:
        DataError: It cannot be read, or it has several layers and none is named.
    """
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty", "copy or save it again")
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        if layer is None and len(layers) > 1:
            raise DataError(
                f"{path}: has {len(layers)} layers: {', '.join(layers[:6])}",
                "save the layer of the labels as a file of its own",
            )
        meta, _, wkb, values = pyogrio.raw.read(path, layer=layer or next(iter(layers), None))
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: cannot be read as vector labels ({reason})",
            "save it as GeoPackage or GeoJSON again",
        ) from error
    shapes = np.empty(0, object) if wkb is None else shapely.from_wkb(wkb, on_invalid="ignore")
    columns = {str(n): np.asarray(v) for n, v in zip(meta["fields"], values, strict=True)}
    return Features(shapely.force_2d(shapes), columns, meta["crs"])


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
    features = read_features(path)
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
    features = read_features(path)
    lines = bool((shapely.get_dimensions(features.geometries) == 1).any())
    return _column_keys(features, path, config, lines)


def _column_keys(
    features: Features, path: Path, config: DataConfig, lines: bool
) -> tuple[str | None, list[str] | None]:
    column = config.class_column or _class_column(features, path, lines)
    if column is None:
        return None, None
    return column, sorted({k for k in features.column(column, path) if k is not None}, key=_order)


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


def _class_column(features: Features, path: Path, lines: bool) -> str | None:
    named = [c for c in features.columns if c.lower() in CLASS_COLUMNS]
    if len(named) == 1:
        return named[0]
    likely = named or [c for c in features.columns if _is_likely(features.columns[c])]
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
    names = [f"class {k}" if is_number(k) else k for k in keys]
    if (background or len(names) == 1) and not any(n.lower() in _BACKGROUND for n in names):
        names = ["background", *names]
    first = len(names) - len(keys)
    return ClassMap(tuple(names)), {k: i + first for i, k in enumerate(keys)}


def _stated_table(
    keys: Sequence[str], stated: ClassFile, path: Path, column: str
) -> dict[str, int]:
    names = {n.lower(): i for i, n in enumerate(stated.classes.names)}
    values = stated.values or tuple(range(len(stated.classes)))
    numbers = {str(v): i for i, v in enumerate(values)}
    ignored = {str(v): IGNORE for v in stated.ignored}
    table: dict[str, int] = {}
    for key in keys:
        found = names.get(key.lower(), numbers.get(key, ignored.get(key)))
        if found is None:
            raise DataError(
                f"{path}: '{key}' in column '{column}' is no class of {stated.path.name}",
                f"classes: {', '.join(stated.classes.names)}",
            )
        table[key] = found
    return table


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def is_number(text: str) -> bool:
    """Tell whether a class value is an integer as text."""
    return text.lstrip("-").isdecimal()


def _order(key: str) -> tuple[int, int, str]:
    return (0, int(key), "") if is_number(key) else (1, 0, key.lower())
