"""Run the engine or pip as a program of its own, so that QGIS stays free. No QGIS in here."""

import os
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from .events import Log, Outcome, parse

STOP = b"stop\n"
GRACE = 120.0  # s that the engine has to put its state away
_POLL = 0.1  # s
# Of QGIS's own Python, GDAL and PROJ: another Python with them finds the wrong files.
_FOREIGN = (
    "PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "PYTHONUSERBASE", "VIRTUAL_ENV",
    "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA", "PROJ_NETWORK",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "QT_PLUGIN_PATH", "QT_QPA_PLATFORM_PLUGIN_PATH",
    "DYLD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES",
)  # fmt: skip


def environment(given: Mapping[str, str], *, inside: Sequence[str] = ()) -> Dict[str, str]:
    """Return the environment for a Python that is not QGIS's.

    Args:
        given: QGIS's own.
        inside: Folders of QGIS; what lies in them leaves ``PATH``, and variables that point there
            go. Elsewhere they are the user's own and stay.
    """
    roots = [os.path.normcase(os.path.abspath(p)) for p in inside if p]

    def foreign(path: str) -> bool:
        here = os.path.normcase(os.path.abspath(path))
        return any(here == r or here.startswith(r + os.sep) for r in roots)

    kept = {}
    for name, value in given.items():
        if name.upper() in _FOREIGN and (name.upper().startswith("PYTHON") or foreign(value)):
            continue
        kept[name] = value
    for name in [n for n in kept if n.upper() == "PATH"]:
        folders = kept[name].split(os.pathsep)
        kept[name] = os.pathsep.join(f for f in folders if f and not foreign(f))
    kept.update(PYTHONUTF8="1", PYTHONUNBUFFERED="1")
    return kept


def start(command: Sequence[str], env: Mapping[str, str], folder: Optional[str] = None) -> Any:
    """Start a program with its input open, and its output and errors as one stream of bytes."""
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # no console window on Windows
    return subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        cwd=folder or str(Path.home()),
        creationflags=flags,
    )


def ask_to_stop(process: Any) -> None:
    """Write the word ``stop``, as the engine takes it on every system."""
    try:
        process.stdin.write(STOP)
        process.stdin.flush()
    except (OSError, ValueError):  # it has ended meanwhile
        pass


def lines_of(process: Any) -> Any:
    """Return a queue of a program's lines as text, with None at the end."""
    lines: Any = queue.Queue()

    def read() -> None:
        for raw in process.stdout:
            lines.put(raw.decode("utf-8", "replace"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    on_event: Callable[[Any], None],
    cancelled: Callable[[], bool],
    *,
    stops: bool = True,
    grace: float = GRACE,
    folder: Optional[str] = None,
) -> Outcome:
    """Run a program to its end.

    Args:
        command: Program and arguments.
        env: Its environment.
        on_event: Gets each event in this thread.
        cancelled: Whether the user wants it to stop; asked ten times a second.
        stops: It takes the word ``stop``; else it is ended at once.
        grace: Seconds from the word to its end.
        folder: Where it runs; the home folder by default.

    Raises:
        OSError: It cannot be started.
    """
    process = start(command, env, folder)
    outcome = Outcome()
    lines = lines_of(process)
    asked, ends = False, 0.0
    while True:
        try:
            line = lines.get(timeout=_POLL)
        except queue.Empty:
            line = ""
        if line is None:
            break
        event = parse(line)
        if event is not None:
            outcome.take(event)
            on_event(event)
        now = time.monotonic()
        if not asked and cancelled():
            asked, ends = True, now + (grace if stops else 0)
            if stops:
                ask_to_stop(process)
                on_event(Log("asked to stop; what is done so far is put away first"))
        if asked and now >= ends:
            process.kill()
            break
    try:
        process.stdin.close()
    except OSError:  # it ended before it read the word
        pass
    outcome.status = process.wait()
    outcome.stopped = outcome.stopped or (asked and outcome.status != 0)
    process.stdout.close()
    return outcome


def shown(command: Sequence[str]) -> str:
    """Return a command for the log, as it can be typed."""
    words: List[str] = [str(word) for word in command]
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    import shlex

    return " ".join(shlex.quote(word) for word in words)
