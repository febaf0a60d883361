"""How far a label is shifted against its image, to a fraction of a pixel, and how sure that is.

At every shift the label's regions explain some share of the variance of the pixels under them.
That share is greatest where borders of regions lie on edges of the image. Its surface over all
shifts comes from Fourier correlation of class masks with the bands; surfaces of many patches are
summed, and leaving out one patch after the other (jackknife) tells the standard error; so do the
peaks of thirds of the patches. A second surface says how likely the label is by the colours of the
image's classes (:mod:`terradapt.preflight.likelihood`); the surer of the two counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from terradapt.classes import IGNORE
from terradapt.grid import Window
from terradapt.preflight.likelihood import learn_colours, likely

SIDE = 256  # px of a patch, at most
REACH = 24  # px, largest shift looked for
PATCHES = 256  # of an image, at most
WARN = 2.0  # px
_SURE = 3.0  # standard errors (of both axes together): 1 in 8000 by chance in a normal world
_LEAST_PATCHES = 6
_MANY_PATCHES, _MUCH = 24, 0.15  # one of both, else one image's peak may be chance
_APART = 3 * np.sqrt(3)  # 3 standard errors of a third: a third's peak beyond it is another peak
_LEAST_PIXELS = 64  # of a class in a patch

Surface = NDArray[np.float64]
Read = Callable[[Window], NDArray[np.uint8]]


@dataclass(frozen=True)
class Shift:
    """The estimated shift of a label.

    Args:
        rows: Rows by which the label lies below its image, px.
        cols: Columns by which the label lies right of its image, px.
        error: Standard error of the place, px; infinite when there is too little to tell.
        patches: Patches, or images, that it rests on.
        explained: Share of the variance that the label explains there, 0..1.
    """

    rows: float
    cols: float
    error: float
    patches: int
    explained: float

    @property
    def distance(self) -> float:
        """Length of the shift, px."""
        return float(np.hypot(self.rows, self.cols))

    @property
    def is_clear(self) -> bool:
        """Whether the peak stands out: inside the reach, and well known."""
        inside = max(abs(self.rows), abs(self.cols)) < REACH - 1
        rests = self.patches >= _MANY_PATCHES or self.explained >= _MUCH
        return inside and rests and self.error <= max(WARN / 2, self.distance / _SURE)

    @property
    def is_off(self) -> bool:
        """Whether the label is shifted by 2 px or more, significantly (3 standard errors)."""
        return self.is_clear and self.distance >= max(WARN, _SURE * self.error)


@dataclass(frozen=True)
class Surfaces:
    """Both surfaces of every patch of an image, or the means of every image of a set.

    Args:
        explained: Shares of the variance.
        likely: Mean log-likelihoods by the colours of the classes.
    """

    explained: list[Surface] = field(default_factory=list)
    likely: list[Surface] = field(default_factory=list)

    def add_means(self, other: Surfaces) -> None:
        """Add an image's mean surfaces to a set's."""
        for mine, its in ((self.explained, other.explained), (self.likely, other.likely)):
            if its:
                mine.append(np.mean(its, axis=0))

    def shift(self) -> Shift | None:
        """Return the surer of the two shifts; None without a surface."""
        first, second = peak(self.explained), peak(self.likely)
        if first is None or second is None or not second.error < first.error:
            return first
        return replace(second, explained=first.explained)


def image_surfaces(
    image: Read, mask: Read, height: int, width: int, patches: int = PATCHES
) -> Surfaces:
    """Return the surfaces of every patch of one image that has borders; may be empty.

    Args:
        image: Reads (C, H, W) pixels of a window.
        mask: Reads (H, W) class ids of a window.
        height: Rows of the image, px.
        width: Columns of the image, px.
        patches: At most, spread over the image.
    """
    pairs = []
    for window in _patches(height, width, patches):
        ids = mask(window)
        if _classes(ids).size < 2:
            continue
        around = Window(
            window.row - REACH,
            window.col - REACH,
            window.height + 2 * REACH,
            window.width + 2 * REACH,
        )
        pairs.append((image(around), ids))
    found = Surfaces([explained(pixels, ids) for pixels, ids in pairs])
    colours = learn_colours(pairs, REACH) if pairs else None
    if colours is not None:
        found.likely.extend(likely(pixels, ids, colours, REACH) for pixels, ids in pairs)
    return found


def explained(pixels: NDArray[np.uint8], ids: NDArray[np.uint8]) -> Surface:
    """Return the share of variance (R squared) that the regions explain at each shift.

    Args:
        pixels: (C, H + 2 R, W + 2 R) with R = ``REACH``.
        ids: (H, W) class ids of the middle.

    Returns:
        (2 R + 1, 2 R + 1); [R + r, R + c] is the label moved by r rows and c columns too far.
    """
    bands = pixels.astype(np.float32)
    bands -= bands.mean((1, 2), keepdims=True)
    bands /= bands.std((1, 2), keepdims=True) + 1e-3
    shape = [fft.next_fast_len(n, real=True) for n in bands.shape[1:]]
    size = 2 * REACH + 1

    def at_shifts(mask: NDArray[np.bool_], spectrum: NDArray[np.complex64]) -> Surface:
        kernel = np.conj(fft.rfft2(mask.astype(np.float32), shape))
        columns = fft.ifft(kernel * spectrum, axis=-2)[..., :size, :]  # the rest is not asked for
        out: Surface = fft.irfft(columns, shape[1])[..., :size]
        return out

    waves = fft.rfft2(bands, shape)
    between = np.zeros((size, size))
    total = np.zeros((len(bands), size, size))
    classes = _classes(ids)
    for class_id in classes:
        mask = ids == class_id
        sums = at_shifts(mask, waves)
        between += (sums**2).sum(0) / mask.sum()
        total += sums
    used = np.isin(ids, classes)
    base = (total**2).sum(0) / used.sum()
    squares = at_shifts(used, fft.rfft2((bands**2).sum(0), shape))
    share: Surface = (between - base) / np.maximum(squares - base, 1e-6)
    return share[::-1, ::-1]


def peak(surfaces: Sequence[Surface]) -> Shift | None:
    """Return the shift at the summed surfaces' peak, with its jackknife error; None if empty."""
    if not surfaces:
        return None
    total = np.sum(surfaces, axis=0)
    rows, cols = _top(total)
    count = len(surfaces)
    share = float(total.max() / count)
    if count < _LEAST_PATCHES:
        return Shift(rows, cols, float("inf"), count, share)
    left = np.array([_top(total - s) for s in surfaces])
    error = float(np.sqrt((count - 1) / count * ((left - left.mean(0)) ** 2).sum()))
    thirds = np.array([_top(np.sum(surfaces[i::3], axis=0)) for i in range(3)])
    apart = float(np.hypot(*(thirds - (rows, cols)).T).max())
    return Shift(rows, cols, float(max(error, apart / _APART)), count, share)


