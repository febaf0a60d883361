"""Metrics of the papers' protocols."""

from terradapt.metrics.confusion import Confusion

__all__ = ["Confusion"]
