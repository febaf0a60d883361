"""One run of the trials: trained, evaluated, timed; here or in a process of its own.

``python -m terradapt.trials.cell`` takes the run as one line of JSON on standard input. It ends
when that is closed, with its state saved: when whoever started it has died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terradapt.config import RunConfig
from terradapt.errors import TerradaptError
from terradapt.files import write_json
from terradapt.progress import Track
from terradapt.trials.evidence import (
    FURTHER,
    TRIAL,
    RunEvidence,
    TrialNote,
    read_run,
    read_trial,
)

MISTAKE = 2
"""Status of a process that ends with a user's mistake, which is on its standard output."""


def run_cell(
    note: TrialNote,
    data: str | Path,
    folder: Path,
    split: str,
    also: Sequence[str | Path] = (),
    bar: Track | None = None,
) -> RunEvidence:
    """Train and evaluate one run, or what is left of it.

    Args:
        note: What is asked for; its time is ignored.
        data: A prepared dataset or a bare folder of images and labels.
        folder: The run's.
        split: Split to evaluate.
        also: Further datasets to evaluate on, the first of their splits that has images.
        bar: See :func:`terradapt.training.train`.

    Raises:
        TerradaptError: Training or evaluation has failed.
        KeyboardInterrupt: Stopped, with a state to go on from.
    """
    from terradapt import training
    from terradapt.evaluation import open_task, report_run
    from terradapt.report import write_report

    require_asked(note.config, folder)
    with _timed(note, folder):
        if not (folder / "report.json").is_file():
            training.train(note.config, data, folder, resume=True, bar=bar)
            report_run(folder, data, split=split)
        held = read_run(folder)
        if held.own.data.get("split") != split:
            report_run(folder, data, split=split)
        for other in also:
            task = open_task(folder / "checkpoint.safetensors", other, None)
            if task.dataset.name not in held.further:
                write_report(task.run(), folder / f"{FURTHER}{task.dataset.name}.json")
    return read_run(folder)


def require_asked(config: RunConfig, folder: Path) -> None:
    """Refuse a folder that holds a run which was asked for otherwise.

    A run completes its config (what weights say of themselves, the precision of the machine), so
    the one that was asked for is kept beside it.

    Raises:
        ConfigError: It does.
        DataError: The file that tells of it is damaged.
    """
    from terradapt.training.run import Run, require_same_config

    note = read_trial(folder)
    held = Run(folder).held() if note is None else note.config
    if held is not None:
        require_same_config(held, config, folder)


@contextmanager
def _timed(note: TrialNote, folder: Path) -> Iterator[None]:
    """Add the time of the block to what the run took before; none for a finished one."""
    started, held = time.monotonic(), read_trial(folder)
    before = held.seconds if held else 0.0
    finished = (folder / "report.json").is_file()

    def keep(seconds: float) -> None:
        told = note.model_copy(update={"seconds": round(before + seconds, 1)})
        write_json(folder / TRIAL, told.model_dump(mode="json"))

    if not finished:
        keep(0.0)
    try:
        yield
    finally:
        if not finished:
            keep(time.monotonic() - started)


def main() -> None:
    """Run what standard input says."""
    task: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_outlived, daemon=True).start()
    try:
        note = TrialNote.model_validate(task["note"])
        run_cell(note, task["data"], Path(task["folder"]), task["split"], task["also"])
    except TerradaptError as error:
        print(json.dumps({"message": error.message, "fix": error.fix}))
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        sys.exit(130)


def _outlived() -> None:
    while os.read(
        sys.stdin.fileno(), 1
    ):  # not through the buffer, whose lock would hold up the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
