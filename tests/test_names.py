"""The counter of names that are defined in two files or more (``make names``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "checks" / "names.py"
ONE = "def load(): ...\ndef register(app): ...\ndef _own(): ...\nasync def wait(): ...\n"
TWO = "def load(): ...\ndef register(app): ...\ndef _own(): ...\ndef wait(): ...\nclass A: ...\n"


def run(package: Path, limit: int) -> tuple[int, list[str]]:
    call = [sys.executable, SCRIPT, "--limit", str(limit), package]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    (tmp_path / "one.py").write_text(ONE)
    (tmp_path / "room" / "two.py").write_text(TWO)
    return tmp_path


def test_names_above_the_limit_fail(package: Path) -> None:
    listed = ["function load: one.py, room/two.py", "function wait: one.py, room/two.py"]
    assert run(package, 2) == (0, [*listed, "2 names (at most 2), 0 classes among them (none)"])
    assert run(package, 1)[0] == 1


def test_a_class_among_them_fails_below_any_limit(package: Path) -> None:
    (package / "three.py").write_text("class A:\n    def load(self): ...\n")
    status, lines = run(package, 20)
    assert status == 1
    assert lines[0] == "class A: room/two.py, three.py"
    assert lines[-1] == "3 names (at most 20), 1 classes among them (none)"
