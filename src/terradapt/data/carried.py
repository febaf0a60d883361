"""CarriedError: a user's mistake found in a worker process, whole again in the main one.

A loader's worker sends an exception home as text and builds it anew from that text alone.
"""

from __future__ import annotations

import json
import re

from terradapt.errors import DataError, TerradaptError

_MARK = "\x1e"


class CarriedError(DataError):
    """An error that is the same after it was rebuilt from any text that holds its own text.

    Args:
        text: What :meth:`of` made, perhaps with a traceback around it.
    """

    def __init__(self, text: str) -> None:
        found = re.search(f"{_MARK}(.*?){_MARK}", text, re.DOTALL)
        assert found is not None
        message, fix = json.loads(found.group(1))
        super().__init__(message, fix)
        self._text = f"{_MARK}{found.group(1)}{_MARK}"

    def __str__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[type[CarriedError], tuple[str]]:
        return CarriedError, (self._text,)

    @classmethod
    def of(cls, error: TerradaptError) -> CarriedError:
        """Return an error that survives the way home."""
        return cls(f"{_MARK}{json.dumps([error.message, error.fix])}{_MARK}")
