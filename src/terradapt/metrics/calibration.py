"""How far a model's confidence can be believed, and the temperature that mends it.

Reliability: pixels are sorted into 15 bins by confidence; within a bin the mean confidence should
be the share that is right (Guo et al., "On calibration of modern neural networks", ICML 2017; per
class: Kull et al., "Beyond temperature scaling", NeurIPS 2019). Bins add up over images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from terradapt.classes import IGNORE, ClassMap
from terradapt.meta import Calibration

BINS = 15
SMALLEST = 2.0**-24
"""Score below which the logarithm is not taken: the smallest that a float16 holds."""
BOUNDS = (0.05, 20.0)
"""Of the temperature."""
MOST_SCORES = 1 << 23
"""Scores that are kept to fit on, all classes together."""
_CHUNK = 1 << 20  # pixels looked at together


class Reliability:
    """Sums per bin of confidence; instances of several images add up.

    Args:
        num_classes: K.

    Attributes:
        top: (3, 15): pixels, sum of the winner's score, right ones, by the winner's score.
        each: (3, K, 15): pixels, sum of the class's score, pixels of the class, by its score.
        sums: Pixels, sum of -log(score of the label's class), sum of squared errors.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.top = np.zeros((3, BINS))
        self.each = np.zeros((3, num_classes, BINS))
        self.sums = np.zeros(3)

    def update(self, target: NDArray[np.uint8], scores: NDArray[np.floating[Any]]) -> Reliability:
        """Count one image or a part of it.

        Args:
            target: Class ids of any shape; 255 is not counted.
            scores: (K, ...) probabilities, which sum to 1 at each pixel; not looked at where the
                target is 255.

        Returns:
            Itself.

        Raises:
            ValueError: Shapes that do not fit.
        """
        if scores.shape != (self.num_classes, *target.shape):
            raise ValueError(f"scores {scores.shape} for a target {target.shape}")
        counted = target.reshape(-1) != IGNORE
        ids = target.reshape(-1)[counted]
        flat = scores.reshape(self.num_classes, -1)[:, counted]
        for start in range(0, ids.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            self._add(ids[part], flat[:, part].astype(np.float32, copy=False))
        return self

    def _add(self, ids: NDArray[np.uint8], scores: NDArray[np.float32]) -> None:
        best, winner = scores[0].copy(), np.zeros(ids.shape, np.uint8)
        own = np.zeros(ids.shape, np.float32)
        squares = 0.0
        for k, score in enumerate(scores):
            better, here = score > best, ids == k
            winner[better], best[better] = k, score[better]
            own[here] = score[here]
            squares += float(np.square(score - here).sum(dtype=np.float64))
            self.each[:, k] += _binned(score, here)
        self.top += _binned(best, winner == ids)
        surprise = -np.log(np.maximum(own, SMALLEST)).sum(dtype=np.float64)
        self.sums += (ids.size, surprise, squares)

    def __add__(self, other: Reliability) -> Reliability:
        assert self.num_classes == other.num_classes, (self.num_classes, other.num_classes)
        total = Reliability(self.num_classes)
        for name in ("top", "each", "sums"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    @property
    def pixels(self) -> int:
        """Number of counted pixels."""
        return int(self.sums[0])

    def figures(self) -> dict[str, float]:
        """Return what one number says; 0 without a pixel.

        Returns:
            ``ece``: expected calibration error of the winner's score, 0..1; ``nll``: mean negative
            log-likelihood, nats; ``brier``: mean over pixels of the squared error summed over the
            classes, 0..2.
        """
        pixels = max(self.sums[0], 1.0)
        return {
            "ece": float(np.abs(self.top[1] - self.top[2]).sum() / pixels),
            "nll": float(self.sums[1] / pixels),
            "brier": float(self.sums[2] / pixels),
        }

    def per_class(self, classes: ClassMap) -> dict[str, float]:
        """Return the expected calibration error of each class's own score, by name."""
        assert len(classes) == self.num_classes, (len(classes), self.num_classes)
        errors = np.abs(self.each[1] - self.each[2]).sum(1) / max(self.sums[0], 1.0)
        return dict(zip(classes.names, errors.tolist(), strict=True))

    def table(self) -> list[dict[str, float | int]]:
        """Return the diagram's bins that hold pixels.

        Returns:
            ``low``, ``high``: the bin's ends; ``pixels``; ``confidence``: mean of the winner's
            score; ``accuracy``: share of its pixels that are right.
        """
        return [
            {
                "low": b / BINS,
                "high": (b + 1) / BINS,
                "pixels": int(pixels),
                "confidence": float(confidence / pixels),
                "accuracy": float(right / pixels),
            }
            for b, (pixels, confidence, right) in enumerate(self.top.T)
            if pixels
        ]


def rescale(scores: NDArray[Any], temperature: float, bias: NDArray[Any]) -> NDArray[np.float32]:
    """Return ``softmax(log(scores) / temperature + bias)`` over the first axis, (K, ...).

    On softmax scores this equals the same change of the logits: what a logarithm loses is one
    number for all classes of a pixel.
    """
    smallest = np.finfo(np.float32).tiny
    logits: NDArray[np.float32] = np.log(np.maximum(scores, smallest)).astype(np.float32)
    logits /= np.float32(temperature)
    logits += bias.astype(np.float32).reshape(-1, *[1] * (scores.ndim - 1))
    logits -= logits.max(0)
    np.exp(logits, out=logits)
    logits /= logits.sum(0)
    return logits


def without(scores: NDArray[Any], calibration: Calibration) -> NDArray[np.float32]:
    """Return what calibrated scores (K, ...) were before."""
    bias = np.asarray(calibration.bias or np.zeros(len(scores)))
    return rescale(scores, 1 / calibration.temperature, -bias * calibration.temperature)


def labelled_sample(
    scores: NDArray[np.floating[Any]], target: NDArray[np.uint8], pixels: int, *seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Keep a part of an image's labelled pixels, drawn, to fit on.

    Args:
        scores: (K, ...) of one image or a part of it.
        target: Class ids (...); 255 is not kept.
        pixels: Of all images together; :data:`MOST_SCORES` bounds what is kept of them.
        seed: Of the draw.

    Returns:
        (K, N) and (N,).
    """
    ids = target.reshape(-1)
    kept = ids != IGNORE
    share = MOST_SCORES / (len(scores) * max(1, pixels))
    if share < 1:
        kept &= np.random.default_rng(seed).random(ids.size) < share
    return scores.reshape(len(scores), -1)[:, kept].astype(np.float32), ids[kept]


def fit_calibration(
    scores: NDArray[np.floating[Any]],
    target: NDArray[np.uint8],
    classes: ClassMap,
    *,
    bias: bool = False,
    split: str = "val",
) -> Calibration | None:
    """Find the temperature with the lowest negative log-likelihood; 1 where none is lower.

    Args:
        scores: (K, N) uncalibrated softmax scores.
        target: (N,) class ids; 255 is not counted.
        classes: K names.
        bias: Find a bias per class too (then the classes may change); classes without a labelled
            pixel keep 0.
        split: Where the pixels come from.

    Returns:
        What was found, with the figures of these pixels before and after; None without a labelled
        pixel.
    """
    counted = target != IGNORE
    ids = target[counted]
    if not ids.size:
        return None
    kept = scores[:, counted]
    logits = np.log(np.maximum(kept, np.finfo(np.float32).tiny)).astype(np.float32)
    present = np.bincount(ids, minlength=len(classes))[: len(classes)] > 0
    temperature, biases = _temperature(logits, ids), np.zeros(len(classes))
    if bias:
        temperature, biases = _with_bias(logits, ids, temperature, present)
    after = rescale(np.exp(logits), temperature, biases)
    return Calibration(
        temperature=temperature,
        bias=tuple(biases.tolist()) if bias else (),
        split=split,
        pixels=int(ids.size),
        absent=tuple(n for n, seen in zip(classes.names, present, strict=True) if not seen),
        before=Reliability(len(classes)).update(ids, kept).figures(),
        after=Reliability(len(classes)).update(ids, after).figures(),
    )


def _temperature(logits: NDArray[np.float32], ids: NDArray[np.uint8]) -> float:
    def loss(log_t: float) -> float:
        return _nll(logits / np.float32(np.exp(log_t)), ids)[0]

    low, high = np.log(BOUNDS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def _with_bias(
    logits: NDArray[np.float32],
    ids: NDArray[np.uint8],
    temperature: float,
    present: NDArray[np.bool_],
) -> tuple[float, NDArray[np.float64]]:
    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled = logits / np.float32(np.exp(x[0]))
        value, change = _nll(scaled + x[1:, None].astype(np.float32), ids)
        slope = -(change * scaled).sum(dtype=np.float64) / ids.size
        biases = np.where(present, change.sum(1, dtype=np.float64) / ids.size, 0.0)
        return value, np.concatenate([[slope], biases])

    low, high = np.log(BOUNDS)
    start = np.concatenate([[np.log(temperature)], np.zeros(len(logits))])
    limits = [(low, high), *[(-10.0, 10.0)] * len(logits)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits)
    return float(np.exp(found.x[0])), found.x[1:]


def _nll(logits: NDArray[np.float32], ids: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
    """Return the mean negative log-likelihood and the scores (K, N) minus the label's one-hot."""
    scores = logits - logits.max(0)
    own = scores[ids, np.arange(ids.size)].copy()
    np.exp(scores, out=scores)
    total = scores.sum(0)
    value = float((np.log(total) - own).mean(dtype=np.float64))
    scores /= total
    scores[ids, np.arange(ids.size)] -= 1
    return value, scores


def _binned(score: NDArray[np.float32], hit: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (3, 15): pixels, sum of the score, hits by bin of the score."""
    bins = np.clip((score * BINS).astype(np.int64), 0, BINS - 1)
    counts = np.bincount(bins + BINS * hit, minlength=2 * BINS).reshape(2, BINS)
    return np.stack([counts.sum(0), np.bincount(bins, score, BINS), counts[1]])
