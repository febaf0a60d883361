"""Pairing: what of two sides is compared with what, and how it is done."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from terradapt.changes import raster
from terradapt.changes.calibration import IDENTITY, ChangeTable, read_table
from terradapt.changes.dates import DatePair, TwoScenes, shift_of_images
from terradapt.changes.networks import Edges, changed_edges, has_roads, no_edges
from terradapt.changes.objects import (
    Objects,
    changed_regions,
    footprints,
    joined_objects,
    matched_polygons,
    no_objects,
    square_metres,
)
from terradapt.changes.options import GROWN, CompareOptions
from terradapt.changes.raster import Pair, Rows
from terradapt.changes.roads import CHANGED, GONE, NEW
from terradapt.changes.sides import (
    Joined,
    MapSide,
    Side,
    VectorSide,
    common_ground,
    match_classes,
)
from terradapt.errors import ConfigError, DataError
from terradapt.files import read_json, write_json
from terradapt.preflight.alignment import Shift as Estimate
from terradapt.progress import Track
from terradapt.raster import Georef
from terradapt.raster.cog import TILE
from terradapt.scene import Predictor

UNTOLD = "not told"
"""The class before and after where a model says only that something changed."""
_UNSURE, _MOST_REACH = 2, 16  # px


@dataclass
class Result:
    """What a comparison found.

    Args:
        polygons: Areas.
        edges: Roads.
        rows: The notes of the rows of the raster.
        extra: Further figures.
    """

    polygons: Objects
    edges: Edges
    rows: list[dict[str, Any]]
    extra: dict[str, Any]


@dataclass
class Pairing:
    """What is compared with what, settled before anything is written.

    Attributes:
        old: The earlier side.
        new: The later side.
        options: How.
        joined: The classes; None where only roads are compared.
        roads: Roads are compared.
        pair: Both on one grid; None for two vector files.
        area: What is looked at, in the result's CRS.
        notes: What should be known.
        found: The estimated shift, where it is known before anything is mapped.
    """

    old: Side
    new: Side
    options: CompareOptions
    joined: Joined | None
    roads: bool
    pair: Pair | None
    area: tuple[Any, ...]
    notes: list[str] = field(default_factory=list)
    found: Estimate | None = None

    @classmethod
    def of(cls, old: Side, new: Side, options: CompareOptions) -> Pairing:
        """Settle what is compared.

        Raises:
            TerradaptError: The two sides have nothing in common.
        """
        vectors = [s for s in (old, new) if isinstance(s, VectorSide)]
        roads = has_roads(old) and has_roads(new)
        surfaces = all(len(s.polygons) for s in vectors)
        if not surfaces and not roads:
            lines = next(s for s in vectors if not len(s.polygons))
            other = new if lines is old else old
            has = "polygons" if isinstance(other, VectorSide) else ", ".join(other.names)
            raise DataError(
                f"{lines.path}: has lines, {other.path} has no roads but {has}",
                "compare roads with roads: a file of lines, or a map with the class road",
            )
        joined = match_classes(old, new, options.classes) if surfaces else None
        notes: list[str] = []
        for side, alone in zip((old, new), joined.alone if joined else ((), ()), strict=True):
            if alone:
                notes.append(
                    f"{side.path}: {', '.join(alone)}: not on the other side, taken as "
                    f"'{joined.names[joined.rest] if joined else ''}'"
                )
        if not surfaces and any(len(s.polygons) for s in vectors):
            notes.append("only roads are compared: one side has no polygons")
        if not roads and any(len(s.lines) for s in vectors):
            notes.append("only polygons are compared: one side has no roads")
        table = read_table(options.calibration)
        if len(vectors) == 2:
            if (vectors[0].crs is None) != (vectors[1].crs is None):
                bare = next(v for v in vectors if v.crs is None)
                raise DataError(f"{bare.path}: has no CRS, the other side has one", "give it one")
            area = raster.read_area(options.aoi, None, vectors[1].crs)
            return cls(old, new, options, joined, roads, None, area, notes)
        georef = common_ground(old, new, options.resolution)
        area = raster.read_area(options.aoi, georef, georef.crs)
        reach = (options.reach or 0) / _pixel(georef)
        if reach > _MOST_REACH:
            raise ConfigError(
                f"a reach of {reach:.0f} px is more than {_MOST_REACH}",
                "use a smaller --reach, or a coarser --resolution",
            )
        names = joined or Joined(("other",), (), (), ((), ()))
        pair = Pair(
            old, new, georef, names, table=table, threshold=options.threshold,
            grow=_grow(options, table), area=area,
        )  # fmt: skip
        notes += _grid_notes(pair)
        return cls(old, new, options, joined, roads, pair, area, notes)

    @classmethod
    def direct(
        cls, old: MapSide, new: MapSide, options: CompareOptions, predictor: Predictor
    ) -> Pairing:
        """Settle how two scenes are compared by a model that takes both dates at once.

        Args:
            old: The earlier scene.
            new: The later scene; what the model says is its map.
            options: How.
            predictor: The model; its first class is what has not changed.

        Raises:
            ConfigError: Options that need the classes of each date.
            TerradaptError: The two sides have nothing in common, or cannot be read.
        """
        if options.classes:
            raise ConfigError(
                f"a model of two dates knows {', '.join(predictor.classes.names)} and no classes "
                "of the ground",
                "leave --classes out, or use a model of land cover",
            )
        georef = common_ground(old, new, options.resolution)
        names = (UNTOLD, *predictor.classes.names[1:])
        ids = tuple(range(len(names)))
        table = read_table(options.calibration)
        pair = Pair(
            old, new, georef, Joined(names, ids, ids, ((), ())), reach=0, table=table,
            threshold=options.threshold, grow=_grow(options, table),
            area=raster.read_area(options.aoi, georef, georef.crs), direct=True,
        )  # fmt: skip
        notes = [
            "the model takes both dates at once and says where something changed: which class was "
            "there before and after, and what is new or gone, it does not know"
        ]
        run = cls(old, new, options, pair.joined, False, pair, pair.area, notes)
        if options.align:
            assert old.scene is not None and new.scene is not None
            with TwoScenes(DatePair(old.scene, new.scene, georef), predictor.spec) as scene:
                run.found = shift_of_images(scene)
            run.pair = pair = replace(pair, shift=raster.used_shift(run.found))
        notes += _grid_notes(pair)
        return run

    def compared(self, work: Path, signature: str, rows: Rows, bar: Track | None) -> Result:
        """Compare; rasters go to the work folder."""
        options = self.options
        polygons, notes = no_objects(), list[dict[str, Any]]()
        extra: dict[str, Any] = {}
        if self.pair is None:
            assert isinstance(self.old, VectorSide) and isinstance(self.new, VectorSide)
            polygons = no_objects(self.new.crs)
            if self.joined is not None:
                polygons, off = matched_polygons(
                    self.old, self.new, options.min_area, self.area, options.align
                )
                extra["shift_m"] = [round(off[0], 3), round(off[1], 3)]
                self.notes.append(_shift_note(off, "by matched polygons"))
            extra["box_km2"] = (
                square_metres(_box(self.old, self.new, self.area), self.new.crs) / 1e6
            )
        else:
            pair = self.pair
            if self.joined is not None:
                pair = self._registered(pair, extra)
                polygons, notes = self._surfaces(pair, work, signature, rows, bar, extra)
            self.pair = pair
        edges = no_edges(polygons.crs)
        if self.roads:
            track = bar(None, "roads", "blocks") if bar and self.pair else nullcontext(None)
            with track as advance:
                edges = changed_edges(
                    self.old, self.new, options, pair=self.pair, area=self.area, advance=advance
                )
            self.notes.extend(edges.notes)
            if self.pair is None:
                self.notes.append("vectors carry no probability: that of their roads is 1")
        return Result(polygons, edges, notes, extra)

    def _registered(self, pair: Pair, extra: dict[str, Any]) -> Pair:
        """Estimate the shift, and settle the reach."""
        found = self.found
        if self.options.align and not pair.direct:
            found = raster.estimated_shift(pair)
        shift = raster.used_shift(found)
        pixel = _pixel(pair.georef)
        sure = found is not None and found.is_clear and found.error <= 0.5
        if pair.direct:
            reach = 0
        elif self.options.reach is not None:
            reach = round(self.options.reach / pixel)
        elif sure and found is not None:
            reach = max(1, int(np.ceil(2 * found.error + 0.5)))
        else:
            reach = _UNSURE
        right, down = pair.georef.matrix.T
        metres = shift[1] * right + shift[0] * down
        extra["shift_m"] = [round(float(v), 3) for v in metres]
        extra["shift_px"] = list(shift)
        extra["shift_error_px"] = (
            None if found is None or not np.isfinite(found.error) else round(found.error, 3)
        )
        extra["reach_px"], extra["reach_m"] = reach, round(reach * pixel, 3)
        if not self.options.align:
            how = "not estimated, as asked"
        elif sure:
            how = f"estimated, standard error {found.error * pixel:.2g} m" if found else ""
        else:
            how = "too little stands out to estimate it: none is taken out"
        near = "" if pair.direct else f"; reach {reach * pixel:.3g} m ({reach} px)"
        self.notes.append(_shift_note(metres, how) + near)
        return replace(pair, shift=shift, reach=reach)

    def _surfaces(
        self,
        pair: Pair,
        work: Path,
        signature: str,
        rows: Rows,
        bar: Track | None,
        extra: dict[str, Any],
    ) -> tuple[Objects, list[dict[str, Any]]]:
        """Return the areas that are new, gone or changed, and the notes of the raster's rows."""
        pair = replace(pair, old=pair.old.absolute(), new=pair.new.absolute())
        change, classes, told = work / "change.tif", work / "classes.tif", work / "rows.json"
        if change.is_file() and classes.is_file() and told.is_file():
            notes = read_json(told, kind=list)
        else:
            total = -(-pair.georef.height // TILE)
            with bar(total, "change", "rows") if bar else nullcontext(None) as advance:
                notes = raster.write_change(
                    pair, change, classes, signature=signature, resume=self.options.resume,
                    rows=rows, advance=advance,
                )  # fmt: skip
            write_json(told, notes)
        ranks = pair.joined.rank(self.options.things)
        more, less = ranks[None] > ranks[:, None], ranks[None] < ranks[:, None]
        states = np.where(more, NEW, np.where(less, GONE, CHANGED)).astype(object)
        pixels: dict[int, int] = {}
        for note in notes:
            for key, number in note["pairs"].items():
                pixels[int(key)] = pixels.get(int(key), 0) + int(number)
        with bar(None, "objects", "blocks") if bar else nullcontext(None) as advance:
            found, alike = changed_regions(
                pair, change, classes, pixels, self.options.min_area, states, advance,
                unlike=self.options.unlike,
            )  # fmt: skip
        extra["alike"] = alike
        if alike:
            self.notes.append(
                f"{alike} areas look as they did, light taken out, and are not told: --unlike 0 "
                "tells them"
            )
        vector = next((s for s in (self.old, self.new) if isinstance(s, VectorSide)), None)
        if vector is None:
            return found, notes
        own, unseen = footprints(pair, self.options.min_area)
        extra["features_not_looked_at"] = unseen
        spoken = GONE if vector is self.old else NEW
        kept = found.take(np.flatnonzero(found.state != spoken))
        return joined_objects([own, kept]), notes


def _grow(options: CompareOptions, table: ChangeTable) -> float:
    """Scores that are no probabilities are high at every border: there nothing is grown into."""
    if options.grow is not None:
        return options.grow
    return options.threshold if table == IDENTITY else GROWN * options.threshold


def _pixel(georef: Georef) -> float:
    """Metres of a pixel's side, at the centre."""
    return float(np.sqrt(abs(np.linalg.det(georef.matrix)))) or 1.0


def _grid_notes(pair: Pair) -> list[str]:
    """Say what was resampled to what."""
    notes, own = [], pair.georef
    for side in (pair.old, pair.new):
        if isinstance(side, VectorSide):
            if side.crs is not None and own.crs is not None and not own.same_place(side.crs):
                notes.append(f"{side.path}: its coordinates are moved to the other side's CRS")
            continue
        theirs, name = side.georef, side.scene or side.path
        if not own.same_place(theirs.crs):
            notes.append(f"{name}: is read in the other side's CRS")
        one, two = theirs.resolution, own.resolution
        if one and two and abs(one / two - 1) > 1e-3:
            notes.append(f"{name}: {one:.4g} m per pixel, compared at {two:.4g}")
        if side.surety:
            notes.append(f"{name}: {side.surety}")
    vector = next((s for s in (pair.old, pair.new) if isinstance(s, VectorSide)), None)
    if vector is not None and not pair.area:
        ground = shapely.Polygon(own.outline())
        moved = vector.moved_to(own.crs)
        box = shapely.box(*shapely.total_bounds(np.concatenate([moved.polygons, moved.lines])))
        share = shapely.intersection(box, ground).area / ground.area
        if share < 0.8:
            notes.append(
                f"{vector.path}: its features lie in {share:.0%} of the other side; what is "
                "outside counts as new or gone: --aoi says where to look"
            )
    if pair.table == IDENTITY:
        notes.append(f"probability of change: {pair.table}")
    return notes


def _shift_note(metres: Sequence[float], how: str) -> str:
    return f"shift of the old side: {metres[0]:.2f} m east, {metres[1]:.2f} m north ({how})"


def _box(old: VectorSide, new: VectorSide, area: tuple[Any, ...]) -> list[Any]:
    """Return the area that is looked at, or the box around both files, in the new one's CRS."""
    moved = old.moved_to(new.crs)
    shapes = np.concatenate([s for v in (moved, new) for s in (v.polygons, v.lines)])
    return list(area) or [shapely.box(*shapely.total_bounds(shapes))]
