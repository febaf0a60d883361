"""Regions of equal label and the borders between them, block by block.

Borders run along pixel edges. They are traced as chains on the lattice of pixel corners by the same
walker as roads, so the result does not depend on the blocks. Corner (i, j) is the upper left corner
of pixel (i, j).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from terradapt.grid import Window
from terradapt.progress import Advance
from terradapt.raster import Georef
from terradapt.vector.lattice.graph import Chains, Graph
from terradapt.vector.lattice.join import Part, join
from terradapt.vector.lattice.trace import Ints, Lattice, Pieces, components, trace
from terradapt.vector.polygons.label import label_equal

OUTSIDE = 256
# rows and columns of the pixels left and right of a step from a corner, by direction
_LEFT = np.array([[-1, 0], [0, 0], [-1, -1], [0, 0], [0, -1], [0, 0], [0, 0], [0, 0]])
_RIGHT = np.array([[0, 0], [0, 0], [-1, 0], [0, 0], [-1, -1], [0, 0], [0, -1], [0, 0]])


class LabelSource(Protocol):
    """Class ids by windows that lie within the scene."""

    @property
    def georef(self) -> Georef:
        """Size, transform and CRS."""

    def labels(self, window: Window) -> NDArray[np.uint8]:
        """Return (H, W) ids."""


@dataclass(frozen=True)
class Partition:
    """R regions, in the order of their first pixels, and the borders between them.

    Attributes:
        value: (R,) class id; 256 is the outside of the scene.
        pixels: (R,) size.
        first: (R, 2) row and column of the first pixel; -1 for the outside of the scene.
        borders: Chains of pixel corners; nodes are where three and more regions meet.
        sides: (E, 2) the regions left and right of each border.
    """

    value: Ints
    pixels: Ints
    first: Ints
    borders: Graph
    sides: Ints


@dataclass(frozen=True)
class _Block:
    """What one block knows: provisional regions, its border pixels' regions, its chains."""

    value: Ints
    pixels: Ints
    first: Ints
    rim: Ints  # (M, 2) pixel and region
    part: Part
    keys: Ints  # (K, 3) half-edge, left and right region


def find_regions(
    source: LabelSource, *, block: int = 2048, progress: Advance | None = None
) -> Partition:
    """Return the regions of equal 4-connected labels and their borders.

    Args:
        source: The labels.
        block: Side of a block, px.
        progress: Called with 1 after each block.
    """
    georef = source.georef
    lattice = Lattice(georef.height, georef.width)
    found = []
    for top in range(0, georef.height, block):
        for left in range(0, georef.width, block):
            size = min(block, georef.height - top), min(block, georef.width - left)
            found.append(_block(source, Window(top, left, *size), lattice))
            if progress is not None:
                progress(1)
    return _united(found, lattice)


