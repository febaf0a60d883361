"""A city at two dates: what was built, demolished, paved, planted and felled, told as vectors.

What stands is drawn once; whether it stands at a date is a hash of its place, so that windows of
one city fit. The second date has another sun, another season, another camera, other cars, and, if
asked, lies some pixels beside the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from shapely import Polygon, box

from terradapt.raster import rasterize
from terradapt.synthetic.canvas import BUILDING, CAR, TREE
from terradapt.synthetic.city import City, chance
from terradapt.synthetic.scene import RESOLUTION, CityScene, draw_scene, draw_things
from terradapt.synthetic.style import RGB, Style
from terradapt.synthetic.things import Building, Patch, Things, Tree

State = Literal["new", "gone"]
_SHIFTED = 8  # px drawn around the second date, the largest shift
_PAVINGS = ("lot", "yard", "paving", "drive")
_SEEN = 0.5  # share of an outline that must have changed to be told
_CORNERS = 16  # of a crown's outline


@dataclass(frozen=True)
class Change:
    """One thing that stands at one of two dates only.

    Args:
        kind: ``building``, ``tree`` or ``paving``.
        state: ``new`` or ``gone``.
        before: Class id that most of its outline has at the first date.
        after: The same at the second.
        outline: In pixels of the first date (x right, y down), inside the window.
    """

    kind: str
    state: State
    before: int
    after: int
    outline: Polygon


@dataclass(frozen=True)
class TwoDates:
    """A window of a city at two dates.

    Args:
        before: The first date.
        after: The second; its image lies ``shift`` beside its labels, which lie on the first's.
        changed: (H, W) uint8, 1 where the land cover is another one; cars do not count.
        changes: The things that changed and are seen to.
        shift: Rows and columns by which the second image lies below and right of the first, px.
    """

    before: CityScene
    after: CityScene
    changed: NDArray[np.uint8]
    changes: tuple[Change, ...]
    shift: tuple[int, int]


def make_two_dates(
    seed: int,
    height: int,
    width: int,
    row: int = 0,
    col: int = 0,
    *,
    share: float = 0.12,
    shift: tuple[int, int] = (0, 0),
    relit: bool = True,
) -> TwoDates:
    """Draw a window of a city at two dates.

    Args:
        seed: The city.
        height: Rows, px of 0.3 m.
        width: Columns.
        row: First row in the city, any integer.
        col: First column.
        share: Of buildings that are new, and of those that are gone; the same of trees and of
            paved ground. 0: nothing but cars changes.
        shift: Rows and columns by which the second image lies below and right, at most 8.
        relit: Whether the second date has another sun, season and camera.
    """
    assert max(map(abs, shift)) <= _SHIFTED
    city = City(seed)
    later = City(seed, _later(city.style, seed) if relit else None, date=1)
    before = draw_scene(city, height, width, row, col, _standing(city, 0, share))
    wide = draw_scene(
        later,
        height + 2 * _SHIFTED,
        width + 2 * _SHIFTED,
        row - _SHIFTED,
        col - _SHIFTED,
        _standing(city, 1, share),
        fill=city,
    )
    after = CityScene(
        _cut(wide.image, height, width, shift),
        _cut(wide.labels, height, width),
        _cut(wide.roads, height, width),
        before.lines,
    )
    car = (before.labels == CAR) | (after.labels == CAR)
    changed = ((before.labels != after.labels) & ~car).astype(np.uint8)
    told = _changes(city, before.labels, after.labels, row, col, share)
    return TwoDates(before, after, changed, tuple(told), shift)


def _cut(
    plane: NDArray[np.uint8], height: int, width: int, shift: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    top, left = _SHIFTED - shift[0], _SHIFTED - shift[1]
    return np.ascontiguousarray(plane[top : top + height, left : left + width])


def _fate(city: City, key: int, x: float, y: float, share: float) -> State | None:
    """Whether what stands at (x, y) is new or gone, or None where it stands at both dates."""
    drawn = chance(city.seed, 41, key, round(x * 100), round(y * 100))
    return "new" if drawn < share else "gone" if drawn < 2 * share else None


def _fates(city: City, things: Things, share: float) -> Iterator[tuple[str, object, State]]:
    """What of some things changes: its kind, itself, its fate."""
    for house in things.buildings:
        if not house.clutter and (fate := _fate(city, 1, house.x, house.y, share)):
            yield "building", house, fate
    for tree in things.trees:
        if fate := _fate(city, 2, tree.x, tree.y, share):
            yield "tree", tree, fate
    for patch in things.patches:
        if patch.kind in _PAVINGS and (fate := _fate(city, 3, patch.x, patch.y, share)):
            yield "paving", patch, fate


def _standing(city: City, date: int, share: float) -> Callable[[Things], Things]:
    """Return what leaves of some things those that stand at a date."""
    absent: State = "gone" if date else "new"

    def standing(things: Things) -> Things:
        out = {id(thing) for _, thing, fate in _fates(city, things, share) if fate == absent}
        unpaved = [p for p in things.patches if id(p) in out]
        ruins = [
            _ruin(thing)
            for _, thing, fate in _fates(city, things, share)
            if date and fate == "gone" and isinstance(thing, Building) and thing.seed % 2
        ]
        cars = [
            c
            for c in things.cars
            if chance(city.seed, 43, date, round(c.x * 100), round(c.y * 100)) < 0.6
            and not any(_inside(p, c.x, c.y) for p in unpaved)
        ]
        return Things(
            [*(p for p in things.patches if id(p) not in out), *ruins],
            [b for b in things.buildings if id(b) not in out],
            [t for t in things.trees if id(t) not in out],
            cars,
        )

    return standing


def _ruin(house: Building) -> Patch:
    """What is left of a building: rubble on its ground."""
    return Patch(house.x, house.y, house.angle, house.length, house.width, "rubble")


def _inside(patch: Patch, x: float, y: float) -> bool:
    c, s = np.cos(patch.angle), np.sin(patch.angle)
    dx, dy = x - patch.x, y - patch.y
    along, across = dx * c + dy * s, dy * c - dx * s
    return bool(abs(along) < patch.length / 2 and abs(across) < patch.width / 2)


def _changes(
    city: City,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    row: int,
    col: int,
    share: float,
) -> Iterator[Change]:
    """The changes that are seen in a window: a crown may hide what was built below it."""
    frame = box(0, 0, before.shape[1], before.shape[0])
    hidden = np.isin(before, (CAR, TREE, BUILDING)) | np.isin(after, (CAR, TREE, BUILDING))
    other = {
        "building": (before == BUILDING) != (after == BUILDING),
        "tree": (before == TREE) != (after == TREE),
        "paving": (before != after) & ~hidden,
    }
    things = draw_things(city, before.shape[0], before.shape[1], row, col)
    for kind, thing, fate in _fates(city, things, share):
        outline = _outline(thing, row, col).intersection(frame)
        if not isinstance(outline, Polygon) or outline.area < 4:
            continue
        here = {"height": before.shape[0], "width": before.shape[1]}
        inside = rasterize([(outline, 1)], **here, transform=Affine.identity()).astype(bool)
        if inside.any() and other[kind][inside].mean() >= _SEEN:
            first, second = (int(np.bincount(ids[inside]).argmax()) for ids in (before, after))
            if first != second:
                yield Change(kind, fate, first, second, outline)


def _outline(thing: object, row: int, col: int) -> Polygon:
    """The outline of a thing in a window's pixels."""
    if isinstance(thing, Tree):
        turn = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        corners = thing.radius * np.stack((np.cos(turn), np.sin(turn)), 1)
    else:
        assert isinstance(thing, Building | Patch)
        c, s = np.cos(thing.angle), np.sin(thing.angle)
        half = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) / 2 * (thing.length, thing.width)
        corners = half @ np.array(((c, s), (-s, c)))
    return Polygon((corners + np.array((thing.x, thing.y))) / RESOLUTION - (col, row))


