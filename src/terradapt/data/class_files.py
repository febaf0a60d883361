"""``classes.yaml`` or ``classes.json`` of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from terradapt.classes import IGNORE, ClassMap, Colour
from terradapt.config import ConfigPart
from terradapt.documents import Name, parse_yaml, validated
from terradapt.errors import DataError, refusing
from terradapt.files import read_text

CLASS_FILES = ("classes.yaml", "classes.yml", "classes.json")
MOST_CLASSES = 64  # that labels alone may suggest
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
    values = parse_yaml(read_text(path, DataError, EXAMPLE), path, DataError, EXAMPLE)
    if isinstance(values, list):
        values = {"names": values}
    if not isinstance(values, dict) or "names" not in values:
        raise DataError(f"{path}: no 'names'", EXAMPLE)
    unknown = sorted(set(map(str, values)) - set(_Document.model_fields))
    if unknown:
        known = ", ".join(sorted(_Document.model_fields))
        raise DataError(f"{path}: unknown key '{unknown[0]}'", f"keys: {known}")
    stated = validated(_Document, values, path, DataError, EXAMPLE)
    with refusing(path, DataError, EXAMPLE, "does not fit"):
        return stated.read(path)


def _as_colour(value: Any) -> Any:
    if isinstance(value, str) and len(value.lstrip("#")) == 6:
        packed = int(value.lstrip("#"), 16)
        return packed >> 16, (packed >> 8) & 255, packed & 255
    return value


_Byte = Annotated[int, Field(ge=0, le=255)]
_Value = Annotated[int, Field(ge=-(1 << 31), lt=1 << 32)]
_Colour = Annotated[tuple[_Byte, _Byte, _Byte], BeforeValidator(_as_colour)]


class _Document(ConfigPart):
    """The keys of a classes file."""

    names: tuple[Name, ...]
    values: tuple[_Value, ...] | None = None
    colours: tuple[_Colour, ...] | None = None
    colors: tuple[_Colour, ...] | None = None
    ignore: tuple[_Value | _Colour, ...] | None = None
    evaluated: tuple[int | Name, ...] | None = None
    threshold: _Byte | None = None

    @field_validator("ignore", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    def read(self, path: Path) -> ClassFile:
        """Return what the keys mean together.

        Raises:
            ValueError: Values for another number of names, or an evaluated class that is none.
            DataError: Names or colours that make no class map.
        """
        if self.values is not None and len(self.values) != len(self.names):
            raise ValueError(f"{len(self.values)} values for {len(self.names)} names")
        if self.values is not None and len(set(self.values)) != len(self.values):
            raise ValueError("two classes have one value")
        colours = self.colours or self.colors or ()
        missing = [e for e in self.evaluated or () if isinstance(e, str) and e not in self.names]
        if missing:
            raise ValueError(f"evaluated: no class is called '{missing[0]}'")
        evaluated = tuple(
            e if isinstance(e, int) else self.names.index(e) for e in self.evaluated or ()
        )
        ignore = self.ignore
        return ClassFile(
            path,
            ClassMap(self.names, colours, evaluated),
            self.values,
            bool(colours),
            (IGNORE,) if ignore is None else tuple(v for v in ignore if isinstance(v, int)),
            ((0, 0, 0),) if ignore is None else tuple(v for v in ignore if isinstance(v, tuple)),
            self.threshold,
        )
