"""input_spec: how a dataset's raw pixels become a model's input."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np

from terradapt.config import DataConfig, InputSpec
from terradapt.data.dataset import Dataset, Item
from terradapt.errors import DataError
from terradapt.grid import Window
from terradapt.raster import SceneReader

PERCENTILES = (2.0, 98.0)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
_OTHER_MEAN, _OTHER_STD = 0.449, 0.226  # their averages, for every other band
_SAMPLES = 32  # windows read for the percentiles
_SIDE = 512  # px


def input_spec(dataset: Dataset, config: DataConfig) -> InputSpec:
    """Return bands, stretch, normalisation and resolution for training on a dataset.

    8-bit bands are taken as they are. Of others, each is stretched between its 2nd and 98th
    percentile over the train split, unless ``config.stretch`` says otherwise. Bands have the names
    that all images agree on.

    Raises:
        DataError: An image lacks a band, or images differ in type or in the order of named bands.
        SceneError: An image is of palette indexes.
    """
    items = dataset.split("train")
    dtype, names = _common_bands(items, config.bands)
    eight_bit = dtype == "uint8" and not _uses_extra(items[0], config.bands)
    stretch = config.stretch
    if stretch is None and not eight_bit:
        stretch = fixed_stretch(items, config.bands)
    three = len(config.bands) == 3
    known = [i.resolution for i in items if i.resolution]
    return InputSpec(
        bands=config.bands,
        band_names=names,
        dtype=dtype,
        stretch=stretch,
        mean=_MEAN if three else _spread(_MEAN, _OTHER_MEAN, len(config.bands)),
        std=_STD if three else _spread(_STD, _OTHER_STD, len(config.bands)),
        resolution=config.resolution or (median(known) if known else None),
        grow_void=config.grow_void,
    )


def fixed_stretch(
    items: tuple[Item, ...], bands: tuple[int, ...], percentiles: tuple[float, float] = PERCENTILES
) -> tuple[tuple[float, float], ...]:
    """Return (low, high) of each band in raw units, from windows spread over the items.

    8-bit bands give (0, 255).
    """
    chosen = [items[round(i)] for i in np.linspace(0, len(items) - 1, min(_SAMPLES, len(items)))]
    values: list[list[Any]] = [[] for _ in bands]
    whole = [False] * len(bands)
    for number, item in enumerate(chosen):
        for place, (band, is_byte) in enumerate(_band_samples(item, bands, number)):
            values[place].append(band)
            whole[place] |= is_byte
    pairs = []
    for samples, is_byte in zip(values, whole, strict=True):
        joined = np.concatenate(samples)
        low, high = (
            (0.0, 255.0) if is_byte or not joined.size else np.percentile(joined, percentiles)
        )
        pairs.append((float(low), float(max(high, np.nextafter(np.float32(low), np.inf)))))
    return tuple(pairs)


def _band_samples(item: Item, bands: tuple[int, ...], number: int) -> list[tuple[Any, bool]]:
    rng = np.random.default_rng([number, 0x5BEC])
    side = min(_SIDE, item.height), min(_SIDE, item.width)
    row, col = (
        int(rng.integers(0, n - s + 1))
        for n, s in zip((item.height, item.width), side, strict=True)
    )
    window = item.on_image(Window(row, col, *side))
    with SceneReader(item.image) as file:
        count = file.count
    own = [b for b in bands if b <= count]
    parts = [(item.image, own)] if own else []
    if item.extra is not None and len(own) < len(bands):
        parts.append((item.extra, [b - count for b in bands if b > count]))
    picked: dict[int, tuple[Any, bool]] = {}
    for path, chosen in parts:
        shift = 0 if path is item.image else count
        with SceneReader(path, bands=chosen) as file:
            pixels, valid = file.read(window)
            for band, plane, kind in zip(chosen, pixels, file.band_types, strict=True):
                picked[band + shift] = plane[valid], kind == "uint8"
    return [picked[b] for b in bands]


def _extra_bands(item: Item) -> int:
    if item.extra is None:
        return 0
    with SceneReader(item.extra) as file:
        return file.count


def _uses_extra(item: Item, bands: tuple[int, ...]) -> bool:
    if item.extra is None:
        return False
    with SceneReader(item.image) as file:
        return max(bands) > file.count


def _common_bands(items: tuple[Item, ...], bands: tuple[int, ...]) -> tuple[str, tuple[str, ...]]:
    """The type that holds the bands of every image, and the names that all of them have."""
    types: dict[str, Item] = {}
    names: dict[tuple[str, ...], Item] = {}
    for item in items:
        with SceneReader(item.image) as file:
            file.check_image()
            count = file.count + _extra_bands(item)
            if max(bands) > count:
                raise DataError(
                    f"{item.image}: has {count} bands, data.bands asks for {max(bands)}",
                    f"set data.bands={list(range(1, count + 1))} and model.in_channels={count}",
                )
            names.setdefault(file.names_of(bands), item)
            types.setdefault(file.type_of([b for b in bands if b <= file.count]), item)
    if len(types) > 1:
        named = " and ".join(f"{k} ({v.image.name})" for k, v in list(types.items())[:2])
        raise DataError(
            f"{items[0].image.parent}: images of different types: {named}",
            "convert all images to one type",
        )
    return next(iter(types)), _common_names(names)


def _common_names(found: dict[tuple[str, ...], Item]) -> tuple[str, ...]:
    """The names of the bands where all images agree; () where they do not, or have none."""
    names, item = next(iter(found.items()))
    for others, other in found.items():
        folded, these = ([n.casefold() for n in t] for t in (names, others))
        if folded != these and sorted(folded) == sorted(these):
            raise DataError(
                f"{other.image}: its bands are {', '.join(others)}, those of {item.image.name} "
                f"{', '.join(names)}",
                "bring all images to one order of bands: gdal_translate -b 3 -b 2 -b 1 IN OUT",
            )
        if folded != these:
            return ()
    return names if any(names) else ()


def _spread(values: tuple[float, ...], other: float, count: int) -> tuple[float, ...]:
    """The first three as given, all further bands alike; a lone band or two get the average."""
    return (other,) * count if count < 3 else values + (other,) * (count - 3)
