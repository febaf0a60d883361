"""Look at one image and its label: readable, of one grid, aligned, how much of it is data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from terradapt.classes import IGNORE
from terradapt.data.dataset import Dataset, Item
from terradapt.data.reading import LOADED_PIXELS, ItemReader, check_pair, open_label
from terradapt.errors import TerradaptError
from terradapt.grid import Window
from terradapt.preflight.alignment import Shift, Surfaces, image_surfaces
from terradapt.raster import SceneReader
from terradapt.raster.georef import crs_name
from terradapt.raster.validity import shrink

Level = Literal["error", "warning", "note"]
_STRIP = 1 << 24  # pixels read at a time
VOID = 8  # px: how far a block of JPEG blurs the edge of a void
_DARK = 12  # values that a blurred void has
_SHADES = 0.25  # share of an alpha band's values from which it is taken for a measured one


@dataclass(frozen=True)
class Problem:
    """Something about a dataset that its owner should know.

    Args:
        level: ``error``: training stops at it; ``warning``: look at it; ``note``: know it.
        file: The file or folder.
        message: What is wrong, with the file's name.
        fix: What to do about it.
    """

    level: Level
    file: str
    message: str
    fix: str

    @classmethod
    def of(cls, error: TerradaptError, file: Path) -> Problem:
        """Return an error of this package as a problem of a file."""
        return cls("error", str(file), error.message, error.fix)


@dataclass
class Facts:
    """What is known of one item.

    Args:
        id: Of the item.
        image: Path.
        label: Path, or "".
        height: Rows, px.
        width: Columns, px.
        bands: Of the image.
        dtype: Of the image.
        crs: Name of its CRS, or "".
        resolution: m/px, or None.
        names: Of the image's bands, "" where unknown.
        nodata: The image's nodata value, or None.
        valid: Share of pixels that are data, 0..1.
        digest: Of the image file's bytes.
        pixels: Pixels by class.
        ignored: Ignored pixels of the label.
        shift: Of the label against the image, or None where unknown.
    """

    id: str
    image: str
    label: str
    height: int = 0
    width: int = 0
    bands: int = 0
    dtype: str = ""
    crs: str = ""
    resolution: float | None = None
    names: list[str] = field(default_factory=list)
    nodata: float | None = None
    valid: float = 0.0
    digest: str = ""
    pixels: list[int] = field(default_factory=list)
    ignored: int = 0
    shift: Shift | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = asdict(self)
        if self.shift is not None:
            error = self.shift.error if np.isfinite(self.shift.error) else None
            values["shift"] |= {"error": error, "clear": self.shift.is_clear}
        return values


def inspect_files(name: str, image: Path, label: Path | None) -> tuple[Facts, list[Problem]]:
    """Read an image to its last byte, open its label, and compare the two.

    A vector label file is only named here; it is read once for all images.
    """
    facts = Facts(name, str(image), str(label or ""))
    told: list[Problem] = []
    try:
        facts.digest = _digest(image)
        with SceneReader(image) as file:
            _describe(facts, file)
            file.check_image()
            look = _Look(file)
            facts.valid = look.valid
            told += look.problems(image)
            if label is not None and _is_raster(label):
                with open_label(label) as other:
                    check_pair(file, other)
                    told += _hidden_label(label, other, 1 - _Look(other).valid)
    except TerradaptError as error:
        broken = label if label is not None and str(label) in error.message else image
        return facts, [Problem.of(error, broken)]
    except OSError as error:
        fix = "check the file and its permissions"
        return facts, [Problem("error", str(image), f"{image}: {error.strerror}", fix)]
    if facts.valid == 0:
        fix = "leave it out, or correct its nodata value"
        told.append(Problem("warning", str(image), f"{image}: holds no data at all", fix))
    return facts, told


def _describe(facts: Facts, file: SceneReader) -> None:
    facts.height, facts.width, facts.bands = file.height, file.width, file.count
    facts.dtype, facts.resolution, facts.nodata = file.dtype, file.resolution, file.nodata
    facts.crs = crs_name(file.crs) if file.crs is not None else ""
    facts.names = list(file.names_of(range(1, file.count + 1)))


class _Look:
    """One pass over a file: a truncated one fails here.

    Attributes:
        valid: Share of pixels that are data, 0..1.
        ringing: Pixels that are nearly 0 beside a void of 0, where compression is lossy.
        shades: By alpha band, share of its values that are neither 0 nor the largest.
    """

    def __init__(self, file: SceneReader) -> None:
        self.file = file
        rows, count = max(1, _STRIP // file.width), 0
        lossy = file.lossy and file.nodata == 0 and file.dtype == "uint8"
        self.ringing = 0
        alphas = [i for i in file.indexes if i not in file.data_bands]
        shades = np.zeros(len(alphas))
        for row in range(0, file.height, rows):
            window = Window(row, 0, min(rows, file.height - row), file.width)
            pixels, valid = file.read(window)
            count += int(valid.sum())
            if lossy and not valid.all():
                beside = valid & ~shrink(valid, VOID)
                self.ringing += int((beside & (pixels.max(0) <= _DARK)).sum())
            for place, alpha in enumerate(pixels[i - 1] for i in alphas):
                top = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
                shades[place] += ((alpha > 0) & (alpha < top)).sum()
        size = float(file.height * file.width)
        self.valid = count / size
        self.shades = dict(zip(alphas, (shades / size).tolist(), strict=True))

    def problems(self, image: Path) -> Iterator[Problem]:
        """Yield what an image's owner should know of its void."""
        if self.ringing:
            message = (
                f"{image}: {self.ringing} pixels within {VOID} px of nodata 0 are nearly 0: the "
                "collar was blurred by lossy compression, and would be mapped"
            )
            fix = f"grow the void: data.grow_void={VOID} in training, --grow-void {VOID} in predict"
            yield Problem("warning", str(image), message, fix)
        for band, share in self.shades.items():
            if share > _SHADES:
                message = (
                    f"{image}: band {band} is tagged as alpha and hides pixels where it is 0, but "
                    f"{share:.0%} of its values lie between: it looks like a measured band"
                )
                fix = "read it to have it unhidden (data.bands), or untag it: gdal_edit.py "
                fix += f"-colorinterp_{band} undefined"
                yield Problem("note", str(image), message, fix)


