"""Massachusetts roads: ``{train,valid,test}/{sat,map}``, 1500 x 1500 px, 1 m.

Images are ``.tiff``, maps ``.tif`` with 0 and 255 of the same stem. The layout of a well-known
mirror, ``tiff/{train,val,test}`` with ``tiff/{train,val,test}_labels``, is read as well.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from terradapt.classes import ROADS
from terradapt.data.labels import ThresholdForm
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

RESOLUTION = 1.0
_PART = re.compile(r"^(train|valid|val|test)(_labels)?$")


def prepare(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Prepared:
    """Prepare Massachusetts roads; see :func:`find_massachusetts` and :func:`prepare_benchmark`.

    The paper's split is one of 1024 px crops, which it implies.
    """
    options = with_paper_crops(options)
    found = find_massachusetts(source, out, options, track)
    return prepare_benchmark(found, out, options, track, tell)


def find_massachusetts(
    source: Path, out: Path, options: PrepareOptions, track: Track = silent
) -> Benchmark:
    """Find images and maps, with the benchmark's own train, valid and test.

    Raises:
        DataError: No image, or an image without its map.
    """
    images: dict[str, Gathered] = {}
    maps: dict[str, Gathered] = {}
    official: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for found in gather(source, out / "unpacked", lambda n: _place(n) is not None, track):
        place = _place(found.name)
        assert place is not None
        split, role = place
        name = f"{split}_{found.stem}"
        if role == "map":
            maps.setdefault(name, found)
        elif name not in images:
            images[name] = found
            official[split].append(name)
    if not images:
        raise DataError(
            f"{source}: no train/sat/*.tiff in it", "give the folder that holds train, valid, test"
        )
    bare = [n for n in images if n not in maps]
    if bare:
        shown = ", ".join(images[n].name for n in bare[:4]) + (" ..." if len(bare) > 4 else "")
        raise DataError(f"{source}: {len(bare)} images without a map: {shown}", "add their maps")
    records = tuple(Record(n, n, images[n].path, maps[n].path) for n in images)
    return Benchmark(
        "massachusetts", records, ROADS, ThresholdForm(128), RESOLUTION, official=official
    )


def _place(name: str) -> tuple[str, str] | None:
    """Split and role (``sat`` or ``map``) that a path states, or None."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in (".tif", ".tiff") or path.name.startswith("."):
        return None
    parents = [p.lower() for p in path.parts[:-1]]
    if not parents:
        return None
    match = _PART.match(parents[-1])
    if match:
        return _split(match[1]), "map" if match[2] else "sat"
    if len(parents) > 1 and parents[-1] in ("sat", "map") and (m := _PART.match(parents[-2])):
        return _split(m[1]), parents[-1]
    return None


def _split(name: str) -> str:
    return "val" if name in ("valid", "val") else name
