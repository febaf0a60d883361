"""What cannot be done now, though it could be at another time."""

from __future__ import annotations

from terradapt.errors import TerradaptError


class ConflictError(TerradaptError):
    """Something else is running, is not ready yet, or has changed meanwhile."""
