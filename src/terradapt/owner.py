"""Owner: one process at a time writes a result; its lock dies with it, however it ends."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from terradapt.errors import DataError, OutputError
from terradapt.files import collect_leftovers, is_remote, parse_json, writing

_NAME = re.compile(r"\.(.+\.)?owner", re.DOTALL)
_TRIES, _PAUSE = 5, 0.05  # a process that only looks whether a lock is stale holds it for a moment
_FAR = 1 << 30  # bytes: Windows hides what it locks, so the lock lies behind the owner's name
_WITHOUT = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_held: dict[Path, tuple[int, int]] = {}  # by lock: file handle, thread


@contextmanager
def owned(path: str | Path, *, folder: bool = False) -> Iterator[None]:
    """Own a result while it is made, and clear away what a dead owner left of it.

    The lock is the operating system's on a small hidden file, ``.NAME.owner`` beside the result or
    ``.owner`` in the folder, which also says who holds it; it goes when its process does. A thread
    may own what it owns already. File systems without locks are written to without one.

    Args:
        path: The result. Folders above it are made, and removed on an error if they are empty.
        folder: The result is a folder.

    Raises:
        OutputError: Another process owns it (the message says which), or nothing can be written.
    """
    path = Path(path)
    if is_remote(path):  # refused in words where it is written
        yield
        return
    home = path.absolute() if folder else path.absolute().parent
    lock = Path(os.path.realpath(home)) / (".owner" if folder else f".{_short(path.name)}.owner")
    if _held.get(lock, (-1, -1))[1] == threading.get_ident():
        yield
        return
    made = [p for p in (home, *home.parents) if not p.exists()]
    try:
        with writing(path):
            home.mkdir(parents=True, exist_ok=True)
            handle = _taken(lock, path)
        try:
            if handle is not None:
                _held[lock] = handle, threading.get_ident()
            _tidy(home, path, folder, sure=handle is not None)
            yield
        finally:
            if handle is not None and _held.pop(lock, None) is not None:
                _release(lock, handle)
    except BaseException:
        for above in made:
            with suppress(OSError):
                above.rmdir()
        raise


def _short(name: str) -> str:
    if len(os.fsencode(name)) <= 200:
        return name
    return name[:40] + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _taken(lock: Path, path: Path) -> int | None:
    """Lock a file and put this process's name into it; None where there are no locks."""
    tries = 0
    while True:
        handle = _opened(lock)
        try:
            if _locked(handle):
                if not _is_at(handle, lock):
                    os.close(handle)  # its owner took it away between our two steps
                    continue
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, json.dumps(_myself()).encode())
                return handle
            tries += 1
            if tries == _TRIES:
                raise OutputError(f"{path}: is being written by {_owner(lock)}", _remedy())
        except OSError as error:
            os.close(handle)
            if error.errno not in _WITHOUT:
                raise
            lock.unlink(missing_ok=True)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        time.sleep(_PAUSE)


def _opened(lock: Path) -> int:
    """Open a lock's file; one that is another user's, and stale, is made anew."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        if not lock.is_file():
            raise
        handle = os.open(lock, os.O_RDONLY | flags)
        if _locked(handle):
            os.close(handle)
            lock.unlink()
            return _opened(lock)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileExistsError(errno.EEXIST, f"{lock.name} is in the way", str(lock))
    return handle


def _locked(handle: int) -> bool:
    """Lock an open file at once; False when another process, or an opening of our own, has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _WITHOUT:
            raise
        return False
    return True


def _is_at(handle: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), lock.stat(follow_symlinks=False))
    except OSError:
        return False


def _release(lock: Path, handle: int) -> None:
    if _is_at(handle, lock):
        with suppress(OSError):  # Windows removes no open file
            lock.unlink()
    os.close(handle)
    if sys.platform == "win32":
        with suppress(OSError):
            lock.unlink()


def _tidy(home: Path, path: Path, folder: bool, sure: bool) -> None:
    """Collect parts and locks of dead processes; a folder's own sub-folders too."""
    collect_leftovers(home, path.name if sure and not folder else None)
    with suppress(OSError):
        for entry in home.iterdir():
            if folder and entry.is_dir() and not entry.is_symlink():
                collect_leftovers(entry)
            elif sure and _NAME.fullmatch(entry.name) and entry not in _held:
                _drop_stale(entry)


def _drop_stale(lock: Path) -> None:
    with suppress(OSError, DataError):
        handle = os.open(lock, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            ours = _locked(handle) and _is_at(handle, lock)
            if ours and parse_json(lock.read_bytes(), lock).keys() == _myself().keys():
                lock.unlink()
        finally:
            os.close(handle)


def _myself() -> dict[str, object]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return {"pid": os.getpid(), "host": platform.node(), "since": since}


def _owner(lock: Path) -> str:
    with suppress(OSError, DataError, KeyError):
        who = parse_json(lock.read_bytes(), lock)
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    return "another process"


def _remedy() -> str:
    return "wait until it ends, or choose another place with -o"


def _forget() -> None:
    """Close a forked child's copies: the lock would live as long as the child does."""
    for handle, _ in _held.values():
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
