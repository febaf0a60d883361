"""Scenes on a Dask cluster: bands of block rows are tasks, their labels come back in order.

A band is a region of the scene, predicted on a worker by the same function that streams a scene
here, so the result has the same bits whatever the workers do. Scores, the large thing, never leave
the worker; the lattice rows that two bands share are predicted by both. A band whose worker dies is
sent again.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from terradapt.errors import ConfigError, MissingExtraError, SceneError
from terradapt.files import Closing
from terradapt.grid import Grid, Window
from terradapt.machine import cpu_cores
from terradapt.progress import Advance
from terradapt.raster import Compound, ScenePath, absolute_scene
from terradapt.scene.job import Job, open_job
from terradapt.scene.options import PredictOptions
from terradapt.scene.predictor import Predictor
from terradapt.scene.stream import Block

Load = Callable[[], Predictor]
R = TypeVar("R")
T = TypeVar("T")
_ROWS_PER_BAND = 16
_SENDINGS = 20
_models: dict[Any, Predictor] = {}
_busy = threading.Lock()


@dataclass(frozen=True)
class Task:
    """What a worker needs to predict a band; small and picklable.

    Attributes:
        load: Opens the model; workers keep what it gives for the next band.
        key: Names the model.
        scene: As in ``predict_scene``; every worker must see the files.
        options: How to predict.
        shape: Height and width of the scene, to find workers that see another one.
        region: The band.
    """

    load: Load
    key: str
    scene: ScenePath | Compound
    options: PredictOptions
    shape: tuple[int, int]
    region: Window

    def __str__(self) -> str:
        return f"{self.scene}: rows {self.region.row} to {self.region.bottom - 1}"


Packed = list[tuple[Window, list[tuple[bytes, str, tuple[int, ...]] | None]]]


def predict_band(task: Task) -> Packed:
    """Predict a band on a worker: its blocks, compressed.

    One band at a time in a process, so that a worker holds one model and one band.

    Raises:
        SceneError: The worker cannot read the scene, or sees another one.
    """
    with _busy, ExitStack() as stack:
        if task.key not in _models:
            _models.clear()
            _models[task.key] = task.load()
        job = open_job(_models[task.key], task.scene, task.options, task.key, stack)
        if (job.source.height, job.source.width) != task.shape:
            raise SceneError(
                f"{job.source.path}: is another file on a worker than here",
                "give a path that is the same on all machines",
            )
        return [
            (b.window, [_pack(a) for a in (b.classes, b.scores, b.confidence)])
            for b in job.blocks(task.region)
        ]


def bands(grid: Grid, region: Window, workers: int) -> list[Window]:
    """Cut a region into bands of whole block rows: enough for all workers, as few as that allows.

    Args:
        grid: The lattice.
        region: Starts on a block row.
        workers: How many work at once.
    """
    lattice = len(grid.rows.touching(region.row, region.bottom))
    rows = -(-region.height // grid.block)
    count = min(rows, max(workers, -(-lattice // _ROWS_PER_BAND)))
    edges = [region.row + grid.block * (i * rows // count) for i in range(count)]
    stops = [*edges[1:], region.bottom]
    return [
        Window(top, region.col, stop - top, region.width)
        for top, stop in zip(edges, stops, strict=True)
    ]


class Cluster(Closing):
    """A Dask cluster by address, or one of local processes.

    Args:
        address: ``"tcp://HOST:PORT"`` or ``"tls://HOST:PORT"`` of a scheduler, whose keys Dask's
            own configuration names, or ``"local"``.
        load: Opens the model on a worker.
        key: Names the model.
        workers: Local processes; None takes :func:`local_workers`.
        gpus: GPUs for the local processes, one each, in turn; 0 leaves the environment alone.
        timeout: Seconds to wait for the scheduler.

    Raises:
        ConfigError: No scheduler at the address.
        MissingExtraError: Dask is not installed.
    """

    def __init__(
        self,
        address: str,
        load: Load,
        key: str,
        *,
        workers: int | None = None,
        gpus: int = 0,
        timeout: float = 10.0,
    ) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingExtraError("--cluster", "cluster") from error
        self.load, self.key = load, key
        self._local, security = None, None
        if address == "local":
            try:
                self._local = _local_cluster(workers or local_workers(gpus=gpus), gpus)
            except ImportError as error:
                raise MissingExtraError("--cluster local", "cluster") from error
            address, security = self._local.scheduler_address, self._local.security
        try:
            self.client = Client(address, timeout=timeout, set_as_default=False, security=security)
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at {address}",
                "start one with: dask scheduler, and give its tcp:// or tls:// address",
            ) from error

    def close(self) -> None:
        """Leave the cluster; the one that was started here ends."""
        self.client.close()
        if self._local is not None:
            self._local.close()

    @property
    def workers(self) -> int:
        """Workers that are there now; waits for the first."""
        self.client.wait_for_workers(1)
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def blocks(
        self, job: Job, region: Window, advance: Advance | None = None
    ) -> Generator[Block, None, None]:
        """Yield a region's blocks from top to bottom, as plain streaming does.

        Raises:
            SceneError: A worker cannot read the scene.
        """
        regions = bands(job.grid, region, self.workers)
        work = self.ordered(predict_band, (self._task(job, part) for part in regions))
        try:
            for part, packed in zip(regions, work, strict=True):
                yield from _unpacked(packed)
                if advance is not None:
                    rows = job.grid.rows.touching(part.row, part.bottom)
                    advance(len(rows) * len(job.grid.cols.starts))
        finally:
            work.close()

    def ordered(self, function: Callable[[T], R], tasks: Iterable[T]) -> Generator[R, None, None]:
        """Yield what a function says of each task, in order, computed on the workers.

        Args:
            function: Of a module that the workers have; called again when a worker died.
            tasks: Picklable; as text, what an error calls them.

        Raises:
            SceneError: A task kills every worker that it meets; or what the function raises.
        """
        most = 2 * self.workers
        sent: deque[tuple[T, Any]] = deque()
        try:
            for task in tasks:
                sent.append((task, self._send(function, task)))
                if len(sent) >= most:
                    yield self._result(function, *sent.popleft())
            while sent:
                yield self._result(function, *sent.popleft())
        finally:
            for _, future in sent:
                future.cancel()

    def _task(self, job: Job, region: Window) -> Task:
        assert job.scene is not None
        shape = (job.source.height, job.source.width)
        area = job.options.aoi
        options = replace(job.options, aoi=area and area.absolute())
        scene = job.scene
        scene = scene.absolute() if isinstance(scene, Compound) else absolute_scene(scene)
        return Task(self.load, self.key, scene, options, shape, region)

    def _send(self, function: Callable[[T], R], task: T) -> Any:
        return self.client.submit(function, task, pure=False, retries=3)

    def _result(self, function: Callable[[T], R], task: T, future: Any) -> R:
        """Wait for a task; send it again when its workers died."""
        from distributed import CancelledError, KilledWorker

        for _ in range(_SENDINGS):
            try:
                found: R = future.result()
                return found
            except (KilledWorker, CancelledError):
                time.sleep(1)
                future = self._send(function, task)
        raise SceneError(
            f"{task} killed {_SENDINGS} workers",
            "give the workers more memory, or use a smaller --window or --batch",
        )


def local_workers(cores: int | None = None, gpus: int = 0) -> int:
    """Return the local processes that keep a machine busy: one per GPU, or for every four cores."""
    return gpus or max(1, (cores or cpu_cores()) // 4)


def _local_cluster(count: int, gpus: int) -> Any:
    """Start a scheduler and processes with a share of the cores and a GPU each."""
    import dask

    from terradapt.scene.private import private_cluster

    threads = max(1, cpu_cores() // count)
    with dask.config.set({"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads}):
        return private_cluster(environments(count, gpus))


def environments(count: int, gpus: int, seen: str | None = None) -> list[dict[str, str]]:
    """Return each worker's environment: the GPUs that this process sees, one each, in turn.

    Args:
        count: Workers.
        gpus: GPUs to use; 0 changes nothing.
        seen: ``CUDA_VISIBLE_DEVICES`` of this process, if set.
    """
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") if seen is None else seen
    names = seen.split(",")[:gpus] if seen else [str(i) for i in range(gpus)]
    return [{"CUDA_VISIBLE_DEVICES": names[i % gpus]} if gpus else {} for i in range(count)]


def _pack(array: Any) -> tuple[bytes, str, tuple[int, ...]] | None:
    if array is None:
        return None
    return zlib.compress(np.ascontiguousarray(array).data, 1), array.dtype.str, array.shape


def _unpacked(packed: Packed) -> Iterator[Block]:
    for window, layers in packed:
        arrays = [
            None
            if layer is None
            else np.frombuffer(zlib.decompress(layer[0]), layer[1]).reshape(layer[2])
            for layer in layers
        ]
        assert arrays[0] is not None
        yield Block(window, arrays[0], arrays[1], arrays[2])
