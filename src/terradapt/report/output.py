"""Writing texts so that a reader finds all of them whole, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from terradapt.errors import OutputError

_FIX = "give an output path in a folder that you may write to"


def check_output(path: str | Path) -> None:
    """Refuse an output path early, before the work; makes its folder.

    Raises:
        OutputError: A folder of that name, or its folder cannot be made or written.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder", "give a file name, for example report.json")
    probe = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})", _FIX) from error


def write_together(texts: Mapping[Path, str]) -> list[Path]:
    """Write every text beside its place, then rename them all.

    Raises:
        OutputError: One of them cannot be written; then none has changed.
    """
    for path in texts:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder", "move it away, or give another output path")
    parts = {p: p.with_name(f".{p.name}.{os.getpid()}.part") for p in texts}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_text(text, "utf-8")
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        name = error.filename or next(iter(texts))
        raise OutputError(f"{name}: cannot be written ({error.strerror})", _FIX) from error
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return list(texts)
