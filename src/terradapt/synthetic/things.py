"""What stands in a city: patches of ground, buildings, trees, cars."""

from __future__ import annotations

from dataclasses import dataclass, field

from terradapt.synthetic.style import RGB


@dataclass(frozen=True, slots=True)
class Patch:
    """An oriented rectangle on the ground; ``kind`` is a key of the renderer's covers."""

    x: float
    y: float
    angle: float
    length: float
    width: float
    kind: str


@dataclass(frozen=True, slots=True)
class Building:
    """A box with a roof, metres; ``clutter`` marks containers and the like."""

    x: float
    y: float
    angle: float
    length: float
    width: float
    eave: float
    roof: str  # "gable", "hip", "flat", "mono"
    slope: float
    colour: RGB
    seed: int
    clutter: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """A crown, metres; ``tone`` scales its colour, ``conifer`` narrows its top."""

    x: float
    y: float
    radius: float
    height: float
    tone: float
    warm: float
    conifer: bool


@dataclass(frozen=True, slots=True)
class Car:
    """A car or a van, metres."""

    x: float
    y: float
    angle: float
    length: float
    width: float
    height: float
    colour: RGB


@dataclass
class Things:
    """What stands in a part of a city."""

    patches: list[Patch] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    cars: list[Car] = field(default_factory=list)

    def extend(self, other: Things) -> None:
        """Add another part."""
        self.patches += other.patches
        self.buildings += other.buildings
        self.trees += other.trees
        self.cars += other.cars
