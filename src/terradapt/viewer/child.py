"""Long work in a process of its own: it tells how far it is, and can be stopped.

The process prints one JSON object a line: ``phase``, ``done``, ``total``, ``unit``,
``seconds_left``; or ``log``; or ``result``; or ``error`` with ``fix``. A line ``stop`` on its
standard input asks it to stop. It dies with the server: its input ends then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from terradapt.errors import TerradaptError, reason
from terradapt.progress import Show

_EVERY = 0.25  # s between lines of progress
_PATIENCE = 20.0  # s after which a process that was asked to stop is killed
_KEPT = 40  # lines of standard error
_LOW = 10  # of Unix's niceness: the page stays quick


class Child:
    """A function of this package that runs in a process of its own.

    Args:
        module: A module with a function that is run by :func:`serve`.
        request: What it takes, as JSON.
        tell: Called in a thread with each object that it prints.
        ended: Called in that thread with ``result``, or None, and an error in words, or None.
    """

    def __init__(
        self,
        module: str,
        request: Mapping[str, Any],
        tell: Callable[[dict[str, Any]], None],
        ended: Callable[[Any, tuple[str, str] | None], None],
    ) -> None:
        self._tell, self._ended = tell, ended
        self._stopped = False
        environment = dict(os.environ)
        root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(
            p for p in (root, environment.get("PYTHONPATH")) if p
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
            errors="replace",
        )
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        self._errors: deque[str] = deque(maxlen=_KEPT)
        self._drain = threading.Thread(target=self._read_errors, daemon=True)
        self._drain.start()
        self._thread = threading.Thread(target=self._follow, name="child", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it has told its end."""
        self._thread.join()

    def stop(self, patience: float = _PATIENCE) -> None:
        """Ask it to stop; kill it when it does not. Returns when it is gone."""
        self._stopped = True
        with suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write("stop\n")
            self.process.stdin.flush()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        result: Any = None
        error: tuple[str, str] | None = None
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if not isinstance(said, dict):
                continue
            if "result" in said:
                result = said["result"]
            elif "error" in said:
                error = str(said["error"]), str(said.get("fix", ""))
            else:
                self._tell(said)
        code = self.process.wait()
        self._drain.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if result is None and error is None:
            if self._stopped:
                error = "stopped", "start it again when you like"
            else:
                last = next((line for line in reversed(self._errors) if line.strip()), "")
                what = f"it ended with status {code}{': ' + last.strip() if last else ''}"
                error = what, "look at the terminal; too little memory is a common reason"
        self._ended(result if error is None else None, error)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line)
            sys.stderr.write(line)


def serve(main: Callable[[dict[str, Any]], Any]) -> None:
    """Be the process: read a request, do it, print what comes of it.

    Args:
        main: Takes the request; returns the result.
    """
    lines = _lines()
    request = json.loads(next(lines))
    if hasattr(os, "nice"):
        os.nice(_LOW)
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    try:
        result = main(request)
    except KeyboardInterrupt:
        emit({"error": "stopped", "fix": "start it again when you like"})
    except TerradaptError as error:
        emit({"error": error.message, "fix": error.fix})
    except MemoryError:
        emit({"error": "the memory does not suffice", "fix": "lower train.batch or data.crop"})
    except Exception as fault:
        import traceback

        traceback.print_exc()
        what = f"a fault in terradapt: {type(fault).__name__}: {reason(fault)}"
        emit({"error": what, "fix": "report it, with what the terminal shows"})
    else:
        emit({"result": result})


def emit(values: Mapping[str, Any]) -> None:
    """Print one object."""
    with _PRINTING:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()


@contextmanager
def emitting(total: int | None, label: str, unit: str) -> Iterator[Show]:
    """Track work by printing how far it is, several times a second at most."""
    started = last = time.monotonic()
    done = 0

    def line(now: float, left: float | None = None) -> None:
        if left is None and total is not None and done:
            left = (total - done) * (now - started) / done
        left = None if left is None else round(left, 1)
        emit({"phase": label, "done": done, "total": total, "unit": unit, "seconds_left": left})

    def advance(n: int, /, note: str = "", left: float | None = None) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _EVERY or done == total:
            last = now
            line(now, left)

    line(started)
    yield advance


_PRINTING = threading.Lock()


def _lines() -> Iterator[bytes]:
    """Yield the lines of standard input.

    Not by ``sys.stdin``: a thread that waits there holds its lock, and a forked process that loads
    data would wait for that lock for ever.
    """
    rest = b""
    while part := os.read(0, 1 << 16):
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


def _listen(lines: Iterator[bytes]) -> None:
    """End on the word, and when the server is gone."""
    import _thread

    for line in lines:
        if line.strip() == b"stop":
            _thread.interrupt_main()
            return
    os._exit(1)
