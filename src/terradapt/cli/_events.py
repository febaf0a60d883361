"""``--progress json``: what a verb tells a program, and the word ``stop`` that it takes.

Standard output holds one JSON object a line and nothing else: whatever a verb or a library prints
becomes a ``log`` line. The page docs/progress.md is the contract.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from terradapt.progress import Show

LINE_EVERY = 0.2  # s between lines of a phase
STOP = b"stop"
INTERRUPTED = "interrupted"


class Events:
    """The lines that go to the calling program."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.lock = threading.Lock()

    def tell(self, **event: Any) -> None:
        """Write one object; when the reader has gone, the work goes on without it."""
        line = json.dumps(_plain(event), allow_nan=False) + "\n"
        with self.lock:
            try:
                self.out.write(line)
                self.out.flush()
            except OSError:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.out.fileno())
                os.close(nowhere)

    @contextmanager
    def phase(self, total: int | None, label: str, unit: str) -> Iterator[Show]:
        """Track a phase: a line at its start and its end, and at most five a second between."""
        start = time.monotonic()
        last = -math.inf
        done, shown, noted = 0, -1, ""

        def tell(now: float, left: float | None) -> None:
            nonlocal last, shown
            last, shown = now, done
            if left is None and total is not None and done:
                left = max(0, total - done) * (now - start) / done
            told = {"phase": label, "done": done, "total": total, "unit": unit}
            seconds = None if left is None else round(left, 1)
            self.tell(**told, seconds_left=seconds, **({"note": noted} if noted else {}))

        def advance(n: int, /, note: str = "", left: float | None = None) -> None:
            nonlocal done, noted
            done += n
            noted = note or noted
            now = time.monotonic()
            if now - last >= LINE_EVERY:
                tell(now, left)

        tell(start, None)
        try:
            yield advance
        finally:
            if done != shown:
                tell(time.monotonic(), None)


class _Printed(io.TextIOBase):
    """Stands for a standard stream: each line that is printed becomes a ``log``."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.events = events
        self.rest = ""

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def write(self, text: str) -> int:
        """Tell the lines that are whole."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            shown = line.rstrip().rpartition("\r")[2]  # of a bar that redraws itself, the last
            if shown.strip():
                self.events.tell(log=shown)
        return len(text)


_open: list[Events] = []
_stopped: list[str] = []


def events() -> Events | None:
    """Return where events go, or None where people read."""
    return _open[-1] if _open else None


def say_stopped(how: str) -> None:
    """Say how a stopped verb goes on; a program hears it last."""
    _stopped[:] = [how]
    if not events():
        print(f"stopped; {how}", file=sys.stderr)


def how_stopped() -> str:
    """Return what was said of it, once."""
    return _stopped.pop() if _stopped else INTERRUPTED


def asked(arguments: Iterable[str]) -> bool:
    """Tell whether a command line has ``--progress json``."""
    words = list(arguments)
    if "--" in words:
        words = words[: words.index("--")]
    said = {b for a, b in pairwise(words) if a == "--progress"}
    said |= {w.partition("=")[2] for w in words if w.startswith("--progress=")}
    return "json" in said


@contextmanager
def speaking() -> Iterator[Events]:
    """Let standard output hold events alone, and take ``stop`` from standard input."""
    streams = sys.stdout, sys.stderr
    found = Events(sys.stdout)
    _open.append(found)
    sys.stdout = sys.stderr = _Printed(found)
    if os.environ.get("RANK", "0") == "0":  # the input of a launch is its first process's
        threading.Thread(target=_listen, name="stop", daemon=True).start()
    try:
        yield found
    finally:
        sys.stdout, sys.stderr = streams
        _open.pop()


def _listen() -> None:
    """Wait for the word; the end of the input is none, and a terminal has Ctrl-C.

    It reads the descriptor: a thread that waits in ``sys.stdin`` holds its lock, and Python cannot
    end.
    """
    rest = b""
    try:
        if sys.stdin is None or sys.stdin.isatty():
            return
        number = sys.stdin.fileno()
        while chunk := os.read(number, 4096):
            *lines, rest = (rest + chunk).split(b"\n")
            if any(line.strip() == STOP for line in lines):
                return _interrupt()
    except (OSError, ValueError):  # no input at all
        return
    if rest.strip() == STOP:
        _interrupt()


def _interrupt() -> None:
    """Do to the main thread what Ctrl-C does."""
    if hasattr(signal, "pthread_kill"):  # wakes it where it waits
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def _plain(value: Any) -> Any:
    """Return what JSON has for a value: paths as text, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)  # a number of NumPy or torch
    return _plain(item()) if callable(item) else str(value)
