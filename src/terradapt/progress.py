"""Progress: how work tells that it advances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""Called with what was done since the last call, in the work's own unit."""
Track = Callable[[int | None, str, str], AbstractContextManager[Advance]]
"""``with track(total, label, unit) as advance: advance(n)``; the command line's is a bar."""


@contextmanager
def silent(total: int | None, label: str, unit: str) -> Iterator[Advance]:
    """Track nothing."""
    yield lambda n: None
