"""ClassMap: the names and colours of the classes, and the ignored value."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.errors import DataError, one_of

IGNORE = 255
MAX_CLASSES = 255

Colour = tuple[int, int, int]


CUSTOMARY: dict[str, Colour] = {
    "background": (0, 0, 0),
    "road": (255, 140, 0),
    "impervious": (190, 190, 190),
    "building": (200, 60, 60),
    "low vegetation": (170, 215, 110),
    "vegetation": (110, 180, 80),
    "grass": (170, 215, 110),
    "agriculture": (230, 205, 100),
    "tree": (30, 120, 50),
    "forest": (30, 120, 50),
    "car": (255, 230, 0),
    "water": (50, 120, 220),
    "land": (222, 200, 160),
    "barren": (185, 155, 110),
    "bare soil": (185, 155, 110),
    "clutter": (150, 80, 170),
}
"""Colours that map readers expect, by class name."""


def default_colours(names: Sequence[str]) -> tuple[Colour, ...]:
    """Return distinguishable RGB colours (0..255): customary ones, else golden steps in hue."""
    steps = (
        colorsys.hsv_to_rgb((0.09 + i * 0.381966) % 1.0, 0.62, 0.92 - 0.22 * (i % 2))
        for i in range(len(names))
    )
    other = [(round(r * 255), round(g * 255), round(b * 255)) for r, g, b in steps]
    chosen = [CUSTOMARY.get(n.lower(), c) for n, c in zip(names, other, strict=True)]
    return tuple(chosen if len(set(chosen)) == len(chosen) else other)


@dataclass(frozen=True)
class ClassMap:
    """Class ids 0..K-1 with a name and a colour each; 255 is ignored everywhere.

    Args:
        names: K distinct names, in the order of the ids.
        colours: K RGB triples, 0..255; distinct ones are made when empty.
        evaluated: Ids over which the means of the metrics run; all when empty.

    Raises:
        DataError: Fewer than 2 or more than 255 classes, doubled names, a colour short or outside
            0..255, or an evaluated id that is no class's.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    evaluated: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= MAX_CLASSES:
            raise DataError(
                f"{len(self.names)} classes: a class map has 2 to {MAX_CLASSES}",
                "name the background too, for example: background, road",
            )
        if len(set(self.names)) != len(self.names):
            raise DataError(
                f"doubled class names in {', '.join(self.names)}", "give each class its own name"
            )
        if not self.colours:
            object.__setattr__(self, "colours", default_colours(self.names))
        if len(self.colours) != len(self.names):
            raise DataError(
                f"{len(self.colours)} colours for {len(self.names)} classes",
                "give one colour for each class, or none",
            )
        if not all(0 <= value <= 255 for colour in self.colours for value in colour):
            raise DataError("a colour is outside 0..255", "give red, green and blue as 0 to 255")
        if not set(self.evaluated) <= set(range(len(self.names))):
            raise DataError(
                f"evaluated ids {self.evaluated} of {len(self.names)} classes",
                f"use ids from 0 to {len(self.names) - 1}",
            )
        if not self.evaluated:
            object.__setattr__(self, "evaluated", tuple(range(len(self.names))))

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the id of a class name.

        Raises:
            DataError: No class has this name.
        """
        if name not in self.names:
            raise DataError(f"no class '{name}' in the class map", one_of(name, self.names))
        return self.names.index(name)

    @property
    def css(self) -> list[str]:
        """The colours as a page writes them: ``#rrggbb``."""
        return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in self.colours]

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) lookup from id to RGB; ids without a class, 255 among them, are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colours
        return table

    def to_rgb(self, ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Colour an (H, W) array of ids: (H, W, 3) uint8."""
        return self.palette[ids]

    def from_rgb(
        self, rgb: NDArray[np.uint8], source: str, ignored: Sequence[Colour] = ((0, 0, 0),)
    ) -> NDArray[np.uint8]:
        """Read an (H, W, 3) colour label as (H, W) ids.

        Args:
            rgb: The label's colours, uint8.
            source: The label's file name, for the error.
            ignored: Colours read as 255.

        Raises:
            DataError: A colour that no class has; names the file, the colour and the pixel count.
        """
        packed = _pack(rgb.astype(np.uint32))
        ids = np.full(packed.shape, IGNORE, np.uint8)
        known = np.zeros(packed.shape, bool)
        pairs = [(c, IGNORE) for c in ignored] + [(c, i) for i, c in enumerate(self.colours)]
        for colour, value in pairs:
            hit = packed == _pack(np.asarray(colour, np.uint32))
            ids[hit] = value
            known |= hit
        if not known.all():
            values, counts = np.unique(packed[~known], return_counts=True)
            worst = int(values[counts.argmax()])
            r, g, b = worst >> 16, (worst >> 8) & 255, worst & 255
            raise DataError(
                f"{source}: colour {r},{g},{b} is no class ({int(counts.max())} pixels; "
                f"{len(values)} unknown colours in {int(counts.sum())} pixels)",
                "save the label without compression loss, or add the colour to the class map",
            )
        return ids

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "names": list(self.names),
            "colours": [list(c) for c in self.colours],
            "evaluated": list(self.evaluated),
            "ignore": IGNORE,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassMap:
        """Read what :meth:`to_dict` wrote; colours and evaluated may be missing."""
        return cls(
            tuple(str(n) for n in values["names"]),
            tuple((int(r), int(g), int(b)) for r, g, b in values.get("colours") or ()),
            tuple(int(i) for i in values.get("evaluated") or ()),
        )


def _pack(rgb: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return np.asarray((rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2], np.uint32)


ISPRS = ClassMap(
    ("impervious", "building", "low vegetation", "tree", "car", "clutter"),
    ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)),
    (0, 1, 2, 3, 4),
)
"""ISPRS Vaihingen and Potsdam; the benchmark's means leave clutter out."""

ROADS = ClassMap(("background", "road"), ((0, 0, 0), (255, 140, 0)))
"""Binary roads; a model's single logit z stands as (0, z)."""

CHANGES = ClassMap(("unchanged", "changed"), ((0, 0, 0), (220, 40, 40)))
"""Change between two dates."""
