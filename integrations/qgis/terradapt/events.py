"""What the engine tells with ``--progress json``: one JSON object a line. No QGIS in here.

``{"phase": text, "done": int, "total": int or null, "unit": text, "seconds_left": float or null}``,
``{"log": text}``; and at the end ``{"result": {...}}``, ``{"error": text, "fix": text}`` or
``{"stopped": text}``. Any other line is taken as a line of the log.
"""

import json
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Dict, List, NamedTuple, Optional

KEPT = 200  # last lines of the log


class Phase(NamedTuple):
    """How far a phase of the work is.

    Attributes:
        name: What is done.
        done: Units done.
        total: All units; None when unknown.
        unit: Name of a unit.
        left: Seconds left; None when unknown.
        note: What is known of the work so far, in a few words.
    """

    name: str
    done: float
    total: Optional[float]
    unit: str
    left: Optional[float]
    note: str = ""

    @property
    def percent(self) -> Optional[float]:
        """0 to 100, or None where the total is unknown."""
        if not self.total or self.total <= 0:
            return None
        return max(0.0, min(100.0, 100.0 * self.done / self.total))

    def __str__(self) -> str:
        counted = f"{self.done:g}" if self.total is None else f"{self.done:g} of {self.total:g}"
        text = f"{self.name}: {counted} {self.unit}".rstrip()
        if self.left is not None and self.percent != 100:
            text += f", {duration(self.left)} left"
        return f"{text}, {self.note}" if self.note else text


class Log(NamedTuple):
    """A line for people."""

    text: str


class Result(NamedTuple):
    """Files and figures of a finished verb."""

    values: Dict[str, Any]


class Failure(NamedTuple):
    """What is wrong, and what to do about it."""

    what: str
    fix: str


class Stopped(NamedTuple):
    """It was stopped.

    Attributes:
        text: How to go on.
    """

    text: str


@dataclass
class Outcome:
    """What became of a call of the engine.

    Attributes:
        status: Exit status; 0 is success.
        stopped: It was asked to stop.
        result: Files and figures, of ``result``.
        log: Its last lines.
        error: What is wrong, in its words.
        fix: What to do about it, in its words.
    """

    status: int = 0
    stopped: bool = False
    result: Dict[str, Any] = field(default_factory=dict)
    log: List[str] = field(default_factory=list)
    error: str = ""
    fix: str = ""

    def take(self, event: Any) -> None:
        """Remember what an event says."""
        if isinstance(event, Result):
            self.result = event.values
        elif isinstance(event, Failure):
            self.error, self.fix = event
        elif isinstance(event, Stopped):
            self.stopped, self.fix = True, event.text
        elif isinstance(event, Log):
            self.log = [*self.log[1 - KEPT :], event.text]
            head, _, rest = event.text.partition(": ")
            if head == "error":
                self.error, self.fix = rest, ""
            elif head == "fix":
                self.fix = rest


def parse(line: str) -> Any:
    """Return a line of the engine as an event: one of the classes above.

    A line that is none of the engine's objects, of a library or of a crash, is a :class:`Log`; a
    blank one is None.
    """
    text = line.strip()
    if not text:
        return None
    try:
        values = json.loads(text) if text.startswith("{") else None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return Log(line.rstrip())
    if "result" in values:
        found = values["result"]
        return Result(found if isinstance(found, dict) else {"value": found})
    if "error" in values:
        return Failure(str(values["error"]), str(values.get("fix") or ""))
    if "stopped" in values:
        return Stopped(str(values["stopped"]))
    if "log" in values:
        return Log(str(values["log"]))
    if "phase" in values:
        return Phase(
            str(values["phase"]),
            _number(values.get("done")) or 0.0,
            _number(values.get("total")),
            str(values.get("unit") or ""),
            _number(values.get("seconds_left")),
            str(values.get("note") or ""),
        )
    return Log(line.rstrip())


def duration(seconds: float) -> str:
    """Return seconds in words of at most two units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _number(value: Any) -> Optional[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return None
    return value
