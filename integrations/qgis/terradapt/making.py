"""Make an engine: run pip's commands one after the other. No QGIS in here."""

import subprocess
from typing import Callable, List, Mapping, NamedTuple, Sequence

from . import remedies
from .engine import Plan, commands, is_own, pythons, usable
from .events import Log, Outcome
from .process import run, shown


class Made(NamedTuple):
    """What became of it.

    Attributes:
        good: There is an engine now.
        what: What is wrong.
        fix: What to do about it.
    """

    good: bool
    what: str = ""
    fix: str = ""


def make(
    plan: Plan, env: Mapping[str, str], say: Callable[[str], None], cancelled: Callable[[], bool]
) -> Made:
    """Make an engine.

    Args:
        plan: From what and where; an empty ``python`` takes the first that is usable.
        env: The environment, with the proxy.
        say: Gets the commands, and each line of pip.
        cancelled: Whether to stop.
    """
    if not is_own(plan.folder):
        return Made(False, f"{plan.folder} holds other files", "choose a new or empty folder")
    python = choose_python(plan.python, env)
    if not python:
        return Made(
            False,
            f"{plan.python}: no Python 3.11 or newer" if plan.python else "no Python 3.11 or newer",
            "install one (Windows and macOS: from python.org; Debian, Ubuntu: sudo apt install "
            "python3-venv), then try again; or choose it by hand",
        )
    lines: List[str] = []

    def on_event(event: object) -> None:
        if isinstance(event, Log):
            lines.append(event.text)
            say(event.text)

    for command in commands(plan, python):
        say(f"> {shown(command)}")
        try:
            outcome = run(command, env, on_event, cancelled, stops=False)
        except OSError as error:
            outcome = Outcome(status=1)
            on_event(Log(f"{command[0]}: {error}"))
        if outcome.stopped:
            return Made(False, "stopped", "the half-made engine is made anew the next time")
        if outcome.status:
            return Made(False, *remedies.of_install(lines))
    return Made(True)


def choose_python(given: str, env: Mapping[str, str]) -> Sequence[str]:
    """Return the command of the Python for an engine; empty where there is none.

    Args:
        given: The user's choice; "" for the first that is usable.
        env: The environment.
    """

    def ask(command: Sequence[str]) -> str:
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        return subprocess.run(
            list(command), check=False, env=dict(env), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, creationflags=flags,
        ).stdout.decode("utf-8", "replace")  # fmt: skip

    offered = [[given]] if given else pythons(env)
    try:
        return next((c for c in offered if usable(c, ask)), [])
    except subprocess.TimeoutExpired:
        return []
