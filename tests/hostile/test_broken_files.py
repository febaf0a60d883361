"""Broken files of every kind through the command line: two lines, or a right result."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from broken import WHOLE, Whole, broken, call, files, folders, peak
from fuzz import PARSERS, survives
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_files import write_tiny
from terradapt.raster import SceneReader

pytestmark = [pytest.mark.hostile, pytest.mark.filterwarnings("default")]
CASES = 28
"""Broken inputs of each kind."""
MOST_MEMORY = 2 << 30
FUZZ = Path(__file__).with_name("fuzz.py")
FUZZ_SECONDS = float(os.environ.get("TERRADAPT_FUZZ_SECONDS", "60"))


def note(test: str, name: str, counts: Counter[str]) -> None:
    place = os.environ.get("TERRADAPT_FIGURES")
    if place:
        with Path(place).open("a") as file:
            file.write(json.dumps({"test": test, "kind": name, **counts}) + "\n")


@pytest.mark.parametrize("whole", WHOLE, ids=lambda w: w.name)
def test_broken_files_are_refused_in_two_lines_or_read(whole: Whole, tmp_path: Path) -> None:
    write_tiny(tmp_path / "x.onnx")
    counts: Counter[str] = Counter()
    faults = []
    for seed, case in folders(tmp_path, whole, range(CASES)):
        before = files(case)
        peak()
        args = [a.format(file=whole.file, onnx=tmp_path / "x.onnx") for a in whole.call]
        seen = call(case, *args)
        left = {n for n in set(files(case)) - set(before) if "label-index" not in n}
        counts["tried"] += 1
        lines = [s.split(":")[0] for s in seen.said.splitlines() if s.startswith(("error", "fix"))]
        if seen.code == 2 and lines == ["error", "fix"]:
            counts["refused"] += 1
            if left and "to/" not in "".join(left) and not any(".part" in n for n in left):
                faults.append((seed, "left", sorted(left)))
        elif seen.code == 1 and whole.call[0] == "data":
            counts["told"] += 1  # the check's own page says what is wrong with the data
        elif seen.code == 0:
            counts["read"] += 1
            if whole.raster:
                with SceneReader(case / whole.file) as a, SceneReader(case / "o.tif") as b:
                    if (a.height, a.width) != (b.height, b.width):
                        faults.append((seed, "another size"))
        else:
            faults.append((seed, seen.code, seen.said[-300:]))
        if (held := peak()) > MOST_MEMORY:
            faults.append((seed, "memory", held))
        if seen.seconds > 60:
            faults.append((seed, "time", seen.seconds))
    counts["faults"] = len(faults)
    note("broken", whole.name, counts)
    assert not faults, faults[:6]


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris does not install here")
def test_parsers_end_in_words_where_coverage_leads(name: str) -> None:
    command = [sys.executable, str(FUZZ), name, f"{FUZZ_SECONDS:.0f}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    tried = re.findall(r"Done (\d+) (?:runs|in)", done.stderr)
    note("fuzz", name, Counter(tried=int(tried[-1]) if tried else 0))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=300, deadline=None)
@given(damage=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=8))
def test_parsers_end_in_words(
    name: str, damage: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Damage upon damage; whatever is not the house's own error is a fault."""
    data = PARSERS[name][0]
    for seed in damage:
        data = broken(data or PARSERS[name][0], seed)
    survives(name, data, tmp_path_factory.getbasetemp())
