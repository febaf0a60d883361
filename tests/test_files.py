"""Files: whole or not at all, on a full disk, under a kill, with two writers, on other systems."""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terradapt import files
from terradapt.errors import ConfigError, DataError, OutputError, TerradaptError, reason
from terradapt.files import (
    Closing,
    check_output,
    collect_leftovers,
    digest,
    is_remote,
    parse_json,
    read_json,
    replacing,
    stamp,
    write_json,
    write_text,
    write_together,
    writing,
)

posix = pytest.mark.skipif(os.name == "nt", reason="rights and signals of POSIX")
FULL = OSError(errno.ENOSPC, "No space left on device")


def here(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def part_of(folder: Path, pid: int, place: str | None = None) -> Path:
    """What a process of that number would leave behind for ``a.txt``."""
    part = folder / f".a.txt.{place or files._place()}.{pid}.0123abcd.part"
    part.mkdir()
    (part / "a.txt").write_text("half")
    return part


@pytest.fixture
def dead() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(autouse=True)
def untidied() -> Iterator[None]:
    """Each test's folder is new to the module."""
    files._tidied.clear()
    yield
    assert not files._mine


# One file


def test_the_new_file_takes_the_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.tif"
    for text in ("old", "new"):
        with replacing(path) as part:
            assert (part.name, part.exists()) == ("a.tif", False)
            part.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
        assert here(path.parent) == ["a.tif"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), FULL])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    expected = OutputError if error is FULL else type(error)
    with pytest.raises(expected), replacing(path) as part:
        part.write_text("half")
        part.with_name("a.txt-journal").write_text("of a library")
        raise error
    assert path.read_text() == "old"
    assert here(tmp_path) == ["a.txt"]


def test_an_error_takes_the_folders_away_that_it_made(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x" / "y" / "a.txt"):
        _ = 1 / 0
    assert here(tmp_path) == []


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_rights_are_those_of_the_umask_whatever_wrote_the_file(
    tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "text", "x")
        with replacing(tmp_path / "private") as part:
            part.touch(0o600)
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_folder_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in ("old", "new"):
        with replacing(target, folder=True) as part:
            part.mkdir()
            (part / name).touch()
        assert here(target) == [name]
    assert here(tmp_path) == ["out"]


def test_long_names_are_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("ä" * 120 + ".json"), "x")
    assert here(tmp_path) == ["ä" * 120 + ".json"]
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / ("a" * 300), "x")


def test_the_disk_has_the_file_before_its_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "a", []
    monkeypatch.setattr(
        os, "fsync", lambda fd: steps.append((stat.S_ISDIR(os.fstat(fd).st_mode), path.exists()))
    )
    write_text(path, "x")
    assert steps == [(False, False), (True, True)]
    with replacing(tmp_path / "b", durable=False) as part:
        part.touch()
    assert len(steps) == 2


def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, *args: Any, **options: Any) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


# Full disks and refusals


@posix
@pytest.mark.parametrize("limit", [0, 1, 4096, 99_999])
def test_a_file_cut_short_is_told_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    import resource

    path = tmp_path / "a.json"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match=r"a\.json: cannot be written \(File too large\)"):
            write_text(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert here(tmp_path) == ["a.json"]


@posix
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_raster_cut_short_is_told(tmp_path: Path, name: str, share: float) -> None:
    """GDAL closes a file that a full disk cut short without a word."""
    import resource

    from terradapt.raster import write_raster

    pixels = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    path = tmp_path / name
    write_raster(path, pixels)
    size = path.stat().st_size
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * share), before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_raster(path, pixels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert here(tmp_path) == [name]


@pytest.mark.parametrize("number", [errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)])
def test_a_full_disk_is_called_one(tmp_path: Path, number: int) -> None:
    with pytest.raises(OutputError) as caught, writing(tmp_path / "a"):
        raise OSError(number, os.strerror(number), "some/part")
    assert caught.value.message == (
        f"{tmp_path / 'a'}: cannot be written: the disk is full ({os.strerror(number)})"
    )
    assert caught.value.fix == "free some space, or choose another place with -o"


