"""One owner per result: a lock that dies with its process, and says who holds it."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from terradapt import files, owner
from terradapt.errors import OutputError
from terradapt.owner import owned

posix = pytest.mark.skipif(os.name == "nt", reason="signals and forks of POSIX")

HOLD = """
import sys
from terradapt.owner import owned
with owned(sys.argv[1], folder=sys.argv[2] == "folder"):
    print("mine", flush=True)
    sys.stdin.readline()
"""


def here(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def holder(path: Path, kind: str = "file") -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "mine\n"
    return child


def end(child: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    child.send_signal(number)
    child.communicate()


@pytest.mark.parametrize(("kind", "lock"), [("file", ".map.tif.owner"), ("folder", ".owner")])
def test_a_second_process_is_told_who(tmp_path: Path, kind: str, lock: str) -> None:
    path = tmp_path / "map.tif"
    child = holder(path, kind)
    try:
        who = json.loads(((path if kind == "folder" else tmp_path) / lock).read_text())
        assert who["pid"] == child.pid
        with (
            pytest.raises(OutputError, match=r"map\.tif: is being written by process") as caught,
            owned(path, folder=kind == "folder"),
        ):
            pytest.fail("owned by two")
        assert f"process {child.pid} on {who['host']} since {who['since']}" in caught.value.message
    finally:
        child.communicate("\n")
    assert child.returncode == 0
    assert here(tmp_path) == (["map.tif"] if kind == "folder" else [])
    assert kind == "file" or here(path) == []


@posix
def test_a_killed_owner_owns_nothing_and_what_it_left_goes(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    end(holder(path))
    end(holder(tmp_path / "other.tif"))
    end(holder(tmp_path / "run", "folder"))
    part = tmp_path / f".map.tif.{files._place()}.{os.getppid()}.0123abcd.part"
    part.mkdir()  # its process number lives again, as another process
    kept = tmp_path / f".map2.tif.{files._place()}.{os.getppid()}.0123abcd.part"
    kept.mkdir()
    foreign = tmp_path / ".alien.owner"
    foreign.write_text("of another program")
    assert here(tmp_path / "run") == [".owner"]
    with owned(path):
        assert sorted(here(tmp_path)) == sorted(
            [".alien.owner", ".map.tif.owner", kept.name, "run"]
        )
    with owned(tmp_path / "run", folder=True):
        pass
    assert here(tmp_path / "run") == []
    assert here(tmp_path) == sorted([".alien.owner", kept.name, "run"])


def test_a_living_owner_keeps_its_lock_when_others_tidy(tmp_path: Path) -> None:
    child = holder(tmp_path / "map.tif")
    with owned(tmp_path / "other.tif"):
        pass
    with pytest.raises(OutputError, match=str(child.pid)), owned(tmp_path / "map.tif"):
        pytest.fail("owned by two")
    child.communicate("\n")


def test_any_spelling_of_a_place_is_one_place(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    child = holder(tmp_path / "a" / "map.tif")
    for path in ("a/map.tif", "link/map.tif", "a/../link/map.tif"):
        with pytest.raises(OutputError, match="is being written"), owned(path):
            pytest.fail("owned by two")
    child.communicate("\n")


def test_a_thread_may_own_twice_and_two_threads_not(tmp_path: Path) -> None:
    path, said = tmp_path / "map.tif", []

    def second() -> None:
        try:
            with owned(path):
                said.append("mine")
        except OutputError as error:
            said.append(error.message)

    with owned(path), owned(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in said[0]
    second()
    assert said[1:] == ["mine"]
    assert here(tmp_path) == []


@posix
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    script = (
        "import os, sys, time\nfrom terradapt.owner import owned\n"
        "with owned(sys.argv[1]):\n"
        "    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)\n"
        "    print('mine', flush=True)\n    time.sleep(30)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert child.stdout.read(5) == b"mine\n"
        child.kill()
        child.wait()
        with owned(path):
            pass
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.stdout.close()
    assert here(tmp_path) == []


def test_an_error_takes_the_folders_away_that_were_made(tmp_path: Path) -> None:
    for folder in (False, True):
        with pytest.raises(ZeroDivisionError), owned(tmp_path / "x" / "y", folder=folder):
            _ = 1 / 0
        assert here(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"), owned(tmp_path / "file" / "a"):
        pytest.fail("no folder")


@posix
def test_what_is_no_lock_is_not_written_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".a.owner").symlink_to(victim)
    os.mkfifo(tmp_path / ".b.owner")
    for name in ("a", "b"):
        with pytest.raises(OutputError, match="cannot be written"), owned(tmp_path / name):
            pytest.fail("owned")
    assert victim.read_text() == "mine"


def test_long_names_have_locks_of_their_own(tmp_path: Path) -> None:
    one, two = (tmp_path / ("ä" * 120 + end) for end in ("1.tif", "2.tif"))
    with owned(one), owned(two):
        assert len(here(tmp_path)) == 2


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with owned(tmp_path / "map.tif"):
        assert here(tmp_path) == []


def test_windows_locks_a_byte_behind_the_name(tmp_path: Path, monkeypatch) -> None:
    """The branch that this system does not take, with a stand-in for its module."""
    locked: set[int] = set()

    def locking(handle: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        assert os.lseek(handle, 0, os.SEEK_CUR) == 1 << 30
        inode = os.fstat(handle).st_ino
        if inode in locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        locked.add(inode)

    fake = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(sys, "platform", "win32")
    path, seen = tmp_path / "map.tif", []
    with owned(path):
        assert json.loads((tmp_path / ".map.tif.owner").read_text())["pid"] == os.getpid()
        monkeypatch.setattr(threading, "get_ident", lambda: -7)
        with pytest.raises(OutputError, match=f"process {os.getpid()}"), owned(path):
            pytest.fail("owned by two")
        seen = here(tmp_path)
    assert seen == [".map.tif.owner"]
    assert here(tmp_path) == []
    assert not owner._held
