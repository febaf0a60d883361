"""The machine: what it is, and how much of it this process may use."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from contextlib import suppress
from pathlib import Path


def cpu_cores() -> int:
    """Return the logical cores that this process may use, at least 1.

    The process's affinity and a container's quota bound what the machine shows; where the system
    does not tell them (macOS, Windows), all cores count.
    """
    return max(1, min(len(_allowed_cpus()), _quota()))


def cpu_threads() -> int:
    """Return the threads that an engine should use: one for each physical core, at least 1.

    Hyper-threads share one arithmetic unit and slow convolutions down. ``OMP_NUM_THREADS``
    overrides all that is found out.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return max(1, min(_physical_cores(_allowed_cpus()), _quota()))


def free_memory() -> int | None:
    """Return the bytes that this process may still take: the machine's, or its container's.

    None where the system does not tell (macOS, Windows).
    """
    told = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        told.append(next(int(s.split()[1]) << 10 for s in lines if s.startswith("MemAvailable")))
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (
            (group / f"memory.{n}").read_text("utf-8").strip() for n in ("max", "current")
        )
        told.append(max(0, int(limit) - int(used)))
    return min(told, default=None)


def peak_memory() -> int | None:
    """Return the most bytes that this process has held so far.

    None where the system does not tell.
    """
    if sys.platform == "win32":
        return _windows_peak() or None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def _windows_peak() -> int:
    """Ask Windows's PROCESS_MEMORY_COUNTERS; 0 where it does not answer."""
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = [
            ("size", ctypes.c_uint32),
            ("faults", ctypes.c_uint32),
            ("peak", ctypes.c_size_t),
            *((name, ctypes.c_size_t) for name in "abcdefg"),
        ]

    counters = Counters(ctypes.sizeof(Counters))
    kernel = vars(ctypes)["windll"].kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = [
        ctypes.c_void_p, ctypes.POINTER(Counters), ctypes.c_uint32,
    ]  # fmt: skip
    kernel.K32GetProcessMemoryInfo(
        kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size
    )
    return int(counters.peak)


def share_one_heap() -> None:
    """Let all threads of this process take memory from one heap, where glibc gives each its own.

    What one thread has freed another can then use: a server whose threads take turns holds less.
    To be called before they begin.
    """
    import ctypes

    with suppress(OSError, AttributeError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


_ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h


def taken_cores(seconds: float = 0.3) -> float:
    """Return how many of the cores that this process may use others keep busy just now.

    Args:
        seconds: How long to look.

    Returns:
        0 or more; 0 where the system does not tell (macOS, Windows).
    """
    before, own = _busy_seconds(), time.process_time()
    time.sleep(seconds)
    after, own = _busy_seconds(), time.process_time() - own
    return max(0.0, (after - before - own) / seconds)


def hardware() -> str:
    """Return the processor's model and the number of cores."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [s for s in info.read_text("utf-8").splitlines() if s.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{model}, {os.cpu_count()} cores"


def _busy_seconds() -> float:
    """Seconds that the allowed cores have worked since the start, all programs together."""
    try:
        lines = Path("/proc/stat").read_text("utf-8").splitlines()
    except OSError:
        return 0.0
    names = {f"cpu{cpu}" for cpu in _allowed_cpus()}
    ticks = 0
    for line in lines:
        name, *counts = line.split()
        if name in names:  # user, nice, system, idle, iowait, irq, softirq, steal, ...
            ticks += sum(int(counts[i]) for i in (0, 1, 2, 5, 6))
    return ticks / os.sysconf("SC_CLK_TCK")


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(cpus: set[int]) -> int:
    cores = set()
    for cpu in cpus:
        file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(file.read_text("utf-8").strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _quota() -> int:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text("utf-8").split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return os.cpu_count() or 1
