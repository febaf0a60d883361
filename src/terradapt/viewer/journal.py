"""Journal: corrections.jsonl, appended and synced at every stroke; everything else follows from it.

An operation is acknowledged when the disk has its line. A process that dies before leaves at most
a torn last line, which the next one cuts off: nobody was told that it is there.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from terradapt.errors import DataError
from terradapt.files import Closing, decoded, sync_folder, writing
from terradapt.viewer.strokes import line_of

JOURNAL = "corrections.jsonl"
_LONGEST = 4 << 20  # bytes of a line


class StrokeJournal(Closing):
    """The log of a folder; may be used from several threads.

    Args:
        folder: Where it lies; made when missing.

    Attributes:
        path: The file.
        records: All operations so far, in order.
        torn: Bytes that were cut off at the end when it was opened.

    Raises:
        DataError: A line in its middle is damaged.
        OutputError: It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self._lock = threading.Lock()
        self.records: list[dict[str, Any]] = []
        self.torn = 0
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            is_new = not self.path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.open(self.path, flags, 0o666)
        try:
            self._end = self._read()
            with writing(self.path):
                if self.torn:
                    os.ftruncate(self._file, self._end)
                if is_new or self.torn:
                    os.fsync(self._file)
                    sync_folder(folder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def append(self, record: Mapping[str, Any]) -> None:
        """Write an operation; when this returns, the disk has it.

        Raises:
            OutputError: The disk is full or does not answer; then nothing was appended.
        """
        line = line_of(record)
        with self._lock:
            with writing(self.path):
                try:
                    if not self._is_ours():
                        raise OSError(0, "it was moved or changed by another program")
                    written = 0
                    while written < len(line):
                        written += os.write(self._file, line[written:])
                    os.fsync(self._file)
                except BaseException:
                    with suppress(OSError):  # else the next reader cuts it off
                        if self._is_ours(longer=True):
                            os.ftruncate(self._file, self._end)
                            os.fsync(self._file)
                    raise
            self._end += len(line)
            self.records.append(dict(record))

    def _is_ours(self, longer: bool = False) -> bool:
        """Tell whether the file still stands under its name, as long as we left it."""
        try:
            there = self.path.stat()
        except OSError:
            return False
        held = os.fstat(self._file)
        same = (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
        return same and (longer or held.st_size == self._end)

    def _read(self) -> int:
        """Read all lines; return where the last whole one ends."""
        data = self.path.read_bytes()
        end = 0
        for number, line in enumerate(_lines(data), 1):
            rest = data[end + len(line) :]
            try:
                if len(line) > _LONGEST or not line.endswith(b"\n"):
                    raise ValueError("not a whole line")
                record = json.loads(decoded(line, self.path))
                if not isinstance(record, dict) or record.get("op") not in _READERS:
                    raise ValueError("no operation")
                for key in _READERS[record["op"]]:
                    record[key]
            except (ValueError, KeyError, RecursionError, DataError) as error:
                if not rest.strip(b"\0\n"):
                    break
                raise DataError(
                    f"{self.path}: line {number} is damaged",
                    "mend or remove that line; all others are whole",
                ) from error
            self.records.append(record)
            end += len(line)
        self.torn = len(data) - end
        return end


_READERS: dict[str, tuple[str, ...]] = {
    "scene": ("scene", "transform", "crs", "height", "width"),
    "class": ("class", "colour"),
    "stroke": ("n", "key", "scene", "kind", "class", "points", "width", "model", "before", "time"),
    "undo": ("of", "time"),
}
"""Operations, with what each of them must say."""


def _lines(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        stop = data.find(b"\n", start) + 1 or len(data)
        yield data[start:stop]
        start = stop