def test_a_library_that_hides_the_cause_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LibraryError(Exception):
        pass

    def fail() -> OutputError:
        with pytest.raises(OutputError) as caught, replacing(tmp_path / "a", LibraryError):
            raise LibraryError("Write error at\nscanline 3")
        return caught.value

    assert "cannot be written (Write error at scanline 3)" in fail().message
    usage = namedtuple("usage", "free")
    free = {True: 0, False: 1 << 30}  # the part is what fills the disk
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free[any(tmp_path.iterdir())]))
    assert "the disk is full (Write error" in fail().message
    with pytest.raises(LibraryError), replacing(tmp_path / "a"):
        raise LibraryError
    assert here(tmp_path) == []


def test_a_file_in_use_on_windows_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gpkg"
    path.write_text("old")

    def refuse(part: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(Access is denied\)") as caught:
        write_text(path, "new")
    assert "rights" in caught.value.fix
    monkeypatch.setattr(files, "_WINDOWS", True)
    with pytest.raises(OutputError, match="another program holds it open") as caught:
        write_text(path, "new")
    assert "close it there" in caught.value.fix
    assert path.read_text() == "old"
    with pytest.raises(OutputError, match="the length of its path") as caught:
        write_text(tmp_path / ("long" * 40) / "a.gpkg", "new")
    assert "shorter" in caught.value.fix
    assert here(tmp_path) == ["a.gpkg"]


@posix
def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        for write in (check_output, lambda p: write_text(p, "x")):
            with pytest.raises(OutputError, match="is in the way"):
                write(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(OutputError, match="is in the way"), replacing(pipe, folder=True):
        pass


# Kills and leftovers

KILLED = """
import os, signal, sys
from pathlib import Path
from terradapt import files
path = Path(sys.argv[1])
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_text(path, "new")
"""


@posix
def test_a_kill_before_the_rename_leaves_the_old_file_and_the_next_tidies_up(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    left = [p for p in tmp_path.iterdir() if p != path]
    assert [(p / "a.txt").read_text() for p in left] == ["new"]
    write_text(tmp_path / "other.txt", "x")
    assert here(tmp_path) == ["a.txt", "other.txt"]


@posix
def test_parts_of_living_processes_stay(tmp_path: Path, dead: int) -> None:
    gone, living = part_of(tmp_path, dead), part_of(tmp_path, os.getppid())
    with replacing(tmp_path / "b.txt") as mine:
        assert collect_leftovers(tmp_path) == []  # replacing has been there before
        assert not gone.exists()
        assert living.is_dir()
        mine.touch()
    earlier = part_of(tmp_path, os.getpid())  # of a process that had our number
    assert collect_leftovers(tmp_path) == [earlier]
    assert here(tmp_path) == sorted([living.name, "b.txt"])


@posix
def test_processes_of_other_users_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part_of(tmp_path, 77)

    def kill(error: type[Exception]) -> Callable[[int, int], None]:
        def refuse(pid: int, number: int) -> None:
            assert (pid, number) == (77, 0)
            raise error

        return refuse

    monkeypatch.setattr(os, "kill", kill(PermissionError))
    assert collect_leftovers(tmp_path) == []
    monkeypatch.setattr(os, "kill", kill(OverflowError))
    assert len(collect_leftovers(tmp_path)) == 1


@pytest.mark.parametrize("windows", [False, True])
def test_what_cannot_be_asked_is_given_a_week(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch, windows: bool
) -> None:
    monkeypatch.setattr(files, "_WINDOWS", windows)
    part = part_of(tmp_path, dead, None if windows else "another-machine")
    assert collect_leftovers(tmp_path) == []
    os.utime(part, (time.time() - 8 * 86400,) * 2)
    assert collect_leftovers(tmp_path) == [part]
    assert here(tmp_path) == []


@posix
def test_nothing_of_others_is_removed(tmp_path: Path, dead: int) -> None:
    place = files._place()
    kept = [
        f"a.txt.{place}.{dead}.0123abcd.part", ".a.txt.part", f".a.{place}.{dead}.x.part",
        f".a.{place}.0.0123abcd.part", f".a.{place}.{dead}.0123abcd.part.txt", "map.tif.part",
    ]  # fmt: skip
    for name in kept:
        (tmp_path / name).mkdir()
    precious = tmp_path / "map.tif.part" / "precious"
    precious.touch()
    (tmp_path / f".b.{place}.{dead}.0123abcd.part").symlink_to(tmp_path / "map.tif.part")
    collect_leftovers(tmp_path)
    assert precious.exists()
    assert set(kept) <= set(here(tmp_path))
    assert collect_leftovers(tmp_path / "nothing") == []


@pytest.mark.parametrize(("space", "end"), [(0xEFFFFFFC, ""), (0xF0000000, "-f0000000")])
def test_a_container_with_its_own_processes_is_a_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch, space: int, end: str
) -> None:
    files._place.cache_clear()
    status = namedtuple("status", "st_ino")
    with monkeypatch.context() as patched:
        patched.setattr(files.platform, "node", lambda: "node 1.cluster")
        patched.setattr(Path, "stat", lambda _: status(space))
        assert files._place() == f"node_1_cluster{end}"
    files._place.cache_clear()


def test_a_system_without_process_files_is_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Path) -> None:
        raise FileNotFoundError

    files._place.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(files.platform, "node", lambda: "")
        patched.setattr(Path, "stat", missing)
        assert files._place() == "here"
    files._place.cache_clear()


def test_two_writers_at_once_both_write_whole_files(tmp_path: Path) -> None:
    path, failed = tmp_path / "a.txt", []
    texts = [letter * 200_000 for letter in "abcd"]
    write_text(path, texts[0])

    def write(text: str) -> None:
        try:
            for _ in range(20):
                write_text(path, text)
        except TerradaptError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(w.is_alive() for w in writers):
        assert path.read_text() in texts
    assert not failed
    assert here(tmp_path) == ["a.txt"]


# Several files


def test_several_files_are_written_in_order(tmp_path: Path) -> None:
    wanted = {tmp_path / "x" / "a.md": "é\n", tmp_path / "x" / "a.png": b"\0\n"}
    assert write_together(wanted) == list(wanted)
    assert [p.read_bytes() for p in wanted] == ["é\n".encode(), b"\0\n"]
    assert here(tmp_path / "x") == ["a.md", "a.png"]


def test_none_is_written_where_one_cannot_be(tmp_path: Path) -> None:
    old = tmp_path / "a.json"
    old.write_text("old")
    (tmp_path / "file").touch()
    (tmp_path / "b.md").mkdir()
    for other, said in ((tmp_path / "file" / "b.md", "written"), (tmp_path / "b.md", "a folder")):
        with pytest.raises(OutputError, match=said) as caught:
            write_together({old: "new", other: "x"})
        assert str(other) in caught.value.message
        assert old.read_text() == "old"
    with pytest.raises(UnicodeEncodeError):
        write_together({old: "new", tmp_path / "c": "\udcff"})
    assert here(tmp_path) == ["a.json", "b.md", "file"]


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "held"), KeyboardInterrupt()])
def test_a_rename_that_fails_takes_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    old, fresh, held = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    old.write_text("old")
    real = Path.replace

    def replace(part: Path, target: Path) -> Path:
        if target == held:
            raise error
        return real(part, target)

    monkeypatch.setattr(Path, "replace", replace)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_together({old: "new", fresh: "new", held: "new"})
    assert old.read_text() == "old"
    assert here(tmp_path) == ["a"]


