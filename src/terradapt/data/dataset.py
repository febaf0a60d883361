"""Dataset: items, class map, label form and splits; ``dataset.json`` is its form on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from terradapt.classes import IGNORE, ClassMap
from terradapt.data.class_files import CLASS_FILES
from terradapt.data.labels import LabelForm, VectorForm, label_form
from terradapt.documents import validated
from terradapt.errors import DataError, one_of, refusing
from terradapt.files import read_json, write_json
from terradapt.grid import Window
from terradapt.raster import Georef

INDEX_NAME, SPLITS_NAME = "dataset.json", "splits.json"
FORMAT = 1


@dataclass(frozen=True)
class Item:
    """One image with its label, or a block of one: rows and columns are then the block's own.

    Args:
        id: Name within the dataset, by which splits list it.
        image: Raster file.
        label: Label raster, or the vector file that labels all items; None without a label.
        group: Items of one group stay in one split.
        extra: A raster on the same grid whose bands are read after the image's (a surface model,
            the second date of a pair).
        height: Rows, px.
        width: Columns, px.
        resolution: Metres per pixel, or None when the file does not say.
        eroded: The label with its borders ignored, on which ISPRS evaluates.
        area: The block of the image that the item is; None: the whole image.
        shift: Rows and columns by which the label lies below and right of the image, px.
        unsure: Width of the band along the label's borders that is ignored, px on each side.
    """

    id: str
    image: Path
    label: Path | None
    group: str
    extra: Path | None = None
    height: int = 0
    width: int = 0
    resolution: float | None = None
    eroded: Path | None = None
    area: Window | None = None
    shift: tuple[int, int] = (0, 0)
    unsure: int = 0

    @property
    def window(self) -> Window:
        """The window of the whole item."""
        return Window(0, 0, self.height, self.width)

    def on_image(self, window: Window) -> Window:
        """Return a window of the item in pixels of its image."""
        return window if self.area is None else window.shift(self.area.row, self.area.col)

    def placed(self, georef: Georef) -> Georef:
        """Return where the item lies, of its image's georeference."""
        return georef if self.area is None else georef.crop(self.area)


@dataclass(frozen=True)
class Corrections:
    """A vector file that lies above the labels.

    Args:
        path: The file.
        form: How its features become classes.
    """

    path: Path
    form: VectorForm


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in the one form that training and evaluation read.

    Args:
        name: Name of the dataset, for reports.
        root: Folder of the dataset; ``dataset.json`` and ``splits.json`` live there.
        items: All items.
        classes: The class map.
        label: How label files are read.
        splits: Item ids by split name.
        protocol: How the splits were made.
        corrections: What lies above the labels, or None.
        unlabelled: Images without a label, in no split.
        scenes: Images of which only blocks are items.
        left_out: Ids that ``splits.json`` wants in no split.
        notes: What a reader of its figures should know of the splits.
    """

    name: str
    root: Path
    items: tuple[Item, ...]
    classes: ClassMap
    label: LabelForm
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    protocol: str = "by_image"
    corrections: Corrections | None = None
    unlabelled: tuple[Item, ...] = ()
    scenes: tuple[Item, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def _by_id(self) -> dict[str, Item]:
        return {item.id: item for item in (*self.items, *self.scenes)}

    @property
    def files(self) -> list[Path]:
        """All files that it is read from: index, splits, classes, images, labels, corrections."""
        own = [self.root / name for name in (INDEX_NAME, SPLITS_NAME, *CLASS_FILES)]
        own += [self.corrections.path] if self.corrections else []
        parts = ((i.image, i.label, i.extra, i.eroded) for i in (*self.items, *self.unlabelled))
        return own + [p for part in parts for p in part if p is not None]

    def item(self, name: str) -> Item:
        """Return an item by id.

        Raises:
            DataError: No item has this id.
        """
        if name not in self._by_id:
            known = ", ".join(sorted(self._by_id)[:4])
            raise DataError(f"{self.root}: no item '{name}'", f"use ids such as {known}")
        return self._by_id[name]

    def is_labelled(self, item: Item) -> bool:
        """Tell whether an item's class ids can be read; without a label they are corrections."""
        return item.label is not None or self.corrections is not None

    @property
    def is_partial(self) -> bool:
        """Whether large parts of the images may have no label, as the labels are drawn shapes."""
        drawn = isinstance(self.label, VectorForm) and self.label.background == IGNORE
        return drawn or any(item.label is None for item in self.items)

    def split(self, name: str) -> tuple[Item, ...]:
        """Return the items of a split (``train``, ``val``, ``test``); ``all``: the whole images.

        Raises:
            DataError: No such split, or it is empty.
        """
        if name == "all":
            return (*(i for i in self.items if i.area is None), *self.scenes)
        if name not in self.splits:
            raise DataError(f"{self.root}: no split '{name}'", one_of(name, (*self.splits, "all")))
        if not self.splits[name]:
            raise DataError(
                f"{self.root}: the split '{name}' is empty",
                f"list item ids under '{name}' in {self.root / 'splits.json'}",
            )
        return tuple(self.item(i) for i in self.splits[name])

    def with_eroded_labels(self) -> Dataset:
        """Return the dataset with eroded labels wherever an item has one (for evaluation)."""
        items = tuple(replace(i, label=i.eroded) if i.eroded else i for i in self.items)
        return replace(self, items=items)

    def save(self, folder: Path | None = None) -> Path:
        """Write ``dataset.json`` (paths relative where the files lie below the folder)."""
        folder = folder or self.root
        values = {
            "format": FORMAT,
            "name": self.name,
            "classes": self.classes.to_dict(),
            "label": self.label.to_dict(),
            "items": [_item_to_dict(i, folder) for i in (*self.split("all"), *self.unlabelled)],
        }
        return write_json(folder / INDEX_NAME, values)


