"""A verb says which extra brings what it needs."""

from terradapt.errors import require

__all__ = ["require"]
