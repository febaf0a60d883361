"""Strokes: corrections as the log keeps them, checked where they come in.

A stroke is drawn in a scene's pixels: x to the right, y down, corners at whole numbers.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from terradapt.classes import IGNORE
from terradapt.errors import DataError
from terradapt.grid import Window
from terradapt.raster import CRS, Georef, polygonize, rasterize
from terradapt.raster.georef import parse_crs

BRUSH, POLYGON, LINE, RIGHT = KINDS = ("brush", "polygon", "line", "right")
"""What is drawn: with a round brush, as an area, as a line with its width, or the map as it is."""
EDITED = (POLYGON, LINE)
"""Kinds whose vertices can be moved afterwards."""
MOST_VERTICES = 10_000
WIDEST = 2000.0
"""Of a brush and a line, px."""
_ARC = 8  # segments of a quarter circle
_ROUND = 3  # decimals of a pixel that a stroke keeps


@dataclass(frozen=True)
class Stroke:
    """A correction.

    Attributes:
        number: Its place in the log, from 1.
        key: Chosen by the page, so that a stroke that is sent twice counts once.
        scene: Name of the scene.
        georef: Where that scene lay when the stroke was drawn.
        kind: One of :data:`KINDS`.
        name: The class; "" for the map as it is.
        points: (N, 2) vertices, px.
        width: Of a brush or a line, px.
        model: First digits of the hash of the model whose map was corrected.
        before: Class and confidence below it, as far as they were known.
        time: ISO 8601.
        place: Block (row, column) that it answers, when it answers one.
        window: Of the ids of the map as it is.
        ids: (H, W) class ids of the map as it is, 255 outside.
        names: Names of those ids.
        replaces: Number of the stroke whose place it takes, as its vertices were moved.
    """

    number: int
    key: str
    scene: str
    georef: Georef
    kind: str
    name: str
    points: NDArray[np.float64]
    width: float = 0.0
    model: str = ""
    before: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""
    place: tuple[int, int] | None = None
    window: Window | None = None
    ids: NDArray[np.uint8] | None = None
    names: tuple[str, ...] = ()
    replaces: int | None = None

    def area(self) -> BaseGeometry:
        """Return what it covers, in pixels, cut to the scene."""
        scene = shapely.box(0, 0, self.georef.width, self.georef.height)
        return shapely.intersection(drawn(self.kind, self.points, self.width), scene)

    def pieces(self) -> list[tuple[str, BaseGeometry]]:
        """Return (class, area in pixels) of all that it labels."""
        if self.ids is None or self.window is None:
            return [(self.name, self.area())]
        found = polygonize(self.ids, mask=self.ids != IGNORE, transform=_upright(self.window))
        return [
            (
                self.names[value],
                shapely.transform(shapely.geometry.shape(shape), lambda xy: xy * [1, -1]),
            )
            for shape, value in found
        ]

    def to_record(self) -> dict[str, Any]:
        """Return what the log keeps; the georeference stands in a line of its own."""
        record: dict[str, Any] = {
            "op": "stroke",
            "n": self.number,
            "key": self.key,
            "time": self.time,
            "scene": self.scene,
            "kind": self.kind,
            "class": self.name,
            "points": np.round(self.points, _ROUND).tolist(),
            "width": round(self.width, _ROUND),
            "model": self.model,
            "before": dict(self.before),
        }
        if self.place is not None:
            record["place"] = list(self.place)
        if self.replaces is not None:
            record["replaces"] = self.replaces
        if self.ids is not None and self.window is not None:
            w = self.window
            packed = base64.b64encode(zlib.compress(self.ids.tobytes(), 9)).decode()
            record["map"] = {
                "window": [w.row, w.col, w.height, w.width],
                "ids": packed,
                "names": list(self.names),
            }
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any], georef: Georef) -> Stroke:
        """Read a line of the log.

        Raises:
            KeyError, ValueError, TypeError, zlib.error: It is no stroke.
        """
        stroke = cls(
            int(record["n"]),
            str(record["key"]),
            str(record["scene"]),
            georef,
            str(record["kind"]),
            str(record["class"]),
            np.array(record["points"], np.float64).reshape(-1, 2),
            float(record["width"]),
            str(record["model"]),
            dict(record["before"]),
            str(record["time"]),
            tuple(record["place"]) if "place" in record else None,
            replaces=int(record["replaces"]) if "replaces" in record else None,
        )
        if "map" not in record:
            return stroke
        kept = record["map"]
        window = Window(*(int(v) for v in kept["window"]))
        raw = zlib.decompress(base64.b64decode(kept["ids"]))
        ids = np.frombuffer(raw, np.uint8).reshape(window.height, window.width)
        return replace(stroke, window=window, ids=ids, names=tuple(kept["names"]))


def drawn(kind: str, points: NDArray[np.float64], width: float) -> BaseGeometry:
    """Return the area of what was drawn, px."""
    if kind in (BRUSH, LINE):
        if len(points) == 1:
            return shapely.buffer(shapely.Point(points[0]), width / 2, quad_segs=_ARC)
        line = shapely.LineString(points)
        if kind == BRUSH:
            return shapely.buffer(line, width / 2, quad_segs=_ARC)
        return shapely.buffer(line, width / 2, quad_segs=_ARC, cap_style="flat")
    ring = shapely.Polygon(points)
    return ring if ring.is_valid else shapely.make_valid(ring)


def squared(points: NDArray[np.float64], georef: Georef) -> NDArray[np.float64]:
    """Return a polygon's vertices with right angles on the ground, along its main direction.

    Args:
        points: (N, 2) vertices, px.
        georef: Of the scene.

    Returns:
        (M, 2); as they were where a form with right angles would be another one.
    """
    from terradapt.vector.lattice.metric import Metric
    from terradapt.vector.polygons.right_angles import right_angled

    ring = shapely.Polygon(points)
    if not ring.is_valid:
        return points
    forms = right_angled(np.array([ring], object), Metric.of(georef))
    return np.asarray(forms[0].exterior.coords)[:-1] if 0 in forms else points


def pixels_of(shape: BaseGeometry) -> tuple[Window, NDArray[np.bool_]]:
    """Return the window around a shape in pixels, and which pixels have their centre in it."""
    left, top, right, bottom = shape.bounds
    row, col = math.floor(top), math.floor(left)
    window = Window(row, col, max(1, math.ceil(bottom) - row), max(1, math.ceil(right) - col))
    upright = shapely.transform(shape, lambda xy: xy * [1, -1])
    burnt = rasterize(
        [(upright, 1)],
        height=window.height,
        width=window.width,
        transform=_upright(window),
    )
    return window, burnt > 0


def _upright(window: Window) -> Affine:
    """Pixels of a window to x right, y up: a transform of its own, about which nobody warns."""
    return Affine(1, 0, window.col, 0, -1, -window.row)


def check_drawing(values: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """Return kind, points, width and key of what a page sends, checked.

    Args:
        values: As it came.
        height: Of the scene, px.
        width: Of the scene, px.

    Raises:
        DataError: It is no drawing, or lies outside the scene.
    """
    fix = "draw it again inside the scene"
    kind, key = values.get("kind"), values.get("key")
    if kind not in KINDS:
        raise DataError("no such kind of correction", f"use one of: {', '.join(KINDS)}")
    if not isinstance(key, str) or not 8 <= len(key) <= 64 or not key.isalnum():
        raise DataError("a correction without a key", "reload the page")
    given = values.get("points")
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_VERTICES:
        raise DataError(f"a correction has 1 to {MOST_VERTICES} vertices", "draw it in parts")
    points = np.empty((len(given), 2))
    for row, pair in enumerate(given):
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise DataError("a vertex is a pair of numbers", fix)
        points[row] = pair
    points = np.round(points, _ROUND)
    wide = values.get("width", 0)
    if not _is_number(wide) or not 0 <= wide <= WIDEST or (kind in (BRUSH, LINE) and wide < 0.1):
        raise DataError(f"a width is 0.1 to {WIDEST:g} px", "choose another width")
    if kind in (POLYGON, RIGHT) and len(np.unique(points, axis=0)) < 3:
        raise DataError("an area needs three corners", fix)
    if kind == LINE and len(np.unique(points, axis=0)) < 2:
        raise DataError("a line needs two ends", fix)
    shape = drawn(kind, points, float(wide))
    inside = shapely.intersection(shape, shapely.box(0, 0, width, height))
    if not inside.area > 0:
        raise DataError("the correction lies outside the scene, or has no area", fix)
    return {"kind": kind, "points": points, "width": float(wide), "key": key}


def georef_record(name: str, georef: Georef) -> dict[str, Any]:
    """Return the line of the log that says where a scene lies."""
    t = georef.transform
    return {
        "op": "scene",
        "scene": name,
        "transform": [t.a, t.b, t.c, t.d, t.e, t.f],
        "crs": None if georef.crs is None else georef.crs.to_wkt(),
        "height": georef.height,
        "width": georef.width,
    }


def read_georef(record: Mapping[str, Any], like: Georef | None) -> Georef:
    """Read such a line; see :func:`georef_record`.

    Args:
        record: The line.
        like: A georeference whose kind of transform is used.
    """
    crs: CRS | None = None if record["crs"] is None else parse_crs(record["crs"], "corrections")
    numbers = [float(v) for v in record["transform"]]
    georef = Georef(Affine(*numbers), crs, int(record["height"]), int(record["width"]))
    return like if like is not None and same_georef(like, georef) else georef


def same_georef(a: Georef, b: Georef) -> bool:
    """Tell whether two georeferences have the same pixels at the same places."""
    return (
        (a.height, a.width) == (b.height, b.width)
        and tuple(a.transform)[:6] == tuple(b.transform)[:6]
        and a.same_place(b.crs)
    )


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value) and abs(value) < 1e9


def line_of(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of the log."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
