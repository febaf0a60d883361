"""Does the exported model say the same as the checkpoint?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terradapt.meta import Meta
from terradapt.predictors.exported import normalize

if TYPE_CHECKING:
    from terradapt.scene import Predictor

SCORE_TOLERANCE = 1e-4
EQUAL_CLASSES = 0.999
TINY = 1e-30


@dataclass(frozen=True)
class Parity:
    """How far two predictors of one model are apart on the same windows.

    Attributes:
        windows: Windows compared.
        pixels: Pixels compared.
        max_score: Largest difference of a score, 0..1.
        mean_score: Mean difference of a score.
        max_logit: Largest difference of a logit after centring over the classes.
        equal_classes: Share of pixels with the same class.
        source: What the windows show.
    """

    windows: int
    pixels: int
    max_score: float
    mean_score: float
    max_logit: float
    equal_classes: float
    source: str

    @property
    def passed(self) -> bool:
        """Scores within 1e-4 and at least 99.9 % equal classes."""
        return self.max_score <= SCORE_TOLERANCE and self.equal_classes >= EQUAL_CLASSES

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "passed": self.passed}


def compare(
    first: Predictor, second: Predictor, images: NDArray[np.uint8], source: str, batch: int = 2
) -> Parity:
    """Run the same windows (N, C, S, S) through two predictors."""
    peak = total = logit = 0.0
    equal = pixels = 0
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        a = first.numpy(first.predict(part)).astype(np.float64)
        b = second.numpy(second.predict(part)).astype(np.float64)
        difference = np.abs(a - b)
        peak = max(peak, float(difference.max()))
        logit = max(logit, float(np.abs(_logits(a) - _logits(b)).max()))
        total += float(difference.mean()) * len(part)
        equal += int((a.argmax(1) == b.argmax(1)).sum())
        pixels += a[:, 0].size
    return Parity(len(images), pixels, peak, total / len(images), logit, equal / pixels, source)


def raw_output(file: Path, meta: Meta, images: NDArray[np.uint8]) -> NDArray[Any]:
    """Return what a working file gives for windows (N, C, S, S), one window at a time."""
    import onnxruntime

    from terradapt.predictors.onnx import session_options

    session = onnxruntime.InferenceSession(
        file.read_bytes(), session_options(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: normalize(i[None], meta.spec)})[0] for i in images]
    return np.concatenate(parts)


def patches(bands: int, side: int, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return (N, C, S, S) windows of coloured patches with texture, where no scene is given."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, bands, side, side), np.uint8)
    for image in images:
        image[:] = rng.integers(40, 200, (bands, 1, 1))
        for _ in range(24):
            row, col, size = rng.integers(0, side, 3)
            patch = image[:, row : row + size // 2 + 1, col : col + size // 2 + 1]
            patch[:] = rng.integers(0, 256, (bands, 1, 1))
        noise = rng.integers(-12, 13, image.shape)
        image[:] = np.clip(image.astype(np.int16) + noise, 0, 255)
    return images


def _logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    logits = np.log(np.maximum(scores, TINY))
    centred: NDArray[np.float64] = logits - logits.mean(1, keepdims=True)
    return centred
