from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnx_files import write_tiny
from terradapt.bench import meters, present
from terradapt.bench.run import BACKBONES, TEACHER, BenchRow, Options, usable, with_reduction
from terradapt.errors import ConfigError


def row(backbone: str, **changes: Any) -> BenchRow:
    values: dict[str, Any] = {
        "backbone": backbone, "engine": "torch", "parameters": 6.678, "reduction": None,
        "gmacs": 56.36, "size_mib": 25.6, "rate": 30.0, "best_rate": 31.0, "best_batch": 4,
        "latency_ms": 40.0, "memory_mib": None, "joules": None, "of_limit": 1.2, "gflops": 100.0,
    }  # fmt: skip
    return BenchRow(**(values | changes))


def result(*rows: BenchRow) -> dict[str, Any]:
    return {
        "hardware": "2 cores", "threads": 2,
        "options": {"batch": 8, "size": 512}, "rows": [vars(r) for r in rows],
    }  # fmt: skip


def test_the_reduction_is_the_papers() -> None:
    rows = with_reduction([row(TEACHER, parameters=222.980), row("efficientnet_b0")])
    assert rows[0].reduction is None
    assert round(rows[1].reduction or 0, 2) == 97.01  # 97.00 in the paper, from rounded figures


def test_ratios_stand_beside_the_papers() -> None:
    rows = [row(TEACHER, rate=2.0), row("efficientnet_b0"), row("resnet18", engine="openvino")]
    lines = present.ratios([vars(r) for r in rows])
    assert "| efficientnet_b0 | torch | 15.0 | 15.3 |" in lines
    assert not any("resnet18" in line for line in lines)  # no teacher on that engine


def test_what_the_machine_does_not_tell_is_said() -> None:
    text = present.bench_markdown(result(row("efficientnet_b0")))
    assert text.count("not measured") == 2
    assert "| efficientnet_b0 | torch | 6.68 | - | 56.36 |" in text


def test_every_backbone_has_its_printed_row() -> None:
    printed = present.printed_rows()
    assert list(printed) == list(BACKBONES)
    assert printed["efficientnet_b0"].values["complexity.fps"] == 305.85


def test_engines_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from terradapt.predictors import engines

    monkeypatch.setattr(engines, "installed", lambda: ("onnxruntime",))
    assert usable(Options()) == ("torch", "torch-bf16", "onnxruntime")
    with pytest.raises(ConfigError, match="abacus"):
        usable(Options(engines=("abacus",)))


def test_the_timing_counts_its_runs() -> None:
    calls = []
    timing = meters.timed(lambda: calls.append(1), 0.0, at_least=3)
    assert len(calls) == 4  # one to warm up
    assert timing.runs == 3
    assert 0 <= timing.best <= timing.median


def test_slow_calls_need_no_warming() -> None:
    calls = []
    assert meters.timed(lambda: calls.append(1), 0.0, 1, warm=False).runs == 1
    assert len(calls) == 1


def test_rates_of_several_runs_are_told() -> None:
    two = result(row("resnet18", gflops=90.4), row("resnet50", gflops=120.0))
    assert "ran at 90 to 120 GFLOP/s" in present.bench_markdown(two)
    assert "ran at 100 GFLOP/s" in present.bench_markdown(result(row("resnet18")))


def test_memory_that_a_call_takes_is_seen() -> None:
    """In a process of its own: a full one may serve the block from pages that it holds."""
    code = (
        "import numpy as np; from terradapt.bench import meters; np.ones(9).sum();"
        "known = meters.reset_peak(); before = meters.resident() or 0;"
        "block = np.ones(64 << 20, np.uint8); peak = meters.resident('VmHWM') or 0;"
        "print(peak - before if known else 'unknown')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "unknown":
        pytest.skip("this machine does not let the peak begin anew")
    assert 60 < float(done.stdout) < 90


def test_the_bench_through_the_command_line(terradapt: Any, tmp_path: Path) -> None:
    outcome = terradapt(
        "bench", "-o", tmp_path, "--backbone", "mobilenetv3_small_100", "--engine", "onnxruntime",
        "--engine", "torch", "--size", 64, "--batch", 2, "--seconds", 0,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert {f.name for f in tmp_path.iterdir()} == {"bench.json", "bench.md", "bench.png"}
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [r["engine"] for r in rows] == ["onnxruntime", "torch"]
    assert all(r["rate"] > 0 and r["latency_ms"] > 0 for r in rows)
    assert rows[0]["parameters"] == pytest.approx(5.472, abs=5e-4)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    again = (
        "bench", "-o", tmp_path, "--engine", "torch", "--batch", 2, "--seconds", 0,
        "--backbone", "mobilenetv3_small_100", "--backbone", "resnet18", "--resume",
    )  # fmt: skip
    outcome = terradapt(*again, "--size", 64)
    assert outcome.status == 0, outcome.err
    more = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [(r["backbone"], r["engine"]) for r in more] == [
        ("mobilenetv3_small_100", "onnxruntime"),
        ("mobilenetv3_small_100", "torch"),
        ("resnet18", "torch"),
    ]
    assert more[:2] == rows
    assert terradapt(*again, "--size", 96).is_user_error("bench.json", "size 64")
    (tmp_path / "bench.json").write_text("[1]")
    assert terradapt(*again, "--size", 64).is_user_error("bench.json")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--engine", "abacus"], "abacus"), (["--accuracy", "resnet18"], "resnet18"),
     (["--backbone", "nonet"], "nonet"), (["--accuracy", "a=none.json"], "none.json")],
)  # fmt: skip
def test_bad_input(terradapt: Any, tmp_path: Path, arguments: list[str], named: str) -> None:
    out = tmp_path / "bench"
    assert terradapt("bench", "-o", out, "--size", 64, *arguments).is_user_error(named)
    assert not out.exists()


def test_a_model_on_each_engine(terradapt: Any, tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "model.onnx")
    out = tmp_path / "speed"
    ran = terradapt("bench", model, "-o", out, "--size", 96, "--batch", 2, "--seconds", 0)
    assert ran.status == 0, ran.err
    assert {f.name for f in out.iterdir()} == {"model.bench.json", "model.bench.md"}
    told = json.loads((out / "model.bench.json").read_text())
    assert [row["engine"] for row in told["rows"]] == ["onnxruntime", "openvino"]
    assert (told["window"], told["batch"], told["parameters"]) == (96, 2, 9)
    for row in told["rows"]:
        assert row["best_ms"] <= row["latency_ms"]
        assert row["megapixels"] == pytest.approx(row["rate"] * 96 * 96 / 1e6)
    lines = ran.out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in table}) == 1
    assert max(map(len, lines[: lines.index(table[-1]) + 1])) <= 80


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--size", 80], "80 px"), (["--engine", "abacus"], "abacus"), (["--engine", "torch"], "tor"),
     (["--backbone", "resnet18"], "--backbone"), (["--resume"], "--resume")],
)  # fmt: skip
def test_what_does_not_fit_a_model(
    terradapt: Any, tmp_path: Path, arguments: list[str], named: str
) -> None:
    model = write_tiny(tmp_path / "model.onnx")
    assert terradapt("bench", model, "-o", tmp_path / "out", *arguments).is_user_error(named)
    assert not (tmp_path / "out").exists()
    other = tmp_path / "checkpoint.safetensors"
    assert terradapt("bench", other, "-o", tmp_path / "out").is_user_error(other.name)
