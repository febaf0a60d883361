"""Scores and labels of a split to calibrate on, each pixel as one window sees it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from terradapt import checkpoint
from terradapt.classes import IGNORE
from terradapt.data import Dataset
from terradapt.data.labelled import labelled_areas
from terradapt.data.reading import ItemReader
from terradapt.meta import read_meta
from terradapt.metrics.calibration import fit_calibration, labelled_sample
from terradapt.progress import Advance, Track
from terradapt.scene import PredictOptions, Predictor
from terradapt.training.run import Run
from terradapt.training.validating import Validator, predict_areas

SAMPLED = PredictOptions(overlap=0, scores="float16")


def calibrate_best(
    run: Run, validator: Validator, accelerator: Accelerator, step: int, bar: Track
) -> None:
    """Let a run's best checkpoint give probabilities, and log it, unless that is done.

    Args:
        run: Its folder.
        validator: Of the model, with the run's config and data.
        accelerator: Of the run.
        step: At which the run is.
        bar: Shows the windows that are predicted.
    """
    config, dataset = validator.config.train, validator.dataset
    meta = read_meta(run.best)
    found = meta.calibration
    if found is None and config.calibrate != "none" and dataset.splits.get("val"):
        with (
            validator.predicting(checkpoint.read_weights(run.best)) as predictor,
            bar(validator.windows("val", SAMPLED), "calibrate", "windows") as show,
        ):
            drawn = sample_scores(predictor, dataset, "val", config.seed, accelerator, show)
        found = fit_calibration(*drawn, dataset.classes, bias=config.calibrate == "bias")
        meta = replace(meta, calibration=found)
        if found is not None and accelerator.is_main_process:
            checkpoint.rewrite_meta(run.best, meta)
    told = any(e.get("event") == "calibration" for e in run.events())
    if not told and accelerator.is_main_process:
        event = {"event": "calibration", "step": step, "confidence": meta.confidence}
        run.log(event | (found.told() if found else {}))
    accelerator.wait_for_everyone()


def sample_scores(
    predictor: Predictor,
    dataset: Dataset,
    split: str,
    seed: int,
    accelerator: Accelerator,
    progress: Advance | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw labelled pixels of a split's images; the processes share the images.

    Args:
        predictor: The model, not calibrated.
        dataset: Where the images are.
        split: Name of the split.
        seed: Of the draw.
        accelerator: Of the run.
        progress: Called with the windows done, of all processes together.

    Returns:
        Scores (K, N) and class ids (N,), the same in all processes.
    """
    items = dataset.split(split)
    pixels = sum(i.height * i.width for i in items)
    processes = accelerator.num_processes

    def advance(windows: int) -> None:
        if progress:
            progress(windows * processes)

    scores = [np.zeros((len(dataset.classes), 0), np.float32)]
    target = [np.zeros(0, np.uint8)]
    for index in range(accelerator.process_index, len(items), processes):
        areas = labelled_areas(dataset, items[index])
        with ItemReader(dataset, items[index], predictor.spec) as reader:
            for block in predict_areas(reader, predictor, areas, SAMPLED, advance):
                assert block.scores is not None
                known = np.where(block.classes == IGNORE, IGNORE, reader.mask(block.window))
                kept = labelled_sample(block.scores, known, pixels, seed, index, block.window.row)
                scores.append(kept[0])
                target.append(kept[1])
    mine = torch.from_numpy(np.concatenate(scores, 1).T.copy()).to(accelerator.device)
    ids = torch.from_numpy(np.concatenate(target)).to(accelerator.device)
    mine = accelerator.gather(accelerator.pad_across_processes(mine))
    ids = accelerator.gather(accelerator.pad_across_processes(ids, pad_index=IGNORE))
    return mine.cpu().numpy().T, ids.cpu().numpy()
