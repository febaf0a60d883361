"""LabelForm: how a label file's values stand for classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap, Colour
from terradapt.errors import DataError

Kind = Literal["index", "colour", "binary", "vector"]


@dataclass(frozen=True)
class VectorForm:
    """How the features of a vector label file become classes.

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
        return {**self.__dict__, "classes": dict(self.classes)}


@dataclass(frozen=True)
class LabelForm:
    """How raw label values are read as class ids 0..K-1 and 255 = ignore.

    Args:
        kind: ``index``: one band of values; ``binary``: one band, background and one class;
            ``colour``: RGB colours of the class map; ``vector``: features of a vector file.
        values: File value to class id (index and binary).
        ignored: File values read as 255.
        ignored_colours: Colours read as 255.
        threshold: Binary only: values at and above it are class 1, below it class 0; the
            other fields are then unused.
        vector: How features are read (vector only).
    """

    kind: Kind = "index"
    values: Mapping[int, int] = field(default_factory=dict)
    ignored: tuple[int, ...] = (IGNORE,)
    ignored_colours: tuple[Colour, ...] = ((0, 0, 0),)
    threshold: int | None = None
    vector: VectorForm | None = None

    @classmethod
    def identity(cls, num_classes: int) -> LabelForm:
        """Return the form of labels whose values are the class ids."""
        return cls("index", {i: i for i in range(num_classes)})

    @cached_property
    def table(self) -> NDArray[np.int16]:
        """(256,) lookup from an 8-bit file value to class id, 255 = ignore, -1 = unknown."""
        table = np.full(256, -1, np.int16)
        if self.threshold is not None:
            table[:] = np.arange(256) >= self.threshold
            return table
        for value in self.ignored:
            if 0 <= value < 256:
                table[value] = IGNORE
        for value, class_id in self.values.items():
            if 0 <= value < 256:
                table[value] = class_id
        return table

    def class_of(self, value: int, classes: ClassMap) -> int:
        """Return the class id of one raw value (a packed 0xRRGGBB for colours), -1 if unknown."""
        if self.kind == "colour":
            colour = (value >> 16, (value >> 8) & 255, value & 255)
            if colour in classes.colours:
                return classes.colours.index(colour)
            return IGNORE if colour in self.ignored_colours else -1
        return int(self.table[value]) if 0 <= value < 256 else -1

    def decode(self, raw: NDArray[Any], classes: ClassMap, source: str) -> NDArray[np.uint8]:
        """Read raw label values as class ids.

        Args:
            raw: (C, H, W) label bands as in the file.
            classes: The class map; its colours matter for colour labels.
            source: The label's file name, for errors.

        Returns:
            (H, W) ids, 255 = ignore.

        Raises:
            DataError: A value or colour that is no class; names the file, it and its pixel count.
        """
        if self.kind == "colour":
            if raw.shape[0] < 3:
                raise DataError(
                    f"{source}: {raw.shape[0]} band where a colour label has 3",
                    "save the label as RGB, or remove the colours from the classes file",
                )
            rgb = np.ascontiguousarray(np.moveaxis(raw[:3], 0, -1)).astype(np.uint8, copy=False)
            return classes.from_rgb(rgb, source, self.ignored_colours)
        return self._decode_values(raw[0], source)

    def _decode_values(self, band: NDArray[Any], source: str) -> NDArray[np.uint8]:
        if band.dtype != np.uint8:
            wide = (band < 0) | (band > 255) | (band != np.floor(band))
            if wide.any():
                raise unknown_values(source, band[wide])
            band = band.astype(np.uint8)
        ids: NDArray[np.int16] = self.table[band]
        if ids.min(initial=0) < 0:
            raise unknown_values(source, band[ids < 0])
        return ids.astype(np.uint8)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "kind": self.kind,
            "values": {str(k): v for k, v in self.values.items()},
            "ignored": list(self.ignored),
            "ignored_colours": [list(c) for c in self.ignored_colours],
            "threshold": self.threshold,
            "vector": self.vector.to_dict() if self.vector else None,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelForm:
        """Read what :meth:`to_dict` wrote."""
        vector = values.get("vector")
        return cls(
            values["kind"],
            {int(k): int(v) for k, v in values.get("values", {}).items()},
            tuple(int(v) for v in values.get("ignored", (IGNORE,))),
            tuple((int(r), int(g), int(b)) for r, g, b in values.get("ignored_colours", ())),
            values.get("threshold"),
            VectorForm(**vector) if vector else None,
        )


def unknown_values(source: str, values: NDArray[Any]) -> DataError:
    """Return the error for label values that no class has."""
    found, counts = np.unique(values, return_counts=True)
    worst = found[counts.argmax()]
    more = f"; {len(found)} unknown values in all" if len(found) > 1 else ""
    return DataError(
        f"{source}: label value {worst:g} is no class ({int(counts.max())} pixels{more})",
        "mend the label, or list the value in classes.yaml under 'values' or 'ignore'",
    )