def _top(surface: Surface) -> tuple[float, float]:
    row, col = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
    dy, dx = _parabola(surface[:, col], row), _parabola(surface[row], col)
    return row + dy - REACH, col + dx - REACH


def _parabola(line: Surface, at: int) -> float:
    if not 0 < at < len(line) - 1:
        return 0.0
    left, mid, right = (float(v) for v in line[at - 1 : at + 2])
    bend = left - 2 * mid + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0


def _classes(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    counts = np.bincount(ids.ravel(), minlength=256)
    if counts[IGNORE] > 0.75 * ids.size:
        return np.empty(0, np.int64)
    counts[IGNORE] = 0
    return np.flatnonzero(counts >= _LEAST_PIXELS)


def _patches(height: int, width: int, most: int) -> list[Window]:
    """Patches on a lattice that keeps the reach from the edge, an even choice of ``most``."""
    inner = height - 2 * REACH, width - 2 * REACH
    side = min(SIDE, inner[0] // 3, inner[1] // 3)
    if side < REACH:
        return []
    rows, cols = (
        np.linspace(REACH, REACH + n - side, -(-n // side)).round().astype(int) for n in inner
    )
    windows = [Window(int(r), int(c), side, side) for r in rows for c in cols]
    chosen = np.linspace(0, len(windows) - 1, min(most, len(windows))).round().astype(int)
    return [windows[i] for i in chosen]
