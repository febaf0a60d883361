"""Benchmarks, folders and cities brought to the one form of ``data``: index, splits, checks."""

from __future__ import annotations

__all__ = ["DATASETS"]

DATASETS: dict[str, str] = {
    "folder": "terradapt.prepare.folder:prepare",
    "synthetic": "terradapt.synthetic:prepare",
    "synthetic-pairs": "terradapt.synthetic.pairs:prepare_pairs",
    "vaihingen": "terradapt.prepare.benchmarks:vaihingen",
    "potsdam": "terradapt.prepare.benchmarks:potsdam",
    "deepglobe": "terradapt.prepare.benchmarks:deepglobe",
    "spacenet": "terradapt.prepare.benchmarks:spacenet",
    "massachusetts": "terradapt.prepare.benchmarks:massachusetts",
    "loveda": "terradapt.prepare.benchmarks:loveda",
    "openearthmap": "terradapt.prepare.benchmarks:openearthmap",
    "levir-cd": "terradapt.prepare.benchmarks:levir_cd",
}
"""Dataset name to its preparer, ``module:function``, imported when it is used."""
