"""The page of a comparison: figures, an overview, and before and after of the largest changes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from terradapt.changes.comparison import Pairing
from terradapt.changes.networks import Edges
from terradapt.changes.objects import Objects, metric_frame
from terradapt.changes.sampling import Onto, Shift, box_of, placed
from terradapt.changes.sides import MapSide, Side, VectorSide
from terradapt.classes import Colour, default_colours
from terradapt.config import InputSpec
from terradapt.grid import Window
from terradapt.raster import CRS, Georef, Scene, ScenePath, SceneReader, open_scene, rasterize
from terradapt.raster.georef import move_points

LARGEST_AREAS, LARGEST_ROADS = 12, 6
_SIDE, _OVERVIEW = 320, 1000  # px of a picture, at most
_AROUND = 0.6  # of an object's size, shown around it
_SAMPLES = 3  # along a side of a picture's pixel
_PIXELS = 1 << 22  # of a side, read at once
_LEAST = 60.0  # m of ground in a picture, at least
_PAPER: Colour = (243, 242, 238)
_LINE: Colour = (120, 120, 120)

Photo = NDArray[np.uint8]
Colours = dict[str, Colour]


@dataclass(frozen=True)
class Shown:
    """A change, before and after.

    Attributes:
        title: What it is.
        caption: Its figures.
        state: ``new``, ``gone`` or ``changed``.
        pictures: Data URIs before and after.
    """

    title: str
    caption: str
    state: str
    pictures: tuple[str, str]


def changes_page(
    plan: Pairing, polygons: Objects, edges: Edges, figures: dict[str, Any], colours: Colours
) -> str | None:
    """Return the page as HTML; None where the libraries of the extra ``report`` are missing.

    Args:
        plan: What was compared.
        polygons: The areas found, the largest first.
        edges: The roads found, the longest first.
        figures: As in ``NAME.json``.
        colours: RGB of each state.
    """
    if find_spec("jinja2") is None or find_spec("PIL") is None:
        return None
    from jinja2 import Environment, StrictUndefined

    from terradapt.report.pictures import css, photo_uri

    source = (resources.files(__package__) / "changes.html.j2").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    with ExitStack() as stack:
        canvas = Panes.of(plan, stack)
        areas, roads = canvas.own(polygons.shapes, polygons.crs), canvas.own(edges.lines, edges.crs)
        states = polygons.state, edges.state
        overview = photo_uri(overview_of(canvas, areas, roads, states, colours))
        places = [
            Shown(
                f"{polygons.before[i]} to {polygons.after[i]}",
                f"{polygons.area[i]:,.0f} {'m²' if polygons.unit == 'm' else polygons.unit}, "
                f"probability {polygons.probability[i]:.2f}",
                str(polygons.state[i]),
                _uris(canvas, areas[i], colours[polygons.state[i]]),
            )
            for i in range(min(LARGEST_AREAS, len(polygons)))
        ]
        places += [
            Shown(
                "road" if np.isnan(edges.offset[i]) else f"road, {edges.offset[i]:.1f} m beside",
                f"{edges.length[i]:,.0f} m, probability {edges.probability[i]:.2f}",
                str(edges.state[i]),
                _uris(canvas, roads[i], colours[edges.state[i]]),
            )
            for i in range(min(LARGEST_ROADS, len(edges)))
        ]
    return environment.from_string(source).render(
        figures=figures,
        overview=overview,
        places=places,
        legend=[(state, css(colour)) for state, colour in colours.items()],
        colour_of={state: css(colour) for state, colour in colours.items()},
        old=Path(str(figures["old"]["file"])).name,
        new=Path(str(figures["new"]["file"])).name,
    )


def _uris(canvas: Panes, shape: Any, colour: Colour) -> tuple[str, str]:
    from terradapt.report.pictures import photo_uri

    before, after = before_after(canvas, shape, colour)
    return photo_uri(before), photo_uri(after)


@dataclass(frozen=True)
class Panes:
    """What pictures of both sides are drawn from.

    Attributes:
        georef: The grid; of two vector files a grid around both.
        sides: Old and new.
        shifts: By which each lies off, rows and columns of the grid.
        readers: Open rasters of each; None for vectors.
    """

    georef: Georef
    sides: tuple[Side, Side]
    shifts: tuple[Shift, Shift]
    readers: tuple[Any, Any]

    @classmethod
    def of(cls, plan: Pairing, stack: ExitStack) -> Panes:
        """Open both sides for pictures."""
        sides = (plan.old, plan.new)
        if plan.pair is not None:
            georef, shift = plan.pair.georef, plan.pair.shift
        else:
            assert isinstance(plan.old, VectorSide) and isinstance(plan.new, VectorSide)
            moved = plan.old.moved_to(plan.new.crs)
            shapes = [*moved.polygons, *moved.lines, *plan.new.polygons, *plan.new.lines]
            georef, shift = metric_frame(list(plan.area) or shapes, plan.new.crs), (0.0, 0.0)
        readers: list[Scene | None] = []
        for side in sides:
            if isinstance(side, VectorSide):
                readers.append(None)
            elif side.scene is not None:
                readers.append(stack.enter_context(_imagery(side.scene)))
            else:
                readers.append(stack.enter_context(SceneReader(side.path, bands=(1,))))
        moved_sides = tuple(
            s.moved_to(georef.crs) if isinstance(s, VectorSide) else s for s in sides
        )
        one, two = moved_sides
        return cls(georef, (one, two), (shift, (0.0, 0.0)), (readers[0], readers[1]))

    def own(self, shapes: NDArray[Any], crs: CRS | None) -> NDArray[Any]:
        """Return geometries in the canvas's CRS."""
        target = self.georef.crs
        if crs is None or target is None or crs == target or not len(shapes):
            return shapes
        return np.asarray(shapely.transform(shapes, lambda xy: move_points(xy, crs, target)))

    def photo(self, which: int, window: Window, most: int) -> tuple[Photo, Georef]:
        """Return a picture of a side, and where it lies.

        Args:
            which: 0 old, 1 new.
            window: Of the grid.
            most: Longest side of the picture, px.
        """
        zoom = min(1.0, most / max(window.height, window.width))
        if zoom == 1.0:
            zoom = min(4.0, max(1.0, most / max(window.height, window.width)))
        size = max(1, round(window.height * zoom)), max(1, round(window.width * zoom))
        georef = self.georef.crop(window).zoom(*size)
        side, shift = self.sides[which], self.shifts[which]
        off = (shift[0] * zoom, shift[1] * zoom)
        if isinstance(side, VectorSide):
            return _drawn(side, georef), georef
        return _seen(side, self.readers[which], georef, off), georef


