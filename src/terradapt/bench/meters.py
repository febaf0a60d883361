"""Time, memory and energy of a call, as far as the machine tells."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1 << 20
RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Timing:
    """Runs of one call.

    Attributes:
        median: Seconds.
        best: Seconds of the fastest.
        runs: Runs counted.
        joules: Energy of one run, or None where the machine does not tell.
    """

    median: float
    best: float
    runs: int
    joules: float | None


def timed(
    call: Callable[[], Any], seconds: float, at_least: int = 2, *, warm: bool = True
) -> Timing:
    """Run a call once to warm up, then for a time."""
    if warm:
        call()
    times: list[float] = []
    before = energy()
    while len(times) < at_least or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    after = energy()
    used = None if before is None or after is None else (after - before) / len(times)
    return Timing(float(np.median(times)), min(times), len(times), used)


def energy() -> float | None:
    """Return joules that the processor packages used so far (RAPL), or None."""
    try:
        files = [f / "energy_uj" for f in RAPL.glob("intel-rapl:?")]
        return sum(int(f.read_text("utf-8")) for f in files) / 1e6 if files else None
    except (OSError, ValueError):
        return None


def reset_peak() -> bool:
    """Let the process's peak of resident memory begin anew; False where that cannot be done.

    Freed memory is handed back first: it would be used again without being seen.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    except OSError:
        return False
    return True


def resident(field: str = "VmRSS") -> float | None:
    """Return resident memory in MiB, now (``VmRSS``) or at its peak (``VmHWM``)."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    kib = [int(line.split()[1]) for line in lines if line.startswith(f"{field}:")]
    return kib[0] / 1024 if kib else None


def multiply_rate(side: int = 2048, repeats: int = 5) -> float:
    """Return FLOP/s of a square float32 matrix product by torch: the machine's arithmetic limit."""
    import torch

    a, b = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / timed(lambda: a @ b, 0, repeats).best


def gpus() -> list[str]:
    """Return the names of NVIDIA GPUs."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
