"""Training: objectives, optimiser, trainer; :func:`train` is the verb."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from terradapt.config import RunConfig
from terradapt.owner import owned
from terradapt.progress import Track, silent


def train(
    config: RunConfig,
    data: str | Path,
    run: str | Path,
    *,
    resume: bool = False,
    bar: Track | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a model on a dataset.

    Args:
        config: The whole run.
        data: A prepared dataset or a bare folder of images and labels.
        run: Folder for config, log and checkpoints.
        resume: Go on with the run that the folder holds and with its splits; it ends bit for bit
            as an unbroken one on the CPU.
        bar: ``bar(total, label, unit)``: a context manager that yields ``advance(n)``.
        say: Called with each line of the opening screen: what is trained, on what, with what.

    Returns:
        The metrics of the best checkpoint, fractions; ``split`` says whether they are of ``val``
        or, where there is no such image, of ``train``.

    Raises:
        DataError: A dataset that cannot be used.
        ConfigError: A config that cannot be used, or another one than the resumed run's.
        OutputError: The folder holds another run, is being written by another process, or cannot
            be written.
        KeyboardInterrupt: Stopped, with a state to resume from.
    """
    from terradapt.data import open_dataset
    from terradapt.data.unlabelled import with_corrected
    from terradapt.files import check_output
    from terradapt.training.opening import told_row
    from terradapt.training.run import Run
    from terradapt.training.starting import start_classes
    from terradapt.training.trainer import Trainer

    first = os.environ.get("RANK", "0") == "0"  # the others of one launch write nothing
    if first:
        check_output(run, folder=True)
    with owned(run, folder=True) if first else nullcontext():
        known = start_classes(config, Run(run), resume)
        begun = Run(run).splits
        held = begun if resume and begun.is_file() else None
        dataset = open_dataset(Path(data), config.data, known=known, held=held)
        dataset, left_out = with_corrected(dataset, config.data)
        trainer = Trainer(config, dataset, run, resume=resume)
        if not first:
            return trainer.fit()
        if say is not None:
            for line in [*trainer.opening(), *left_out, *trainer.notes]:
                say(line)
            for warning in trainer.warnings:
                say("\n".join(told_row("warning:", warning)))
        return trainer.fit(bar=bar or silent, say=say)
