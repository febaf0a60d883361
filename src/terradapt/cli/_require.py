"""A verb says which extra brings what it needs."""

from __future__ import annotations

from importlib.util import find_spec

from terradapt.errors import MissingExtraError


def require(what: str, extra: str, *modules: str) -> None:
    """Check that the modules of an extra are installed, without importing them.

    Raises:
        MissingExtraError: One is not.
    """
    if any(find_spec(m) is None for m in modules):
        raise MissingExtraError(what, extra)
