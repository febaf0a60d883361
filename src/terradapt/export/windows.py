"""Windows of real scenes, for calibration, parity and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap
from terradapt.config import InputSpec
from terradapt.data import Dataset, open_dataset
from terradapt.data.dataset import INDEX_NAME, SPLITS_NAME
from terradapt.data.reading import CACHE_BYTES, ItemReader, ReaderCache
from terradapt.errors import DataError
from terradapt.grid import Window
from terradapt.raster import SceneReader
from terradapt.scene.resample import with_level

SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".vrt"})
MIN_VALID = 0.5
"""Share of a window that must be valid."""
_HELD = CACHE_BYTES // 4  # of decoded images, pixels and labels each


@dataclass(frozen=True)
class Windows:
    """Windows of scenes.

    Attributes:
        images: (N, C, S, S) uint8, bands, stretch and context applied.
        masks: (N, S, S) class ids, 255 ignored; None without labels.
        scenes: How many scenes they come from.
        split: Name of the split, "" outside a dataset.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    scenes: int
    split: str = ""

    def __len__(self) -> int:
        return len(self.images)


def collect(
    folder: Path,
    spec: InputSpec,
    classes: ClassMap,
    side: int,
    count: int,
    *,
    splits: Sequence[str] = ("train",),
    seed: int = 0,
) -> Windows:
    """Read windows spread over the scenes of a folder.

    A prepared dataset (``dataset.json``) gives windows of its splits, with labels where its class
    names are the model's; any other folder gives windows of all its rasters, without.

    Args:
        folder: Dataset or folder of scenes; ``images`` within it is looked into.
        spec: Bands and stretch.
        classes: The model's classes.
        side: S, px.
        count: N, fewer when the scenes are smaller.
        splits: Splits of a dataset to read; those that it has not are left out.
        seed: Of the places.

    Raises:
        DataError: No such folder, or no readable scene with valid pixels in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", "give a folder with scenes to calibrate on")
    if (folder / INDEX_NAME).is_file() or (folder / SPLITS_NAME).is_file():
        return _of_dataset(open_dataset(folder), spec, classes, side, count, splits, seed)
    files = _rasters(folder / "images") or _rasters(folder)
    if not files:
        raise DataError(
            f"{folder}: holds no scenes to calibrate on",
            "put a few typical scenes there (GeoTIFF, PNG or JPEG), or give a prepared dataset",
        )
    images: list[NDArray[np.uint8]] = []
    used = 0
    for number, file in enumerate(files):
        found = scene_windows(file, spec, side, _share(count, len(files), number), seed + number)
        images += found
        used += bool(found)
    if not images:
        raise DataError(f"{folder}: no scene has valid pixels", "give scenes with imagery")
    return Windows(np.stack(images), None, used)


def scene_windows(
    path: Path, spec: InputSpec, side: int, count: int, seed: int = 0
) -> list[NDArray[np.uint8]]:
    """Read up to ``count`` windows (C, S, S) of a scene at places drawn without overlap."""
    found: list[NDArray[np.uint8]] = []
    with SceneReader(path, spec, resolution=spec.resolution) as reader:
        for window in places(reader.height, reader.width, side, seed):
            if len(found) == count:
                break
            image, valid = reader.look(window, spec.context)
            if valid.mean() >= MIN_VALID:
                found.append(_told(image, spec))
    return found


def places(height: int, width: int, side: int, seed: int) -> list[Window]:
    """Return the windows of a lattice over an image in a drawn order; small images have one."""
    rows = range(0, max(1, height - side + 1), side)
    cols = range(0, max(1, width - side + 1), side)
    all_places = [Window(row, col, side, side) for row in rows for col in cols]
    order = np.random.default_rng(seed).permutation(len(all_places))
    return [all_places[i] for i in order]


def _of_dataset(
    dataset: Dataset,
    spec: InputSpec,
    classes: ClassMap,
    side: int,
    count: int,
    splits: Sequence[str],
    seed: int,
) -> Windows:
    names = [s for s in splits if s == "all" or dataset.splits.get(s)]
    items = [item for name in names for item in dataset.split(name)]
    labelled = dataset.classes.names == classes.names and all(i.label for i in items)
    pixels = ReaderCache(dataset, spec, _HELD)
    labels = ReaderCache(dataset, None, _HELD) if labelled else None
    images: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.uint8]] = []
    used = 0
    for number, item in enumerate(items):
        before = len(images)
        zoom = spec.resolution / item.resolution if spec.resolution and item.resolution else 1.0
        for image, mask in _item_windows(
            pixels.get(item),
            labels.get(item) if labels else None,
            side,
            zoom,
            spec.context,
            _share(count, len(items), number),
            seed + number,
        ):
            images.append(_told(image, spec))
            masks.append(mask)
        used += len(images) > before
    if not images:
        raise DataError(
            f"{dataset.root}: no images with valid pixels in {', '.join(splits)}",
            "give a dataset or a folder with scenes",
        )
    stacked = np.stack(masks) if labelled else None
    return Windows(np.stack(images), stacked, used, "+".join(names))


def _item_windows(
    pixels: ItemReader,
    labels: ItemReader | None,
    side: int,
    zoom: float,
    context: int,
    count: int,
    seed: int,
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    found: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
    native = max(1, round(side * zoom))
    blank = np.full((side, side), IGNORE, np.uint8)
    for window in places(pixels.height, pixels.width, native, seed):
        if len(found) == count:
            break
        image = resample(pixels.look(window, context)[0], side)
        mask = resample_ids(labels.mask(window), side) if labels else blank
        if labels is None or (mask != IGNORE).mean() >= MIN_VALID:
            found.append((image, mask))
    return found


def resample(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resample an image (C, N, N) to (C, S, S): averages of areas, or bilinear when it grows."""
    if image.shape[-1] == side:
        return image
    import torch

    mode = "area" if image.shape[-1] > side else "bilinear"
    x = torch.from_numpy(image)[None].float()
    resized = torch.nn.functional.interpolate(x, (side, side), mode=mode)[0]
    values: NDArray[np.uint8] = resized.round().clamp(0, 255).to(torch.uint8).numpy()
    return values


def resample_ids(ids: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Take the ids (N, N) at the centres of (S, S) pixels."""
    at = ((np.arange(side) + 0.5) * ids.shape[0] / side).astype(int)
    chosen: NDArray[np.uint8] = ids[at][:, at]
    return chosen


def _told(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """A window at the training's metres per pixel with what a model is told of them."""
    return with_level(image, spec.level()) if spec.film else image


def _rasters(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())


def _share(count: int, parts: int, number: int) -> int:
    return count // parts + (number < count % parts)