def _hidden_label(path: Path, label: SceneReader, share: float) -> Iterator[Problem]:
    """Tell a label whose nodata value might be meant as a class."""
    if share and label.nodata is not None and 0 <= label.nodata < IGNORE:
        value = f"{label.nodata:g}"
        message = f"{path}: {share:.1%} of it are nodata ({value}), which is ignored"
        fix = f"if {value} is a class, take the mark away: gdal_edit.py -unsetnodata {path}"
        yield Problem("note", str(path), message, fix)


def _is_raster(path: Path) -> bool:
    from terradapt.data.folder import VECTORS

    return path.suffix.lower() not in VECTORS


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def duplicates(facts: Sequence[Facts]) -> list[Problem]:
    """Name images whose files are equal to the last byte."""
    by_digest: dict[str, list[Facts]] = {}
    for fact in facts:
        if fact.digest:
            by_digest.setdefault(fact.digest, []).append(fact)
    found = []
    for same in by_digest.values():
        if len(same) > 1:
            names = ", ".join(Path(f.image).name for f in same[:5])
            message = f"{same[0].image}: {len(same)} images are the same file: {names}"
            fix = "keep one of them: copies in two splits make the score worthless"
            found.append(Problem("warning", same[0].image, message, fix))
    return found


def label_surfaces(dataset: Dataset, item: Item, patches: int) -> Surfaces:
    """Return what tells how far a label is shifted, from at most so many patches."""
    with ItemReader(dataset, item) as reader:
        if item.height * item.width <= LOADED_PIXELS:
            reader.load()
        return image_surfaces(
            lambda w: reader.read(w)[0], reader.mask, item.height, item.width, patches
        )
