"""How a label file's values, colours or features stand for classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap, Colour
from terradapt.errors import DataError

BLACK: Colour = (0, 0, 0)


class ValueForm(ABC):
    """Labels of one band, whose values a table reads."""

    @property
    @abstractmethod
    def table(self) -> NDArray[np.int16]:
        """(256,) lookup from an 8-bit file value to class id, 255 = ignore, -1 = unknown."""

    @abstractmethod
    def class_of(self, value: int, classes: ClassMap) -> int:
        """Return the class id of one file value, 255 = ignore, -1 if unknown."""

    def named(self, value: int) -> str:
        """Return what an error calls a file value."""
        return f"label value {value}"

    def decode(self, raw: NDArray[Any], classes: ClassMap, source: str) -> NDArray[np.uint8]:
        """Read raw label values as class ids.

        Args:
            raw: (C, H, W) label bands as in the file; the first one counts.
            classes: The class map.
            source: The label's file name, for errors.

        Returns:
            (H, W) ids, 255 = ignore.

        Raises:
            DataError: A value that is no class; names the file, it and its pixel count.
        """
        band = raw[0]
        if band.dtype.kind in "iu" and band.size and band.min() >= 0 and band.max() <= 255:
            band = band.astype(np.uint8, copy=False)
        if band.dtype == np.uint8:
            ids: NDArray[np.int16] = self.table[band]
        else:
            found, places = np.unique(band, return_inverse=True)
            known = [self.class_of(int(v), classes) if v == np.floor(v) else -1 for v in found]
            ids = np.array(known, np.int16)[places.reshape(band.shape)]
        if ids.min(initial=0) < 0:
            raise _no_class(source, band[ids < 0])
        return ids.astype(np.uint8)


@dataclass(frozen=True)
class IndexForm(ValueForm):
    """Each file value stands for one class.

    Args:
        values: File value to class id.
        ignored: File values read as 255.
    """

    values: Mapping[int, int]
    ignored: tuple[int, ...] = (IGNORE,)

    @classmethod
    def identity(cls, num_classes: int) -> IndexForm:
        """Return the form of labels whose values are the class ids."""
        return cls({i: i for i in range(num_classes)})

    @cached_property
    def table(self) -> NDArray[np.int16]:
        """(256,) lookup from an 8-bit file value to class id, 255 = ignore, -1 = unknown."""
        table = np.full(256, -1, np.int16)
        for value in self.ignored:
            if 0 <= value < 256:
                table[value] = IGNORE
        for value, class_id in self.values.items():
            if 0 <= value < 256:
                table[value] = class_id
        return table

    def class_of(self, value: int, classes: ClassMap) -> int:
        """Return the class id of one file value, 255 = ignore, -1 if unknown."""
        return self.values.get(value, IGNORE if value in self.ignored else -1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {str(k): v for k, v in self.values.items()}
        return _stored("index", values=values, ignored=list(self.ignored))


@dataclass(frozen=True)
class ThresholdForm(ValueForm):
    """File values at and above a threshold are class 1, those below it class 0.

    Args:
        threshold: 0..255.
    """

    threshold: int

    @cached_property
    def table(self) -> NDArray[np.int16]:
        """(256,) lookup from an 8-bit file value to class id."""
        return (np.arange(256) >= self.threshold).astype(np.int16)

    def class_of(self, value: int, classes: ClassMap) -> int:
        """Return the class id of one file value."""
        return int(value >= self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return _stored("binary", threshold=self.threshold)


@dataclass(frozen=True)
class ColourForm:
    """RGB labels in the colours of the class map.

    Args:
        ignored: Colours read as 255.
    """

    ignored: tuple[Colour, ...] = (BLACK,)

    def class_of(self, value: int, classes: ClassMap) -> int:
        """Return the class id of a packed 0xRRGGBB, 255 = ignore, -1 if unknown."""
        colour = (value >> 16, (value >> 8) & 255, value & 255)
        if colour in classes.colours:
            return classes.colours.index(colour)
        return IGNORE if colour in self.ignored else -1

    def named(self, value: int) -> str:
        """Return what an error calls a packed colour."""
        return f"colour {value >> 16},{(value >> 8) & 255},{value & 255}"

    def decode(self, raw: NDArray[Any], classes: ClassMap, source: str) -> NDArray[np.uint8]:
        """Read label colours as class ids.

        Args:
            raw: (C, H, W) label bands as in the file, C >= 3.
            classes: The class map with its colours.
            source: The label's file name, for errors.

        Returns:
            (H, W) ids, 255 = ignore.

        Raises:
            DataError: Fewer than three bands, or a colour that is no class; names the file, it and
                its pixel count.
        """
        if raw.shape[0] < 3:
            raise DataError(
                f"{source}: {raw.shape[0]} band where a colour label has 3",
                "save the label as RGB, or remove the colours from the classes file",
            )
        rgb = np.ascontiguousarray(np.moveaxis(raw[:3], 0, -1)).astype(np.uint8, copy=False)
        return classes.from_rgb(rgb, source, self.ignored)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return _stored("colour", ignored_colours=[list(c) for c in self.ignored])


@dataclass(frozen=True)
class VectorForm:
    """Features of a vector file; :class:`terradapt.data.vector_labels.VectorSource` burns them.

    Args:
        column: Attribute that names the class; None when every feature is of class ``single``.
        classes: Attribute value, as text, to class id.
        single: Class id of every feature when there is no column.
        background: Class id where no feature lies; 255 when the features cover all that is known.
        line_width: Width of line features, m.
        layer: Layer of the file, or None for its only one.
    """

    column: str | None = None
    classes: Mapping[str, int] = field(default_factory=dict)
    single: int = 1
    background: int = 0
    line_width: float = 6.0
    layer: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return _stored("vector", vector={**self.__dict__, "classes": dict(self.classes)})


RasterForm = IndexForm | ThresholdForm | ColourForm
LabelForm = RasterForm | VectorForm
"""How label files are read as class ids 0..K-1 and 255 = ignore."""


def decode_shown(
    decode: Callable[[NDArray[Any]], NDArray[np.uint8]], raw: NDArray[Any], valid: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Decode the pixels of a label that are data; the others are 255, whatever they hold.

    Args:
        decode: From (C, H, W) label bands to (H, W) ids.
        raw: (C, H, W) label bands as in the file.
        valid: (H, W): where they are data.
    """
    if valid.all():
        return decode(raw)
    if not valid.any():
        return np.full(valid.shape, IGNORE, np.uint8)
    row, col = np.unravel_index(int(valid.argmax()), valid.shape)
    try:  # with a shown value in place of the hidden ones: far faster than picking pixels
        ids = decode(np.where(valid, raw, raw[:, row, col][:, None, None]))
    except DataError:
        ids = np.full(valid.shape, IGNORE, np.uint8)
        ids[valid] = decode(raw[:, None, valid])[0]  # counts the pixels that are shown alone
    ids[~valid] = IGNORE
    return ids


