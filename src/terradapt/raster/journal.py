"""Journal: which rows of an unfinished result can be trusted after a kill."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from terradapt.errors import DataError, OutputError
from terradapt.files import parse_json


class Journal:
    """Lines beside the parts of a result; the first says what the result is made of.

    Each is a checksum and JSON. What a kill, a full disk or a second writer made of the file, the
    lines that are kept are whole, in their place and in order.

    Args:
        path: The journal's file.
        signature: Must be equal for going on.
        stamp: Tells the scene's file from a changed one. Must be equal too, unless the run ended on
            an unreadable scene, which is then mended.
    """

    def __init__(self, path: Path, signature: Any, stamp: Any) -> None:
        self.path = path
        self._head = json.loads(json.dumps({"signature": signature, "stamp": stamp}))
        self._file: BinaryIO | None = None

    def open(self, trust: Callable[[Any], bool]) -> None:
        """Go on with the lines that ``trust`` takes, cut off the rest, or begin a new journal.

        Raises:
            OutputError: The journal is of another job.
        """
        kept = self._kept(trust) if self.path.exists() else 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        self._file.truncate(kept)
        if not kept:
            self.log(self._head)

    def log(self, entry: Any) -> None:
        """Append a line and wait until it is on the disk."""
        assert self._file is not None
        text = json.dumps(entry, separators=(",", ":")).encode()
        self._file.write(b"%08x %s\n" % (zlib.crc32(text), text))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _kept(self, trust: Callable[[Any], bool]) -> int:
        """Return the bytes of the trusted lines."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        head = parsed(lines[0]) if lines else None
        if head is None:
            return 0
        if head.get("signature") != self._head["signature"]:
            raise self._foreign("scene, model, engine or options")
        kept, mended = len(lines[0]), False
        for line in lines[1:]:
            entry = parsed(line)
            if entry is None or not (entry.get("unreadable") or trust(entry)):
                break
            mended = mended or "unreadable" in entry
            kept += len(line)
        if head.get("stamp") != self._head["stamp"] and not mended:
            raise self._foreign("version of the scene's file")
        return kept

    def _foreign(self, what: str) -> OutputError:
        return OutputError(
            f"{self.path.parent}: was left by a run with another {what}",
            "run with the same arguments as then, or without --resume to start afresh",
        )


def parsed(line: bytes) -> dict[str, Any] | None:
    """Read a journal line; None for one that is not as it was written."""
    check, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(text):
        return None
    with suppress(DataError):
        entry: dict[str, Any] = parse_json(text, "a journal")
        return entry
    return None
