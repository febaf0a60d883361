"""Progress: how work tells that it advances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Called with what was done since the last call, in the work's own unit."""


class Show(Protocol):
    """An :data:`Advance` that takes what stands beside the bar too."""

    def __call__(self, n: int, /, note: str = "", left: float | None = None) -> None:
        """Show that ``n`` more units are done.

        Args:
            n: Units since the last call.
            note: What is known of them, in a few words; the last one stays.
            left: Time left, s, where the work knows better than its own rate tells.
        """


Track = Callable[[int | None, str, str], AbstractContextManager[Show]]
"""``with track(total, label, unit) as advance: advance(n)``; the command line's is a bar. Work
within work has a track of its own inside."""


@contextmanager
def silent(total: int | None, label: str, unit: str) -> Iterator[Show]:
    """Track nothing."""

    def nothing(n: int, /, note: str = "", left: float | None = None) -> None:
        pass

    yield nothing


def duration_text(seconds: float) -> str:
    """Say a time in the two largest units that matter: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours / 24:.1f} days"
