"""Long work: a verb of the command line in a process of its own, which can be stopped.

It tells its progress as ``--progress json`` does (docs/progress.md), takes ``stop`` on its standard
input, and dies with the server: its input ends then.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_PATIENCE = 20.0  # s after which a process that was asked to stop is killed
_LOW = 10  # of Unix's niceness: the page stays quick


class Child:
    """A verb that runs.

    Args:
        arguments: Of the command line, without ``--progress``.
        tell: Called in a thread with each object that it prints on its way.
        ended: Called in that thread with ``result``, or None, and an error in words, or None.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        tell: Callable[[dict[str, Any]], None],
        ended: Callable[[Any, tuple[str, str] | None], None],
    ) -> None:
        self._tell, self._ended = tell, ended
        self._stopped = False
        paths = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, *arguments, "--progress", "json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)},
            encoding="utf-8",
            errors="replace",
        )
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
        result: Any = None
        error: tuple[str, str] | None = None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if "result" in said:
                result = said["result"]
            elif "error" in said:
                error = str(said["error"]), str(said.get("fix", ""))
            elif "stopped" not in said:
                self._tell(said)
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if result is None and self._stopped:
            error = "stopped", "start it again when you like"
        elif result is None and error is None:
            fix = "look at the terminal; too little memory is a common reason"
            error = f"it ended with status {code}", fix
        self._ended(result if error is None else None, error)


def _pass_on(server: int, verb: int) -> None:
    """Hand over what the server says; end when there is no server any more."""
    while said := os.read(server, 4096):
        os.write(verb, said)
    os._exit(1)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(_LOW)
    given = os.dup(0)
    verb_reads, verb_hears = os.pipe()
    os.dup2(verb_reads, 0)
    threading.Thread(target=_pass_on, args=(given, verb_hears), daemon=True).start()
    runpy.run_module("terradapt", run_name="__main__")
