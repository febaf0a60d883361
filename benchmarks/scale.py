"""Is the scale of a scene found by looking at it? Images made larger and smaller, then searched.

For each true scale, the test images are resampled by it and every step of the search is scored by
two measures: the mean margin of the scores, and the mutual information of pixel and class, which
terradapt takes.

    python benchmarks/scale.py --model RUN --data DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from terradapt import predictors
from terradapt.config import DataConfig
from terradapt.data import open_dataset
from terradapt.scene import Predictor
from terradapt.scene.resample import Resampled
from terradapt.scene.scale import STEPS, information


def measures(predictor: Predictor, images: list[np.ndarray], step: float) -> tuple[float, float]:
    """Return the mean margin and the information at one step; NaN where images are too small."""
    scores = []
    for pixels in images:
        side = min(round(256 * step), *pixels.shape[1:])
        seen = int(side / step) // 32 * 32
        if seen < 64:
            return np.nan, np.nan
        row, col = ((n - side) // 2 for n in pixels.shape[1:])
        window = np.ascontiguousarray(pixels[None, :, row : row + side, col : col + side])
        scores.append(predictor.numpy(Resampled(predictor, side, seen).predict(window))[0])
    ordered = [np.sort(s, 0) for s in scores]
    return float(np.mean([(s[-1] - s[-2]).mean() for s in ordered])), information(scores)


def main() -> None:
    """Print one row a true scale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5, help="of the split test")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 0.71, 1.0, 1.41, 2.0])
    args = parser.parse_args()
    predictor = predictors.load(args.model)
    items = open_dataset(args.data, DataConfig()).split("test")[: args.images]
    print("| true scale | found by margin | found by information | information at each step |")
    print("|---|---|---|---|")
    for scale in args.scales:
        images = []
        for item in items:
            photo = Image.open(item.image).convert("RGB")
            size = round(photo.width * scale), round(photo.height * scale)
            images.append(
                np.asarray(photo.resize(size, Image.Resampling.LANCZOS)).transpose(2, 0, 1)
            )
        margin, told = np.array([measures(predictor, images, step) for step in STEPS]).T
        best = [STEPS[int(np.nanargmax(m))] for m in (margin, told)]
        steps = " ".join(f"{v:.3f}" for v in told)
        print(f"| {scale} | {best[0]:.2f} | {best[1]:.2f} | {steps} |", flush=True)


if __name__ == "__main__":
    main()