def _seen(side: MapSide, reader: Any, georef: Georef, shift: Shift) -> Photo:
    """Read imagery, or the colours of a map, by bands that fit into memory."""
    onto = Onto(reader.georef, georef, shift)
    photo = np.full((georef.height, georef.width, 3), _PAPER, np.uint8)
    palette = np.zeros((256, 3), np.float32)
    palette[: len(side.colours)] = side.colours
    step = max(1, int(onto.scale / _SAMPLES))
    whole = Window(0, 0, -(-reader.height // step), -(-reader.width // step))
    rows = max(1, int(_PIXELS / max(1.0, (onto.scale / step) ** 2 * georef.width)))
    for top in range(0, georef.height, rows):
        window = Window(top, 0, min(rows, georef.height - top), georef.width)
        picks = [(r // step, c // step) for r, c in onto.pixels(window, _SAMPLES)]
        box = box_of(picks, whole)
        if box is None:
            continue
        pixels, valid = reader.thinned(box, step)
        if side.scene is None:
            pixels = (pixels[:1] == 255) if side.mask else pixels[:1]
        else:
            pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1]
        shape = window.height, window.width
        sums, seen = np.zeros((3, *shape), np.float32), np.zeros(shape, np.float32)
        for down, right in picks:
            inside = (down >= box.row) & (down < box.bottom)
            inside &= (right >= box.col) & (right < box.right)
            at = np.where(inside, down - box.row, 0), np.where(inside, right - box.col, 0)
            good = inside & valid[at]
            values = pixels[:, at[0], at[1]]
            if side.scene is None:
                values = palette[np.clip(values[0], 0, 255).astype(np.uint8)].transpose(2, 0, 1)
            sums += np.where(good, values, 0)
            seen += good
        mean = (sums / np.maximum(seen, 1)).transpose(1, 2, 0)
        band = photo[window.slices]
        band[seen > 0] = mean[seen > 0].astype(np.uint8)
    return photo


def _imagery(scene: ScenePath) -> Scene:
    """Open imagery as 8 bit: other types between the percentiles of the whole."""
    source = open_scene(scene)
    if source.dtype == "uint8":
        return source
    bands = len(source.read(Window(0, 0, 1, 1))[0])
    source.close()
    spec = InputSpec(bands=(1, 2, 3) if bands >= 3 else (1,), stretch=(2.0, 98.0))
    return open_scene(scene, spec)


def _drawn(side: VectorSide, georef: Georef) -> Photo:
    """Draw polygons and lines on paper."""
    picture = np.full((georef.height, georef.width, 3), _PAPER, np.uint8)
    names = side.names
    box = shapely.Polygon(georef.outline())
    for name, colour in zip(names, default_colours(names), strict=True):
        chosen = side.polygons[side.kinds == name]
        burn(picture, chosen[shapely.intersects(chosen, box)], georef, colour, 0)
    burn(picture, side.lines[shapely.intersects(side.lines, box)], georef, _LINE, 1)
    return picture


def burn(picture: Photo, shapes: NDArray[Any], georef: Georef, colour: Colour, width: int) -> None:
    """Draw geometries into a picture.

    Args:
        picture: (H, W, 3), changed in place.
        shapes: Geometries in the picture's CRS.
        georef: Where it lies.
        colour: RGB.
        width: Of lines, about half of it, px; 0 fills.
    """
    if not len(shapes):
        return
    pixels = placed(shapes, georef)
    if width:
        areas = np.isin(shapely.get_type_id(pixels), (3, 6))
        pixels = np.where(areas, shapely.boundary(pixels), pixels)
    burnt = rasterize(
        [(p, 1) for p in pixels],
        height=georef.height,
        width=georef.width,
        transform=Affine.identity(),
        all_touched=True,
    )
    mask = burnt == 1
    picture[binary_dilation(mask, iterations=width - 1) if width > 1 else mask] = colour


def before_after(canvas: Panes, shape: Any, colour: Colour) -> tuple[Photo, Photo]:
    """Return pictures of both sides around a change, with its outline.

    Args:
        canvas: Both sides.
        shape: The change, in the canvas's CRS.
        colour: RGB of its outline.
    """
    georef = canvas.georef
    one = np.array([shape], object)
    corners = np.array(shapely.bounds(placed(one, georef)[0]))
    pixel = float(georef.resolution or 1.0)
    size = max((1 + 2 * _AROUND) * float(max(corners[2:] - corners[:2])), _LEAST / pixel, 24.0)
    middle = (corners[:2] + corners[2:]) / 2
    top, left = (round(float(v) - size / 2) for v in middle[::-1])
    window = Window(top, left, round(size), round(size))
    pictures = []
    for which in (0, 1):
        picture, place = canvas.photo(which, window, _SIDE)
        burn(picture, one, place, colour, 2)
        pictures.append(picture)
    return pictures[0], pictures[1]


def overview_of(
    canvas: Panes,
    areas: NDArray[Any],
    roads: NDArray[Any],
    states: Sequence[Any],
    colours: Colours,
) -> Photo:
    """Return the new side, with all changes drawn on it.

    Args:
        canvas: Both sides.
        areas: Polygons in the canvas's CRS.
        roads: Lines in it.
        states: (P,) states of the polygons, and (N,) of the lines.
        colours: RGB of each state.
    """
    whole = Window(0, 0, canvas.georef.height, canvas.georef.width)
    picture, place = canvas.photo(1, whole, _OVERVIEW)
    for state, colour in colours.items():
        burn(picture, areas[states[0] == state], place, colour, 2)
        burn(picture, roads[states[1] == state], place, colour, 2)
    return picture
