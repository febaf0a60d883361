"""Track: how long work tells that it advances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Track = Callable[[int | None, str, str], AbstractContextManager[Callable[[int], None]]]
"""``with track(total, label, unit) as advance: advance(n)``; the command line's is a bar."""


@contextmanager
def silent(total: int | None, label: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Track nothing."""
    yield lambda n: None