def _later(style: Style, seed: int) -> Style:
    """The same city under another sun, in another season, by another camera."""
    rng = np.random.default_rng([7919, seed, 1])

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def tinted(rgb: RGB, low: float, high: float) -> RGB:
        r, g, b = np.clip(np.asarray(rgb) * u(low, high) * rng.uniform(0.94, 1.06, 3), 0, 1)
        return float(r), float(g), float(b)

    dry = u(0.0, 0.55)
    lush, parched = np.array((0.27, 0.38, 0.17)), np.array((0.50, 0.46, 0.28))
    grass = lush + dry * (parched - lush)
    return replace(
        style,
        sun_azimuth=np.deg2rad(u(115, 245)),
        sun_elevation=np.deg2rad(u(36, 56)),
        grass=tinted((float(grass[0]), float(grass[1]), float(grass[2])), 0.9, 1.1),
        dry=dry,
        soil=tinted(style.soil, 0.9, 1.1),
        tree=tinted(style.tree, 0.8, 1.25),
        asphalt=tinted(style.asphalt, 0.88, 1.12),
        paving=tinted(style.paving, 0.92, 1.08),
        cast=(u(0.95, 1.05), u(0.97, 1.03), u(0.93, 1.07)),
        haze=u(0.0, 0.06),
        contrast=u(0.9, 1.15),
        blur=u(0.45, 0.75),
        noise=u(0.008, 0.018),
    )
