"""Progress with rate and time left: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from terradapt.progress import Advance

LINE_EVERY = 10.0  # s between plain lines


@contextmanager
def progress(total: int | None, label: str, unit: str = "it") -> Iterator[Advance]:
    """Show the progress of long work on stderr.

    Args:
        total: Number of units, or None when unknown.
        label: What is done.
        unit: Name of a unit, for the rate.

    Yields:
        ``advance(n)``, to be called when ``n`` more units are done.
    """
    shown = _bar if sys.stderr.isatty() else _lines
    with shown(total, label, unit) as advance:
        yield advance


@contextmanager
def _bar(total: int | None, label: str, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, rate="")
        start = time.monotonic()

        def advance(n: int) -> None:
            done = bar.tasks[0].completed + n
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, advance=n, rate=f"{rate:.3g} {unit}/s")

        yield advance


@contextmanager
def _lines(total: int | None, label: str, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            print(_line(label, unit, done, total, now - start), file=sys.stderr, flush=True)

    yield advance
    print(_line(label, unit, done, total, time.monotonic() - start), file=sys.stderr, flush=True)


def _line(label: str, unit: str, done: int, total: int | None, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    counted = f"{done} {unit}" if total is None else f"{done}/{total} {unit}"
    left = f", {(total - done) / rate:.0f} s left" if total and rate and done < total else ""
    return f"{label}: {counted}, {rate:.3g} {unit}/s, {seconds:.0f} s{left}"
