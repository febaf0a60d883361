"""One image with its label raster as a dataset, without a folder around them."""

from __future__ import annotations

from pathlib import Path

from terradapt.classes import IGNORE, ClassMap
from terradapt.data.class_files import ClassFile, read_class_file
from terradapt.data.dataset import Dataset
from terradapt.data.folder import LABEL_FOLDERS, VECTORS, measure_images
from terradapt.data.raster_classes import raster_labels
from terradapt.data.scan import scan_labels
from terradapt.errors import DataError


def pair_dataset(image: str | Path, label: str | Path, classes: ClassMap) -> Dataset:
    """Return a dataset of one image and its label raster; nothing is written.

    Args:
        image: A raster.
        label: A raster on the image's pixels. Its values are ids of ``classes``, 255 ignored (0 and
            255 alone are a mask of two classes), unless a classes file beside it, or beside its
            folder ``labels/``, says otherwise.
        classes: The model's classes.

    Raises:
        DataError: A label that is no raster, of another size, or with values that are no class.
        SceneError: The image cannot be read.
    """
    image, label = Path(image), Path(label)
    if label.suffix.lower() in VECTORS:
        raise DataError(
            f"{label}: is no raster",
            "lay a folder out as images/ with the vector file beside it, and give that folder",
        )
    for path in (image, label):
        if not path.is_file():
            raise DataError(f"{path}: no such file", "give an image and its label raster")
    inside = label.parent.name.lower() in LABEL_FOLDERS
    homes = [label.parent, *([label.parent.parent] if inside else [])]
    stated = next((found for home in homes if (found := read_class_file(home))), None)
    own = ClassFile(label, classes, None, False, (IGNORE,), (), None)
    items = measure_images([(image.stem, image, label)])
    named, form = raster_labels(scan_labels([label]), stated or own, label.parent)
    return Dataset(image.stem, image.parent, items, named, form, protocol="one image")
