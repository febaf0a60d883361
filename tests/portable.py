"""A plugin of pytest for `make test-portable`: processes are spawned, as on Windows and macOS."""

from __future__ import annotations

import locale
import multiprocessing
import sys

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Choose the start method, and see that the locale is the one that was meant."""
    multiprocessing.set_start_method("spawn", force=True)
    encoding = locale.getencoding().lower().replace("-", "")
    if encoding != "cp1252" or sys.flags.utf8_mode:
        raise pytest.UsageError(f"the locale's encoding is {encoding}, not cp1252")
