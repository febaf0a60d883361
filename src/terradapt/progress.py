"""Progress: how work tells that it advances."""

from __future__ import annotations

import sys
import time
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

_CELLS = 20  # of a bar
_LIVE, _LINES = 0.2, 10.0  # s between two drawings where a line can be drawn anew, and elsewhere
_widths: list[int] = []  # letters on the line, of work and of the work within it


@contextmanager
def silent(total: int | None, label: str, unit: str) -> Iterator[Show]:
    """Track nothing."""

    def nothing(n: int, /, note: str = "", left: float | None = None) -> None:
        pass

    yield nothing


@contextmanager
def text_bar(total: int | None, label: str, unit: str) -> Iterator[Show]:
    """Draw one line of text, in a notebook and on a terminal again and again in the same place.

    Elsewhere, as in a file, it is a line for every ten seconds. Work within work takes the line
    while it lasts.
    """
    notebook = type(sys.stdout).__module__.startswith("ipykernel")
    stream = sys.stdout if notebook else sys.stderr
    live = notebook or stream.isatty()
    start = last = time.monotonic()
    done, beside = 0, ""

    def draw() -> None:
        text = _line(label, unit, done, total, time.monotonic() - start, beside)
        stream.write(f"\r{text:{max(_widths)}}" if live else f"{text}\n")
        stream.flush()
        _widths[-1] = max(_widths[-1], len(text))

    def advance(n: int, /, note: str = "", left: float | None = None) -> None:
        nonlocal done, last, beside
        done += n
        beside = note or beside
        now = time.monotonic()
        if now - last >= (_LIVE if live else _LINES):
            last = now
            draw()

    _widths.append(max(_widths, default=0))
    try:
        yield advance
    finally:
        if live or last > start:
            draw()
        width = _widths.pop()
        if _widths:
            _widths[-1] = max(_widths[-1], width)
        elif live:
            stream.write("\n")


def _line(label: str, unit: str, done: int, total: int | None, seconds: float, beside: str) -> str:
    rate = done / max(seconds, 1e-9)
    note = f", {beside}" if beside else ""
    if total is None:
        return f"{label}: {done} {unit}, {rate:.3g}/s{note}"
    full = round(_CELLS * min(done / max(total, 1), 1))
    bar = "█" * full + "░" * (_CELLS - full)
    left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else f", {seconds:.0f} s"
    return f"{label} {bar} {done}/{total} {unit}, {rate:.3g}/s{left}{note}"


def duration_text(seconds: float) -> str:
    """Say a time in the two largest units that matter: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours / 24:.1f} days"
