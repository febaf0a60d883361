"""The crops of a whole run in one order, so that a resumed run reads on where it stopped."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from terradapt.classes import IGNORE
from terradapt.config import ConsistencyConfig, InputSpec, RunConfig
from terradapt.data import Dataset
from terradapt.data.sampling import CropDataset, generator
from terradapt.data.transforms import cutmix_box, strengthen
from terradapt.data.unlabelled import SPLIT, unlabelled_images
from terradapt.errors import DataError
from terradapt.vector.roads.bits import pack, unpack
from terradapt.vector.roads.thin import thin

_BEYOND = 16  # px that a road goes on beyond its crop, so that its skeleton reaches the edge
_TUBE = 2  # px of dilation on each side of the skeleton


class RunCrops(TorchDataset[dict[str, Tensor]]):
    """All crops of a run under one ``key``: ``epoch * length + index``.

    Args:
        crops: Where they come from.
        length: Crops of an epoch.
        tubes: Whether each crop brings the ``tube`` of its class 1.
        unlabelled: With each crop comes one of these.
    """

    def __init__(
        self,
        crops: CropDataset,
        length: int,
        *,
        tubes: bool = False,
        unlabelled: CropDataset | None = None,
    ) -> None:
        self.crops = crops
        self.length = length
        self.tubes = tubes
        self.unlabelled = unlabelled

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        epoch, index = divmod(key, self.length)
        sample = self.crops.sample(epoch, index)
        if self.tubes:
            sample["tube"] = tube(sample["mask"])
        if self.unlabelled is not None:
            sample |= two_views(self.unlabelled, epoch, index)
        return {**sample, "key": torch.tensor(key)}


_UNLABELLED = 0x0B1A  # the stream of the crops without labels
_STRONG = 0x5702  # the strong views' random numbers


def two_views(crops: CropDataset, epoch: int, index: int) -> dict[str, Tensor]:
    """Return one unlabelled crop as it is and changed, pixel upon pixel.

    Returns:
        ``unlabelled`` (C, H, W) uint8, flipped and turned alone; ``known`` (H, W) bool, where it
        has data; ``strong`` (V, C, H, W) uint8, its colours changed; ``box`` (V, 4), row, column,
        height and width of what shows the next crop of the batch.
    """
    plain = crops.sample(epoch, index)
    config: ConsistencyConfig = crops.config.objective.consistency
    rng = generator(crops.config.train.seed, epoch, index, _STRONG)
    image, side = plain["image"], crops.config.data.crop
    bands, shown = len(crops.spec.bands), len(image) - crops.spec.film
    views = [strengthen(image[:shown], config, rng, bands) for _ in range(config.views)]
    strong = [torch.cat([view, image[shown:]]) for view in views]
    boxes = [cutmix_box(side, config, rng) for _ in range(config.views)]
    return {
        "unlabelled": image,
        "known": plain["mask"] != IGNORE,
        "strong": torch.stack(strong),
        "box": torch.tensor([(b.row, b.col, b.height, b.width) for b in boxes]),
    }


def tube(mask: Tensor) -> Tensor:
    """Return the skeleton of class 1, dilated by 2 px within the class (H, W) uint8.

    Args:
        mask: (H, W), 0, 1 or 255; beyond its edges the class goes on straight.
    """
    road = mask.numpy() == 1
    wide = pack(np.pad(road, _BEYOND, mode="edge"))
    line = unpack(thin(wide, max(road.shape)))[_BEYOND:-_BEYOND, _BEYOND:-_BEYOND]
    grown = torch.from_numpy(line.astype(np.float32))[None]
    for _ in range(_TUBE):
        tall = F.max_pool2d(grown, (3, 1), 1, (1, 0))
        grown = torch.maximum(tall, F.max_pool2d(grown, (1, 3), 1, (0, 1)))
    return (grown[0] * torch.from_numpy(road)).to(torch.uint8)


class RunSampler(Sampler[int]):
    """The keys of one process from ``start`` to ``stop``, batch by batch.

    Args:
        start: First key; a multiple of ``batch``.
        stop: One past the last key; a multiple of ``batch``.
        batch: Crops of one batch over all processes.
        rank: This process.
        processes: Number of processes; must divide ``batch``.
    """

    def __init__(self, start: int, stop: int, batch: int, rank: int, processes: int) -> None:
        self.batches = range(start, stop, batch)
        self.share = batch // processes
        self.offset = rank * self.share

    def __iter__(self) -> Iterator[int]:
        for first in self.batches:
            yield from range(first + self.offset, first + self.offset + self.share)

    def __len__(self) -> int:
        return len(self.batches) * self.share


def unlabelled_crops(
    dataset: Dataset, config: RunConfig, spec: InputSpec
) -> tuple[CropDataset | None, list[str]]:
    """Return the crops without labels, where the objective learns from them, and what to tell.

    Raises:
        DataError: The objective asks for some, and there is none.
    """
    if config.objective.name not in ("consistency", "distill"):
        return None, []
    images, told = unlabelled_images(dataset, config.data.unlabelled, spec)
    if images is None and config.objective.name == "consistency":
        raise DataError(
            f"{dataset.root}: no image without a label, which the objective asks for",
            "put images without labels into images/, give data.unlabelled=DIR, or take "
            "objective.name=supervised",
        )
    if images is None:
        return None, told
    begin = config.objective.consistency.begin if config.objective.name == "consistency" else 0
    since = f", from {begin:.0%} of the run on" if begin else ""
    told.append(f"learns from {len(images.items)} images without labels, too{since}")
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "sharpness": 0.0}
    plain = config.model_copy(update={"augment": config.augment.model_copy(update=still)})
    crops = CropDataset(images, SPLIT, plain, spec, labelled=False, stream=_UNLABELLED)
    return crops, told


def run_loader(
    crops: CropDataset,
    unlabelled: CropDataset | None,
    config: RunConfig,
    step: int,
    accelerator: Accelerator,
) -> DataLoader[dict[str, Tensor]]:
    """Return the batches of a run from a step on, of one process.

    Args:
        crops: With labels.
        unlabelled: Without.
        config: The run's.
        step: Optimiser steps done.
        accelerator: Knows the processes.
    """
    batch, workers = config.train.batch, config.data.workers
    a_step = batch * config.train.accumulate
    length = math.ceil(len(crops) / a_step) * a_step
    place = accelerator.process_index, accelerator.num_processes
    keys = RunSampler(step * a_step, length * config.train.epochs, batch, *place)
    tubes = config.objective.skeleton_recall > 0
    return DataLoader(
        RunCrops(crops, length, tubes=tubes, unlabelled=unlabelled),
        batch_size=batch // accelerator.num_processes,
        sampler=keys,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_outlive_the_signal if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def _outlive_the_signal(_: int) -> None:
    """Let the run alone answer a termination that reaches the whole process group."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
