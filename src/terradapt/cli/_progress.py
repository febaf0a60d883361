"""Progress with rate and time left: a bar on a terminal, plain lines, or JSON for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from terradapt.cli._events import events
from terradapt.progress import Show, duration_text

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY = 10.0  # s between plain lines
_shown: list[Progress] = []  # one display at a time: work within work adds a bar to it


@contextmanager
def progress(total: int | None, label: str, unit: str = "it") -> Iterator[Show]:
    """Show the progress of long work on stderr, or tell it to a program on stdout.

    Args:
        total: Number of units, or None when unknown.
        label: What is done.
        unit: Name of a unit, for the rate.

    Yields:
        ``advance(n)``, to be called when ``n`` more units are done.
    """
    told = events()
    shown = told.phase if told else _bar if sys.stderr.isatty() else _lines
    with shown(total, label, unit) as advance:
        yield advance


def say(line: str) -> None:
    """Print a line on stderr, above a bar if one is shown."""
    if _shown:
        _shown[0].console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def _bar(total: int | None, label: str, unit: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(16),
        MofNCompleteColumn(),
        TextColumn("{task.fields[beside]}"),
    )
    inner = bool(_shown)
    bars = _shown[0] if inner else Progress(*columns, console=Console(stderr=True))
    with nullcontext() if inner else bars:
        _shown.append(bars)
        task = bars.add_task(label, total=total, beside="")
        start = time.monotonic()
        done, noted = 0, ""

        def advance(n: int, /, note: str = "", left: float | None = None) -> None:
            nonlocal done, noted
            done += n
            noted = note or noted
            seconds = time.monotonic() - start
            beside = _beside(unit, done, total, seconds, left, noted)
            bars.update(task, advance=n, beside=beside)

        try:
            yield advance
        finally:
            _shown.pop()
            if inner:  # work within work leaves when it is done
                bars.remove_task(task)


@contextmanager
def _lines(total: int | None, label: str, unit: str) -> Iterator[Show]:
    start = last = time.monotonic()
    done, noted = 0, ""

    def tell(now: float, left: float | None) -> None:
        counted = f"{done} {unit}" if total is None else f"{done}/{total} {unit}"
        beside = _beside(unit, done, total, now - start, left, noted)
        print(f"{label}: {counted}  {beside}", file=sys.stderr, flush=True)

    def advance(n: int, /, note: str = "", left: float | None = None) -> None:
        nonlocal done, last, noted
        done += n
        noted = note or noted
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            tell(now, left)

    yield advance
    tell(time.monotonic(), None)


def _beside(
    unit: str, done: int, total: int | None, seconds: float, left: float | None, note: str
) -> str:
    """Say what stands beside a count: the work's own words, the rate and the time left."""
    rate = done / max(seconds, 1e-9)
    if left is None and total and rate and done < total:
        left = (total - done) / rate
    shown = "" if not left else f"{duration_text(left)} left"
    return "  ".join(p for p in (note, f"{rate:.3g} {unit}/s", shown) if p)
