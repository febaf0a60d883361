"""What a recipe will take on this machine: measured on a few crops and one step, not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from terradapt.config import RunConfig
from terradapt.data.dataset import Dataset
from terradapt.data.reading import CACHE_BYTES
from terradapt.data.specs import input_spec

_CROPS = 8

Step = Callable[[RunConfig, int], dict[str, Any]]
"""(config, classes) -> device, step_seconds, memory_bytes of one training step."""


def estimate_run(dataset: Dataset, config: RunConfig, step: Step | None = None) -> dict[str, Any]:
    """Estimate reading, time and memory of a run.

    Args:
        dataset: With a train split.
        config: The recipe.
        step: Measures one training step; without it only reading is estimated.

    Raises:
        DataError: The train split is empty.
    """
    from terradapt.data.sampling import CropDataset

    spec = input_spec(dataset, config.data)
    crops = CropDataset(dataset, "train", config, spec)
    count = min(_CROPS, len(crops))
    start = time.perf_counter()
    for i in range(count):
        crops[i]
    rate = count / (time.perf_counter() - start)
    train = config.train
    steps = train.epochs * -(-len(crops) // (train.batch * train.accumulate))
    pixels = sum(i.height * i.width for i in crops.items)
    result: dict[str, Any] = {
        "recipe": config.name,
        "crop": config.data.crop,
        "crops": len(crops),
        "epochs": train.epochs,
        "steps": steps,
        "crops_per_second": rate,
        "held_bytes": min(CACHE_BYTES, pixels * (len(spec.bands) + 2)),
    }
    if step is not None:
        result |= step(config, len(dataset.classes))
        result["hours"] = steps * result["step_seconds"] / 3600
        result["memory_bytes"] += result["held_bytes"]
    return result
