"""Per-image means for binary roads: Dice, IoU, MAE and RLOD from one histogram per image.

A grey map is the probability of the road class as 0..255. Its histogram, apart for road and other
pixels, holds all that these figures need; histograms of an image's blocks add up.
Source: SAM2MS, section 4.2 (N in its mIoU and RLOD means images); ``dynamic`` follows pysodmetrics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE

_CHUNK = 1 << 20


def grey_map(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return probabilities 0..1 as grey levels 0..255, rounded to the nearest."""
    scaled = np.clip(probability, 0.0, 1.0) * np.float32(255)
    return np.asarray(np.rint(scaled), np.uint8)


@dataclass
class ImageHistogram:
    """Grey levels of one image: ``counts[0]`` of other pixels, ``counts[1]`` of road pixels."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 256), np.int64))

    def update(self, target: NDArray[np.uint8], grey: NDArray[np.uint8]) -> ImageHistogram:
        """Count the pixels of one block.

        Args:
            target: 1 is road, 255 is not counted, all else is background; any shape.
            grey: Grey levels of the road class, same shape.

        Returns:
            Itself.
        """
        assert target.shape == grey.shape, (target.shape, grey.shape)
        t, g = target.reshape(-1), grey.reshape(-1)
        for start in range(0, t.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            codes = (t[part] == 1).astype(np.uint16)
            codes[t[part] == IGNORE] = 2
            codes <<= 8
            codes |= g[part]
            self.counts += np.bincount(codes, minlength=768).reshape(3, 256)[:2]
        return self

    def __add__(self, other: ImageHistogram) -> ImageHistogram:
        return ImageHistogram(self.counts + other.counts)


def image_scores(
    histogram: ImageHistogram, threshold: float = 0.5, *, stretch: bool = True, empty: float = 0.0
) -> dict[str, float]:
    """Return one image's figures, fractions 0..1.

    Args:
        histogram: The image's grey levels.
        threshold: Road where the probability is above it, 0..1; for the fixed figures and RLOD.
        stretch: For the dynamic figures, spread the image's grey levels to 0..255 first, as
            pysodmetrics does by default.
        empty: Dice and IoU of an image without road, label and prediction alike; pysodmetrics
            says 0.

    Returns:
        ``dice``, ``iou``: at the threshold; ``dice_dynamic``, ``iou_dynamic``: means over the 256
        thresholds "grey >= 0..255"; ``mae``: mean ``|P - G|`` of the grey map as it is;
        ``rlod``: TP / road pixels, absent for an image without road.
    """
    other, road = histogram.counts
    pixels = int(histogram.counts.sum())
    levels = np.arange(256)
    above = levels > threshold * 255
    scores = _overlap(road[above].sum(), other[above].sum(), road.sum(), empty)
    dynamic = _dynamic(histogram.counts, stretch, empty)
    wrong = (other * levels).sum() + (road * (255 - levels)).sum()
    result = {
        "dice": float(scores[0]),
        "iou": float(scores[1]),
        "dice_dynamic": float(dynamic[0].mean()),
        "iou_dynamic": float(dynamic[1].mean()),
        "mae": float(wrong / (255 * pixels)) if pixels else 0.0,
    }
    if road.sum():
        result["rlod"] = float(road[above].sum() / road.sum())
    return result


def best_threshold(histogram: ImageHistogram) -> float:
    """Return the threshold, 0..1, above which the road's F1 is the highest.

    Of several as good ones, the nearest to 0.5.

    Args:
        histogram: Grey levels of all images together; some pixel is road.
    """
    other, road = (row[::-1].cumsum()[::-1][1:] for row in histogram.counts)  # above level 0..254
    f1, _ = _overlap(road, other, histogram.counts[1].sum(), 0.0)
    thresholds = (np.arange(255) + 0.5) / 255
    best = thresholds[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


@dataclass
class PerImage:
    """Means over images; additive over processes.

    Args:
        threshold: See :func:`image_scores`.
        stretch: See :func:`image_scores`.
        empty: See :func:`image_scores`.
    """

    threshold: float = 0.5
    stretch: bool = True
    empty: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, histogram: ImageHistogram) -> dict[str, float]:
        """Take one finished image in and return its figures; without pixels it is skipped."""
        if not histogram.counts.any():
            return {}
        options = {"stretch": self.stretch, "empty": self.empty}
        scores = image_scores(histogram, self.threshold, **options)  # type: ignore[arg-type]
        self.rows.append(scores)
        return scores

    def update(
        self, target: NDArray[np.uint8], probability: NDArray[np.floating[Any]]
    ) -> dict[str, float]:
        """Take one whole image in: target ids and the road class's probability, same shape."""
        return self.add(ImageHistogram().update(target, grey_map(probability)))

    def __add__(self, other: PerImage) -> PerImage:
        return PerImage(self.threshold, self.stretch, self.empty, self.rows + other.rows)

    def metrics(self) -> dict[str, float | int]:
        """Return the means over the images, fractions except ``mae_x100``; 0 without images.

        Returns:
            ``mdice``, ``miou_image`` at the threshold, ``mdice_dynamic``, ``miou_dynamic``,
            ``mae``, ``mae_x100``, ``rlod`` (over the images with road), ``images``,
            ``images_without_road``.
        """
        mae = self._mean("mae")
        with_road = sum("rlod" in row for row in self.rows)
        return {
            "mdice": self._mean("dice"),
            "miou_image": self._mean("iou"),
            "mdice_dynamic": self._mean("dice_dynamic"),
            "miou_dynamic": self._mean("iou_dynamic"),
            "mae": mae,
            "mae_x100": 100 * mae,
            "rlod": self._mean("rlod"),
            "images": len(self.rows),
            "images_without_road": len(self.rows) - with_road,
        }

    def _mean(self, key: str) -> float:
        values = [row[key] for row in self.rows if key in row]
        return float(np.mean(values)) if values else 0.0


def _overlap(
    hits: Any, false_alarms: Any, road: Any, empty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dice and IoU of counts; arrays of one value per threshold."""
    hits, either = np.asarray(hits, np.float64), np.asarray(road + false_alarms, np.float64)
    blank = np.full(hits.shape, empty)
    iou = np.divide(hits, either, out=blank.copy(), where=either > 0)
    dice = np.divide(2 * hits, either + hits, out=blank.copy(), where=either > 0)
    return dice, iou


def _dynamic(
    counts: NDArray[np.int64], stretch: bool, empty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dice and IoU at the 256 thresholds, with pysodmetrics's arithmetic on the 256 levels."""
    used = counts.sum(axis=0).nonzero()[0]
    grey = np.arange(256) / 255
    if stretch and used.size > 1:
        low, high = grey[used[0]], grey[used[-1]]
        grey = np.clip((grey - low) / (high - low), 0, 1)
    levels = (grey * 255).astype(np.uint8)
    moved = np.stack([np.bincount(levels, weights=row, minlength=256) for row in counts])
    above = moved[:, ::-1].cumsum(axis=1)
    return _overlap(above[1], above[0], counts[1].sum(), empty)
