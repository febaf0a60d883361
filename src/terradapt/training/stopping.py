"""Ctrl-C and a termination end a run after the step in progress, and are answered at once."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ANSWER = "stopping after this step; Ctrl-C once more stops at once"


class StoppedError(Exception):
    """A validation was left because the run is to stop."""


@contextmanager
def stop_signals(stop: Callable[[], None], say: Callable[[str], None] | None) -> Iterator[None]:
    """Call ``stop`` at the first signal; at a second Ctrl-C, leave without saving.

    Args:
        stop: Lets the run end after the step in progress.
        say: Gets the answer. It is called by a thread of its own: a signal may come while the main
            one is writing, and holds what a writer needs.
    """
    asked = False

    def handle(number: int, _: object) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True
        stop()
        if say is not None:
            _thread.start_new_thread(say, (ANSWER,))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
