"""Land cover as polygons that share their borders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.classes import IGNORE, Colour
from terradapt.errors import ConfigError, DataError
from terradapt.grid import Window
from terradapt.options import check_fields
from terradapt.progress import Advance
from terradapt.raster import CRS, Georef, SceneReader
from terradapt.raster.georef import crs_name
from terradapt.vector.lattice.graph import Floats
from terradapt.vector.lattice.metric import Metric, polygon_areas
from terradapt.vector.lattice.trace import Ints
from terradapt.vector.polygons.coverage import with_forms, without_small
from terradapt.vector.polygons.regions import OUTSIDE, LabelSource, Partition, find_regions
from terradapt.vector.polygons.right_angles import right_angled
from terradapt.vector.polygons.rings import region_polygons
from terradapt.vector.polygons.sieve import sieve


@dataclass(frozen=True)
class PolygonOptions:
    """How regions become polygons.

    Args:
        simplify: Detail below this is smoothed away, m; 0 keeps the pixels' edges. Shared borders
            stay shared.
        min_area: Smaller regions join the neighbour with the longest common border, square metres.
        right_angles: Class id whose polygons get right angles; None for no class.
        block: Side of the blocks that are worked on, px.

    Raises:
        ConfigError: A value of the wrong kind or out of range.
    """

    simplify: float = 0.0
    min_area: float = 0.0
    right_angles: int | None = None
    block: int = 2048

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.simplify >= 0 and self.min_area >= 0 and self.block > 0):
            raise ConfigError("a size below 0 for polygons", "give metres, and pixels of a block")


PIXELS = PolygonOptions()


@dataclass(frozen=True, repr=False)
class Polygons:
    """P polygons of classes; ``geopandas.GeoDataFrame.from_features`` takes them as they are.

    Attributes:
        shapes: (P,) shapely Polygons in the CRS, valid, without overlaps.
        value: (P,) class ids.
        area: (P,) square metres, or of what ``unit`` says.
        crs: The CRS or None.
        unit: ``m``, or what a scene without a CRS counts in; see ``Georef.unit``.
        names: Name of each id that has one.
        colours: RGB by id, 0..255.
    """

    shapes: NDArray[Any]
    value: Ints
    area: Floats
    crs: CRS | None = None
    unit: str = "m"
    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, Colour] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.shapes)

    def __repr__(self) -> str:
        of = ", ".join(f"{row['polygons']} {name}" for name, row in self.summary().items())
        return f"<{len(self)} polygons{f' ({of})' if of else ''}, {crs_name(self.crs)}>"

    @property
    def __geo_interface__(self) -> dict[str, Any]:
        """A GeoJSON feature collection in the polygons' own CRS."""
        area = area_key(self.unit)
        rows = zip(self.shapes, self.value.tolist(), self.area.tolist(), strict=True)
        features = [
            {
                "type": "Feature",
                "geometry": shape.__geo_interface__,
                "properties": {"class_id": i, "class": self.names.get(i, str(i)), area: size},
            }
            for shape, i, size in rows
        ]
        return {"type": "FeatureCollection", "features": features}

    def named(self, names: Mapping[int, str], colours: Mapping[int, Colour]) -> Polygons:
        """Return the polygons with names and colours of their classes."""
        return replace(self, names=names, colours=colours)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return of each class that occurs, by name or id, ``polygons`` and ``area_m2``.

        ``area_px`` or ``area_units`` where there is no CRS.
        """
        return {
            self.names.get(i, str(i)): {
                "polygons": int((self.value == i).sum()),
                area_key(self.unit): float(self.area[self.value == i].sum()),
            }
            for i in np.unique(self.value).tolist()
        }


def area_key(unit: str) -> str:
    """Return what areas are called whose sides are in a unit: ``area_m2``, ``area_px`` ..."""
    return "area_m2" if unit == "m" else f"area_{unit}"


@dataclass(frozen=True)
class ArrayLabels:
    """Class ids in memory.

    Args:
        array: (H, W) uint8 ids; 255 has no polygons.
        georef: Where it lies.
    """

    array: NDArray[np.uint8]
    georef: Georef

    def labels(self, window: Window) -> NDArray[np.uint8]:
        """Return (H, W) ids."""
        return self.array[window.slices]


class RasterLabels:
    """Class ids in a raster; pixels without data are 255.

    Args:
        path: The raster; the first band counts.
        mask: It is a mask of 0 and 255, and 255 is class 1.

    Raises:
        SceneError: The file cannot be read.
        DataError: It holds no integers of 0..255.
    """

    def __init__(self, path: Any, mask: bool = False) -> None:
        self._mask = mask
        self.reader = SceneReader(path)
        if np.dtype(self.reader.dtype).kind not in "iu":
            self.reader.close()
            raise DataError(
                f"{path}: holds {self.reader.dtype} values, not class ids",
                "give the class raster, or make roads of scores with --roads",
            )

    @property
    def georef(self) -> Georef:
        """Size, transform and CRS."""
        return self.reader.georef

    def labels(self, window: Window) -> NDArray[np.uint8]:
        """Return (H, W) ids."""
        pixels, valid = self.reader.read(window)
        values = np.where(valid, pixels[0] == IGNORE if self._mask else pixels[0], IGNORE)
        if values.min(initial=0) < 0 or values.max(initial=0) > IGNORE:
            raise DataError(
                f"{self.reader.path}: has values beyond 0 to 255", "save the labels as 8 bit ids"
            )
        return values.astype(np.uint8)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()


def polygonize_labels(
    source: LabelSource,
    options: PolygonOptions = PIXELS,
    progress: Advance | None = None,
) -> Polygons:
    """Return the polygons of all classes; the same for every block size.

    Args:
        source: Labels by window; 255 has no polygons.
        options: Sizes.
        progress: Called with 1 after each block.
    """
    georef = source.georef
    partition = find_regions(source, block=options.block, progress=progress)
    area = partition.pixels * georef.pixel_area(*partition.first.T)
    into = sieve(partition, area, options.min_area)
    shapes, region = _shapes(partition, into)
    if options.simplify > 0 and len(shapes):
        shapes = _simplified(shapes, options.simplify / Metric.of(georef).pixel)
    value = partition.value[region]
    shown = (value != IGNORE) & (value != OUTSIDE)
    shapes, value = shapes[shown], value[shown]
    if options.simplify > 0 and options.min_area > 0:
        shapes, value = without_small(shapes, value, georef, options.min_area)
    if options.right_angles is not None:
        shapes, value = _with_right_angles(shapes, value, georef, options)
    return _placed(shapes, value, georef)


def _with_right_angles(
    shapes: NDArray[Any], value: Ints, georef: Georef, options: PolygonOptions
) -> tuple[NDArray[Any], Ints]:
    """Give one class right angles; nothing becomes smaller than a pixel, or the least area."""
    pixel = float(georef.pixel_areas(Window(georef.height // 2, georef.width // 2, 1, 1))[0, 0])
    least = max(options.min_area, 0.99 * pixel)
    which = np.flatnonzero(value == options.right_angles)
    forms = right_angled(shapes[which], Metric.of(georef))
    areas = polygon_areas(np.array(list(forms.values()), object), georef)
    large = {int(which[i]): f for (i, f), a in zip(forms.items(), areas, strict=True) if a >= least}
    shapes, source = with_forms(shapes, large, georef, least)
    return shapes, value[source]


def _shapes(partition: Partition, into: Ints) -> tuple[NDArray[Any], Ints]:
    sides = into[partition.sides]
    different = sides[:, 0] != sides[:, 1]
    borders = partition.borders.take(np.flatnonzero(different))
    polygons, region = region_polygons(borders, sides[different])
    return np.array(polygons, object), region


def _simplified(shapes: NDArray[Any], tolerance: float) -> NDArray[Any]:
    """Simplify a coverage: borders that two polygons share are simplified once.

    Visvalingam and Whyatt 1993, as GEOS does it for coverages: no polygon loses its validity, no
    two come to overlap, and the scene keeps its edge.
    """
    simple: NDArray[Any] = shapely.coverage_simplify(shapes, tolerance, simplify_boundary=False)
    return np.where(shapely.is_valid(simple) & ~shapely.is_empty(simple), simple, shapes)


def _placed(shapes: NDArray[Any], value: Ints, georef: Georef) -> Polygons:
    placed = shapely.transform(shapes, lambda xy: georef.xy(xy[:, ::-1] - 0.5))
    return Polygons(placed, value, polygon_areas(shapes, georef), georef.crs, georef.unit)


__all__ = ["ArrayLabels", "PolygonOptions", "Polygons", "RasterLabels", "polygonize_labels"]
