"""Files: results are written whole or not at all, and what is read is checked, in one place.

A result is made in a folder beside its place, ``.NAME.HOST.PID.TOKEN.part``, and renamed when it is
whole. A killed process leaves that folder behind; the next one that writes there removes it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat as modes
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

from terradapt.errors import DataError, OutputError, TerradaptError, reason, refusing

LARGEST_JSON = 256 << 20
"""Bytes of the largest JSON file that is read."""
LARGEST_TEXT = 16 << 20
"""Bytes of the largest recipe or other text written by hand that is read."""
_WINDOWS = sys.platform == "win32"
_PART = re.compile(r"\.(.+)\.([\w-]+)\.([1-9]\d*)\.[0-9a-f]{8}\.part", re.ASCII | re.DOTALL)
_ADDRESS = re.compile(r"/vsi|[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_WEEK = 7 * 86400  # s
_LONG = 150  # letters; what is written beside has up to 100 more, and Windows takes 260
_OUTSIDE = 0xEFFFFFFC  # Linux's space of process numbers outside containers
_mine: set[str] = set()  # parts that this process has not finished
_tidied: set[Path] = set()  # folders where it has looked for leftovers


class Closing(ABC):
    """What is closed when its ``with`` block ends."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and processes; twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_remote(path: str | Path) -> bool:
    """Tell whether a path leads beyond local files (``s3://``, ``https://``, ``/vsi...``)."""
    return bool(_ADDRESS.match(str(path)))


