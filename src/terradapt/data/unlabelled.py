"""Images of which nothing is labelled: those of the dataset, and those of a further folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from terradapt.config import DataConfig, InputSpec
from terradapt.data.corrections import is_corrected, lie_nowhere
from terradapt.data.dataset import Dataset, Item
from terradapt.data.folder import IMAGE_FOLDERS, RASTERS
from terradapt.data.labels import VectorForm
from terradapt.data.specs import input_spec
from terradapt.data.vector_labels import touches
from terradapt.errors import DataError, SceneError
from terradapt.files import digest
from terradapt.raster import SceneReader

SPLIT = "unlabelled"
"""Of such images; their ids begin with it and a slash."""
_ALIKE = 1.5  # metres per pixel that differ by more are told
_SHOWN = 3


def unlabelled_images(
    dataset: Dataset, folder: str | Path | None, spec: InputSpec
) -> tuple[Dataset | None, list[str]]:
    """Return a dataset's unlabelled images, and those of a folder, as a dataset of one split.

    Images of the splits ``val`` and ``test`` are left out, wherever they lie: what decides is not
    trained on, not even without its labels.

    Args:
        dataset: The labelled dataset.
        folder: Images of any size, or a folder that holds them in ``images/``; None for none.
        spec: Bands and type that the model reads.

    Returns:
        A dataset with the split ``unlabelled``, or None where there is no such image; and
        sentences on what was left out and why, and on another or an unknown scale.

    Raises:
        DataError: No such folder, or no image in it that can be used.
    """
    told: list[str] = []
    items = list(dataset.unlabelled)
    if folder is not None:
        items += _usable(_images(Path(folder)), dataset, spec, told)
        if not items:
            raise DataError(
                f"{folder}: no image can be used without labels" + "".join(f"; {t}" for t in told),
                "give images with the bands and the type of the labelled ones",
            )
    if not items:
        return None, told
    scales = [i.resolution for i in items if i.resolution]
    if spec.resolution and scales:
        least, most = min(scales) / spec.resolution, max(scales) / spec.resolution
        if most > _ALIKE or least < 1 / _ALIKE:
            told.append(
                f"unlabelled images have {min(scales):.3g} to {max(scales):.3g} m/px; they are "
                f"resampled to the labelled ones' {spec.resolution:.3g}"
            )
    if spec.resolution and len(scales) < len(items):
        told.append(
            f"{len(items) - len(scales)} of {len(items)} unlabelled images do not say their metres "
            f"per pixel and are read as they are, the labelled ones have {spec.resolution:.3g}"
        )
    names = tuple(item.id for item in items)
    splits = {SPLIT: names}
    return replace(
        dataset, items=tuple(items), splits=splits, corrections=None, unlabelled=()
    ), told


def with_corrected(dataset: Dataset, config: DataConfig) -> tuple[Dataset, list[str]]:
    """Let images of ``data.unlabelled`` on which corrections lie be trained on, beside the dataset.

    So a model is retrained on the labels that it knows and on a scene that was corrected. Images of
    the splits ``val`` and ``test`` are left out, and those of ``train`` are there already.

    Args:
        dataset: With its splits.
        config: Names the corrections and the folder; without corrections nothing changes.

    Returns:
        The dataset with those images in ``train``, and sentences on what was left out and why.

    Raises:
        DataError: No such folder, no image in it, or a correction lies on no image at all.
    """
    if config.corrections is None:
        return dataset, []
    whole, told = dataset, list[str]()
    if config.unlabelled is not None:
        there = {i.image.resolve() for i in dataset.items}
        paths = [p for p in _images(Path(config.unlabelled)) if p.resolve() not in there]
        alone = Path(config.corrections) if dataset.corrections is None else None
        items = _usable(paths, dataset, input_spec(dataset, config), told)
        items = [replace(i, label=alone) for i in items]  # None: they lie above labels
        items = [i for i in items if _is_drawn_on(dataset, i)]
        train = (*dataset.splits["train"], *(i.id for i in items))
        splits = {**dataset.splits, "train": train}
        whole = replace(dataset, items=(*dataset.items, *items), splits=splits)
    if not any(_is_drawn_on(whole, i) for i in reversed(whole.items)):
        raise lie_nowhere(config.corrections, dataset.root)
    return whole, told


def _is_drawn_on(dataset: Dataset, item: Item) -> bool:
    if dataset.corrections is not None or item.label is None:
        return is_corrected(dataset, item)
    assert isinstance(dataset.label, VectorForm)  # corrections are the only labels
    return touches(item.label, dataset.label, item)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", "give a folder of images")
    homes = [folder / n for n in IMAGE_FOLDERS if (folder / n).is_dir()] or [folder]
    found = [p for p in sorted(homes[0].rglob("*")) if p.suffix.lower() in RASTERS and p.is_file()]
    if not found:
        raise DataError(f"{homes[0]}: no images", f"put {', '.join(sorted(RASTERS))} files there")
    return found


def _usable(
    paths: Iterable[Path], dataset: Dataset, spec: InputSpec, told: list[str]
) -> list[Item]:
    """The images that a model can read and that decide nothing; the others are told."""
    kept = [
        i.image for name in ("val", "test") for i in map(dataset.item, dataset.splits.get(name, ()))
    ]
    sizes = {p.stat().st_size for p in kept}
    deciding = {digest(p) for p in kept} if sizes else set()
    items: list[Item] = []
    out: dict[str, list[str]] = {}
    for path in paths:
        if path.stat().st_size in sizes and digest(path) in deciding:
            out.setdefault("they are images of val or test", []).append(path.name)
            continue
        try:
            with SceneReader(path) as file:
                lacking = max(spec.bands) > file.count
                reason = (
                    f"of {file.count} bands, not {max(spec.bands)}"
                    if lacking
                    else f"of type {file.type_of(spec.bands)}, not {spec.dtype}"
                    if file.type_of(spec.bands) != spec.dtype
                    else ""
                )
                if not reason:
                    size, name = (file.height, file.width), f"{SPLIT}/{len(items)}/{path.stem}"
                    items.append(Item(name, path, None, name, None, *size, file.resolution))
        except SceneError as error:
            reason = error.message
        if reason:
            out.setdefault(reason, []).append(path.name)
    for reason, names in out.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        told.append(f"left out {', '.join(names[:_SHOWN])}{more}: {reason}")
    return items
