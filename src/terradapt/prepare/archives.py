"""Files of a benchmark as they come: folders, archives, and archives in archives.

Nothing outside the target folder is ever written: names that lead out of it, links and devices
are refused before the first byte is extracted, and so is an archive that says it holds far more
than one of its size can.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from terradapt.documents import validated
from terradapt.errors import DataError, OutputError
from terradapt.files import read_json, replacing, size_text, stamp, write_json
from terradapt.owner import owned
from terradapt.progress import Advance, Track, silent

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
DEEPEST = 4  # archives in archives
_RECEIPT = ".unpacked.json"
_CHUNK = 1 << 20
MOST_MEMBERS = 1_000_000
MOST_RATIO = 250
"""Bytes out of a byte of an archive: masks of one class come near."""
FREE_SIZE = 1 << 30
"""Bytes that any archive may unpack to, whatever its ratio."""
_UNPACKERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Gathered:
    """A file of a benchmark.

    Args:
        path: Where it lies on the disk.
        name: Its path within the benchmark, archives' names among the folders.
    """

    path: Path
    name: str

    @property
    def stem(self) -> str:
        """File name without suffix."""
        return self.path.stem

    @property
    def folders(self) -> str:
        """Folders and archives that hold it, lower case, one string."""
        return str(PurePosixPath(self.name).parent).lower()


def is_archive(path: Path | str) -> bool:
    """Tell whether a name is one of an archive that is read here."""
    return str(path).lower().endswith(SUFFIXES)


def gather(
    source: Path,
    into: Path,
    wanted: Callable[[str], bool],
    track: Track = silent,
) -> list[Gathered]:
    """List the wanted files of a folder or an archive; archives are unpacked below ``into``.

    An archive that was unpacked before and has not changed is not unpacked again.

    Args:
        source: Folder or archive.
        into: Where archives are unpacked to, one folder each; a folder of the result.
        wanted: Tells by a file's path within the benchmark whether it is needed.
        track: How progress is told.

    Raises:
        DataError: No such source, a damaged archive, or a member that leads out of it.
        OutputError: The disk has no room.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder", "give the benchmark's folder")
    if not source.is_dir():
        if not source.is_file() or not is_archive(source):
            raise DataError(
                f"{source}: is neither a folder nor an archive",
                f"give a folder, or an archive ({', '.join(SUFFIXES[:4])})",
            )
        return _of_archive(Gathered(source, source.name), into, wanted, track, 1)
    return list(_of_folder(source, "", into, wanted, track, 0))


def _of_folder(
    folder: Path, prefix: str, into: Path, wanted: Callable[[str], bool], track: Track, depth: int
) -> Iterator[Gathered]:
    inside = into.parent != folder and into.parent.is_relative_to(folder)
    result = into.parent if inside else into
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.is_relative_to(result):
            continue  # a result inside the source is no source
        name = prefix + path.relative_to(folder).as_posix()
        if is_archive(path):
            yield from _of_archive(Gathered(path, name), into, wanted, track, depth + 1)
        elif not _is_junk(name) and wanted(name):
            yield Gathered(path, name)


def _is_junk(name: str) -> bool:
    """Tell whether a file is our receipt or a shadow that macOS leaves in archives."""
    return Path(name).name == _RECEIPT or "__MACOSX" in name or Path(name).name.startswith("._")


def _of_archive(
    archive: Gathered, into: Path, wanted: Callable[[str], bool], track: Track, depth: int
) -> list[Gathered]:
    if depth > DEEPEST:
        raise DataError(
            f"{archive.path}: archives in archives, more than {DEEPEST} deep",
            "unpack it by hand and give the folder",
        )
    target = into / _folder_name(archive.name)
    if not _is_unpacked(archive.path, target):
        with owned(target):
            _unpack(archive, target, wanted, track)
    return list(_inside(target, archive.name + "/", into, wanted, track, depth))


def _inside(
    target: Path, prefix: str, into: Path, wanted: Callable[[str], bool], track: Track, depth: int
) -> Iterator[Gathered]:
    for path in sorted(p for p in target.rglob("*") if p.is_file()):
        name = prefix + path.relative_to(target).as_posix()
        if is_archive(path):
            yield from _of_archive(Gathered(path, name), into, wanted, track, depth + 1)
        elif not _is_junk(name) and wanted(name):
            yield Gathered(path, name)


def _folder_name(name: str) -> str:
    """One flat folder per archive, named after its path within the benchmark."""
    return name.replace("/", "__")


def _is_unpacked(archive: Path, target: Path) -> bool:
    try:
        receipt = read_json(target / _RECEIPT)
        sizes = validated(dict[str, int], receipt.get("files"), target, DataError, "")
    except DataError:
        return False
    if receipt.get("archive") != stamp(archive):
        return False
    return all(
        (target / n).is_file() and (target / n).stat().st_size == s for n, s in sizes.items()
    )


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    key: Any


