"""The GPU's script on the CPU: its stages run, its page is written, a stage that fails is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(out: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--quick", "-o", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *arguments], check=True, capture_output=True, env=environment)
    (page,) = out.glob("*.md")
    assert page.read_text().startswith("# GPU figures")
    (figures,) = out.glob("*.json")
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


@pytest.mark.slow
def test_a_scene_is_measured_part_by_part(tmp_path: Path) -> None:
    found = run(tmp_path, "--only", "predict")
    (row,) = found["stages"]["predict"]["rows"]
    assert "failed" not in row, row
    assert row["windows"] == 36
    assert row["share_of_bare"] == pytest.approx(row["bare_seconds"] / row["seconds"])
    assert 0 < row["seconds_reading"] < row["seconds"]


@pytest.mark.slow
def test_every_stage_runs(tmp_path: Path) -> None:
    found = run(tmp_path)
    stages = found["stages"]
    assert [*stages] == ["tests", "peak", "inference", "training", "predict", "engines", "resume"]
    assert not [s for s, f in stages.items() if "failed" in f]
    failed = [r["failed"] for f in stages.values() for r in f["rows"] if "failed" in r]
    assert failed in ([], ["not installed"])
    assert stages["resume"]["rows"][0]["largest_difference"] == 0
