"""The column of images per second: from a result of ``terradapt bench``, never quoted."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from conftest import Call
from terradapt.errors import DataError
from terradapt.tables import Cell, fill, find_speeds, read_speeds, to_csv, to_markdown

RATES = {"sam2_hiera_large": 0.5, "efficientnet_b0": 8.0, "resnet18": 12.0}


def write_bench(folder: Path, rates: dict[str, float | None], engine: str = "torch") -> Path:
    """Write what ``terradapt bench`` writes, as far as the tables read it."""
    rows = [{"backbone": k, "engine": engine, "rate": v} for k, v in rates.items()]
    if engine == "torch":  # behind another engine's rows, as a user may have measured them
        rows = [{**row, "engine": "openvino", "rate": 99.0} for row in rows] + rows
    values = {"hardware": "a machine", "options": {"batch": 8, "size": 512}, "rows": rows}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench.json"
    path.write_text(json.dumps(values))
    return path


def cells(folder: Path) -> dict[str, Cell]:
    filled = fill(["arafnet-4"], count=lambda *_: None, speeds=read_speeds(folder))[0]
    at = [m for _, m in filled.table.columns].index("complexity.fps")
    return {r.names[0]: c[at] for r, c in zip(filled.table.rows, filled.cells, strict=True)}


def test_speeds_of_torch_stand_beside_the_printed_ones(tmp_path: Path) -> None:
    found = cells(write_bench(tmp_path, RATES))
    chosen = found["Efficientnet_b0 (Selected)"]
    assert (chosen.printed, chosen.ours, chosen.ours_ratio) == (305.85, 8.0, 16.0)
    assert chosen.printed_ratio == pytest.approx(305.85 / 20.01)
    assert chosen.why.endswith("bench.json")
    teacher = found["SAM2"]
    assert (teacher.ours, teacher.ours_ratio, teacher.printed_ratio) == (0.5, None, None)
    assert found["Resnet50"].ours is None and found["Resnet50"].why == "needs terradapt bench"
    assert found["Resnet50"].printed_ratio == pytest.approx(128.05 / 20.01)


def test_without_a_teacher_there_is_no_ratio(tmp_path: Path) -> None:
    found = cells(write_bench(tmp_path, {"resnet18": 12.0, "resnet50": None}))
    assert (found["Resnet18"].ours, found["Resnet18"].ours_ratio) == (12.0, None)
    assert found["Resnet50"].ours is None


def test_without_torch_the_first_engine_is_taken(tmp_path: Path) -> None:
    speeds = read_speeds(write_bench(tmp_path, RATES, "openvino"))
    assert speeds.engine == "openvino" and dict(speeds.rates) == RATES


def test_the_newest_result_below_the_runs_is_found(tmp_path: Path) -> None:
    old = write_bench(tmp_path / "a" / "bench", {"resnet18": 1.0})
    write_bench(tmp_path / "b", {"resnet18": 2.0})
    os.utime(old, (1, 1))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "bench.json").write_text("[]")
    speeds = find_speeds([tmp_path])
    assert speeds is not None and speeds.rates == {"resnet18": 2.0}
    assert find_speeds([tmp_path / "c"]) is None


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', '{"rows": [{"rate": 1}]}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"bench\.json: no (result of|valid JSON|JSON object)"):
        read_speeds(path)


def test_markdown_and_csv_have_the_ratio(tmp_path: Path) -> None:
    speeds = read_speeds(write_bench(tmp_path, RATES))
    filled = fill(["arafnet-4"], count=lambda *_: None, speeds=speeds)
    text = to_markdown(filled)
    assert "305.85 (15.3x)" in text and "**8.00** (16.0x)" in text and "**0.50** |" in text
    assert "torch, a batch of 8 x 3 x 512 x 512, on a machine" in text
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(to_csv(filled))))
    row = next(r for r in rows if r["row"] == "Resnet18" and r["column"].startswith("FPS"))
    assert (row["ours"], row["ours_over_teacher"]) == ("12.000", "24.000")
    assert row["printed_over_teacher"] == "17.635"
    assert {r["ours_over_teacher"] for r in rows if not r["column"].startswith("FPS")} == {""}
    assert "on a machine" not in to_markdown(fill(["arafnet-5"], speeds=speeds))


def test_the_verb_reads_a_bench(tmp_path: Path, terradapt: Call) -> None:
    path = write_bench(tmp_path / "bench", RATES)
    assert "(16.0x)" in terradapt("tables", "arafnet-4", "--bench", path.parent).out
    assert "(16.0x)" in terradapt("tables", "arafnet-4", "--runs", tmp_path).out
    assert terradapt("tables", "--bench", tmp_path / "no.json").is_user_error("no.json")
