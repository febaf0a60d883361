"""How well a label fits its image at every shift, by what the colours of each class are.

Per patch, regions that differ explain the pixels' variance; roads and roofs of one grey do not.
Over a whole image the classes have colours of their own: a linear discriminant on the bands and
their squares, learnt away from the borders so that a shifted label teaches the same, gives each
pixel the log-likelihood of each class. Their sum under the label, at every shift, is greatest where
the label fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from terradapt.classes import IGNORE

MARGIN = 6  # px from a border: shifts up to it leave the learnt colours as they are
_EACH = 300  # pixels of a patch that are learnt from
_UNLIKELY = -6.0  # least log-likelihood of a pixel: outliers count no more than that
_RIDGE = 1e-3

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Colours:
    """What colours each class of an image has.

    Args:
        classes: (K,) ids.
        weights: (2 C, K), of the bands and their squares.
        bias: (K,)
        mean: (C, 1, 1) of the bands.
        deviation: (C, 1, 1) of the bands.
    """

    classes: NDArray[np.int64]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def likelihood(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return the log-likelihood (K, H, W) of each class, 0 at most, of (C, H, W) pixels."""
        features = _features(pixels, self.mean, self.deviation)
        scores = np.einsum("chw,ck->khw", features, self.weights) + self.bias[:, None, None]
        scores -= scores.max(0)
        scores -= np.log(np.exp(scores).sum(0))
        limited: NDArray[np.float32] = np.maximum(scores, np.float32(_UNLIKELY))
        return limited


def learn_colours(patches: Sequence[tuple[Pixels, Pixels]], reach: int) -> Colours | None:
    """Learn the colours of the classes from an image's patches; None with fewer than two classes.

    Args:
        patches: (pixels (C, H + 2 reach, W + 2 reach), ids (H, W)) each.
        reach: px that the pixels go beyond the ids on each side.
    """
    rng = np.random.default_rng(0)
    drawn = [_draw(pixels, ids, reach, rng) for pixels, ids in patches]
    values = np.concatenate([v for v, _ in drawn], axis=1).astype(np.float32)
    ids = np.concatenate([i for _, i in drawn])
    classes = np.unique(ids).astype(np.int64)
    if len(classes) < 2:
        return None
    mean, deviation = values.mean(1)[:, None, None], values.std(1)[:, None, None] + 1e-3
    features = _features(values[..., None], mean, deviation)[..., 0].T.astype(np.float64)
    means = np.array([features[ids == k].mean(0) for k in classes])
    rest = features - means[np.searchsorted(classes, ids)]
    spread = rest.T @ rest / len(rest)
    spread += _RIDGE * np.trace(spread) / len(spread) * np.eye(len(spread))
    weights = np.linalg.solve(spread, means.T)
    bias = -0.5 * (means * weights.T).sum(1)
    return Colours(classes, weights.astype(np.float32), bias.astype(np.float32), mean, deviation)


def likely(pixels: Pixels, ids: Pixels, colours: Colours, reach: int) -> NDArray[np.float64]:
    """Return the mean log-likelihood of a patch's label at each shift.

    Args:
        pixels: (C, H + 2 reach, W + 2 reach).
        ids: (H, W) class ids of the middle.
        colours: Of the image.
        reach: Largest shift, px.

    Returns:
        (2 reach + 1, 2 reach + 1), laid out as ``alignment.explained`` does.
    """
    scores = colours.likelihood(pixels)
    shape = [fft.next_fast_len(n, real=True) for n in scores.shape[1:]]
    size = 2 * reach + 1
    total = np.zeros((size, size))
    used = 0
    for number, class_id in enumerate(colours.classes):
        mask = ids == class_id
        if mask.any():
            kernel = np.conj(fft.rfft2(mask.astype(np.float32), shape))
            total += fft.irfft2(kernel * fft.rfft2(scores[number], shape), shape)[:size, :size]
            used += int(mask.sum())
    return total[::-1, ::-1] / max(1, used)


def _draw(
    pixels: Pixels, ids: Pixels, reach: int, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Pixels (C, N) and ids (N,) of places away from borders."""
    edge = np.zeros(ids.shape, bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    places = np.argwhere(~ndimage.binary_dilation(edge, iterations=MARGIN) & (ids != IGNORE))
    chosen = places[rng.permutation(len(places))[:_EACH]]
    rows, cols = chosen.T
    return pixels[:, rows + reach, cols + reach], ids[rows, cols]


def _features(
    pixels: NDArray[np.generic], mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> NDArray[np.float32]:
    scaled = (pixels.astype(np.float32) - mean) / deviation
    return np.concatenate([scaled, scaled * scaled])
