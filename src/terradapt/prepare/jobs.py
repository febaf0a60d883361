"""One labelled image of a benchmark to the normal form: the work of one process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from terradapt.classes import IGNORE, ClassMap, Colour
from terradapt.data.labels import ColourForm, LabelForm, RasterForm, VectorForm, decode_shown
from terradapt.data.reading import check_pair
from terradapt.errors import DataError, SceneError
from terradapt.files import digest, read_json, write_json
from terradapt.grid import Window
from terradapt.raster import SceneReader, write_raster

RECEIPTS = ".prepared"
FOLDERS = ("images", "labels", "labels_eroded", "extra")
"""Where a dataset's files are written, below its root."""
_STRIP = 512  # rows read at a time
_EDGE = 1 << 16  # bytes hashed at either end of a source


@dataclass(frozen=True)
class Record:
    """One labelled image, as it comes.

    Args:
        id: Name within the dataset.
        group: Images of one group stay in one split.
        image: Raster file.
        label: Raster or vector file.
        eroded: The label with ignored borders, if any.
        extra: A raster on the same grid whose bands are read after the image's (a surface model,
            a second date), if any.
    """

    id: str
    group: str
    image: Path
    label: Path
    eroded: Path | None = None
    extra: Path | None = None

    @property
    def sources(self) -> list[Path]:
        """All files that are read."""
        return [p for p in (self.image, self.label, self.eroded, self.extra) if p is not None]

    def absolute(self) -> Record:
        """Return the record with absolute paths: an index is read from any working folder."""
        eroded, extra = (p and p.absolute() for p in (self.eroded, self.extra))
        return Record(
            self.id, self.group, self.image.absolute(), self.label.absolute(), eroded, extra
        )


@dataclass(frozen=True)
class PrepareJob:
    """What one process does: a record, and how.

    Args:
        record: The image.
        out: Folder of the dataset.
        classes: The class map.
        label: How label files are read.
        crop: Side of the crops to cut, px; None keeps whole images, where they lie.
        overlap: Least pixels that neighbouring crops share.
        snap: Largest difference per channel at which a colour counts as a class's colour.
        resolution: Metres per pixel where the file does not say.
    """

    record: Record
    out: Path
    classes: ClassMap
    label: LabelForm
    crop: int | None = None
    overlap: int = 0
    snap: int = 0
    resolution: float | None = None


@dataclass
class Receipt:
    """What a finished job left: kept in a file, so that the job need not run again.

    Args:
        signature: Sources and settings; another one means another job.
        outputs: Files written, relative to the dataset, and their SHA-256; of an unfinished job
            "", and its signature too.
        items: Items, as in ``dataset.json``.
        counts: Pixels of each class, ignored ones last.
        sums: Sum and sum of squares of each band, and pixels; of 8-bit images.
    """

    signature: str
    outputs: dict[str, str] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    sums: list[list[float]] = field(default_factory=list)


def receipt_path(out: Path, name: str) -> Path:
    """Return where the receipt of a record lies."""
    return out / RECEIPTS / f"{name}.json"


def signature(job: PrepareJob) -> str:
    """Hash the sources (size, time, both ends) and the settings of a job."""
    state = hashlib.blake2b(digest_size=16)
    for path in job.record.sources:
        status = path.stat()
        state.update(f"{path}|{status.st_size}|{status.st_mtime_ns}|".encode())
        with path.open("rb") as file:
            state.update(file.read(_EDGE))
            if status.st_size > 2 * _EDGE:
                file.seek(-_EDGE, 2)
                state.update(file.read(_EDGE))
    settings = (job.crop, job.overlap, job.snap, job.resolution)
    state.update(repr((settings, job.label.to_dict(), job.classes.to_dict(), job.record)).encode())
    return state.hexdigest()


def finished_jobs(job: PrepareJob) -> Receipt | None:
    """Return the receipt of a job that need not run again, or None."""
    receipt = read_receipt(receipt_path(job.out, job.record.id))
    if receipt is None or receipt.signature != signature(job):
        return None
    whole = all(
        (job.out / name).is_file() and digest(job.out / name) == sha256
        for name, sha256 in receipt.outputs.items()
    )
    return receipt if whole else None


def read_receipt(path: Path) -> Receipt | None:
    """Read a receipt; None where there is none that can be trusted."""
    try:
        receipt = TypeAdapter(Receipt).validate_python(read_json(path))
    except (DataError, ValidationError):
        return None
    places = [PurePosixPath(name).parts for name in receipt.outputs]
    if any(not p or p[0] not in FOLDERS or ".." in p for p in places):
        return None  # it would have files removed that no preparation wrote
    return receipt