def label_form(values: Mapping[str, Any]) -> LabelForm:
    """Return the form that a ``to_dict`` wrote.

    Raises:
        KeyError: A value is missing.
        ValueError: Another kind of form.
    """
    kind = values["kind"]
    if kind == "vector":
        return VectorForm(**values["vector"])
    if kind == "colour":
        colours = values.get("ignored_colours", ())
        return ColourForm(tuple((int(r), int(g), int(b)) for r, g, b in colours))
    if values.get("threshold") is not None:
        return ThresholdForm(int(values["threshold"]))
    if kind not in ("index", "binary"):
        raise ValueError(f"no kind of labels is called '{kind}'")
    table = {int(k): int(v) for k, v in values.get("values", {}).items()}
    return IndexForm(table, tuple(int(v) for v in values.get("ignored", (IGNORE,))))


def _stored(kind: str, **own: Any) -> dict[str, Any]:
    """The keys of all forms with one form's values, as every version of the index has them."""
    empty: dict[str, Any] = {
        "values": {},
        "ignored": [IGNORE],
        "ignored_colours": [list(BLACK)],
        "threshold": None,
        "vector": None,
    }
    return {"kind": kind, **empty, **own}


def _no_class(source: str, values: NDArray[Any]) -> DataError:
    """The error for label values that no class has."""
    found, counts = np.unique(values, return_counts=True)
    worst = found[counts.argmax()]
    more = f"; {len(found)} unknown values in all" if len(found) > 1 else ""
    return DataError(
        f"{source}: label value {worst:g} is no class ({int(counts.max())} pixels{more})",
        "mend the label, or, for a folder of your own, list the value in classes.yaml under "
        "'values' or 'ignore'",
    )
