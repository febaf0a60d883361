"""Evaluation: predictor x labelled images -> Report."""

from terradapt.evaluation.options import Protocol
from terradapt.evaluation.run import evaluate
from terradapt.evaluation.scoring import score_images

__all__ = ["Protocol", "evaluate", "score_images"]