def load_index(root: Path) -> Dataset:
    """Read ``root/dataset.json``; the splits are read by :func:`terradapt.data.open_dataset`.

    Raises:
        DataError: No valid JSON, a key is missing, or there is no item.
    """
    path = root / INDEX_NAME
    fix = "prepare the dataset again with: terradapt data NAME SRC -o DIR"
    stored = validated(_Index, read_json(path, fix=fix), path, DataError, fix)
    with refusing(path, DataError, fix, "no dataset index"):
        items = tuple(item.at(root) for item in stored.items)
        doubled = len(items) - len({item.id for item in items})
        if doubled:
            raise ValueError(f"{doubled} items have the id of another one")
        classes = ClassMap.from_dict(stored.classes)
        rest = tuple(i for i in items if i.label is None)
        items = tuple(i for i in items if i.label is not None)
        form = label_form(stored.label)
        return Dataset(stored.name, root, items, classes, form, unlabelled=rest)


class _StoredItem(BaseModel):
    """An item as ``dataset.json`` has it; paths are relative to its folder, or absolute."""

    id: Annotated[str, Field(min_length=1)]
    image: Annotated[str, Field(min_length=1)]
    label: str | None = None
    group: str = ""
    extra: str | None = None
    height: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=0)]
    resolution: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    eroded: str | None = None

    def at(self, root: Path) -> Item:
        """Return the item of a dataset in a folder."""

        def path(name: str | None) -> Path | None:
            return root / name if name else None

        return Item(
            id=self.id,
            image=root / self.image,
            group=self.group or self.id,
            height=self.height,
            width=self.width,
            resolution=self.resolution,
            label=path(self.label),
            extra=path(self.extra),
            eroded=path(self.eroded),
        )


class _Index(BaseModel):
    """``dataset.json``."""

    name: str
    classes: dict[str, Any]
    label: dict[str, Any]
    items: tuple[_StoredItem, ...]


def _item_to_dict(item: Item, folder: Path) -> dict[str, Any]:
    paths = {
        k: _relative(v, folder)
        for k in ("image", "label", "extra", "eroded")
        if (v := getattr(item, k))
    }
    plain = {k: getattr(item, k) for k in ("id", "group", "height", "width", "resolution")}
    return {**plain, **paths}


def _relative(path: Path, folder: Path) -> str:
    path, folder = path.absolute(), folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
