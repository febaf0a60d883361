"""terradapt adapts SAM2 to aerial and satellite imagery.

``terradapt.build`` makes a model, ``terradapt.load`` reads a checkpoint or an exported model.
"""

from __future__ import annotations

__version__ = "0.1.0"
