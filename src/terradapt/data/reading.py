"""ItemReader: pixels and class ids of one item by window; a bounded cache of them per process."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terradapt.classes import IGNORE
from terradapt.config import InputSpec
from terradapt.data.dataset import Dataset, Item
from terradapt.data.labels import VectorForm, decode_shown
from terradapt.data.vector_labels import vector_source
from terradapt.errors import DataError, SceneError
from terradapt.grid import Window
from terradapt.raster import Scene, SceneReader
from terradapt.raster.georef import crs_name, warp_to
from terradapt.raster.orientation import UPRIGHT

CACHE_BYTES = 1 << 30  # of decoded images, per process
MAX_OPEN = 32  # files, per process
LOADED_PIXELS = 1 << 25  # an image that is looked at once is decoded whole up to this size
_WHOLE = {".png", ".jpg", ".jpeg", ".jp2"}  # no window of these is read without decoding the rest


class ItemReader(Scene):
    """Reads one item like a scene, with its label; a context manager.

    Args:
        dataset: The item's dataset.
        item: What to read.
        spec: Bands and stretch; None: all bands in the file's own type. Band indices above
            the image's count are bands of the item's ``extra`` raster.

    Attributes:
        georef: Where the item lies.

    Raises:
        DataError: Image and label differ in size, CRS or place.
        SceneError: A file cannot be read or lacks a band.
    """

    def __init__(self, dataset: Dataset, item: Item, spec: InputSpec | None = None) -> None:
        self.dataset, self.item = dataset, item
        self.path = item.image
        self.files = [item.image, *([item.extra] if item.extra else [])]
        self._readers: list[SceneReader] = []
        self._whole: tuple[NDArray[Any], NDArray[np.bool_] | None] | None = None
        self._whole_mask: NDArray[np.uint8] | None = None
        self._label: SceneReader | None = None
        self._context = spec.context if spec else 0
        self._wide: NDArray[np.uint8] | None = None  # the whole item as cells of the context
        self._order: list[int] = []  # which of the readers' bands, one after the other; [] all
        try:
            self._open(spec)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files; what was loaded stays readable."""
        for file in (*self._readers, *([self._label] if self._label else [])):
            file.close()

    def remarks(self) -> list[str]:
        """Return what should be known of its files."""
        return [told for file in self._readers for told in file.remarks()]

    @property
    def resolution(self) -> float | None:
        """Metres per pixel, of the file or else as the dataset states; None if unknown."""
        return self.georef.resolution or self.item.resolution

    def load(self) -> int:
        """Decode the whole item into memory, close its files, and return the bytes held."""
        pixels, valid = self.read(self.window)
        mask = self.mask(self.window) if self.dataset.is_labelled(self.item) else None
        self._whole = (pixels, None if valid.all() else valid)
        self._whole_mask = mask
        self.close()
        if self._context:
            self._wide = super().cells(self._cells, self._context)
        held = pixels.nbytes + self.window.height * self.window.width * 2
        return held + (0 if self._wide is None else self._wide.nbytes)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read (C, H, W) pixels and (H, W) valid; outside the image 0 and False."""
        if self._whole is not None:
            pixels, valid = self._whole
            known = (
                _inside(window, self.window) if valid is None else _cut(valid, window, self.window)
            )
            return _cut(pixels, window, self.window), known
        parts = [self._read(file, window) for file in self._readers]
        if len(parts) == 1:
            return parts[0]
        valid = np.logical_and.reduce([p[1] for p in parts])
        bands = [band for part in parts for band in part[0]]
        return np.stack([bands[i] for i in self._order] if self._order else bands), valid

    @property
    def _cells(self) -> Window:
        """The whole item in cells of the context."""
        side = self._context
        return Window(0, 0, -(-self.height // side), -(-self.width // side))

    def cells(self, window: Window, side: int) -> NDArray[np.uint8]:
        """Read cells as :meth:`Scene.cells` does; of a loaded item those that were made once."""
        if self._wide is None or side != self._context:
            return super().cells(window, side)
        return _cut(self._wide, window, self._cells)

    def mask(self, window: Window, valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Read (H, W) class ids, 255 where ignored, outside, or the image is not valid.

        Args:
            window: The part to read.
            valid: Validity of the image there, when it is already known.

        Raises:
            DataError: The item has no label, or the label has a value that is no class.
        """
        if self._whole_mask is not None:
            return _cut(self._whole_mask, window, self.window, IGNORE)
        ids = self._ids(window)
        valid = self._read(self._readers[0], window)[1] if valid is None else valid
        ids[~valid] = IGNORE
        return ids

    def sample(self, window: Window) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Read (C, H, W) pixels, with the spec's context 2 C, and (H, W) class ids of a window."""
        pixels, valid = self.look(window, self._context)
        return pixels, self.mask(window, valid)

    def _read(self, file: SceneReader, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the item from one of its files; what lies beside a block is hidden."""
        pixels, valid = file.read(self.item.on_image(window))
        if self.item.area is None or window.intersect(self.window) == window:
            return pixels, valid
        own = _inside(window, self.window)
        return np.where(own, pixels, pixels.dtype.type(0)), valid & own

    def _ids(self, window: Window) -> NDArray[np.uint8]:
        ids = np.full((window.height, window.width), IGNORE, np.uint8)
        inside = window.intersect(self.window)
        if inside is None:
            return ids
        rows, cols = inside.shift(-window.row, -window.col).slices
        if self.dataset.corrections is None or self.item.label is not None:
            ids[rows, cols] = self._label_ids(inside)
        if self.dataset.corrections is not None:
            drawn = self._drawn(inside)
            ids[rows, cols] = np.where(drawn == IGNORE, ids[rows, cols], drawn)
        return ids

    def corrected(self, window: Window) -> NDArray[np.bool_]:
        """Tell of each pixel (H, W) of a window whether a correction lies there."""
        found = np.zeros((window.height, window.width), bool)
        inside = window.intersect(self.window)
        if inside is not None and self.dataset.corrections is not None:
            rows, cols = inside.shift(-window.row, -window.col).slices
            found[rows, cols] = self._drawn(inside) != IGNORE
        return found

    def _drawn(self, inside: Window) -> NDArray[np.uint8]:
        """(H, W) ids of the corrections, 255 elsewhere."""
        above = self.dataset.corrections
        assert above is not None
        source = vector_source(above.path, above.form)
        if self.item.label is not None and not source.can_lie_on(self.georef):
            return np.full((inside.height, inside.width), IGNORE, np.uint8)
        return source.burn(inside, self.georef, str(self.item.image))

    def _label_ids(self, window: Window) -> NDArray[np.uint8]:
        """The label's ids where the image shows them, 255 along borders that are not known."""
        band = self.item.unsure
        if self.item.shift == (0, 0) and not band:
            return self._ids_inside(window)
        wide = Window(
            window.row - band, window.col - band, window.height + 2 * band, window.width + 2 * band
        ).shift(*self.item.shift)
        ids = np.full((wide.height, wide.width), IGNORE, np.uint8)
        inside = wide.intersect(self.window)
        if inside is not None:
            ids[inside.shift(-wide.row, -wide.col).slices] = self._ids_inside(inside)
        if band:
            ids[_near_borders(ids, band)] = IGNORE
        return ids[band : band + window.height, band : band + window.width]

    def _ids_inside(self, window: Window) -> NDArray[np.uint8]:
        dataset, item = self.dataset, self.item
        if item.label is None:
            raise DataError(f"{item.image}: has no label", "label it, or leave it out of the split")
        if isinstance(dataset.label, VectorForm):
            source = vector_source(item.label, dataset.label)
            return source.burn(window, self.georef, str(item.image))
        if self._label is None:
            self._label = open_label(item.label)
            check_pair(self._readers[0], self._label)
        form, classes, name = dataset.label, dataset.classes, str(item.label)
        shown = self._label.read(item.on_image(window))
        return decode_shown(lambda raw: form.decode(raw, classes, name), *shown)

    def _open(self, spec: InputSpec | None) -> None:
        first = SceneReader(self.item.image)
        self._readers.append(first)
        first.check_image()
        self.georef = self.item.placed(first.georef)
        self.dtype, self.block_height = first.dtype, first.block_height
        if spec is not None:
            own = [i for i, b in enumerate(spec.bands) if b <= first.count or not self.item.extra]
            if own:
                self._readers[0] = SceneReader(self.item.image, _part(spec, own, spec.bands, None))
                first.close()
            added = [i for i in range(len(spec.bands)) if i not in own]
            if added:
                self._readers.append(self._open_extra(spec, added, first.count))
                # without a band of its own the image still says what is valid
                places = (own or [-1] * first.count) + added
                self._order = [places.index(i) for i in range(len(spec.bands))]
        elif self.item.extra:
            self._readers.append(SceneReader(self.item.extra))
        self._check_extra()

    def _open_extra(self, spec: InputSpec, places: list[int], count: int) -> SceneReader:
        assert self.item.extra is not None
        with SceneReader(self.item.extra) as probe:
            dtype = probe.dtype
        bands = tuple(b - count for b in spec.bands)
        return SceneReader(self.item.extra, _part(spec, places, bands, dtype))

    def _check_extra(self) -> None:
        for file in self._readers[1:]:
            image = self._readers[0].window
            if file.window != image:
                raise DataError(
                    f"{file.path}: {file.width} x {file.height} px, its image has "
                    f"{image.width} x {image.height}",
                    "resample it to the image's grid",
                )


def _part(
    spec: InputSpec, places: list[int], bands: tuple[int, ...], dtype: str | None
) -> InputSpec:
    """The part of a spec that one file answers for."""
    changes: dict[str, Any] = {
        "bands": tuple(bands[i] for i in places),
        "band_names": tuple(spec.band_names[i] for i in places) if spec.band_names else (),
        "stretch": tuple(spec.ranges[i] for i in places) if spec.ranges else spec.stretch,
        "dtype": dtype or spec.dtype,
    }
    return spec.model_copy(update=changes)


def open_label(path: Path) -> SceneReader:
    """Open a label raster.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return SceneReader(path)
    except SceneError as error:
        raise DataError(error.message, error.fix) from error


def check_pair(image: SceneReader, label: SceneReader) -> None:
    """Refuse a label that does not lie on its image's pixels.

    Raises:
        DataError: Another EXIF orientation, another size, another CRS, or a grid more than half a
            pixel off.
    """
    if image.orientation != label.orientation:
        turned = [
            f"{name} has EXIF orientation {file.orientation}"
            for name, file in (("its image", image), ("it", label))
            if file.orientation != UPRIGHT
        ]
        raise DataError(
            f"{label.path}: {' and '.join(turned)}: in viewers and labelling programs the two lie "
            "as they do not lie in the files",
            "turn the pixels and drop the tag (mogrify -auto-orient FILE), or, where the two fit "
            "as they are stored, drop the tag alone (exiftool -Orientation= FILE)",
        )
    if (image.height, image.width) != (label.height, label.width):
        raise DataError(
            f"{label.path}: {label.width} x {label.height} px, its image {Path(image.path).name} "
            f"has {image.width} x {image.height}",
            "resample the label to the image's grid (nearest neighbour)",
        )
    if image.crs is None or label.crs is None:
        return
    if not image.georef.same_place(label.crs):
        raise DataError(
            f"{label.path}: its CRS is {crs_name(label.crs)}, its image's is {crs_name(image.crs)}",
            f"reproject the label: {warp_to(image.crs, image.path)} -r near, on the image's grid",
        )
    rows, cols = grid_offset(image, label)
    if max(abs(rows), abs(cols)) > 0.5:
        raise DataError(
            f"{label.path}: its georeference lies {rows:.1f} rows and {cols:.1f} columns off its "
            "image's",
            "warp the label to the image's grid, or correct its georeference",
        )


def grid_offset(image: SceneReader, label: SceneReader) -> tuple[float, float]:
    """Return the largest (rows, columns) by which the corners of two georeferences differ, px."""
    shifts = image.georef.pixels(label.georef.outline()) - image.georef.pixels(
        image.georef.outline()
    )
    rows, cols = shifts[np.abs(shifts).argmax(0), (0, 1)]
    return float(rows), float(cols)


def _near_borders(ids: NDArray[np.uint8], band: int) -> NDArray[np.bool_]:
    """Return where another class lies within ``band`` px, in (H, W) ids."""
    low = ndimage.minimum_filter(ids, 2 * band + 1)
    near: NDArray[np.bool_] = low != ndimage.maximum_filter(ids, 2 * band + 1)
    return near


def _cut(array: NDArray[Any], window: Window, whole: Window, fill: int = 0) -> NDArray[Any]:
    """Copy a window of (..., H, W), ``fill`` outside."""
    inside = window.intersect(whole)
    if inside == window:
        rows, cols = window.slices
        return np.ascontiguousarray(array[..., rows, cols])
    out = np.full((*array.shape[:-2], window.height, window.width), fill, array.dtype)
    if inside is not None:
        rows, cols = inside.shift(-window.row, -window.col).slices
        out[..., rows, cols] = array[(..., *inside.slices)]
    return out


def _inside(window: Window, whole: Window) -> NDArray[np.bool_]:
    known = np.zeros((window.height, window.width), bool)
    inside = window.intersect(whole)
    if inside is not None:
        known[inside.shift(-window.row, -window.col).slices] = True
    return known


class ReaderCache:
    """Open readers of one dataset in one process, bounded in files and in bytes.

    Images that cannot be read by window (PNG, JPEG) are decoded once and kept; so are all images
    when they fit together, since decoding tiles for every crop is slow.

    Args:
        dataset: What is read.
        spec: Bands and stretch, or None.
        memory: Bytes of decoded images to keep.
        items: The items that will be read; all when None.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: InputSpec | None = None,
        memory: int = CACHE_BYTES,
        items: tuple[Item, ...] | None = None,
    ) -> None:
        self._dataset, self._spec, self._memory = dataset, spec, memory
        self._bands = len(spec.bands) if spec else 4
        total = sum(self._bytes(i) for i in (dataset.items if items is None else items))
        self._fits = total <= memory
        self._reset()

    def _bytes(self, item: Item) -> int:
        return item.height * item.width * (self._bands + 2)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._open: OrderedDict[str, ItemReader] = OrderedDict()
        self._kept: OrderedDict[str, tuple[ItemReader, int]] = OrderedDict()
        self._held = 0

    def __getstate__(self) -> dict[str, Any]:
        names = ("_dataset", "_spec", "_memory", "_bands", "_fits")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def get(self, item: Item) -> ItemReader:
        """Return the item's reader, opened in this process."""
        if self._pid != os.getpid():  # GDAL's handles do not survive a fork
            self._reset()
        if item.id in self._kept:
            self._kept.move_to_end(item.id)
            return self._kept[item.id][0]
        if item.id in self._open:
            self._open.move_to_end(item.id)
            return self._open[item.id]
        reader = ItemReader(self._dataset, item, self._spec)
        if self._keeps(item):
            self._keep(item.id, reader)
        else:
            self._open[item.id] = reader
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)[1].close()
        return reader

    def _keeps(self, item: Item) -> bool:
        whole = item.image.suffix.lower() in _WHOLE
        return self._fits or (whole and self._bytes(item) <= self._memory // 2)

    def _keep(self, name: str, reader: ItemReader) -> None:
        size = reader.load()
        self._held += size
        self._kept[name] = (reader, size)
        while self._held > self._memory and len(self._kept) > 1:
            self._held -= self._kept.popitem(last=False)[1][1]


def read_image(
    dataset: Dataset, item: Item, window: Window | None = None, spec: InputSpec | None = None
) -> NDArray[Any]:
    """Read the pixels of a window: (C, H, W), 0 outside the image.

    With ``spec`` its bands and stretch are applied (uint8); without it, the file's own. For many
    windows keep a :class:`ReaderCache`.
    """
    with ItemReader(dataset, item, spec) as reader:
        return reader.read(window or item.window)[0]


def read_mask(dataset: Dataset, item: Item, window: Window | None = None) -> NDArray[np.uint8]:
    """Read the class ids of a window: (H, W), 255 where ignored, not valid or outside."""
    with ItemReader(dataset, item) as reader:
        return reader.mask(window or item.window)


def read_sample(
    dataset: Dataset, item: Item, window: Window | None = None, spec: InputSpec | None = None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Read pixels (C, H, W) and class ids (H, W) of a window."""
    with ItemReader(dataset, item, spec) as reader:
        return reader.sample(window or item.window)
