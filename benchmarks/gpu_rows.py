"""Rows of ``gpu.py``: timed, kept from the first on, written as a page beside the goals."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from terradapt.report.markdown import markdown_table

PAPER_TEACHER, PAPER_RATIO = 20.01, 15.3  # images/s on a TITAN RTX; student b0 over teacher
GOALS = {
    "sam2-arafnet": "half of the bf16 peak",
    "efficientnet_b0": "3,000 images/s",
    "mobilenetv3_small_100": "5,000 images/s",
}


class Rows:
    """Rows of a stage, kept in its file from the first on; stops when its time is up."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.stop = path, time.monotonic() + seconds
        self.rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        self.path.write_text(json.dumps(self.rows))
        print(row, file=sys.stderr, flush=True)

    def attempt(self, call: Callable[[], dict[str, Any]], **names: Any) -> None:
        """Add what a call measures, or why it did not."""
        if time.monotonic() > self.stop:
            self.add(**names, failed="not reached in time")
            return
        try:
            self.add(**names, **call())
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            self.add(**names, failed=f"{type(error).__name__}: {said[:160]}")


def settle(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def per_call(call: Callable[[], Any], device: str, seconds: float) -> float:
    """Return the median seconds of a call, the device's work included, after two warm ones."""
    for _ in range(2):
        call()
    settle(device)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 200):
        start = time.perf_counter()
        call()
        settle(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def page(result: dict[str, Any]) -> str:
    """Return the figures as Markdown, one table a stage."""
    text = [f"# GPU figures, {result['date']}", "", result["device_name"], ""]
    for stage, found in result["stages"].items():
        text += [
            f"## {stage}",
            "",
            f"{found['seconds']:.0f} s. {found.get('failed', '')}".strip(),
            "",
        ]
        for row in found["rows"]:
            row.pop("by_batch", None)
        heads = list(dict.fromkeys(k for row in found["rows"] for k in row))
        cells = [[_cell(row.get(h)) for h in heads] for row in found["rows"]]
        if cells:
            text += [markdown_table(heads, cells), ""]
    text += [*judged(result), ""]
    return "\n".join(text)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def judged(result: dict[str, Any]) -> list[str]:
    """Set the figures beside the goals and the paper's ratio."""
    rows = result["stages"].get("inference", {}).get("rows", [])
    best: dict[str, float] = {}
    for row in rows:
        key = row["encoder"] if row["model"] == "kd-arafnet" else row["model"]
        best[key] = max(best.get(key, 0.0), row.get("images_s", 0.0))
    lines = ["## Goals", ""]
    lines += [f"- {k}: {best[k]:.0f} images/s; goal {GOALS[k]}" for k in GOALS if best.get(k)]
    ceiling = [r["tflops"] for r in result["stages"].get("peak", {}).get("rows", [])
               if r["what"].startswith("bfloat16") and "tflops" in r]  # fmt: skip
    teacher = [r["tflops"] for r in rows if r["model"] == "sam2-arafnet" and "tflops" in r]
    if ceiling and teacher:
        lines.append(f"- teacher: {max(teacher) / ceiling[0]:.1%} of the measured bf16 peak")
    if best.get("efficientnet_b0") and best.get("sam2-arafnet"):
        ratio = best["efficientnet_b0"] / best["sam2-arafnet"]
        lines.append(f"- student b0 over teacher: {ratio:.1f}; the paper: {PAPER_RATIO}")
        lines.append(f"- teacher: {best['sam2-arafnet']:.1f} images/s; TITAN RTX: {PAPER_TEACHER}")
    return lines
