"""``--progress json``: the lines that a calling program reads, and the word that it says."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_files import write_folder
from terradapt import cli
from terradapt.cli import _events
from terradapt.raster import write_raster
from training_files import SMALL
from training_files import write_folder as write_blocks

JSON = ("--progress", "json")


def told(text: str) -> list[dict[str, Any]]:
    """Every line is one object."""
    return [json.loads(line) for line in text.splitlines()]


def whole(events: list[dict[str, Any]], label: str) -> None:
    """A phase begins with 0 and ends with all of it, and its counts never fall."""
    lines = [e for e in events if e.get("phase") == label]
    assert set(lines[0]) >= {"phase", "done", "total", "unit", "seconds_left"}
    assert lines[0]["done"] == 0
    assert lines[-1]["done"] == lines[-1]["total"] > 0
    assert [e["done"] for e in lines] == sorted(e["done"] for e in lines)


def test_standard_output_is_json_alone_and_ends_with_the_result(tmp_path: Path, terradapt) -> None:
    labels = np.repeat(np.arange(3, dtype=np.uint8), 80)[None].repeat(200, 0)
    write_raster(tmp_path / "map.tif", labels)
    out = tmp_path / "map.gpkg"
    done = terradapt("vectorize", tmp_path / "map.tif", "-o", out, "--block", 64, *JSON)
    events = told(done.out)
    assert (done.status, done.err) == (0, "")
    whole(events, "polygons")
    result = events[-1]["result"]
    assert result["files"] == [str(out)]
    assert sum(row["polygons"] for row in result["figures"].values()) == 3
    assert any("3 polygons" in e.get("log", "") for e in events)
    assert [e for e in events if "result" in e] == events[-1:]


def test_a_check_tells_its_phases_and_its_findings(tmp_path: Path, terradapt) -> None:
    root = write_folder(tmp_path / "data", 4)
    events = told(terradapt("data", "check", root, *JSON).out)
    assert any("phase" in e for e in events)
    assert len(events[-1]["result"]["check"]["items"]) == 4


@pytest.mark.parametrize(
    ("args", "status", "named"),
    [
        (["vectorize", "none.tif", "-o", "x.gpkg"], 2, "none.tif"),
        (["vectorize", "--nosuch"], 2, "--nosuch"),
        (["nosuch"], 2, "nosuch"),
        (["data", "check", "nowhere"], 2, "nowhere"),
        (["recipes", "nosuch"], 2, "nosuch"),
    ],
)
def test_an_error_is_one_object_with_its_fix(terradapt, args, status: int, named: str) -> None:
    done = terradapt(*args, *JSON)
    last = told(done.out)[-1]
    assert (done.status, done.err) == (status, "")
    assert set(last) == {"error", "fix"} and named in last["error"] and last["fix"]


def test_a_defect_is_an_error_too(terradapt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terradapt.config.recipe_names", lambda: 1 / 0)
    done = terradapt("recipes", *JSON)
    last = told(done.out)[-1]
    assert done.status == 70
    assert "ZeroDivisionError" in last["error"] and "--debug" in last["fix"]


def test_an_unknown_form_is_refused(terradapt) -> None:
    assert terradapt("recipes", "--progress", "xml").is_user_error("xml")


class Program(io.StringIO):
    """A program that reads the lines and says ``stop`` once training is under way."""

    def __init__(self, say: int) -> None:
        super().__init__()
        self.say = say

    def write(self, text: str) -> int:
        event = json.loads(text)
        if event.get("phase", "").startswith("train") and event["done"] and self.say:
            os.write(self.say, b"stop\n")
            self.say = 0
        return super().write(text)


def test_the_word_stop_ends_a_run_with_its_state_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_blocks(tmp_path / "data")
    read, say = os.pipe()
    program = Program(say)
    run = tmp_path / "run"
    args = ["train", "landcover", *SMALL, "epochs=500", "--data", str(data), "-o", str(run)]
    monkeypatch.setattr(sys, "argv", ["terradapt", *args, *JSON])
    monkeypatch.setattr(sys, "stdout", program)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        os.close(say)
    events = told(program.getvalue())
    assert stop.value.code == 130
    assert set(events[-1]) == {"stopped"}, events[-3:]
    assert (run / "last.safetensors").is_file()
    assert not any("result" in e or "error" in e for e in events)


@pytest.mark.parametrize(
    ("said", "stops"),
    [(b"", 0), (b"stop\n", 1), (b"stop", 1), (b"go\nstop\r\n", 1), (b"stopping\n\n", 0)],
)
def test_only_the_word_on_a_line_of_its_own_stops(
    monkeypatch: pytest.MonkeyPatch, said: bytes, stops: int
) -> None:
    heard: list[int] = []
    monkeypatch.setattr(_events, "_interrupt", lambda: heard.append(1))
    read, say = os.pipe()
    os.write(say, said)
    os.close(say)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        _events._listen()
    assert len(heard) == stops


def test_an_input_left_open_does_not_keep_the_process() -> None:
    command = [sys.executable, "-m", "terradapt", "recipes", *JSON]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        events = told(process.stdout.read().decode())
        assert process.wait() == 0
    assert events[-1]["result"]["recipes"]


def test_a_phase_speaks_five_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(n / 1000 for n in range(10_000))
    monkeypatch.setattr(_events.time, "monotonic", lambda: next(now))
    out = io.StringIO()
    with _events.Events(out).phase(2000, "work", "px") as advance:
        for _ in range(2000):
            advance(1, note="loss 0.5")
    lines = told(out.getvalue())
    assert 9 <= len(lines) <= 12
    assert lines[-1]["done"] == 2000 and lines[-1]["seconds_left"] == 0
    assert lines[5]["note"] == "loss 0.5"
    assert lines[5]["seconds_left"] == pytest.approx((2000 - lines[5]["done"]) / 1000, abs=0.1)


def test_any_value_becomes_json() -> None:
    out = io.StringIO()
    values = {"a": math.nan, "b": np.float32(0.5), "c": Path("x"), "d": (np.int64(3),), 4: True}
    _events.Events(out).tell(result=values)
    wanted = {"a": None, "b": 0.5, "c": "x", "d": [3], "4": True}
    assert told(out.getvalue()) == [{"result": wanted}]


def test_work_goes_on_when_the_reader_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        events = _events.Events(out)
        events.tell(log="a")
        events.tell(log="b")
