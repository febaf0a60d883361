"""A process that dies at its k-th step that changes the disk, and what the disk then holds.

A step is a write, an fsync, a rename, a removal, a file made, a folder made, a file cut. With
``torn`` all that was not synced is lost too: files fall back to the length that was synced last, or
that they had when the work began, whoever wrote into them; a new file that nobody synced is empty.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 137
_STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


def run_and_die(
    work: Callable[[Callable[[str], None]], None], folder: Path, point: int, torn: bool = False
) -> tuple[int, list[str]]:
    """Do some work in a forked process that dies at a point.

    Args:
        work: Called with a function that acknowledges.
        folder: Of which steps are counted.
        point: Number of the step before which it dies, from 1; 0: never.
        torn: Lose what was not synced.

    Returns:
        Exit status, 0 when the work came to its end, and what was acknowledged.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            steps = _Steps(folder, point, torn)
            work(lambda word: steps.say(writing, word))
            steps.wait_if_over()
            status = 0
        except BaseException:
            steps.wait_if_over()
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as said:
        words = said.read().split()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), words


class _Steps:
    def __init__(self, folder: Path, point: int, torn: bool) -> None:
        self.folder, self.point, self.torn, self.count = str(folder), point, torn, 0
        self.over = 0  # the thread in which the process dies
        self.synced: dict[int, int] = {}  # length by inode
        for path in folder.rglob("*"):
            if path.is_file():
                self.synced[path.stat().st_ino] = path.stat().st_size
        self.write, self.fsync, self.cut = os.write, os.fsync, os.ftruncate
        os.write, os.fsync, os.ftruncate = self._write, self._fsync, self._ftruncate  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def say(self, pipe: int, word: str) -> None:
        self.write(pipe, f"{word} ".encode())

    def wait_if_over(self) -> None:
        """Do nothing more where another thread has reached the point."""
        if self.over and self.over != threading.get_ident():
            threading.Event().wait()

    def _step(self) -> None:
        self.wait_if_over()
        self.count += 1
        if self.count == self.point:
            self.over = threading.get_ident()
            if self.torn:
                self._lose()
            os._exit(KILLED)

    def _lose(self) -> None:
        for path in Path(self.folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                kept = self.synced.get(status.st_ino, 0)
                if kept < status.st_size:
                    os.truncate(path, kept)

    def _write(self, handle: int, data: Any) -> int:
        self._step()
        half = len(data) // 2
        if self.count + 1 == self.point and half:  # die in the middle of it
            self.write(handle, bytes(data)[:half])
        self._step()
        return self.write(handle, data)

    def _fsync(self, handle: int) -> None:
        self._step()
        self.fsync(handle)
        self.synced[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    def _ftruncate(self, handle: int, size: int) -> None:
        self._step()
        self.cut(handle, size)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.over == threading.get_ident() or (event != "open" and event not in _STEPS):
            return
        if event == "open":
            _, mode, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if not writes and not (isinstance(mode, str) and set(mode) & set("wax+")):
                return
        if isinstance(args[0], int):
            return
        path = _placed(args[0], args[1] if event in ("os.remove", "os.rmdir") else -1)
        if not path.startswith(self.folder):
            return
        self._step()
        # an inode whose file goes may come again as another file's
        gone = args[1] if event == "os.rename" else path if event == "os.remove" else None
        if gone is not None and os.path.lexists(gone):
            self.synced.pop(os.lstat(gone).st_ino, None)


def _placed(path: Any, home: int) -> str:
    """A path, which may be one of an open folder."""
    name = os.fsdecode(path)
    if home < 0 or Path(name).is_absolute():
        return name
    return str(Path(f"/proc/self/fd/{home}").readlink() / name)
