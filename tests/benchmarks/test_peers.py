"""Ours against its peers: the search, the table, and a command that may be stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from training_files import write_folder

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers.py"


@pytest.fixture(scope="module")
def peers() -> Any:
    spec = importlib.util.spec_from_file_location("peers", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row_of(model: str, seed: int, figure: float) -> dict[str, Any]:
    test = {"figure": figure, "ece": 0.01, "parameters": 3e6, "f1": figure}
    plan = {"data": "roads", "model": model, "seed": seed, "rate": 1e-3, "loss": ""}
    return {**plan, "val": {"figure": 0.5}, "step_seconds": 0.5, "test": test}


def test_the_table_pairs_seeds_and_counts_wins(peers: Any) -> None:
    rows = [row_of("ours", seed, figure) for seed, figure in enumerate((0.80, 0.82, 0.84))]
    rows += [row_of("peer", seed, figure) for seed, figure in enumerate((0.79, 0.83))]
    rows.append({k: v for k, v in row_of("peer", 2, 0.1).items() if k != "test"})  # of the search
    ours, peer = peers.summary(rows, ["ours", "peer", "absent"])["roads"]
    assert (ours["mean"], ours["spread"]) == pytest.approx((82, 2))
    assert ours["difference"] is None and ours["pairs"] == 0
    assert (peer["mean"], peer["difference"]) == pytest.approx((81, 0))
    assert peer["difference_spread"] == pytest.approx(2**0.5)
    assert (peer["wins"], peer["pairs"]) == (1, 2)
    settings = {"steps": 3, "crop": 64, "encoder": "net"}
    page = peers.page(peers.summary(rows, ["ours", "peer"]), settings)
    line = (
        "| peer | 81.00 ± 2.83 | 79.00, 83.00 | +0.00 ± 1.41 | 1 of 2 | 1.00 | 0.001 | 500 | 3.00 |"
    )
    assert line in page.splitlines()


def test_the_best_try_on_validation_images_gets_all_seeds(peers: Any) -> None:
    rows: list[dict[str, Any]] = []
    args = Namespace(
        data=[Path("a")], models=["m"], seeds=[5, 6], rates=[1.0, 2.0], losses=["", "x"]
    )
    seen = []
    for _, plan, is_tested in peers.plans(args, rows):
        seen.append((plan["seed"], plan["rate"], plan["loss"], is_tested))
        figure = {(1.0, ""): 0.3, (2.0, ""): 0.2, (1.0, "x"): 0.6, (2.0, "x"): 0.5}
        rows.append({**plan, "val": {"figure": figure[plan["rate"], plan["loss"]]}})
    searched = [(5, rate, loss, False) for rate in (1.0, 2.0) for loss in ("", "x")]
    assert seen == [*searched, (5, 1.0, "x", True), (6, 1.0, "x", True)]


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
def test_a_stopped_comparison_goes_on(tmp_path: Path, classes: int) -> None:
    data = write_folder(tmp_path / "data", classes=classes)

    def run(*more: str) -> dict[str, Any]:
        given = ["--data", str(data), "--encoder", "mobilenetv3_small_050", "--steps", "2"]
        given += ["--crop", "64", "--rates", "1e-3", "1e-2", "-o", str(tmp_path / "out")]
        command = [sys.executable, str(SCRIPT), *given, *more]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
        return found

    def known(rows: list[dict[str, Any]]) -> set[str]:
        return {json.dumps(row) for row in rows}

    models = ["--models", "kd-arafnet", "smp-fpn"]
    first = run(*models, "--seeds", "0")
    assert len(first["rows"]) == 4
    assert sum("test" in row for row in first["rows"]) == 2
    second = run(*models, "--seeds", "0", "1")
    assert known(first["rows"]) < known(second["rows"]), "a finished run was run again"
    assert len(second["rows"]) == 6
    for row in second["rows"]:
        if row["seed"]:  # the rate that was best with the first seed
            tries = [r for r in second["rows"] if r["model"] == row["model"] and not r["seed"]]
            assert row["rate"] == max(tries, key=lambda r: r["val"]["figure"])["rate"]
        assert ("threshold" in row["val"]) is (classes == 2)
    (lines,) = second["tables"].values()
    assert [line["model"] for line in lines] == models[1:]
    assert lines[1]["pairs"] == 2
    assert not list((tmp_path / "out_runs").iterdir())
    with pytest.raises(subprocess.CalledProcessError):
        run("--steps", "3")