def _unpack(archive: Gathered, target: Path, wanted: Callable[[str], bool], track: Track) -> None:
    """Extract the wanted members beside ``target``, then rename."""
    with replacing(target, folder=True, durable=False) as part:
        try:
            with _opened(archive.path) as opened:
                members = [
                    m
                    for m in _members(opened, archive.path)
                    if not _is_junk(m.name)
                    and (is_archive(m.name) or wanted(f"{archive.name}/{m.name}"))
                ]
                total = sum(m.size for m in members)
                check_room(target.parent, total, f"unpacking {archive.path.name}")
                part.mkdir()
                with track(total, f"unpack {archive.path.name}", "B") as advance:
                    for member in members:
                        _extract(opened, member, part, archive.path, advance)
        except _DAMAGE as error:
            raise _damaged(archive.path, error) from error
        except OSError as error:
            if error.errno is None:  # bz2 and gzip say so of damaged data
                raise _damaged(archive.path, error) from error
            raise
        sizes = {m.name: m.size for m in members}
        write_json(part / _RECEIPT, {"archive": stamp(archive.path), "files": sizes})


def _damaged(path: Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: damaged or truncated archive ({reason})", "download it again")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as opened:
            yield opened
        return
    with path.open("rb") as file:
        head = file.read(6)
    unpack = next((u for magic, u in _UNPACKERS.items() if head.startswith(magic)), None)
    with unpack(path) if unpack else path.open("rb") as stream:
        plain: Any = _Headers(stream)
        with tarfile.open(fileobj=plain, mode="r:") as tar:
            yield tar


class _Headers:
    """A stream of which nobody reads much at once: tarfile takes headers whole, however long."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError(f"a header of {size_text(size)}")
        return self._stream.read(size)


def _members(opened: zipfile.ZipFile | tarfile.TarFile, path: Path) -> list[_Member]:
    """All regular files; every name is checked first, and the sizes before anything is read."""
    found, total = [], 0
    budget = max(FREE_SIZE, MOST_RATIO * path.stat().st_size)
    listed = _of_zip(opened, path) if isinstance(opened, zipfile.ZipFile) else _of_tar(opened, path)
    for count, member in enumerate(listed, 1):
        if member is not None:
            found.append(member)
            total += member.size
        if total > budget or count > MOST_MEMBERS:
            raise DataError(
                f"{path}: refused: it says that it holds {count} files or more, "
                f"{size_text(total)} in {size_text(path.stat().st_size)}",
                "unpack it by hand and give the folder",
            )
    return found


def _of_zip(opened: zipfile.ZipFile, path: Path) -> Iterator[_Member | None]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        place = _place(info.filename, kind not in (0, stat.S_IFREG, stat.S_IFDIR), path)
        if info.flag_bits & 1:
            raise DataError(f"{path}: is encrypted", "unpack it by hand and give the folder")
        yield None if info.is_dir() else _Member(place, info.file_size, info)


def _of_tar(opened: tarfile.TarFile, path: Path) -> Iterator[_Member | None]:
    for member in opened:
        place = _place(member.name, not (member.isfile() or member.isdir()), path)
        yield _Member(place, member.size, member) if member.isfile() else None


def _place(name: str, special: bool, path: Path) -> str:
    """Return where in a folder a member goes: the name that was checked, and no other.

    Raises:
        DataError: Out of the folder, or no plain file.
    """
    if special:
        raise DataError(
            f"{path}: refused: the member '{name}' is a link or a device",
            "download the archive from its publisher, or unpack it by hand and look",
        )
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = name.startswith(("/", "\\")) or ".." in parts or any(":" in p for p in parts[:1])
    if outside or "\0" in name:
        raise DataError(
            f"{path}: refused: the member '{name}' leads out of the archive",
            "download the archive from its publisher, or unpack it by hand and look",
        )
    return "/".join(parts)


def _extract(
    opened: zipfile.ZipFile | tarfile.TarFile,
    member: _Member,
    part: Path,
    source: Path,
    advance: Advance,
) -> None:
    target = part / member.name
    if not member.name or not target.resolve().is_relative_to(part.resolve()):
        raise DataError(
            f"{source}: refused: '{member.name}' leads out of the archive", "look at it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    stream: IO[bytes] | None
    if isinstance(opened, zipfile.ZipFile):
        stream = opened.open(member.key)
    else:
        stream = opened.extractfile(member.key)
    if stream is None:
        raise DataError(f"{source}: '{member.name}' is no file", "download it again")
    written = 0
    with stream, target.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            written += file.write(chunk)
            advance(len(chunk))
            if written > member.size:
                break
    if written != member.size:
        raise DataError(
            f"{source}: '{member.name}' holds another number of bytes than the archive states",
            "download it again",
        )


def check_room(folder: Path, needed: int, what: str, spare: int = 64 << 20) -> None:
    """Refuse work that the disk has no room for.

    Args:
        folder: Where it will be written; may not exist yet.
        needed: Bytes.
        what: What needs them, for the message.
        spare: Bytes that stay free.

    Raises:
        OutputError: Less is free than needed.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed + spare > free:
        raise OutputError(
            f"{folder}: {what} needs {size_text(needed)}, {size_text(free)} are free",
            "free some space, or use another -o on a larger disk",
        )
