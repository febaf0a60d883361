"""The machine: cores and threads under affinity, quota and other systems."""

import os
import platform
from pathlib import Path

import pytest

from terradapt import machine


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Four cores with two threads each, no quota, no wish."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: set(range(8)))
    monkeypatch.setattr(machine, "_quota", lambda: 64)
    monkeypatch.setattr(Path, "read_text", lambda path, *_: f"{int(path.parts[-3][3:]) // 2}\n")
    return monkeypatch


def test_engines_get_a_thread_for_each_physical_core(eight: pytest.MonkeyPatch) -> None:
    assert (machine.cpu_cores(), machine.cpu_threads()) == (8, 4)
    eight.setenv("OMP_NUM_THREADS", "3")
    assert (machine.cpu_cores(), machine.cpu_threads()) == (8, 3)
    for wish in ("0", "many", "-1"):
        eight.setenv("OMP_NUM_THREADS", wish)
        assert machine.cpu_threads() == 4


def test_a_quota_bounds_both(eight: pytest.MonkeyPatch) -> None:
    eight.setattr(machine, "_quota", lambda: 1)
    assert (machine.cpu_cores(), machine.cpu_threads()) == (1, 1)


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 6), ("", 6)]
)
def test_a_container_is_asked_for_its_quota(
    monkeypatch: pytest.MonkeyPatch, text: str, cores: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(Path, "read_text", lambda *_: text)
    assert machine._quota() == cores


def test_a_system_without_affinity_or_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert (machine.cpu_cores(), machine.cpu_threads()) == (6, 6)
    assert machine.hardware() == "arm64, 6 cores"
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (machine.cpu_cores(), machine.cpu_threads()) == (1, 1)


def test_the_processor_is_named_as_linux_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda *_: "processor : 0\nmodel name\t: A 7 @ 2 GHz\n")
    assert machine.hardware() == "A 7 @ 2 GHz, 2 cores"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_this_process_may_use_what_its_affinity_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert (machine.cpu_cores(), machine.cpu_threads()) == (1, 1)
    finally:
        os.sched_setaffinity(0, before)