def run(job: PrepareJob) -> Receipt:
    """Read, check and write one image; its receipt is written last.

    A list of what will be written goes before it, so that what a kill leaves can be removed.

    Raises:
        DataError: Image and label do not fit, or the label has an unknown colour or value.
        SceneError: A file cannot be read.
        OutputError: The disk is full.
    """
    receipt = Receipt(signature(job))
    path = receipt_path(job.out, job.record.id)
    begun, earlier = path.with_name(f"{job.record.id}.begun"), read_receipt(path)
    before = set(earlier.outputs) if earlier else set()
    with SceneReader(job.record.image) as image:
        ids = _label(job, job.record.label, image)
        eroded = _label(job, job.record.eroded, image) if job.record.eroded else None
        _check_extra(job.record, image)
        names = before.union(_names(job, image))
        write_json(begun, asdict(Receipt("", dict.fromkeys(sorted(names), ""))))
        try:
            receipt.counts = _counts(ids, len(job.classes))
            if job.crop is None:
                receipt.sums = _sums(image)
                _write_whole(job, image, ids, eroded, receipt)
            else:
                for window in windows(image.height, image.width, job.crop, job.overlap):
                    _write_crop(job, image, ids, eroded, window, receipt)
        except BaseException:
            _remove(job, names - before, begun)
            raise
    write_json(path, asdict(receipt))
    _remove(job, before - receipt.outputs.keys(), begun)
    return receipt


def _remove(job: PrepareJob, names: Iterable[str], begun: Path) -> None:
    for name in names:
        (job.out / name).unlink(missing_ok=True)
    begun.unlink(missing_ok=True)


def _names(job: PrepareJob, image: SceneReader) -> Iterator[str]:
    """Yield what a job will write, so that a later one can remove what a killed one left."""
    folders = ["labels", *(["labels_eroded"] if job.record.eroded else [])]
    names = [job.record.id]
    if job.crop is not None:
        folders += ["images", *(["extra"] if job.record.extra else [])]
        cut = windows(image.height, image.width, job.crop, job.overlap)
        names = [f"{job.record.id}_{w.row}_{w.col}" for w in cut]
    for name in names:
        yield from (f"{folder}/{name}.tif" for folder in folders)


def windows(height: int, width: int, crop: int, overlap: int) -> Iterator[Window]:
    """Yield the fewest crops that cover an image with equal steps and share ``overlap`` px.

    A 1300 px side gives 1024 px crops at 0 and 276, a 1500 px side at 0 and 476.
    """
    for row in starts(height, crop, overlap):
        for col in starts(width, crop, overlap):
            yield Window(row, col, min(crop, height), min(crop, width))