@contextmanager
def writing(path: str | Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong while a result is written into words for its user.

    Args:
        path: The result.
        errors: What a library raises besides ``OSError``.

    Raises:
        OutputError: The disk is full, the folder is not to be written to, or the file is in use.
    """
    expected: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except expected as error:
        if _is_full(Path(path), error):
            what, fix = f"cannot be written: the disk is full ({reason(error)})", "free some space"
        elif _WINDOWS and isinstance(error, PermissionError) and Path(path).exists():
            what = "cannot be replaced: another program holds it open, or it is read-only"
            fix = "close it there (QGIS, a table, a viewer)"
        elif _WINDOWS and len(str(Path(path).absolute())) > _LONG:
            what = f"cannot be written, perhaps for the length of its path ({reason(error)})"
            fix = "take a shorter folder or name, or set LongPathsEnabled in Windows"
        else:
            what = f"cannot be written ({reason(error)})"
            fix = "check the folder's rights and the free space"
        raise OutputError(f"{path}: {what}", f"{fix}, or choose another place with -o") from error


def _is_full(path: Path, error: Exception) -> bool:
    """Libraries hide the number of the error: then the disk itself is asked."""
    number = getattr(error, "errno", None)
    if number is not None:
        return number in _FULL
    with suppress(OSError):
        return shutil.disk_usage(path.parent).free < 1 << 20
    return False


@contextmanager
def replacing(
    path: str | Path, *errors: type[Exception], folder: bool = False, durable: bool = True
) -> Iterator[Path]:
    """Give a place to write to; what is there at the end takes the place of ``path`` at once.

    A reader, a failure and a kill find the old file or the new one. The new file has the rights
    that the umask gives, whatever wrote it. Folders above it are made, and removed on an error.

    Args:
        path: The result.
        errors: What a library raises, besides ``OSError``, when it cannot write.
        folder: The result is a folder, which the caller makes.
        durable: Wait until the disk has it. Without, a power cut may lose what was written last:
            for files of which there are thousands and which are made again.

    Yields:
        Where to write, of the same name: libraries go by the suffix.

    Raises:
        OutputError: The result cannot be written; see :func:`writing`.
    """
    path = Path(path)
    with _part(path, folder) as part, writing(path, *errors):
        yield part
        _settle(part, durable)
        if folder:
            shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
        if durable:
            sync_folder(path.parent)


def write_together(contents: Mapping[Path, str | bytes]) -> list[Path]:
    """Write several files: all of them, or none.

    Args:
        contents: Bytes, or text that becomes UTF-8, by path; renamed in this order.

    Returns:
        The paths.

    Raises:
        OutputError: One of them cannot be written; then none has changed.
    """
    with ExitStack() as stack:
        parts, before = {}, {}
        for path, content in contents.items():
            parts[path] = stack.enter_context(_part(path))
            with writing(path):
                parts[path].write_bytes(content.encode() if isinstance(content, str) else content)
                _settle(parts[path], True)
                if len(contents) > 1 and path.exists():
                    before[path] = stack.enter_context(_part(path))
                    shutil.copy2(path, before[path])
        done: list[Path] = []
        try:
            for path, part in parts.items():
                with writing(path):
                    part.replace(path)
                done.append(path)
        except BaseException:
            for path in done:
                with suppress(OSError):
                    before[path].replace(path) if path in before else path.unlink()
            raise
        for home in dict.fromkeys(p.parent for p in parts):
            sync_folder(home)
    return done


def write_text(path: Path, text: str) -> Path:
    """Write a text as UTF-8, as :func:`replacing` does."""
    return write_together({path: text})[0]


def write_json(path: Path, values: Any, indent: int = 1) -> Path:
    """Write JSON, as :func:`replacing` does."""
    return write_text(path, json.dumps(values, indent=indent) + "\n")


def check_name(path: str | Path, error: type[TerradaptError] = DataError) -> None:
    """Refuse a path that is no text, as old archives leave it: libraries take UTF-8 alone.

    Raises:
        TerradaptError: Of class ``error``: names it with its odd bytes as they are.
    """
    name = str(path)
    if not name.isprintable() and any("\ud800" <= c <= "\udfff" for c in name):
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise error(f"{shown}: its name is no UTF-8", "rename it, for example with: convmv")


def check_output(
    path: str | Path,
    suffixes: Sequence[str] = (),
    *,
    folder: bool = False,
    reads: Iterable[str | Path | None] = (),
    beside: Iterable[Path] = (),
) -> Path:
    """Check that a result can be written to a place before the work starts; leaves nothing there.

    Args:
        path: The result.
        suffixes: Those that it may have, lower case; any without.
        folder: It is a folder, which may be there already.
        reads: What it is made from: never written over, by whatever name it goes (links, another
            case, another way to it). Addresses and what is not there are left out.
        beside: Further files that are written with it, which may be none of ``reads`` either.

    Returns:
        The path.

    Raises:
        OutputError: It cannot, or it is one of ``reads``.
    """
    path = Path(path)
    inputs = {_identity(p): p for p in reads if p is not None}
    for written in (path, *beside):
        if (found := _identity(written)) is not None and found in inputs:
            raise OutputError(
                f"{written}: would be written over, and is read: it is {inputs[found]}",
                "choose another place with -o",
            )
    with writing(path):
        _checked(path, folder)
        if suffixes and path.suffix.lower() not in suffixes:
            raise OutputError(
                f"{path}: cannot write '{path.suffix}'", f"name it {', '.join(suffixes)}"
            )
        places = [path.absolute()] if folder else []
        home = next(p for p in (*places, *path.absolute().parents) if p.exists())
        with _part(path, folder, home=home) as part:
            part.touch()
    return path


def check_new(paths: Iterable[str | Path], overwrite: bool = False) -> None:
    """Check that results replace nothing that may have been edited since.

    Args:
        paths: Their files.
        overwrite: They may.

    Raises:
        OutputError: One of them exists.
    """
    for path in paths:
        if not overwrite and os.path.lexists(path):
            raise OutputError(
                f"{path}: exists already",
                "add --overwrite to replace it (overwrite=True), or choose another name with -o",
            )


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its name; None where none is."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def collect_leftovers(folder: Path, owned: str | None = None) -> list[Path]:
    """Remove what killed processes left unfinished in a folder, and return it.

    Parts of a process that lives are not touched. Of another machine's processes nothing is known:
    their parts are removed when they are a week old.

    Args:
        folder: The folder.
        owned: Name of a result that the caller owns: whoever made its parts is dead.
    """
    found = []
    with suppress(OSError):
        for part in folder.iterdir():
            named = _PART.fullmatch(part.name)
            if named is None or part.name in _mine:
                continue
            if named[1] == owned or _is_dead(part, named[2], int(named[3])):
                shutil.rmtree(part, ignore_errors=True)
                found.append(part)
    return found


def _is_dead(part: Path, place: str, pid: int) -> bool:
    if place != _place() or _WINDOWS:  # where asking for a process by number would end it
        return time.time() - part.lstat().st_mtime > _WEEK
    if pid == os.getpid():  # of a process that had our number before us
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


@cache
def _place() -> str:
    """Name the machine, and the container where that has process numbers of its own."""
    name = re.sub(r"[^A-Za-z0-9-]", "_", platform.node())[:40] or "here"
    with suppress(OSError):
        space = Path("/proc/self/ns/pid").stat().st_ino
        return name if space == _OUTSIDE else f"{name}-{space:x}"
    return name


def _checked(path: Path, folder: bool = False) -> Path:
    """Return a path where a file or a folder may stand."""
    if is_remote(path):
        raise OutputError(
            f"{path}: is an address, and results are written to local files",
            "name a file here with -o, and copy it there afterwards",
        )
    check_name(path, OutputError)
    if path.is_dir() and not folder:
        raise OutputError(f"{path}: is a folder", "name a file in it with -o")
    if path.exists() and not path.is_dir() and (folder or not path.is_file()):
        raise OutputError(f"{path}: is in the way", "choose another place with -o")
    return path


@contextmanager
def _part(path: Path, folder: bool = False, home: Path | None = None) -> Iterator[Path]:
    """Make a part folder beside a result; remove it, and on an error what was made above it."""
    home = home or path.absolute().parent
    made = [p for p in (home, *home.parents) if not p.exists()]
    name = path.name[:40] if len(os.fsencode(path.name)) > 120 else path.name
    beside = home / f".{name}.{_place()}.{os.getpid()}.{secrets.token_hex(4)}.part"
    _mine.add(beside.name)
    try:
        with writing(path):
            _checked(path, folder)
            home.mkdir(parents=True, exist_ok=True)
            if home not in _tidied:
                _tidied.add(home)
                collect_leftovers(home)
            beside.mkdir()
        yield beside / path.name
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        for above in made:
            with suppress(OSError):
                above.rmdir()
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        _mine.discard(beside.name)


def _settle(part: Path, durable: bool) -> None:
    """Give a file the rights that the umask left its folder, and have the disk keep it."""
    if part.is_dir():
        return
    if durable:
        with part.open("r+b") as file:
            os.fsync(file.fileno())
    part.chmod(modes.S_IMODE(part.parent.stat().st_mode) & 0o666)


def sync_folder(folder: Path) -> None:
    """Have the disk keep a rename, where folders can be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_text(
    path: str | Path,
    error: type[TerradaptError] = DataError,
    fix: str = "mend or remove this file",
    *,
    largest: int = LARGEST_TEXT,
) -> str:
    """Read a text file: UTF-8, with or without a mark, of a size that fits into memory.

    Args:
        path: The file.
        error: What is raised.
        fix: What to do about it.
        largest: Bytes.

    Raises:
        TerradaptError: Of class ``error``: not there, no plain file, too large, or no UTF-8.
    """
    with refusing(path, error, fix):
        status = Path(path).stat()
        if not modes.S_ISREG(status.st_mode):
            raise error(f"{path}: is no file", fix)
        if status.st_size > largest:
            raise error(f"{path}: is larger than {size_text(largest)}", fix)
        return decoded(Path(path).read_bytes(), path, error)


def decoded(data: bytes, source: str | Path, error: type[TerradaptError] = DataError) -> str:
    """Return bytes as text.

    Raises:
        TerradaptError: Of class ``error``: they are no UTF-8; names the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise error(
            f"{source}: is no UTF-8 text (byte {data[fault.start]:#04x} in line {line})",
            "save it as UTF-8, for example: iconv -f LATIN1 -t UTF-8",
        ) from fault


def read_json(
    path: str | Path,
    error: type[TerradaptError] = DataError,
    fix: str = "mend or remove this file",
    *,
    kind: type = dict,
    largest: int = LARGEST_JSON,
) -> Any:
    """Read a JSON file: UTF-8, of a size that fits into memory, with the right thing on top.

    Args:
        path: The file.
        error: What is raised.
        fix: What to do about it.
        kind: ``dict`` or ``list``.
        largest: Bytes.

    Raises:
        TerradaptError: Of class ``error``: not there, too large, no JSON, or another thing on top.
    """
    return parse_json(read_text(path, error, fix, largest=largest), path, error, fix, kind=kind)


def parse_json(
    text: str | bytes,
    source: str | Path,
    error: type[TerradaptError] = DataError,
    fix: str = "mend or remove this file",
    *,
    kind: type = dict,
) -> Any:
    """Parse JSON that stands in a file; see :func:`read_json`.

    Raises:
        TerradaptError: Of class ``error``: no JSON, nested too deep, or another thing on top.
    """
    with refusing(source, error, fix, "no valid JSON"):
        values = json.loads(text if isinstance(text, str) else decoded(text, source, error))
    if not isinstance(values, kind):
        raise error(f"{source}: no JSON {'object' if kind is dict else kind.__name__}", fix)
    return values


def stamp(path: str | Path) -> list[int]:
    """Return size (bytes) and time of change (ns), which tell a changed file; [] without a file."""
    try:
        status = Path(path).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def digest(path: str | Path) -> str:
    """Return a file's SHA-256 as hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(size: float) -> str:
    """Return bytes as text with a unit, for example ``1.4 GB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
