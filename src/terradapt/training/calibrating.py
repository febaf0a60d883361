"""Scores and labels of a split to calibrate on, each pixel as one window sees it."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from terradapt.classes import IGNORE
from terradapt.data import Dataset
from terradapt.data.labelled import labelled_areas
from terradapt.data.reading import ItemReader
from terradapt.metrics.calibration import labelled_sample
from terradapt.progress import Advance
from terradapt.scene import PredictOptions, Predictor
from terradapt.training.validating import predict_areas

SAMPLED = PredictOptions(overlap=0, scores="float16")


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
