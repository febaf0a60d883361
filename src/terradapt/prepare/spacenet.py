"""SpaceNet 3 roads: chips by city with centrelines, about 0.3 m, 8 or 16 bit.

``AOI_2_Vegas/PS-RGB/SN3_roads_train_AOI_2_Vegas_PS-RGB_img1.tif`` with
``geojson_roads/SN3_roads_train_AOI_2_Vegas_geojson_roads_img1.geojson``, or the first release's
``RGB-PanSharpen/`` with ``geojson/spacenetroads/``. Masks are the centrelines, widened by a fixed
width in metres.
"""

from __future__ import annotations

import re
from pathlib import Path

from terradapt.classes import ROADS
from terradapt.data.labels import VectorForm
from terradapt.errors import DataError
from terradapt.prepare.archives import Gathered, gather
from terradapt.prepare.jobs import Record
from terradapt.prepare.options import (
    Benchmark,
    Prepared,
    PrepareOptions,
    Tell,
    tell_nothing,
    with_paper_crops,
)
from terradapt.prepare.run import prepare_benchmark
from terradapt.progress import Track, silent

IMAGERY = ("PS-RGB", "RGB-PanSharpen", "PS-RGB_8bit", "PS-MS", "MUL-PanSharpen", "MS", "PAN")
ROAD_FOLDERS = ("geojson_roads", "spacenetroads")
_CHIP = re.compile(r"(AOI_\d+_[A-Za-z]+)_(?:.*_)?(img\d+)$")
_RESOLUTION = 0.3


def prepare(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Prepared:
    """Prepare SpaceNet 3 roads; see :func:`find_spacenet` and :func:`prepare_benchmark`.

    The paper's split is one of 1024 px crops, which it implies.
    """
    options = with_paper_crops(options)
    found = find_spacenet(source, out, options, track)
    return prepare_benchmark(found, out, options, track, tell)


def find_spacenet(
    source: Path, out: Path, options: PrepareOptions, track: Track = silent
) -> Benchmark:
    """Find the chips that have centrelines; test chips come without and are left out.

    Raises:
        DataError: No chip, no centrelines, or a chip of a labelled city without its centrelines.
    """
    kinds = (options.bands,) if options.bands else IMAGERY
    images: dict[str, dict[str, Gathered]] = {}
    roads: dict[str, Gathered] = {}
    for found in gather(source, out / "unpacked", _wanted, track):
        match = _CHIP.search(found.stem)
        assert match is not None
        name = f"{match[1]}_{match[2]}"
        kind = Path(found.name).parent.name
        if found.path.suffix.lower() == ".geojson":
            if kind in ROAD_FOLDERS:
                roads.setdefault(name, found)
        else:
            images.setdefault(kind, {}).setdefault(name, found)
    chosen = next((k for k in kinds if k in images), None)
    if chosen is None:
        known = ", ".join(images) or "none"
        raise DataError(
            f"{source}: no {kinds[0]} imagery in it (imagery found: {known})",
            "give the folder or archives of AOI_2_Vegas and the like, or name bands=",
        )
    _check(images[chosen], roads, source)
    records = tuple(
        Record(name, name, images[chosen][name].path, roads[name].path)
        for name in sorted(images[chosen], key=_order)
        if name in roads
    )
    form = VectorForm(line_width=options.line_width)
    return Benchmark("spacenet", records, ROADS, form, _RESOLUTION)


def _wanted(name: str) -> bool:
    path = Path(name)
    known = path.suffix.lower() in (".tif", ".tiff", ".geojson")
    return known and _CHIP.search(path.stem) is not None


def _check(images: dict[str, Gathered], roads: dict[str, Gathered], source: Path) -> None:
    labelled = {_city(name) for name in roads}
    if not labelled & {_city(name) for name in images}:
        raise DataError(
            f"{source}: no centrelines ({' or '.join(ROAD_FOLDERS)}) for its chips",
            "give the train archives: the test ones come without roads",
        )
    parts = {images[name].folders for name in images if name in roads}
    bare = sorted(n for n, f in images.items() if n not in roads and f.folders in parts)
    if bare:
        shown = ", ".join(bare[:6]) + (" ..." if len(bare) > 6 else "")
        raise DataError(
            f"{source}: {len(bare)} chips without their centrelines: {shown}",
            "add the geojson files, or move these chips elsewhere",
        )


def _city(name: str) -> str:
    return name.rsplit("_", 1)[0]


def _order(name: str) -> tuple[str, int]:
    city, chip = name.rsplit("_", 1)
    return city, int(chip.removeprefix("img"))
