"""Documents: YAML and plain values that anyone may have written, checked where they are read.

Each kind of file has one reader. It says what the file holds as a type; what does not fit the type
is refused with the file's name, the place and the library's own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from terradapt.errors import ConfigError, DataError, TerradaptError, refusing
from terradapt.files import parse_json
from terradapt.plain_yaml import load_yaml

T = TypeVar("T")


def parse_yaml(text: str, source: object, error: type[TerradaptError], fix: str) -> Any:
    """Parse YAML, of which JSON is a part; nothing in it is executed.

    Args:
        text: The YAML.
        source: The file, for the error.
        error: What is raised.
        fix: What to do about it.

    Raises:
        TerradaptError: Of class ``error``: no YAML, or a value that YAML cannot hold.
    """
    with refusing(source, error, fix, "no valid YAML"):
        try:
            return load_yaml(text)
        except yaml.MarkedYAMLError as fault:
            line = fault.problem_mark.line + 1 if fault.problem_mark else 1
            why = " ".join(str(fault.problem or fault.context or "").split())
            raise error(f"{source}: no valid YAML in line {line} ({why})", fix) from fault


def parse_pairs(pairs: Sequence[str], example: str) -> dict[str, Any]:
    """Read ``key=value`` arguments, values in YAML; nothing after the sign is None.

    Args:
        pairs: The arguments.
        example: A good one, for the error.

    Raises:
        ConfigError: No sign, no key, or a value that is no YAML.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"'{pair}' is no key=value", f"write it so, for example {example}")
        fix = f"close its brackets, or quote it as text: {key.strip()}='\"...\"'"
        values[key.strip()] = parse_yaml(text, f"'{pair}'", ConfigError, fix) if text else None
    return values


def validated(
    kind: type[T], values: Any, source: object, error: type[TerradaptError], fix: str
) -> T:
    """Return plain values as a type.

    Args:
        kind: What they must be: a model, a dataclass, or any annotation.
        values: The values.
        source: The file, for the error.
        error: What is raised.
        fix: What to do about it.

    Raises:
        TerradaptError: Of class ``error``: names the first value that does not fit.
    """
    with refusing(source, error, fix, "does not fit"):
        return TypeAdapter(kind).validate_python(values)


class Event(BaseModel):
    """A line of a log: what happened at which step, and figures of it."""

    __pydantic_extra__: dict[str, float | int | str | None]
    model_config = ConfigDict(extra="allow")

    event: str
    step: Annotated[int, Field(ge=0)] = 0


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log, one :class:`Event` a line, up to a line that a kill cut short; [] without one."""
    events = []
    with suppress(TerradaptError):
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            values = parse_json(line, path)
            validated(Event, values, path, DataError, "")
            events.append(values)
    return events


def _as_name(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{str(value)[:40]} is no text; put it in quotes")
    return str(value)


Name = Annotated[str, BeforeValidator(_as_name)]
"""A name in YAML; numbers are names too, but ``no``, ``2020-01-01`` and ``1.50`` are not."""
