"""Every user-facing error: what is wrong, and what to do about it.

The command line prints ``error: <message>`` and ``fix: <fix>`` on stderr and exits with status 2.
"""

from __future__ import annotations

from typing import Any


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
            f"run: pip install 'terradapt[{extra}]'",
        )


def reason(error: BaseException) -> str:
    """Return on one line what an error says, or what the innermost of its causes says."""
    while error.__cause__ is not None and str(error.__cause__):
        error = error.__cause__
    told = isinstance(error, OSError) and error.strerror
    return " ".join(str(told or error).split()) or type(error).__name__
