"""``classes.yaml`` or ``classes.json`` of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from terradapt.classes import IGNORE, ClassMap, Colour
from terradapt.errors import DataError
from terradapt.plain_yaml import load_yaml

CLASS_FILES = ("classes.yaml", "classes.yml", "classes.json")
MOST_CLASSES = 64  # that labels alone may suggest
_KEYS = {"names", "values", "colours", "colors", "ignore", "evaluated", "threshold"}
EXAMPLE = "see docs/data.md; the shortest: names: [background, road]"


@dataclass(frozen=True)
class ClassFile:
    """What a folder's classes file states.

    Args:
        path: The file.
        classes: Names, colours and evaluated classes.
        values: Value of each class in the label files; None when not stated.
        coloured: Whether the file gives colours.
        ignored: Values read as 255.
        ignored_colours: Colours read as 255.
        threshold: Binary labels: values from here on are class 1.
    """

    path: Path
    classes: ClassMap
    values: tuple[int, ...] | None
    coloured: bool
    ignored: tuple[int, ...]
    ignored_colours: tuple[Colour, ...]
    threshold: int | None


def read_class_file(root: Path) -> ClassFile | None:
    """Read ``classes.yaml`` (or ``.yml``, ``.json``) of a folder; None when there is none.

    Keys: ``names`` (in the order of the ids), ``values`` (their values in the labels),
    ``colours``, ``ignore`` (values or colours), ``evaluated`` (names), ``threshold`` (binary).

    Raises:
        DataError: It is no such file.
    """
    path = next((root / n for n in CLASS_FILES if (root / n).is_file()), None)
    if path is None:
        return None
    try:
        values = load_yaml(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no valid YAML or JSON", EXAMPLE) from error
    if isinstance(values, list):
        values = {"names": values}
    if not isinstance(values, dict) or "names" not in values:
        raise DataError(f"{path}: no 'names'", EXAMPLE)
    unknown = sorted(set(map(str, values)) - _KEYS)
    if unknown:
        raise DataError(f"{path}: unknown key '{unknown[0]}'", f"keys: {', '.join(sorted(_KEYS))}")
    try:
        return _class_file(path, values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}", EXAMPLE) from error


def _class_file(path: Path, values: Mapping[str, Any]) -> ClassFile:
    names = tuple(str(n) for n in values["names"])
    colours = tuple(_colour(c) for c in values.get("colours") or values.get("colors") or ())
    evaluated = tuple(
        e if isinstance(e, int) else names.index(str(e)) for e in values.get("evaluated") or ()
    )
    ignore = values.get("ignore")
    ignore = [ignore] if isinstance(ignore, int) else ignore
    own = values.get("values")
    if own is not None and len(own) != len(names):
        raise ValueError(f"{len(own)} values for {len(names)} names")
    return ClassFile(
        path,
        ClassMap(names, colours, evaluated),
        tuple(int(v) for v in own) if own is not None else None,
        bool(colours),
        (IGNORE,) if ignore is None else tuple(v for v in ignore if isinstance(v, int)),
        ((0, 0, 0),)
        if ignore is None
        else tuple(_colour(c) for c in ignore if not isinstance(c, int)),
        int(values["threshold"]) if values.get("threshold") is not None else None,
    )


def _colour(value: Any) -> Colour:
    if isinstance(value, str) and len(value.lstrip("#")) == 6:
        packed = int(value.lstrip("#"), 16)
        return packed >> 16, (packed >> 8) & 255, packed & 255
    r, g, b = (int(v) for v in value)
    return r, g, b
