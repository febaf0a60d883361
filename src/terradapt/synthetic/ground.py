"""The ground: lawns, crops, soil, pavements, carriageways, markings, and patches on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terradapt.synthetic.canvas import (
    CLUTTER,
    IMPERVIOUS,
    Canvas,
    Ground,
    Mask,
    Plane,
    hashed,
)
from terradapt.synthetic.style import BLOCK_KINDS
from terradapt.synthetic.things import Patch

PAVED_KINDS = ("perimeter", "commercial")

COVERS: dict[str, tuple[int, tuple[float, float, float] | None, float]] = {
    "drive": (IMPERVIOUS, (0.47, 0.46, 0.44), 0.05),
    "paving": (IMPERVIOUS, None, 0.06),
    "lot": (IMPERVIOUS, (0.36, 0.36, 0.365), 0.05),
    "yard": (IMPERVIOUS, (0.50, 0.49, 0.47), 0.07),
    "line": (IMPERVIOUS, (0.78, 0.78, 0.76), 0.05),
    "path": (IMPERVIOUS, (0.60, 0.55, 0.46), 0.05),
    "sand": (CLUTTER, (0.74, 0.67, 0.52), 0.04),
    "rubble": (CLUTTER, (0.56, 0.50, 0.43), 0.16),
    "pool": (CLUTTER, (0.22, 0.56, 0.66), 0.05),
    "pond": (CLUTTER, (0.12, 0.17, 0.16), 0.04),
}
"""Cover of a patch: class, colour (None: the city's paving) and roughness."""


def paint_ground(canvas: Canvas, ground: Ground) -> None:
    """Lawns, crops, soil, pavements and carriageways."""
    city, style = canvas.city, canvas.city.style
    us = city.span(0, float(ground.u.min()), float(ground.u.max()))
    vs = city.span(1, float(ground.v.min()), float(ground.v.max()))
    i = np.searchsorted([city.street(0, k) for k in us], ground.u) - 1
    j = np.searchsorted([city.street(1, k) for k in vs], ground.v) - 1
    kinds = np.array([[BLOCK_KINDS.index(city.kind(a, b)) for b in vs] for a in us])
    kind = kinds[np.clip(i, 0, len(us) - 1), np.clip(j, 0, len(vs) - 1)]
    plots = np.floor(ground.u / 18).astype(np.int64) * 7 + np.floor(ground.v / 27).astype(np.int64)
    plot = hashed(city.seed + 5, plots, (i * 131 + j).astype(np.int64))
    dry = np.clip(0.25 * canvas.wide + 0.14 * plot + 0.12 * canvas.mid, -0.6, 0.9)[..., None]
    lush = np.array(style.grass, np.float32)
    straw = np.array((0.55, 0.49, 0.31), np.float32)
    tone = 1 + 0.06 * canvas.fine + 0.05 * canvas.mid + 0.035 * plot
    canvas.albedo[:] = (lush + np.maximum(dry, 0) * (straw - lush)) * tone[..., None]
    canvas.albedo *= 1 + np.minimum(dry, 0) * np.array((0.35, 0.2, 0.3), np.float32)
    _crops(canvas, ground, kind == BLOCK_KINDS.index("field"), (i * 17 + j).astype(np.int64))
    _bare(canvas, kind == BLOCK_KINDS.index("site"))
    paved = np.isin(kind, [BLOCK_KINDS.index(k) for k in PAVED_KINDS])
    _streets(canvas, ground, paved)
    _markings(canvas, ground)


def _crops(canvas: Canvas, ground: Ground, where: Mask, block: NDArray[np.int64]) -> None:
    if not where.any():
        return
    draw = hashed(canvas.city.seed + 9, block[where], block[where] * 0)
    soil = np.array(canvas.city.style.soil, np.float32)
    crop = np.array((0.33, 0.40, 0.19), np.float32)
    share = np.clip(0.5 + draw * 0.45, 0, 1)[:, None]
    rows = np.sin(ground.u[where] * np.float32(2 * np.pi / 1.6)) * 0.06
    tone = 1 + rows + 0.05 * canvas.fine[where] + 0.07 * canvas.mid[where]
    canvas.albedo[where] = (soil + share * (crop - soil)) * tone[:, None]


def _bare(canvas: Canvas, where: Mask) -> None:
    soil = np.array(canvas.city.style.soil, np.float32)
    worn = where & (canvas.wide + 0.6 * canvas.mid > -0.3)
    tone = 1 + 0.07 * canvas.fine + 0.09 * canvas.mid
    canvas.albedo[worn] = soil * tone[worn][:, None]


def _streets(canvas: Canvas, ground: Ground, paved: Mask) -> None:
    style = canvas.city.style
    walk = (ground.edge >= 0) & (ground.edge < style.pavement) & ~ground.island
    verge = walk & ~paved & (canvas.wide > 0.9)
    slabs = 1 + 0.05 * canvas.speckle + 0.05 * canvas.mid
    stone = np.array(style.paving, np.float32)
    hard = (walk & ~verge) | (paved & (ground.edge >= 0) & (canvas.wide > 0.2))
    canvas.albedo[hard] = stone * slabs[hard][:, None]
    canvas.label[hard] = IMPERVIOUS
    road = ground.road
    nearest = np.where(ground.inside[0] < ground.inside[1], *ground.across[:2])
    half = np.where(ground.inside[0] < ground.inside[1], *ground.half[:2])
    wear = 0.04 * np.cos(np.clip(nearest / np.maximum(half, 1), -1, 1) * 4 * np.pi)
    patched = 0.10 * (canvas.mid > 1.25) + 0.07 * canvas.wide * 0.5
    tone = 1 + 0.035 * canvas.fine + wear - patched
    tar = np.array(style.asphalt, np.float32)
    canvas.albedo[road] = tar * tone[road][:, None]
    canvas.label[road] = IMPERVIOUS
    kerb = (ground.edge >= -0.1) & (ground.edge < 0.25) & ~ground.island
    canvas.albedo[kerb] = canvas.albedo[kerb] * 0.5 + 0.32


def _markings(canvas: Canvas, ground: Ground) -> None:
    """Dashed middle lines, edge lines of wide roads, zebra crossings."""
    for axis in range(3):
        across, inside, half = ground.across[axis], ground.inside[axis], ground.half[axis]
        crossing = np.minimum(ground.inside[axis - 1], ground.inside[axis - 2])
        along = ground.v if axis == 0 else ground.u
        open_road = ground.road & (inside < 0) & (crossing > 2.0)
        dash = (along % 9.0) < 4.0
        middle = _stroke(across) * (open_road & dash & (half > 2.9))
        borders = _stroke(np.abs(across) - (half - 0.5)) * (open_road & (half > 4.6))
        zebra = (inside < -0.3) & (crossing > 1.6) & (crossing < 4.4) & (half > 3.2) & (axis < 2)
        stripes = 0.8 * (zebra & ((across % 1.2) < 0.6) & ground.road)
        paint = np.maximum(np.maximum(middle, borders), stripes)
        worn = paint * np.clip(0.75 + 0.18 * canvas.mid, 0.2, 1)
        canvas.albedo += worn[..., None] * (np.float32(0.80) - canvas.albedo)


def _stroke(distance: Plane) -> Plane:
    line: Plane = np.clip(1.2 - np.abs(distance) / 0.16, 0, 1) * np.float32(0.85)
    return line


def paint_patch(canvas: Canvas, patch: Patch, ground: Ground) -> None:
    """Cover a rectangle of open ground."""
    found = canvas.local(patch.x, patch.y, np.hypot(patch.length, patch.width) / 2, patch.angle)
    if found is None:
        return
    at, a, b = found
    half_a, half_b = patch.length / 2, patch.width / 2
    klass, colour, rough = COVERS[patch.kind]
    if patch.kind in ("pond", "rubble", "sand"):
        wobble = 1 + 0.16 * canvas.mid[at]
        inside = (a / half_a) ** 2 + (b / half_b) ** 2 < wobble
    else:
        inside = (np.abs(a) < half_a) & (np.abs(b) < half_b)
    inside &= ground.edge[at] > 0
    if patch.kind == "line":
        inside &= canvas.label[at] == IMPERVIOUS
    if patch.kind == "rubble":
        inside &= canvas.wide[at] + canvas.mid[at] * 0.7 > -0.9
    tone = 1 + rough * (0.7 * canvas.fine[at] + 0.7 * canvas.mid[at])
    base = np.array(colour or canvas.city.style.paving, np.float32)
    if patch.kind == "pool":
        rim = inside & ((np.abs(a) > half_a - 0.6) | (np.abs(b) > half_b - 0.6))
        canvas.albedo[at][inside] = base * tone[inside][:, None]
        canvas.albedo[at][rim] = 0.72
    else:
        canvas.albedo[at][inside] = base * tone[inside][:, None]
    canvas.label[at][inside] = klass
