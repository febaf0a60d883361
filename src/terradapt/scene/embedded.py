"""Local worker processes where they pay, plain streaming where not."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from importlib.util import find_spec

from terradapt.grid import Window
from terradapt.machine import cpu_cores
from terradapt.progress import Advance
from terradapt.scene.cluster import Cluster, Load
from terradapt.scene.job import Job
from terradapt.scene.stream import Block

CORES_PER_WORKER = 8
WINDOWS_PER_WORKER = 256
"""Fewer windows do not pay for starting a process and opening the model in it."""


class Embedded(ExitStack):
    """Blocks of scenes by whichever is faster on this machine; workers start once, when needed.

    One process already keeps one GPU, or the cores of a small machine, busy: its streams share the
    cores. Several GPUs need a process each; on many cores one process's blending becomes the
    narrow place.

    Args:
        load: Opens the model on a worker.
        key: Names the model.
        gpus: GPUs that the model may use.
        cores: Cores; None takes this machine's.
    """

    def __init__(self, load: Load, key: str, *, gpus: int = 0, cores: int | None = None) -> None:
        super().__init__()
        self.load, self.key, self.gpus = load, key, gpus
        self.workers = paying_workers(gpus, cores or cpu_cores())
        self._cluster: Cluster | None = None

    def sharing(self, windows: int) -> int:
        """Return the workers that share so many windows; 1 where it does not pay."""
        pays = self.workers >= 2 and windows >= WINDOWS_PER_WORKER * self.workers
        return self.workers if pays else 1

    def blocks(
        self, job: Job, region: Window, advance: Advance | None = None
    ) -> Generator[Block, None, None]:
        """Yield a region's blocks from top to bottom, the same bits either way."""
        rows = job.grid.rows.touching(region.row, region.bottom)
        if self.sharing(len(rows) * len(job.grid.cols.starts)) < 2:
            return job.blocks(region, advance)
        if self._cluster is None:
            pool = Cluster("local", self.load, self.key, workers=self.workers, gpus=self.gpus)
            self._cluster = self.enter_context(pool)
        return self._cluster.blocks(job, region, advance)


def paying_workers(gpus: int, cores: int) -> int:
    """Return how many local processes are faster than one; 1 where none are, or without Dask."""
    if find_spec("distributed") is None or find_spec("cryptography") is None:
        return 1
    return max(1, gpus or cores // CORES_PER_WORKER)
