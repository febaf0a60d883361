"""The folder dataset: ``images/`` with ``labels/`` or ``masks/``, or one vector label file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from terradapt.config import DataConfig
from terradapt.data.class_files import raster_labels, read_class_file
from terradapt.data.dataset import Dataset, Item
from terradapt.data.scan import CACHE_NAME, scan_labels
from terradapt.data.splits import NAMES, Splits
from terradapt.errors import DataError
from terradapt.raster import SceneReader

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
LABEL_FOLDERS = ("labels", "masks", "label", "mask")
RASTERS = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt"}
VECTORS = {".gpkg", ".geojson", ".json", ".shp", ".fgb"}
_LAYOUT = "lay the folder out as images/ and labels/ (or masks/) with the same file names"
_SHOWN = 5


def open_folder(
    root: Path, config: DataConfig, progress: Callable[[int], None] | None = None
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
    parts = [p for p in NAMES if (root / p).is_dir() and _subfolder(root / p, IMAGE_FOLDERS)]
    if "train" in parts:
        found = {p: _pairs(root / p, f"{p}/", vector=None) for p in parts}
        pairs = [pair for part in found.values() for pair in part]
        given = {p: tuple(i for i, _, _ in found.get(p, [])) for p in NAMES}
        return _dataset(root, pairs, None, config, progress), given
    vector = vector_file(root)
    return _dataset(root, _pairs(root, "", vector), vector, config, progress), None


Pair = tuple[str, Path, Path | None]


def _dataset(
    root: Path,
    pairs: Sequence[Pair],
    vector: Path | None,
    config: DataConfig,
    progress: Callable[[int], None] | None,
) -> Dataset:
    items = measure(pairs)
    stated = read_class_file(root)
    if vector is not None:
        from terradapt.data.vector_files import vector_classes

        classes, label = vector_classes(vector, config, stated)
    else:
        paths = [i.label for i in items if i.label is not None]
        scans = scan_labels(paths, root / CACHE_NAME, progress)
        classes, label = raster_labels(scans, stated, root)
    return Dataset(root.absolute().name, root, items, classes, label)


def measure(pairs: Sequence[Pair]) -> tuple[Item, ...]:
    """Return items with their images' size and resolution, read from the files.

    Raises:
        SceneError: An image cannot be read.
    """

    def item(pair: Pair) -> Item:
        name, image, label = pair
        with SceneReader(image) as file:
            size = file.height, file.width
            return Item(name, image, label, name, None, *size, file.resolution)

    with ThreadPoolExecutor(8) as pool:
        return tuple(pool.map(item, pairs))


def vector_file(root: Path) -> Path | None:
    """Return the one vector label file of a folder, or None.

    ``labels.gpkg`` (or another vector suffix) is the labels whatever else lies there; a vector
    file of another name only where no label rasters are.

    Raises:
        DataError: There are several.
    """
    homes = [root, *(root / n for n in LABEL_FOLDERS if (root / n).is_dir())]
    found = [p for home in homes for p in _files(home, VECTORS) if not _is_own(p)]
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


def _pairs(root: Path, prefix: str, vector: Path | None) -> list[Pair]:
    folder = _subfolder(root, IMAGE_FOLDERS)
    if folder is None:
        raise DataError(f"{root}: no folder images/", _LAYOUT)
    images = _by_stem(folder)
    if not images:
        raise DataError(f"{folder}: no images", f"put {', '.join(sorted(RASTERS))} files there")
    if vector is not None:
        return [(prefix + stem, path, vector) for stem, path in sorted(images.items())]
    home = _subfolder(root, LABEL_FOLDERS)
    labels = _by_stem(home) if home else {}
    if home is None or not labels:
        raise DataError(f"{home or root}: no labels", _LAYOUT)
    _check_stems(folder, home, images, labels)
    return [(prefix + stem, path, labels[stem]) for stem, path in sorted(images.items())]


def _check_stems(
    folder: Path, home: Path, images: dict[str, Path], labels: dict[str, Path]
) -> None:
    for have, lack, where in ((images, labels, home), (labels, images, folder)):
        left = sorted(set(have) - set(lack))
        if left:
            names = ", ".join(have[s].name for s in left[:_SHOWN])
            more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
            kind = "label" if have is images else "image"
            raise DataError(
                f"{where}: no {kind} for {names}{more}",
                f"give each the same name as its {kind} (the suffix may differ), or move it away",
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
