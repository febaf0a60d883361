"""Every user-facing error: what is wrong, and what to do about it.

The command line prints ``error: <message>`` and ``fix: <fix>`` on stderr and exits with status 2.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic_core import ValidationError

_LONGEST = 200  # letters of a library's words


class TerradaptError(Exception):
    """A mistake that the user can mend.

    Args:
        message: What is wrong, with the file's name. One line.
        fix: What to do about it, in the imperative. One line.
    """

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        """Come back whole from another process."""
        return _remade, (type(self), self.message, self.fix)


def _remade(kind: type[TerradaptError], message: str, fix: str) -> TerradaptError:
    error = kind.__new__(kind)
    TerradaptError.__init__(error, message, fix)
    return error


class ConfigError(TerradaptError):
    """A recipe, an override or an option that cannot be used."""


class DataError(TerradaptError):
    """A dataset, an image or a label that cannot be used."""


class SceneError(TerradaptError):
    """A raster that cannot be read, or does not fit the model."""


class CheckpointError(TerradaptError):
    """A weight file that cannot be trusted, read or fitted."""


class OutputError(TerradaptError):
    """A result that cannot be written."""


class MissingExtraError(TerradaptError):
    """A library of an optional extra is not installed.

    Args:
        what: What needs it, for example ``"terradapt train"``.
        extra: The extra of the package that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the '{extra}' extra, which is not installed",
            f"run: {install_line(extra)}",
        )


def require(what: str, extra: str, *modules: str) -> None:
    """Check that the modules of an extra are installed, without importing them.

    Raises:
        MissingExtraError: One is not.
    """
    if any(find_spec(module) is None for module in modules):
        raise MissingExtraError(what, extra)


def install_line(extra: str) -> str:
    """Return the command that adds an extra, from where this terradapt was installed.

    An installer notes where a package came from when that was no index (PEP 610).
    """
    root = Path(__file__).parents[2]
    try:
        note = json.loads(distribution("terradapt").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # on PYTHONPATH
        note = {"url": root.as_uri()} if (root / "pyproject.toml").is_file() else {}
    address = str(note.get("url", ""))
    if not address:
        return f"pip install 'terradapt[{extra}]'"
    if "vcs_info" in note or not address.startswith("file:"):
        vcs = note.get("vcs_info", {})
        source = f"{vcs['vcs']}+{address}@{vcs['commit_id']}" if vcs else address
        return f"pip install {shlex.quote(f'terradapt[{extra}] @ {source}')}"
    path = url2pathname(urlsplit(address).path)
    here = "." if path == str(Path.cwd()) else path
    editable = "-e " if note.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(f'{here}[{extra}]')}"


def one_of(given: object, known: Iterable[str], instead: str = "use one of: ") -> str:
    """Return the fix for a name that there is not: the nearest that there is, and all.

    Args:
        given: What was written; capitals do not count.
        known: The names, in the order to tell them.
        instead: What to say before all of them.
    """
    names = list(known)
    folded = {name.casefold(): name for name in reversed(names)}
    near = get_close_matches(str(given).casefold(), folded, n=1)
    meant = f"did you mean '{folded[near[0]]}'? " if near else ""
    return f"{meant}{instead}{', '.join(names)}"


@contextmanager
def refusing(
    source: object, error: type[TerradaptError], fix: str, what: str = "cannot be read"
) -> Iterator[None]:
    """Say in words whatever goes wrong while something that anyone may have made is read.

    What a library raises at a foreign file depends on the file; so there is no list of exceptions.
    For short stretches of code that read and check, and do nothing else.

    Args:
        source: The file, perhaps with a place in it.
        error: What is raised instead.
        fix: What to do about it.
        what: What is wrong; the library's own words follow in brackets.

    Raises:
        TerradaptError: Of class ``error``. One from within that names the source passes as it is,
            and so does a lack of memory or of a library.
    """
    try:
        yield
    except (MissingExtraError, MemoryError):
        raise
    except TerradaptError as own:
        if str(source) in own.message:
            raise
        raise error(f"{source}: {own.message}", own.fix) from own
    except Exception as fault:
        raise error(f"{source}: {what} ({reason(fault)})", fix) from fault


def reason(error: BaseException) -> str:
    """Return on one line what an error says, or what the innermost of its causes says."""
    while error.__cause__ is not None and str(error.__cause__):
        error = error.__cause__
    if isinstance(error, ValidationError):
        return ": ".join(part for part in first_error(error) if part)
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, KeyError):
        return f"no {error}"
    told = isinstance(error, OSError) and error.strerror
    text = " ".join(str(told or error).split())
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") or type(error).__name__


def first_error(error: ValidationError) -> tuple[str, str]:
    """Return the key of the first value that does not fit, dotted, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return where, first["msg"].removeprefix("Value error, ")
