"""Features of an image and its label, by which splits and datasets are compared.

Source: SAM2MS, section 4.1 with Figures 6 and 10: road density, edges, colour, and the texture
figures of the grey-level co-occurrence matrix (GLCM).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE
from terradapt.data.dataset import Dataset, Item
from terradapt.data.reading import ItemReader
from terradapt.grid import Window

GLCM = ("contrast", "dissimilarity", "homogeneity", "energy")
LEVELS = 32  # grey levels of the GLCM
SIDE = 512  # px of one sampled window
WINDOWS = 4  # windows of an image at most


def feature_names(num_classes: int) -> list[str]:
    """Return the names of the features: two classes have a density, more have shares."""
    shares = ["density"] if num_classes == 2 else [f"share {k}" for k in range(num_classes)]
    colours = [f"{m} {c}" for c in ("red", "green", "blue") for m in ("mean", "std", "skew")]
    return [*shares, "edges", *colours, *GLCM]


def item_features(dataset: Dataset, item: Item) -> NDArray[np.float64]:
    """Return an image's features, means over up to four windows of it.

    Args:
        dataset: The item's dataset.
        item: A labelled image.
    """
    with ItemReader(dataset, item, None) as reader:
        rows = [
            window_features(*reader.sample(window), len(dataset.classes))
            for window in _windows(reader.height, reader.width)
        ]
    means: NDArray[np.float64] = np.stack(rows).mean(axis=0)
    return means


def window_features(
    pixels: NDArray[Any], mask: NDArray[np.uint8], num_classes: int
) -> NDArray[np.float64]:
    """Return the features of (C, H, W) pixels and (H, W) ids, in the order of the names.

    Densities and edges are shares 0..1; colour moments are of the first three bands, scaled to
    0..1; GLCM figures are means over four directions at a distance of 1 px, with 32 grey levels.
    """
    from skimage.feature import canny, graycomatrix, graycoprops

    bands = _scaled(pixels)
    grey = bands.mean(axis=0)
    counts = np.bincount(mask[mask != IGNORE], minlength=num_classes)[:num_classes]
    shares = counts / max(1, counts.sum())
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    levels = np.minimum(grey * LEVELS, LEVELS - 1).astype(np.uint8)
    matrix = graycomatrix(levels, [1], angles, LEVELS, symmetric=True, normed=True)
    texture = [float(graycoprops(matrix, name).mean()) for name in GLCM]
    densities = shares[1:] if num_classes == 2 else shares
    return np.array([*densities, float(canny(grey).mean()), *_moments(bands), *texture])


def _moments(bands: NDArray[np.float64]) -> list[float]:
    values: list[float] = []
    for band in bands:
        mean, std = float(band.mean()), float(band.std())
        skew = float(((band - mean) ** 3).mean()) / std**3 if std > 1e-6 else 0.0
        values += [mean, std, skew]
    return values


def _scaled(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Return three bands as 0..1: 8 bit by 255, others by their 2nd and 98th percentile."""
    bands = np.asarray(pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0))
    if bands.dtype == np.uint8:
        return bands / 255.0
    low, high = np.percentile(bands[np.isfinite(bands)], (2, 98))
    scaled: NDArray[np.float64] = np.clip((bands - low) / max(high - low, 1e-9), 0, 1)
    return np.nan_to_num(scaled)


def _windows(height: int, width: int) -> list[Window]:
    """The corners of the image's middle, or the whole image where it is small."""
    if height <= SIDE and width <= SIDE:
        return [Window(0, 0, height, width)]
    tall, wide = min(SIDE, height), min(SIDE, width)
    rows = sorted({(height - tall) // 4, 3 * (height - tall) // 4})
    cols = sorted({(width - wide) // 4, 3 * (width - wide) // 4})
    return [Window(r, c, tall, wide) for r in rows for c in cols][:WINDOWS]
