"""CropDataset: random crops straight from the files, each a function of (seed, epoch, index)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info

from terradapt.classes import IGNORE
from terradapt.config import InputSpec, RunConfig
from terradapt.data.carried import CarriedError
from terradapt.data.dataset import Dataset, Item
from terradapt.data.reading import CACHE_BYTES, ReaderCache
from terradapt.data.scan import Place, class_index
from terradapt.data.transforms import Draw, augment, draw
from terradapt.errors import DataError, TerradaptError
from terradapt.grid import Window

_TRIES = 4  # draws of a place until a crop has a labelled pixel
_SPARSE = 0.05  # share of labelled pixels below which an image is nearly empty
_SPAN = 0.25  # how far a class's pixel may lie from the centre of a balanced crop, in sides


class CropDataset(TorchDataset[dict[str, Any]]):
    """Random, augmented crops of a split; map-style, safe in any number of workers.

    Sample ``i`` of epoch ``e`` depends on the seed, ``e`` and ``i`` alone. Every image is drawn
    as often as crops cover it; a share ``data.balance`` of the crops is centred on a pixel of a
    class drawn uniformly. Where labels are drawn shapes, images without a labelled pixel are left
    out and crops of nearly empty ones lie around a labelled pixel, unless a teacher speaks for the
    rest. Crops larger than the image are filled with 255 in the mask.

    Args:
        dataset: What is read.
        split: Name of the split.
        config: Crop, resolution, balance, augmentation, seed.
        spec: Bands and stretch.
        length: Samples of an epoch; None: ``train.steps_per_epoch`` batches, or crops that cover
            the images once.
        augmented: Whether to augment; if not, crops are only placed at random.
        labelled: Whether there are labels; if not, the mask is 0 where the image has data.
        stream: Tells the random numbers of several datasets of one run apart.

    Raises:
        DataError: The split is empty, an item has no label, or none a labelled pixel.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        config: RunConfig,
        spec: InputSpec,
        *,
        length: int | None = None,
        augmented: bool = True,
        labelled: bool = True,
        stream: int = 0,
    ) -> None:
        self.items = dataset.split(split)
        self._labelled, self._stream = labelled, (stream,) if stream else ()
        self.config, self.spec, self.augmented = config, spec, augmented
        self._dataset = dataset
        self._crop = config.data.crop
        self._zoom = np.array([self._factor(i) for i in self.items])
        covering = np.array(
            [self._crops(i, z) for i, z in zip(self.items, self._zoom, strict=True)]
        )
        weighed = config.objective.corrections > 0
        self._marks = labelled and weighed and dataset.corrections is not None
        self._places = self._class_places() if labelled and config.data.balance else []
        self._near = self._sparse(covering) if labelled else {}
        self._slots = np.repeat(np.arange(len(self.items)), covering)
        self._length = length or self._default_length()
        memory = CACHE_BYTES // max(1, config.data.workers)
        self._cache = ReaderCache(dataset, spec, memory, self.items)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._order: tuple[tuple[int, int], np.ndarray[Any, Any]] | None = None

    def __len__(self) -> int:
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, also in workers that are already running."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``image`` (C, H, W) uint8 as the spec has it, ``mask`` int64 and ``index``.

        Where ``objective.corrections`` weighs corrected pixels, ``corrected`` bool says which.
        """
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self.sample(int(self._epoch), index)

    def sample(self, epoch: int, index: int) -> dict[str, Any]:
        """Return the crop ``index`` of any epoch, whatever :meth:`set_epoch` said."""
        try:
            return self._sample(epoch, index)
        except TerradaptError as error:
            if get_worker_info() is None:
                raise
            raise CarriedError.of(error) from None

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        rng = generator(self.config.train.seed, epoch, index, *self._stream)
        chosen = draw(self.config.augment, rng) if self.augmented else Draw()
        for _ in range(_TRIES):
            item, window = self._place(index, epoch, chosen, rng)
            image, planes = self._read(item, window)
            if bool((planes[0] != IGNORE).any()):
                break
        image, planes = augment(image, planes, chosen, self._crop, len(self.spec.bands))
        if self.spec.film:
            native = item.resolution or 0.0
            level = self.spec.level(native * window.height / (self._crop * chosen.reach))
            image = torch.cat([image, torch.full_like(image[:1], level)])
        marks = {"corrected": planes[1] == 1} if self._marks else {}
        return {"image": image, "mask": planes[0].long(), "index": index, **marks}

    def _read(self, item: Item, window: Window) -> tuple[Tensor, Tensor]:
        """Read pixels and planes of the same size: ids and, where it counts, what is corrected."""
        reader = self._cache.get(item)
        if self._labelled:
            pixels, ids = reader.sample(window)
        else:
            pixels, valid = reader.look(window, self.spec.context)
            ids = np.where(valid, 0, IGNORE).astype(np.uint8)
        planes = [ids, reader.corrected(window).astype(np.uint8)] if self._marks else [ids]
        return torch.from_numpy(pixels), torch.from_numpy(np.stack(planes))

    def _place(
        self, index: int, epoch: int, chosen: Draw, rng: np.random.Generator
    ) -> tuple[Item, Window]:
        place: Place | None
        if self._places and rng.random() < self.config.data.balance:
            spots = self._places[int(rng.integers(len(self._places)))]
            number, place = spots[int(rng.integers(len(spots)))]
        else:
            number = self._drawn(index, epoch)
            place = self._labelled_place(number, rng)
        item = self.items[number]
        side = max(1, round(self._crop * chosen.reach / chosen.scale * self._zoom[number]))
        row = _start(item.height, side, None if place is None else place[0], rng)
        col = _start(item.width, side, None if place is None else place[1], rng)
        return item, Window(row, col, side, side)

    def _labelled_place(self, number: int, rng: np.random.Generator) -> Place | None:
        """A pixel of a class drawn uniformly, of an image that is nearly empty; else None."""
        spots = self._near.get(number)
        if not spots:
            return None
        of_class = spots[int(rng.integers(len(spots)))]
        return of_class[int(rng.integers(len(of_class)))]

    def _sparse(self, covering: np.ndarray[Any, Any]) -> dict[int, list[tuple[Place, ...]]]:
        """Labelled places of nearly empty images; images without any get no crop (in place)."""
        taught = self.config.objective.name == "distill"
        if taught and self.config.objective.distill.where != "labelled":
            return {}
        if not self._dataset.is_partial:
            return {}
        index = class_index(self._dataset)
        near = {}
        for number, item in enumerate(self.items):
            labelled = int(index.counts[item.id].sum()) if item.id in index.counts else 0
            if not labelled:
                covering[number] = 0
            elif labelled < _SPARSE * item.height * item.width:
                near[number] = [spots for spots in index.places[item.id].values() if spots]
        if not covering.any():
            raise DataError(
                f"{self._dataset.root}: no image to train on has a labelled pixel",
                "label some ground of the split 'train', or set data.background=class",
            )
        return near

    def _drawn(self, index: int, epoch: int) -> int:
        """The item of a slot: each pass over all slots is a new permutation of them."""
        turn, slot = divmod(index, len(self._slots))
        if self._order is None or self._order[0] != (epoch, turn):
            rng = generator(self.config.train.seed, epoch, turn, 0x0DE5, *self._stream)
            self._order = ((epoch, turn), rng.permutation(self._slots))
        return int(self._order[1][slot])

    def _class_places(self) -> list[list[tuple[int, Place]]]:
        """Places of every class that occurs: (item number, (row, column))."""
        places = class_index(self._dataset).places
        found: list[list[tuple[int, Place]]] = [[] for _ in range(len(self._dataset.classes))]
        for number, item in enumerate(self.items):
            for class_id, spots in places.get(item.id, {}).items():
                found[class_id].extend((number, spot) for spot in spots)
        return [spots for spots in found if spots]

    def _factor(self, item: Item) -> float:
        """Native pixels per pixel of the model."""
        wanted = self.config.data.resolution or (None if self._labelled else self.spec.resolution)
        return wanted / item.resolution if wanted and item.resolution else 1.0

    def _crops(self, item: Item, zoom: float) -> int:
        side = self._crop * zoom
        return math.ceil(item.height / side) * math.ceil(item.width / side)

    def _default_length(self) -> int:
        train = self.config.train
        if train.steps_per_epoch is None:
            return len(self._slots)
        return train.steps_per_epoch * train.batch * train.accumulate


def generator(*key: int) -> np.random.Generator:
    """Return a generator that depends on its key alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _start(length: int, side: int, centre: int | None, rng: np.random.Generator) -> int:
    """First pixel of a crop along one axis: uniform, or around ``centre``; inside if it fits."""
    slack = length - side
    if centre is None:
        return int(rng.integers(min(slack, 0), max(slack, 0) + 1))
    start = centre - side / 2 + (2 * rng.random() - 1) * _SPAN * side
    return int(np.clip(round(start), min(slack, 0), max(slack, 0)))
