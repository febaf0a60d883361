"""VectorizeOptions: how a map becomes polygons or a network, as people ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from terradapt.options import check_fields
from terradapt.vector.polygons.extract import PolygonOptions
from terradapt.vector.roads.extract import RoadOptions


@dataclass(frozen=True)
class VectorizeOptions:
    """How a map becomes polygons or a network; metres throughout.

    Args:
        scores: Roads: raster of scores on the labels' grid.
        threshold: Roads: of scores given as labels, 0..1.
        max_width: Roads: widest road, m.
        min_spur: Roads: shortest dead end, m.
        max_gap: Roads: longest gap that is closed, m; 0 closes none.
        simplify: Deviation allowed, m; None is half a pixel for roads, 0 for polygons.
        min_area: Polygons: smaller ones join their neighbour, square metres.
        buildings: Polygons: class (name or id) that gets right angles.
        block: Side of the blocks that are worked on, px; the result does not depend on it.
        overwrite: Replace a file that is there.

    Raises:
        ConfigError: A value of the wrong kind or out of range.
    """

    scores: Path | None = None
    threshold: float = 0.5
    max_width: float = 40.0
    min_spur: float = 8.0
    max_gap: float = 25.0
    simplify: float | None = None
    min_area: float = 0.0
    buildings: str | int | None = None
    block: int = 2048
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def roads(self) -> RoadOptions:
        """What a network is made with."""
        widths = self.max_width, self.min_spur, self.max_gap
        return RoadOptions.of(*widths, self.simplify, self.block)

    def polygons(self, square: int | None) -> PolygonOptions:
        """Return what polygons are made with.

        Args:
            square: Id of the class with right angles.
        """
        return PolygonOptions(self.simplify or 0.0, self.min_area, square, self.block)


class VectorizeChoices(TypedDict, total=False):
    """The fields of :class:`VectorizeOptions` as keywords, for type checkers and editors."""

    scores: str | Path | None
    threshold: float
    max_width: float
    min_spur: float
    max_gap: float
    simplify: float | None
    min_area: float
    buildings: str | int | None
    block: int
    overwrite: bool
