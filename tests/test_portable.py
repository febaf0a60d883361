"""Windows and macOS: what can be held without one.

`make test-portable` runs the scene, data and vector parts under the spawn start method and under a
locale whose encoding is cp1252.
"""

from __future__ import annotations

import ast
import ctypes
import os
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_files import write_folder
from terradapt import machine

PACKAGE = Path(__file__).parents[1] / "src" / "terradapt"
FILES = sorted(PACKAGE.rglob("*.py"))
# What Windows has not; macOS has all of it but the scheduler's.
MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "posix", "syslog"}
OF_OS = {
    "chown", "fork", "forkpty", "geteuid", "getloadavg", "getpgid", "getpgrp", "getuid", "killpg",
    "mkfifo", "nice", "posix_fadvise", "posix_fallocate", "pread", "pwrite", "register_at_fork",
    "sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "sysconf", "uname", "wait4",
    "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "kill",
}  # fmt: skip
OF_SIGNAL = {"SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "alarm", "pthread_kill", "pause"}
GUARDS = ("platform", "hasattr", "_WINDOWS", "os.name")
# Reached only after something that Windows has not was read, or harmless there: `cell` ends itself.
AFTER = {("machine.py", "sysconf"), ("files.py", "kill"), ("machine.py", "resource"),
         ("cell.py", "kill")}  # fmt: skip


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def guarded(node: ast.AST, above: dict[ast.AST, ast.AST]) -> bool:
    """Tell whether a node stands in a branch that asks for the system first."""
    while node in above:
        node = above[node]
        if isinstance(node, ast.If | ast.IfExp):
            if any(word in ast.unparse(node.test) for word in GUARDS):
                return True
        elif isinstance(node, ast.Try):
            caught = " ".join(ast.unparse(h.type) for h in node.handlers if h.type)
            if "ImportError" in caught or "AttributeError" in caught:
                return True
    return False


def posix_only(tree: ast.AST) -> list[tuple[ast.AST, str]]:
    found: list[tuple[ast.AST, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, a.name) for a in node.names if a.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found.append((node, node.module))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = {"os": OF_OS, "signal": OF_SIGNAL}.get(node.value.id, set())
            found += [(node, node.attr)] if node.attr in names else []
    return found


def test_no_posix_call_is_without_its_other_branch() -> None:
    bare, seen = [], 0
    for path in FILES:
        tree = ast.parse(path.read_text("utf-8"))
        above = parents(tree)
        for node, name in posix_only(tree):
            seen += 1
            if not guarded(node, above) and (path.name, name) not in AFTER:
                bare.append(f"{path.relative_to(PACKAGE)}: {name}")
    assert not bare
    assert seen >= 5  # the rule finds what there is


def names_encoding(call: ast.Call, name: str) -> bool:
    """Tell whether a call that opens text says in which encoding."""
    known = {k.arg for k in call.keywords}
    if "encoding" in known:
        return True
    if name in ("read_text", "write_text"):
        return len(call.args) > (name == "write_text")
    modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
    return any(isinstance(m, str) and "b" in m for m in modes)


def test_every_text_file_and_program_is_read_in_an_encoding_that_is_named() -> None:
    bare = []
    for path in FILES:
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            modes = [a for a in call.args if isinstance(a, ast.Constant) and a.value in ("r", "w")]
            opens = name in ("read_text", "write_text") or (name == "open" and modes)
            text = any(k.arg in ("text", "universal_newlines") for k in call.keywords)
            if (opens or text) and not names_encoding(call, name):
                bare.append(f"{path.relative_to(PACKAGE)}:{call.lineno} {ast.unparse(call)[:60]}")
    assert not bare


def test_names_that_a_console_of_cp1252_cannot_show_are_told_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "Łódź → ü"
    folder.mkdir()
    env = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "terradapt", "data", "check", str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    told = (done.stdout + done.stderr).decode("cp1252")
    assert done.returncode == 2, told
    assert "\\u0141\\xf3d\\u017a" in told or "\\u0141ód\\u017a" in told
    assert "Traceback" not in told


def test_what_a_worker_of_the_training_gets_survives_a_spawn(tmp_path: Path) -> None:
    """Windows and macOS start workers afresh: what they read crops with travels as bytes."""
    from terradapt.config import load_config
    from terradapt.data import input_spec, open_dataset
    from terradapt.data.sampling import CropDataset
    from terradapt.training.loading import RunCrops, _outlive_the_signal

    write_folder(tmp_path)
    config = load_config("demo").with_overrides(["data.crop=32"])
    dataset = open_dataset(tmp_path, config.data)
    spec = input_spec(dataset, config.data)
    crops = RunCrops(CropDataset(dataset, "train", config, spec, length=4), 4)
    there, first = ForkingPickler.loads(ForkingPickler.dumps((crops, _outlive_the_signal)))
    assert first is _outlive_the_signal
    for key in range(4):
        ours, theirs = crops[key], there[key]
        assert all(np.array_equal(ours[k], theirs[k]) for k in ours)


def test_windows_is_asked_for_the_peak_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.peak_memory() > 1 << 20

    def answer(process: object, counters: object, size: int) -> int:
        assert process == "this process"
        counters._obj.peak = 123  # type: ignore[attr-defined]
        assert size == ctypes.sizeof(counters._obj) == 8 + 8 * ctypes.sizeof(ctypes.c_size_t)  # type: ignore[attr-defined]
        return 1

    class Function:
        def __init__(self, call: object) -> None:
            self.call = call

        def __call__(self, *args: object) -> object:
            return self.call(*args)  # type: ignore[operator]

    kernel = SimpleNamespace(
        GetCurrentProcess=Function(lambda: "this process"), K32GetProcessMemoryInfo=Function(answer)
    )
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(machine.sys, "platform", "win32")
    assert machine.peak_memory() == 123
