"""What a prediction will take: counted on its lattice, measured on a few windows of the scene."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from terradapt.files import size_text
from terradapt.grid import Grid, Window
from terradapt.machine import peak_memory
from terradapt.progress import duration_text
from terradapt.scene.cluster import bands
from terradapt.scene.job import Job, row_memory
from terradapt.scene.predictor import streams_for

BIG = 256
"""Windows from which a prediction says beforehand what it takes."""
WORKERS = (1, 2, 4, 8, 16)
_LONG = 10.0  # s; a sample that takes longer is not taken twice
_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.25, 0.75), (0.75, 0.25))


@dataclass(frozen=True)
class Forecast:
    """What a scene's prediction will take.

    Attributes:
        name: The scene's.
        grid: Its lattice.
        batch: Windows per model call.
        window_seconds: Of one window, all told; None where no sample had data.
        memory: Bytes, at least; None where the system does not tell.
    """

    name: str
    grid: Grid
    batch: int
    window_seconds: float | None
    memory: int | None

    def seconds(self, workers: int = 1) -> float | None:
        """Return the time that workers take together, each as fast as this machine.

        They share block rows, and predict the windows twice that two of them need.
        """
        if self.window_seconds is None:
            return None
        whole = Window(0, 0, self.grid.height, self.grid.width)
        parts = [whole] if workers == 1 else bands(self.grid, whole, workers)
        rows = sum(len(self.grid.rows.touching(p.row, p.bottom)) for p in parts)
        share = rows * len(self.grid.cols.starts) / min(workers, len(parts))
        return share * self.window_seconds

    def line(self, workers: int = 1) -> str:
        """Return it in one line."""
        seconds = self.seconds(workers)
        parts = [f"{len(self.grid)} windows of {self.grid.window} px"]
        parts += [] if seconds is None else [f"about {duration_text(seconds)}"]
        parts += [f"with {workers} workers"] if workers > 1 else []
        parts += [] if self.memory is None else [f"{size_text(self.memory)} of memory"]
        return f"{self.name}: {', '.join(parts)}"

    def to_dict(self, workers: int | None = None) -> dict[str, Any]:
        """Return it for programs; ``hours`` by the number of workers, for :data:`WORKERS` too."""
        counts = sorted({*WORKERS, workers or 1})
        hours = {n: s / 3600 for n in counts if (s := self.seconds(n)) is not None}
        return {
            "scene": self.name,
            "windows": len(self.grid),
            "window": self.grid.window,
            "batch": self.batch,
            "window_seconds": self.window_seconds,
            "memory_bytes": self.memory,
            "hours": hours,
        }


def forecast(job: Job, name: str) -> Forecast:
    """Predict a few windows in the middle of a scene, and reckon the whole from them.

    Args:
        job: The opened scene with its model.
        name: What it is called.

    Raises:
        SceneError: A part of the scene that cannot be read.
    """
    found = None
    for down, right in _PLACES:
        region = _sample(job, down, right)
        _, valid = job.source.read(region)
        if valid.mean() > 0.5:
            start = time.monotonic()
            found = _window_seconds(job, region)
            if time.monotonic() - start < _LONG:
                found = _window_seconds(job, region)  # the first chose its kernels
            break
    peak = peak_memory()
    rows = row_memory(job.predictor, job.grid, job.wanted)
    return Forecast(name, job.grid, job.batch, found, None if peak is None else peak + rows)


def _sample(job: Job, down: float, right: float) -> Window:
    """A block's height of the scene, wide enough to keep every stream busy."""
    grid = job.grid
    width = grid.window + grid.stride * job.batch * streams_for(job.predictor, grid, job.batch)
    width = min(width, grid.width)
    rows = grid.block_shape[0]
    top = min(int(rows * down), rows - 1) * grid.block
    left = int((grid.width - width) * right)
    return Window(top, left, min(grid.block, grid.height - top), width)


def _window_seconds(job: Job, region: Window) -> float:
    done: list[int] = []
    start = time.monotonic()
    for _ in job.blocks(region, done.append):
        pass
    return (time.monotonic() - start) / max(1, sum(done))
