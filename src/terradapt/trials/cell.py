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
from terradapt.errors import ConfigError, TerradaptError, refusing
from terradapt.files import write_json
from terradapt.progress import Track
from terradapt.trials.evidence import FURTHER, TRIAL, RunEvidence, read_run, read_trial

MISTAKE = 2
"""Status of a process that ends with a user's mistake, which is on its standard output."""


def run_cell(
    config: RunConfig,
    data: str | Path,
    folder: Path,
    split: str,
    also: Sequence[str | Path] = (),
    bar: Track | None = None,
) -> RunEvidence:
    """Train and evaluate one run, or what is left of it.

    Args:
        config: The whole run.
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

    require_asked(config, folder)
    with _timed(config, folder):
        if not (folder / "report.json").is_file():
            training.train(config, data, folder, resume=True, bar=bar)
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
        DataError: The file that tells is damaged.
    """
    from terradapt.training.run import Run, require_same_config

    asked, _ = read_trial(folder)
    held = Run(folder).held() if asked is None else None
    if asked is not None:
        with refusing(folder / TRIAL, ConfigError, "give another -o folder"):
            held = RunConfig.model_validate(asked)
    if held is not None:
        require_same_config(held, config, folder)


@contextmanager
def _timed(config: RunConfig, folder: Path) -> Iterator[None]:
    """Add the time of the block to what the run took before; none for a finished one."""
    started, before = time.monotonic(), read_trial(folder)[1] or 0.0
    finished = (folder / "report.json").is_file()
    asked = {"config": config.model_dump(mode="json"), "seconds": before}
    if not finished:
        write_json(folder / TRIAL, asked)
    try:
        yield
    finally:
        if not finished and folder.is_dir():
            seconds = round(before + time.monotonic() - started, 1)
            write_json(folder / TRIAL, {**asked, "seconds": seconds})


def main() -> None:
    """Run what standard input says."""
    task: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_outlived, daemon=True).start()
    try:
        config = RunConfig.model_validate(task["config"])
        run_cell(config, task["data"], Path(task["folder"]), task["split"], task["also"])
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
