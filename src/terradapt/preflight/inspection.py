"""Look at one image and its label: readable, of one grid, aligned, how much of it is data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from terradapt.data.dataset import Dataset, Item
from terradapt.data.reading import LOADED_PIXELS, ItemReader, check_pair, open_label
from terradapt.errors import TerradaptError
from terradapt.grid import Window
from terradapt.preflight.alignment import Shift, Surfaces, image_surfaces
from terradapt.raster import SceneReader
from terradapt.raster.georef import crs_name

Level = Literal["error", "warning", "note"]
_STRIP = 1 << 24  # pixels read at a time


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
    try:
        facts.digest = _digest(image)
        with SceneReader(image) as file:
            _describe(facts, file)
            facts.valid = _valid_share(file)
            if label is not None and _is_raster(label):
                with open_label(label) as other:
                    check_pair(file, other)
                    _valid_share(other)
    except TerradaptError as error:
        broken = label if label is not None and str(label) in error.message else image
        return facts, [Problem.of(error, broken)]
    except OSError as error:
        fix = "check the file and its permissions"
        return facts, [Problem("error", str(image), f"{image}: {error.strerror}", fix)]
    if facts.valid == 0:
        fix = "leave it out, or correct its nodata value"
        return facts, [Problem("warning", str(image), f"{image}: holds no data at all", fix)]
    return facts, []


def _describe(facts: Facts, file: SceneReader) -> None:
    facts.height, facts.width, facts.bands = file.height, file.width, file.count
    facts.dtype, facts.resolution, facts.nodata = file.dtype, file.resolution, file.nodata
    facts.crs = crs_name(file.crs) if file.crs is not None else ""


def _valid_share(file: SceneReader) -> float:
    """Read a file to its end: a truncated one fails here."""
    rows = max(1, _STRIP // file.width)
    count: int = 0
    for row in range(0, file.height, rows):
        window = Window(row, 0, min(rows, file.height - row), file.width)
        count += int(file.read(window)[1].sum())
    return count / float(file.height * file.width)


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
