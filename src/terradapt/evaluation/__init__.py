"""Evaluation: predictor x labelled images -> Report."""

from terradapt.evaluation.checkpoints import EvaluationTask, open_task, report_run
from terradapt.evaluation.options import Protocol
from terradapt.evaluation.run import evaluate
from terradapt.evaluation.scoring import score_images

__all__ = ["EvaluationTask", "Protocol", "evaluate", "open_task", "report_run", "score_images"]
