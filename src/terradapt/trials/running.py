"""Train every method with every seed, one process a core or GPU; renew the table after each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from terradapt.errors import OutputError, TerradaptError
from terradapt.machine import cpu_cores
from terradapt.progress import Track
from terradapt.trials.cell import MISTAKE, run_cell
from terradapt.trials.evidence import RunEvidence, TrialNote, read_run

Slot = dict[str, str]
"""Environment of a process: its GPU, or its threads."""
_PATIENCE = 60.0  # s that a process has to save its state


@dataclass
class TrialJob:
    """One run to be made.

    Attributes:
        note: Its method and config.
        folder: The run's.
        teacher: Folder of the run that must be finished before, or None.
    """

    note: TrialNote
    folder: Path
    teacher: Path | None = None

    @property
    def seed(self) -> int:
        """Of its random numbers."""
        return self.note.config.train.seed


Done = Callable[[TrialJob, RunEvidence | TerradaptError], None]


@dataclass
class TrialRunner:
    """Makes runs.

    Attributes:
        data: The dataset.
        split: Split to evaluate.
        also: Further datasets to evaluate on.
        workers: Processes at a time; with one the runs are made in this process.
        bar: See :func:`terradapt.training.train`.
        say: Called with a line before each run.
    """

    data: str | Path
    split: str
    also: Sequence[str | Path] = ()
    workers: int = 1
    bar: Track | None = None
    say: Callable[[str], None] | None = None
    _stopped: bool = False
    _living: set[subprocess.Popen[str]] = field(default_factory=set)

    def run(self, jobs: Sequence[TrialJob], done: Done) -> None:
        """Make all runs, teachers before those that learn from them.

        Args:
            jobs: The runs.
            done: Called after each, in this thread, with its evidence or why there is none.

        Raises:
            KeyboardInterrupt: Stopped, with states to go on from.
        """
        first = [job for job in jobs if job.teacher is None]
        rest = [job for job in jobs if job.teacher is not None]
        numbers = {id(job): n for n, job in enumerate((*first, *rest), 1)}
        for wave in (first, rest):
            if self.workers > 1 and wave:
                self._share(wave, numbers, len(jobs), done)
                continue
            for job in wave:
                self._tell(job, numbers[id(job)], len(jobs))
                try:
                    _require_teacher(job)
                    found: RunEvidence | TerradaptError = run_cell(
                        job.note, self.data, job.folder, self.split, self.also, self.bar
                    )
                except TerradaptError as error:
                    found = error
                done(job, found)

    def _tell(self, job: TrialJob, number: int, total: int) -> None:
        if self.say:
            self.say(f"{number}/{total}: {job.note.method}, seed {job.seed}")

    def _share(
        self, jobs: Sequence[TrialJob], numbers: dict[int, int], total: int, done: Done
    ) -> None:
        slots: SimpleQueue[Slot] = SimpleQueue()
        for slot in slots_of(self.workers):
            slots.put(slot)

        def work(job: TrialJob) -> RunEvidence | TerradaptError:
            slot = slots.get()
            try:
                if self._stopped:
                    raise KeyboardInterrupt
                self._tell(job, numbers[id(job)], total)
                return self._process(job, slot)
            except TerradaptError as error:
                return error
            finally:
                slots.put(slot)

        with _termination(), ThreadPoolExecutor(self.workers) as pool:
            waiting = {pool.submit(work, job): job for job in jobs}
            try:
                for future in as_completed(waiting):
                    done(waiting[future], future.result())
            except BaseException:
                self._stopped = True
                for future in waiting:
                    future.cancel()
                for process in list(self._living):
                    process.terminate()
                raise

    def _process(self, job: TrialJob, slot: Slot) -> RunEvidence:
        """Make a run in a process of its own.

        Raises:
            TerradaptError: The run has failed, or its process was killed.
            KeyboardInterrupt: It was stopped.
        """
        _require_teacher(job)
        task = {
            "note": job.note.model_dump(mode="json"),
            "data": str(self.data),
            "folder": str(job.folder),
            "split": self.split,
            "also": [str(a) for a in self.also],
        }
        with subprocess.Popen(
            [sys.executable, "-m", "terradapt.trials.cell"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **slot},
        ) as process:
            assert process.stdin and process.stdout and process.stderr
            self._living.add(process)
            errors: list[str] = []
            listener = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
            listener.start()  # a full pipe would hold the process up
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            told = process.stdout.read()
            status = process.wait()
            listener.join(_PATIENCE)
            self._living.discard(process)
        if status == 0:
            return read_run(job.folder)
        if self._stopped or status == 130:
            raise KeyboardInterrupt
        if status == MISTAKE:
            raise TerradaptError(**json.loads(told.splitlines()[-1]))
        last = next((e.strip() for e in reversed(errors) if e.strip()), "it said nothing")
        why = f"killed by signal {-status}, perhaps for want of memory" if status < 0 else last
        raise TerradaptError(f"{job.folder}: its process ended: {why}", "lower --workers")


def _require_teacher(job: TrialJob) -> None:
    if job.teacher is not None and not (job.teacher / "report.json").is_file():
        raise OutputError(
            f"{job.folder}: its teacher {job.teacher.parent.name} has no finished run",
            "mend the teacher's run and go on with --resume",
        )


def slots_of(workers: int) -> list[Slot]:
    """Return the environments of some processes: a GPU each, or a share of the cores."""
    gpus = _gpus()
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} for n in range(workers)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cpu_cores() // workers))
    return [{"OMP_NUM_THREADS": threads} for _ in range(workers)]


def worker_count(given: int | None, jobs: int) -> int:
    """Return how many processes to use: one a GPU, else one a core, and no more than runs."""
    return max(1, min(given or len(_gpus()) or cpu_cores(), jobs))


def _gpus() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(n) for n in range(count)]


@contextmanager
def _termination() -> Iterator[None]:
    """Let a termination end the work as Ctrl-C does, so that no process is left behind."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, held)
