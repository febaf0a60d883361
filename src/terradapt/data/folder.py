"""The folder dataset: ``images/`` with ``labels/`` or ``masks/``, or one vector label file."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from terradapt.classes import ClassMap
from terradapt.config import DataConfig
from terradapt.data.class_files import read_class_file
from terradapt.data.corrections import corrections_file, only_corrections, with_corrections
from terradapt.data.dataset import Dataset, Item
from terradapt.data.labels import LabelForm
from terradapt.data.raster_classes import raster_labels
from terradapt.data.reading import check_pair, open_label
from terradapt.data.scan import CACHE_NAME, scan_labels
from terradapt.data.splits import NAMES, Splits
from terradapt.errors import DataError
from terradapt.progress import Advance
from terradapt.raster import SceneReader

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
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

    Returns:
        The dataset without splits, and the splits that the layout states, if it does.

    Raises:
        DataError: No images, no labels, names that do not match, unreadable files, or values
            that are no class.
    """
    layout = find_layout(root, corrections_file(config))
    for error in layout.unmatched:
        raise error
    return build_dataset(root, layout, layout.pairs, config, progress, known), layout.splits


Pair = tuple[str, Path, Path | None]


@dataclass(frozen=True)
class Layout:
    """What lies in a folder.

    Args:
        pairs: Item id, image and label.
        splits: Item ids by split, when the folders say so.
        vector: The vector label file, or None.
        corrections: The vector file above the labels, or None.
        unmatched: Errors for images without a label and labels without an image.
    """

    pairs: tuple[Pair, ...]
    splits: Splits | None
    vector: Path | None
    unmatched: tuple[DataError, ...]
    corrections: Path | None = None


def find_layout(root: Path, corrections: Path | None = None) -> Layout:
    """Pair images and labels by name.

    Args:
        root: The folder.
        corrections: What lies above the labels; then an image needs none of its own.

    Raises:
        DataError: No images, no labels, or several vector label files.
    """
    parts = [p for p in NAMES if (root / p).is_dir() and _subfolder(root / p, IMAGE_FOLDERS)]
    if "train" not in parts:
        vector = vector_file(root, corrections)
        pairs, errors = _pairs(root, "", vector, corrections)
        return Layout(tuple(pairs), None, vector, tuple(errors), corrections)
    found = {p: _pairs(root / p, f"{p}/", None, corrections) for p in parts}
    pairs = [pair for part in found.values() for pair in part[0]]
    errors = [error for part in found.values() for error in part[1]]
    splits = {p: tuple(i for i, _, _ in found[p][0]) if p in found else () for p in NAMES}
    return Layout(tuple(pairs), splits, None, tuple(errors), corrections)


def build_dataset(
    root: Path,
    layout: Layout,
    pairs: Sequence[Pair],
    config: DataConfig,
    progress: Advance | None = None,
    known: ClassMap | None = None,
) -> Dataset:
    """Return the dataset of some pairs of a layout, without splits.

    Raises:
        DataError: A file cannot be read, or has a value that is no class.
    """
    items = measure_images(pairs)
    stated = read_class_file(root)
    classes: ClassMap
    label: LabelForm
    if layout.corrections is not None and not any(i.label for i in items):
        classes, label = only_corrections(layout.corrections, config, stated, known)
        items = tuple(replace(i, label=layout.corrections) for i in items)
        return Dataset(root.absolute().name, root, items, classes, label)
    if layout.vector is not None:
        from terradapt.data.vector_files import vector_classes

        classes, label = vector_classes(layout.vector, config, stated)
    else:
        paths = [i.label for i in items if i.label is not None]
        scans = scan_labels(paths, root / CACHE_NAME, progress)
        classes, label = raster_labels(scans, stated, root)
    dataset = Dataset(root.absolute().name, root, items, classes, label)
    return with_corrections(dataset, config)


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
    root: Path, prefix: str, vector: Path | None, corrections: Path | None
) -> tuple[list[Pair], list[DataError]]:
    folder = _subfolder(root, IMAGE_FOLDERS)
    if folder is None:
        raise DataError(f"{root}: no folder images/", _LAYOUT)
    images = _by_stem(folder)
    if not images:
        raise DataError(f"{folder}: no images", f"put {', '.join(sorted(RASTERS))} files there")
    if vector is not None:
        return [(prefix + stem, path, vector) for stem, path in sorted(images.items())], []
    home = _subfolder(root, LABEL_FOLDERS)
    labels = _by_stem(home) if home else {}
    errors = [_unmatched(folder, "image", labels, images)]
    if corrections is not None:
        pairs = [(prefix + s, path, labels.get(s)) for s, path in sorted(images.items())]
        return pairs, [e for e in errors if e]
    if home is None or not labels:
        raise DataError(f"{home or root}: no labels", _LAYOUT)
    errors.insert(0, _unmatched(home, "label", images, labels))
    both = sorted(set(images) & set(labels))
    return [(prefix + s, images[s], labels[s]) for s in both], [e for e in errors if e]


def _unmatched(
    where: Path, lacking: str, have: dict[str, Path], lack: dict[str, Path]
) -> DataError | None:
    left = sorted(set(have) - set(lack))
    if not left:
        return None
    names = ", ".join(have[s].name for s in left[:_SHOWN])
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return DataError(
        f"{where}: no {lacking} for {names}{more}",
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
