"""How many threads an engine should use on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cpu_threads() -> int:
    """Return the physical cores that this process may use, at least 1.

    Hyper-threads share one arithmetic unit and slow convolutions down; a container's quota and the
    process's affinity bound what the machine shows. ``OMP_NUM_THREADS`` overrides all of it.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return max(1, min(_physical_cores(_allowed_cpus()), _quota()))


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(cpus: set[int]) -> int:
    cores = set()
    for cpu in cpus:
        file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(file.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _quota() -> int:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return os.cpu_count() or 1