# Checks before the work


def test_a_good_place_is_left_as_it_was(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("old")
    for path in (there, tmp_path / "a.json", tmp_path / "no" / "such" / "folder" / "a.JSON"):
        assert check_output(str(path), (".json",)) == path
    assert here(tmp_path) == ["there.json"]
    assert there.read_text() == "old"


@pytest.mark.parametrize(
    "name", ["s3://bucket/map.tif", "s3:/bucket/map.tif", "/vsis3/b/map.tif", "https://a/map.tif"]
)
def test_addresses_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (name, Path(name)):
        with pytest.raises(OutputError, match="is an address"):
            check_output(path)
        with pytest.raises(OutputError, match="is an address"):
            write_text(Path(path), "x")
    assert here(tmp_path) == []
    assert is_remote(name)
    assert not any(map(is_remote, ("a.tif", "/data/a.tif", "C:/a.tif", "C:\\a.tif", "./s3/a")))


def test_bad_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "a.png", r"cannot write '\.png'"),
        (tmp_path / "a", "cannot write ''"),
        (tmp_path / "file" / "sub" / "a.tif", "cannot be written"),
        (tmp_path / ("a" * 300 + ".tif"), "cannot be written"),
        (tmp_path / "new" / ("a" * 300 + ".tif"), "cannot be written"),
    ):
        with pytest.raises(OutputError, match=said) as caught:
            check_output(path, (".tif", ".tiff"))
        assert str(path) in caught.value.message
    assert here(tmp_path) == ["file"]


