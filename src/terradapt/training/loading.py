"""The crops of a whole run in one order, so that a resumed run reads on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from terradapt.data.sampling import CropDataset


class RunCrops(Dataset[dict[str, Tensor]]):
    """All crops of a run under one ``key``: ``epoch * length + index``."""

    def __init__(self, crops: CropDataset, length: int) -> None:
        self.crops = crops
        self.length = length

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        return {**self.crops.sample(*divmod(key, self.length)), "key": torch.tensor(key)}


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
