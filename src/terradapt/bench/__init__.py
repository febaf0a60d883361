"""Efficiency on this machine: the columns of ARAFNet's Table 4 for ten backbones, each engine."""

from terradapt.bench.run import BACKBONES, BenchRow, Options, bench

__all__ = ["BACKBONES", "BenchRow", "Options", "bench"]
