"""The viewer's pages that this QGIS has opened; they end with it."""

import atexit
import queue
import re
import subprocess

from .events import Log, Outcome, Result, parse
from .process import ask_to_stop, lines_of, shown, start

_ADDRESS = re.compile(r"https?://(?:127\.0\.0\.1|localhost|\[::1\])[^\s\"'<>]*")
_running = []


def open_page(command, env, feedback):
    """Start a viewer and wait until it tells its address.

    Returns:
        The address, None where there is none; and the outcome up to then.
    """
    feedback.pushCommandInfo(shown(command))
    process = start(command, env)
    lines, outcome = lines_of(process), Outcome()
    while True:
        try:
            line = lines.get(timeout=0.1)
        except queue.Empty:
            if feedback.isCanceled():
                end(process)
                outcome.error = "stopped"
                return None, outcome
            continue
        if line is None:
            end(process)
            outcome.status = process.returncode
            return None, outcome
        event = parse(line)
        if event is None:
            continue
        outcome.take(event)
        text = event.text if isinstance(event, Log) else ""
        if isinstance(event, Result):
            text = " ".join(map(str, event.values.values()))
        if isinstance(event, Log):
            feedback.pushInfo(text)
        found = _ADDRESS.search(text)
        if found:
            _running.append(process)
            return found.group(), outcome


def end(process):
    """Ask a viewer to stop, end it where it does not, and close what leads to it."""
    if process.poll() is None:
        ask_to_stop(process)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        try:
            stream.close()
        except OSError:
            pass


def end_all():
    """End all viewers of this QGIS."""
    while _running:
        end(_running.pop())


atexit.register(end_all)
