"""The folder dataset: ``images/`` with ``labels/`` or ``masks/``, or one vector label file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from terradapt.classes import CHANGES, IGNORE, ClassMap
from terradapt.config import DataConfig
from terradapt.data.blocks import has_room
from terradapt.data.class_files import read_class_file
from terradapt.data.corrections import corrections_file, only_corrections, with_corrections
from terradapt.data.dataset import Dataset, Item
from terradapt.data.labels import LabelForm, VectorForm
from terradapt.data.raster_classes import raster_labels
from terradapt.data.reading import check_pair, open_label
from terradapt.data.scan import CACHE_NAME, scan_labels
from terradapt.data.splits import NAMES, Splits, listed_ids
from terradapt.data.vector_labels import touches
from terradapt.errors import DataError
from terradapt.progress import Advance
from terradapt.raster import SceneReader

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "A")
LATER_FOLDERS = {"A": "B", "images": "images2", "image": "image2", "imgs": "imgs2", "img": "img2"}
"""Beside a folder of images, the folder of the same places at a later date."""
LABEL_FOLDERS = ("labels", "masks", "label", "mask")
RASTERS = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt"}
VECTORS = {".gpkg", ".geojson", ".json", ".shp", ".fgb"}
_LAYOUT = "lay the folder out as images/ and labels/ (or masks/) with the same file names"
_SHOWN = 5


def open_folder(
    root: Path,
    config: DataConfig,
    progress: Advance | None = None,
    known: ClassMap | None = None,
) -> tuple[Dataset, Splits | None]:
    """Find the images, labels and classes of a folder.

    Labels lie in ``labels/`` or ``masks/`` under the images' names, or in one vector file in the
    folder (or in ``labels/``). ``train/``, ``val/`` and ``test/`` with such folders inside state
    the splits. Classes come from ``classes.yaml`` or ``classes.json``, else from the values found.

    Images without a label are listed as unlabelled. ``images2/`` beside ``images/`` (or ``B/``
    beside ``A/``, LEVIR-CD's form) holds a later date under the same names: its bands follow those
    of the first.

    Returns:
        The dataset without splits, and the splits that the layout states, if it does.

    Raises:
        DataError: No images, no labels, a label without an image, unreadable files, or values
            that are no class.
    """
    layout = find_layout(root, corrections_file(config))
    for error in layout.unmatched:
        raise error
    return build_dataset(root, layout, layout.every, config, progress, known), layout.splits


Pair = tuple[str, Path, Path | None]


@dataclass(frozen=True)
class Layout:
    """What lies in a folder.

    Args:
        pairs: Item id, image and label.
        unlabelled: The same of images without a label.
        splits: Item ids by split, when the folders say so.
        vector: The vector label file, or None.
        corrections: The vector file above the labels, or None.
        unmatched: Errors for labels without an image.
    """

    pairs: tuple[Pair, ...]
    unlabelled: tuple[Pair, ...]
    splits: Splits | None
    vector: Path | None
    unmatched: tuple[DataError, ...]
    corrections: Path | None = None

    @property
    def every(self) -> tuple[Pair, ...]:
        """All images, those with a label first."""
        return self.pairs + self.unlabelled


def find_layout(root: Path, corrections: Path | None = None) -> Layout:
    """Pair images and labels by name.

    Args:
        root: The folder.
        corrections: What lies above the labels; then an image needs none of its own.

    Raises:
        DataError: No images, no labels, or several vector label files.
    """
    parts = [p for p in NAMES if (root / p).is_dir() and _subfolder(root / p, IMAGE_FOLDERS)]
    stated = "train" in parts
    vector = None if stated else vector_file(root, corrections)
    listed = listed_ids(root)
    found = {
        p: _pairs(root / p, f"{p}/" if p else "", vector, corrections, listed)
        for p in (parts if stated else ("",))
    }
    labelled = tuple(pair for part in found.values() for pair in part[0])
    bare = tuple(pair for part in found.values() for pair in part[1])
    errors = tuple(error for part in found.values() for error in part[2])
    if not labelled and not errors:
        homes = [_subfolder(root / p, LABEL_FOLDERS) for p in found]
        raise DataError(f"{next((h for h in homes if h), root)}: no labels", _LAYOUT)
    splits = {p: tuple(i for i, _, _ in found[p][0]) if p in found else () for p in NAMES}
    return Layout(labelled, bare, splits if stated else None, vector, errors, corrections)


def build_dataset(
    root: Path,
    layout: Layout,
    pairs: Sequence[Pair],
    config: DataConfig,
    progress: Advance | None = None,
    known: ClassMap | None = None,
) -> Dataset:
    """Return the dataset of some pairs of a layout, without splits.

    Of drawn shapes that leave the rest unknown, images that none of them touches are unlabelled,
    where the others can be split without them.

    Raises:
        DataError: A file cannot be read, or has a value that is no class.
    """
    every = tuple(with_later_date(i) for i in measure_images(pairs))
    stated = read_class_file(root)
    corrected = layout.corrections is not None
    items = tuple(i for i in every if i.label is not None or corrected)
    classes: ClassMap
    label: LabelForm
    if layout.corrections is not None and not any(i.label for i in items):
        classes, label = only_corrections(layout.corrections, config, stated, known)
        items = tuple(replace(i, label=layout.corrections) for i in items)
        return Dataset(root.absolute().name, root, items, classes, label)
    if layout.vector is not None:
        from terradapt.data.vector_files import vector_classes

        classes, label = vector_classes(layout.vector, config, stated)
        if label.background == IGNORE and not corrected:
            touched = tuple(i for i in items if _may_be_drawn_on(layout.vector, label, i))
            if len(touched) > 1 or (touched and has_room(touched[0], config)):
                items = touched
    else:
        paths = [i.label for i in items if i.label is not None]
        scans = scan_labels(paths, root / CACHE_NAME, progress)
        classes, label = raster_labels(scans, stated, root)
        if stated is None and len(classes) == len(CHANGES) and any(i.extra for i in items):
            classes = CHANGES
    kept = {i.id for i in items}
    bare = tuple(replace(i, label=None) for i in every if i.id not in kept)
    dataset = Dataset(root.absolute().name, root, items, classes, label, unlabelled=bare)
    return with_corrections(dataset, config)


def _may_be_drawn_on(vector: Path, form: VectorForm, item: Item) -> bool:
    try:
        return touches(vector, form, item)
    except DataError:
        return True  # reading its label says what is wrong


def measure_images(pairs: Sequence[Pair]) -> tuple[Item, ...]:
    """Return items with their images' size and resolution, read from the files.

    Raises:
        SceneError: An image cannot be read.
        DataError: A label raster cannot be read or does not lie on its image's pixels.
    """

    def item(pair: Pair) -> Item:
        name, image, label = pair
        with SceneReader(image) as file:
            if label is not None and label.suffix.lower() not in VECTORS:
                with open_label(label) as other:
                    check_pair(file, other)
            size = file.height, file.width
            return Item(name, image, label, name, None, *size, file.resolution)

    with ThreadPoolExecutor(8) as pool:
        return tuple(pool.map(item, pairs))


def with_later_date(item: Item) -> Item:
    """Return an item with the image of its later date, where its folder has one beside it.

    Raises:
        DataError: The later date lacks this image.
    """
    home = item.image.parent
    later = home.parent / LATER_FOLDERS.get(home.name, "")
    if later in (home, home.parent) or not later.is_dir():
        return item
    found = _by_stem(later).get(item.image.stem)
    if found is None:
        raise DataError(
            f"{later}: has no {item.image.name}, as {home.name}/ has",
            "add the second date's image under the same name, or move its partner elsewhere",
        )
    return replace(item, extra=found)


def vector_file(root: Path, corrections: Path | None = None) -> Path | None:
    """Return the one vector label file of a folder, the corrections aside, or None.

    ``labels.gpkg`` (or another vector suffix) is the labels whatever else lies there; a vector
    file of another name only where no label rasters are.

    Raises:
        DataError: There are several.
    """
    homes = [root, *(root / n for n in LABEL_FOLDERS if (root / n).is_dir())]
    found = [p for home in homes for p in _files(home, VECTORS) if not _is_own(p)]
    found = [p for p in found if corrections is None or not p.samefile(corrections)]
    named = [p for p in found if p.parent == root and p.stem.lower() in LABEL_FOLDERS]
    home = _subfolder(root, LABEL_FOLDERS)
    if named or (home is not None and _files(home, RASTERS)):
        found = named
    if len(found) > 1:
        names = ", ".join(p.name for p in found[:_SHOWN])
        raise DataError(f"{root}: several vector label files: {names}", "leave one in the folder")
    return found[0] if found else None


def _is_own(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    with path.open("rb") as file:
        return b'"FeatureCollection"' not in file.read(4096)


def _pairs(
    root: Path,
    prefix: str,
    vector: Path | None,
    corrections: Path | None,
    listed: Collection[str],
) -> tuple[list[Pair], list[Pair], list[DataError]]:
    """Images with a label, those without, and errors; a label whose image is gone is none."""
    folder = _subfolder(root, IMAGE_FOLDERS)
    if folder is None:
        raise DataError(f"{root}: no folder images/", _LAYOUT)
    images = _by_stem(folder)
    if not images:
        raise DataError(f"{folder}: no images", f"put {', '.join(sorted(RASTERS))} files there")
    if vector is not None:
        return [(prefix + stem, path, vector) for stem, path in sorted(images.items())], [], []
    home = _subfolder(root, LABEL_FOLDERS)
    labels = _by_stem(home) if home else {}
    pairs: list[Pair] = [(prefix + s, p, labels.get(s)) for s, p in sorted(images.items())]
    lone = sorted(s for s in labels if s not in images and prefix + s not in listed)
    errors = [_unmatched(folder, [labels[s].name for s in lone])] if lone else []
    if corrections is not None:
        return pairs, [], errors
    return [p for p in pairs if p[2]], [p for p in pairs if not p[2]], errors


def _unmatched(folder: Path, labels: Sequence[str]) -> DataError:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return DataError(
        f"{folder}: no image for {', '.join(labels[:_SHOWN])}{more}",
        "give image and label one name (the suffix may differ), or move the lone file away",
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _files(folder, RASTERS):
        if path.stem in found:
            raise DataError(
                f"{folder}: {found[path.stem].name} and {path.name} have one name",
                "rename or remove one of them",
            )
        found[path.stem] = path
    return found


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in suffixes and p.is_file() and not p.name.startswith(".")
    )


def _subfolder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / n for n in names if (root / n).is_dir()), None)