def starts(length: int, crop: int, overlap: int) -> list[int]:
    """Return where crops begin along one side, px."""
    if length <= crop:
        return [0]
    count = -(-(length - overlap) // (crop - overlap))
    return [round(i * (length - crop) / (count - 1)) for i in range(count)]


def _label(job: PrepareJob, path: Path, image: SceneReader) -> NDArray[np.uint8]:
    """Read a label as (H, W) class ids."""
    form = job.label
    if isinstance(form, VectorForm):
        from terradapt.data.vector_labels import VectorSource

        whole = Window(0, 0, image.height, image.width)
        source = VectorSource(path, form)
        return source.burn(whole, image.georef, str(image.path))
    try:
        with SceneReader(path) as label:
            check_pair(image, label)
            decode = partial(_decoded, job, form, path)
            ids = np.empty((image.height, image.width), np.uint8)
            for strip in _strips(image.height, image.width):
                ids[strip.slices] = decode_shown(decode, *label.read(strip))
    except SceneError as error:
        raise DataError(error.message, error.fix) from error
    return ids


def _decoded(job: PrepareJob, form: RasterForm, path: Path, raw: NDArray[Any]) -> NDArray[np.uint8]:
    if isinstance(form, ColourForm):
        if job.snap:
            raw = snapped(raw, job.classes, job.snap)
        fast = pure_ids(raw, job.classes, form.ignored)
        if fast is not None:
            return fast
    return form.decode(raw, job.classes, str(path))


def pure_ids(
    raw: NDArray[Any], classes: ClassMap, ignored: Sequence[Colour]
) -> NDArray[np.uint8] | None:
    """Read a (3, H, W) label whose colours hold 0 and 255 alone, as ISPRS's do, by three bits.

    Returns:
        (H, W) ids; None where a colour is another, or no class: the slow way says which.
    """
    known = {**dict.fromkeys(ignored, IGNORE), **{c: i for i, c in enumerate(classes.colours)}}
    if raw.dtype != np.uint8 or raw.shape[0] < 3 or any(set(c) - {0, 255} for c in known):
        return None
    red, green, blue = raw[:3]
    one = np.uint8(1)
    if ((red + one) | (green + one) | (blue + one)).max(initial=0) > 1:
        return None
    table = np.full(8, 254, np.uint8)
    for (r, g, b), value in known.items():
        table[(r & 4) | (g & 2) | (b & 1)] = value
    ids: NDArray[np.uint8] = table[(red & 4) | (green & 2) | (blue & 1)]
    return None if len(known) < 8 and (ids == 254).any() else ids


def snapped(raw: NDArray[Any], classes: ClassMap, most: int) -> NDArray[Any]:
    """Move (3, H, W) colours that differ by at most ``most`` per channel onto a class's colour."""
    out = raw.copy()
    for colour in (*classes.colours, (0, 0, 0)):
        target = np.array(colour, np.int16)[:, None, None]
        near = np.abs(raw[:3].astype(np.int16) - target).max(0) <= most
        out[:3, near] = target[:, 0]
    return out


def _strips(height: int, width: int) -> Iterator[Window]:
    for row in range(0, height, _STRIP):
        yield Window(row, 0, min(_STRIP, height - row), width)


def _check_extra(record: Record, image: SceneReader) -> None:
    if record.extra is None:
        return
    with SceneReader(record.extra) as extra:
        if (extra.height, extra.width) != (image.height, image.width):
            raise DataError(
                f"{record.extra}: {extra.width} x {extra.height} px, its image "
                f"{record.image.name} has {image.width} x {image.height}",
                "resample it to the image's grid, or prepare without it",
            )
        for strip in _strips(extra.height, extra.width):
            extra.read(strip)  # damage shows now


def _counts(ids: NDArray[np.uint8], classes: int) -> list[int]:
    return [int(np.count_nonzero(ids == k)) for k in (*range(classes), IGNORE)]


def _sums(image: SceneReader) -> list[list[float]]:
    """Read an image through, so that damage shows now, and sum its bands."""
    totals = np.zeros((image.count, 2))
    seen = 0
    for strip in _strips(image.height, image.width):
        pixels, valid = image.read(strip)
        if pixels.dtype == np.uint8:
            totals += [_moments(band) for band in pixels]
            seen += int(valid.size)
    return [[*map(float, t), seen] for t in totals] if seen else []


def _moments(band: NDArray[np.uint8]) -> tuple[float, float]:
    """Sum and sum of squares of a strip; single precision is exact to 1e-6 at its size."""
    values = band.ravel().astype(np.float32)
    return float(band.sum(dtype=np.uint64)), float(np.dot(values, values))


def _write_whole(
    job: PrepareJob,
    image: SceneReader,
    ids: NDArray[np.uint8],
    eroded: NDArray[np.uint8] | None,
    receipt: Receipt,
) -> None:
    name = job.record.id
    item = _item(job, name, image, image.height, image.width)
    item["image"] = str(job.record.image)
    if job.record.extra:
        item["extra"] = str(job.record.extra)
    whole = Window(0, 0, image.height, image.width)
    _write_labels(job, name, image, whole, ids, eroded, item, receipt)
    receipt.items.append(item)


def _write_crop(
    job: PrepareJob,
    image: SceneReader,
    ids: NDArray[np.uint8],
    eroded: NDArray[np.uint8] | None,
    window: Window,
    receipt: Receipt,
) -> None:
    name = f"{job.record.id}_{window.row}_{window.col}"
    item = _item(job, name, image, window.height, window.width)
    place = image.georef.crop(window)
    frame: dict[str, Any] = {"crs": place.crs, "transform": place.transform, "nodata": image.nodata}
    pixels, _ = image.read(window)
    item["image"] = _written(job.out, f"images/{name}.tif", pixels, frame, receipt)
    if job.record.extra:
        with SceneReader(job.record.extra) as extra:
            bands = extra.read(window)[0]
        item["extra"] = _written(job.out, f"extra/{name}.tif", bands, frame, receipt)
    _write_labels(job, name, image, window, ids, eroded, item, receipt)
    receipt.items.append(item)


def _write_labels(
    job: PrepareJob,
    name: str,
    image: SceneReader,
    window: Window,
    ids: NDArray[np.uint8],
    eroded: NDArray[np.uint8] | None,
    item: dict[str, Any],
    receipt: Receipt,
) -> None:
    place = image.georef.crop(window)
    frame: dict[str, Any] = {
        "crs": place.crs,
        "transform": place.transform if place.crs else None,
        "colours": job.classes.colours,
        "compress": "packbits",  # a tenth of deflate's time on large areas of one value
    }
    for key, folder, plane in (("label", "labels", ids), ("eroded", "labels_eroded", eroded)):
        if plane is not None:
            part = plane[window.slices]
            item[key] = _written(job.out, f"{folder}/{name}.tif", part, frame, receipt)


def _written(
    out: Path, name: str, pixels: NDArray[Any], frame: dict[str, Any], receipt: Receipt
) -> str:
    write_raster(out / name, pixels, **frame)
    receipt.outputs[name] = digest(out / name)
    return name


def _item(
    job: PrepareJob, name: str, image: SceneReader, height: int, width: int
) -> dict[str, Any]:
    return {
        "id": name,
        "group": job.record.group,
        "height": height,
        "width": width,
        "resolution": image.resolution or job.resolution,
    }