def _block(source: LabelSource, window: Window, lattice: Lattice) -> _Block:
    """Find the regions of a block's pixels, and the borders at its corners."""
    values = _framed(source, window)
    regions = label_equal(values[1:-1, 1:-1])
    count = int(regions.max()) + 1
    row, col = window.row - 1, window.col - 1
    first = _first_places(regions, count)
    numbers = lattice.number(first // regions.shape[1] + row, first % regions.shape[1] + col)
    core = regions[1:-1, 1:-1]
    # the last block of a row or column also holds the scene's last corners
    down, right = int(window.bottom == lattice.height), int(window.right == lattice.width)
    corners = _corner_links(values)[: window.height + down + 2, : window.width + right + 2]
    pieces = trace(corners, window.row, window.col, lattice, grouped=False)
    keys = _sided(pieces, regions, (row, col), lattice)
    part = Part(
        pieces, np.zeros((len(pieces.sizes), 4), np.int64), np.zeros(len(pieces.node_pixel))
    )
    return _Block(
        values[1:-1, 1:-1].ravel()[first].astype(np.int64),
        np.bincount(core.ravel(), minlength=count),
        numbers,
        _rim(regions, row, col, lattice),
        part,
        keys,
    )


def _framed(source: LabelSource, window: Window) -> NDArray[np.int16]:
    """Read a block and two pixels around it; outside the scene 256."""
    georef = source.georef
    area = Window(window.row - 2, window.col - 2, window.height + 4, window.width + 4)
    inside = area.intersect(Window(0, 0, georef.height, georef.width))
    assert inside is not None
    values = np.full((area.height, area.width), OUTSIDE, np.int16)
    values[inside.shift(-area.row, -area.col).slices] = source.labels(inside)
    return values


def _first_places(regions: Ints, count: int) -> Ints:
    flat = regions.ravel()
    first = np.zeros(count, np.int64)
    first[flat[::-1]] = np.arange(len(flat))[::-1]
    return first


def _rim(regions: Ints, row: int, col: int, lattice: Lattice) -> Ints:
    """Return pixel numbers and regions of the ring around a block and of its outermost pixels."""
    near = np.zeros(regions.shape, bool)
    near[:2], near[-2:], near[:, :2], near[:, -2:] = True, True, True, True
    rows, cols = np.nonzero(near)
    return np.stack([lattice.number(rows + row, cols + col), regions[rows, cols]], axis=1)


def _corner_links(values: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return the (H - 1, W - 1) link codes of the corners between pixels."""
    across = values[:-1] != values[1:]  # border between a pixel and the one below it
    along = values[:, :-1] != values[:, 1:]  # and the one right of it
    links = across[:, 1:].astype(np.uint8)  # east
    links |= along[:-1].astype(np.uint8) << np.uint8(2)  # north
    links |= across[:, :-1].astype(np.uint8) << np.uint8(4)  # west
    links |= along[1:].astype(np.uint8) << np.uint8(6)  # south
    value: NDArray[np.uint8] = links
    return value


def _sided(pieces: Pieces, regions: Ints, origin: tuple[int, int], lattice: Lattice) -> Ints:
    """Return the regions beside half-edges at which a joined border may begin."""
    codes, sizes = pieces.codes, pieces.sizes
    begins = np.cumsum(sizes) - sizes
    some = np.flatnonzero(sizes > 0)
    pixels, way = [pieces.first[some]], [codes[begins[some]].astype(np.int64)]
    row, col = lattice.place(pieces.first)
    chains = Chains(row, col, sizes, codes)
    pixels.append(lattice.number(*chains.stops())[some])
    way.append((codes[(begins + sizes - 1)[some]] ^ 4).astype(np.int64))
    for piece in np.flatnonzero((pieces.keys >= 0).any(axis=1)):
        here, ways = _least_ways(pieces, int(piece), begins, lattice)
        pixels.append(np.full(len(ways), here))
        way.append(np.array(ways, np.int64))
    place, ways = np.concatenate(pixels), np.concatenate(way)
    row, col = lattice.place(place)
    beside = [
        regions[row + s[ways, 0] - origin[0], col + s[ways, 1] - origin[1]] for s in (_LEFT, _RIGHT)
    ]
    return np.stack([place * 8 + ways, *beside], axis=1)


def _least_ways(
    pieces: Pieces, piece: int, begins: Ints, lattice: Lattice
) -> tuple[int, list[int]]:
    """Return the least corner of a cut piece, where a ring may begin, and the ways out of it."""
    codes = pieces.codes[begins[piece] : begins[piece] + pieces.sizes[piece]]
    row, col = lattice.place(pieces.first[piece : piece + 1])
    chain = Chains(row, col, np.array([len(codes)]), codes)
    points = chain.points()[0].astype(np.int64)
    numbers = lattice.number(points[:, 0], points[:, 1])
    at = int(np.argmin(numbers))
    ways = []
    if at < len(codes):
        ways.append(int(codes[at]))
    elif pieces.keys[piece, 1] >= 0:
        ways.append(int(pieces.keys[piece, 1] % 8))
    if at > 0:
        ways.append(int(codes[at - 1] ^ 4))
    elif pieces.keys[piece, 0] >= 0:
        ways.append(int(pieces.keys[piece, 0] % 8))
    return int(numbers[at]), ways


def _united(blocks: list[_Block], lattice: Lattice) -> Partition:
    """Make one region of the parts that blocks share pixels of, numbered by first pixels."""
    counts = [len(b.value) for b in blocks]
    shift = np.cumsum([0, *counts[:-1]])
    rim = np.concatenate([b.rim + np.array([0, s]) for b, s in zip(blocks, shift, strict=True)])
    rim = rim[np.argsort(rim[:, 0], kind="stable")]
    same = np.flatnonzero(rim[1:, 0] == rim[:-1, 0])
    pairs = np.stack([rim[same, 1], rim[same + 1, 1]], axis=1)
    group = components(sum(counts), pairs)
    total = int(group.max()) + 1
    first = np.full(total, np.iinfo(np.int64).max)
    np.minimum.at(first, group, np.concatenate([b.first for b in blocks]))
    rank = np.empty(total, np.int64)
    rank[np.argsort(first)] = np.arange(total)
    region = rank[group]
    value, pixels = np.zeros(total, np.int64), np.zeros(total, np.int64)
    value[region] = np.concatenate([b.value for b in blocks])
    np.add.at(pixels, region, np.concatenate([b.pixels for b in blocks]))
    outside = value == OUTSIDE
    if outside.any():  # the frame around the scene is one region
        region = np.where(outside[region], np.flatnonzero(outside)[0], region)
    keys = np.concatenate(
        [b.keys + np.array([0, s, s]) for b, s in zip(blocks, shift, strict=True)]
    )
    keys = keys[np.unique(keys[:, 0], return_index=True)[1]]
    graph = join([b.part for b in blocks], lattice)
    places = np.stack(lattice.place(np.sort(first)), axis=1)
    return Partition(value, pixels, places, graph, _sides(graph, keys, region, lattice))


def _sides(graph: Graph, keys: Ints, region: Ints, lattice: Lattice) -> Ints:
    """Return the regions left and right of each joined border, known at its first half-edge."""
    chains = graph.chains
    first = chains.codes[chains.offsets[:-1]] if len(chains) else np.zeros(0, np.int64)
    half = lattice.number(chains.row, chains.col) * 8 + first
    at = np.searchsorted(keys[:, 0], half)
    assert (keys[at, 0] == half).all()
    sides: Ints = region[keys[at, 1:]]
    return sides