def test_a_folder_without_rights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(Permission denied\)") as caught:
        check_output(tmp_path / "a.tif")
    assert "check the folder's rights" in caught.value.fix


# Reading


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "no valid JSON"),
        (b"", "no valid JSON"),
        (b'{"a": "\xff"}', "no UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no valid JSON"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "no valid JSON"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', "larger than"),
    ],
)
def test_bad_json_is_refused_in_words(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"a\.json: .*{said}") as caught:
        read_json(path, ConfigError, "mend it", largest=250_000)
    assert caught.value.fix.startswith("save it as UTF-8" if said == "no UTF-8" else "mend it")
    assert "\n" not in caught.value.message


@posix
def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path, "is no file"),
        (tmp_path / "pipe", "is no file"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            read_json(path)
        assert str(path) in caught.value.message


def test_json_goes_there_and_back(tmp_path: Path) -> None:
    values = {"a": [1, 2.5, None], "ä": "\udcff"}
    assert read_json(write_json(tmp_path / "a.json", values)) == values
    assert (tmp_path / "a.json").read_bytes() == json.dumps(values, indent=1).encode() + b"\n"
    (tmp_path / "bom.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "bom.json") == {"a": 1}
    assert parse_json("[1]", "a tag", kind=list) == [1]
    with pytest.raises(DataError, match="a tag: no JSON list"):
        parse_json("{}", "a tag", kind=list)


def test_a_changed_file_has_another_stamp(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert stamp(path) == []
    path.write_text("abc")
    first = stamp(path)
    assert first == [3, path.stat().st_mtime_ns]
    os.utime(path, ns=(0, first[1] + 1))
    assert stamp(path) == [3, first[1] + 1]
    assert digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_closes_is_closed_once_the_block_ends() -> None:
    class Thing(Closing):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    with pytest.raises(ZeroDivisionError), Thing() as thing:
        assert thing.closed == 0
        _ = 1 / 0
    assert thing.closed == 1


def test_the_innermost_reason_is_told_on_one_line() -> None:
    outer = ValueError("outer")
    outer.__cause__ = RuntimeError("in\n  two lines")
    assert reason(outer) == "in two lines"
    assert reason(FileNotFoundError(2, "No such file or directory", "a/b")) == (
        "No such file or directory"
    )
    assert reason(ValueError()) == "ValueError"


def test_a_folder_that_is_there_may_be_an_output(tmp_path: Path) -> None:
    assert check_output(tmp_path, folder=True) == tmp_path
    assert check_output(tmp_path / "new" / "one", folder=True) == tmp_path / "new" / "one"
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("s3://bucket/run"), tmp_path / "K\udcf6ln"):
        with pytest.raises(OutputError):
            check_output(place, folder=True)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
