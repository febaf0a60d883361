"""DeepGlobe road extraction: ``NNN_sat.jpg`` with ``NNN_mask.png``, 1024 x 1024 px, 0.5 m."""

from __future__ import annotations

import re
from pathlib import Path

from terradapt.classes import ROADS
from terradapt.data.labels import ThresholdForm
from terradapt.errors import DataError
from terradapt.prepare.archives import Gathered, gather
from terradapt.prepare.jobs import Record
from terradapt.prepare.options import Benchmark, Prepared, PrepareOptions, Tell, tell_nothing
from terradapt.prepare.run import prepare_benchmark
from terradapt.progress import Track, silent

_NAME = re.compile(r"^(\d+)_(sat|mask)$")
RESOLUTION = 0.5


def prepare(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Prepared:
    """Prepare DeepGlobe roads; see :func:`find_deepglobe` and :func:`prepare_benchmark`."""
    found = find_deepglobe(source, out, options, track)
    return prepare_benchmark(found, out, options, track, tell)


def find_deepglobe(
    source: Path, out: Path, options: PrepareOptions, track: Track = silent
) -> Benchmark:
    """Find the labelled images; ``valid/`` and ``test/`` come without masks and are left out.

    Raises:
        DataError: No image, or an image without its mask among images with masks.
    """

    def wanted(name: str) -> bool:
        path = Path(name)
        known = path.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif")
        return known and _NAME.match(path.stem.lower()) is not None

    images: dict[str, Gathered] = {}
    masks: dict[str, Gathered] = {}
    for found in gather(source, out / "unpacked", wanted, track):
        match = _NAME.match(found.stem.lower())
        assert match is not None
        (images if match[2] == "sat" else masks).setdefault(match[1], found)
    _check(images, masks, source)
    records = tuple(
        Record(name, name, images[name].path, masks[name].path) for name in sorted(masks, key=int)
    )
    return Benchmark("deepglobe", records, ROADS, ThresholdForm(128), RESOLUTION)


def _check(images: dict[str, Gathered], masks: dict[str, Gathered], source: Path) -> None:
    if not masks:
        raise DataError(
            f"{source}: no NNN_mask.png in it", "give the folder or archive of the train images"
        )
    lonely = sorted((n for n in masks if n not in images), key=int)
    if lonely:
        raise DataError(
            f"{source}: {len(lonely)} masks without an image: {_names(lonely, 'sat.jpg')}",
            "add the images, or remove these masks",
        )
    folders = {masks[name].folders for name in masks}
    bare = sorted(
        (n for n, f in images.items() if n not in masks and f.folders in folders), key=int
    )
    if bare:
        raise DataError(
            f"{source}: {len(bare)} images without a mask: {_names(bare, 'mask.png')}",
            "add the masks, or move these images elsewhere",
        )


def _names(ids: list[str], end: str) -> str:
    shown = ", ".join(f"{i}_{end}" for i in ids[:6])
    return shown + (" ..." if len(ids) > 6 else "")
