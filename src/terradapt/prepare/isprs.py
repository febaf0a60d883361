"""ISPRS Vaihingen and Potsdam (2D semantic labelling), as they come from the benchmark.

Vaihingen: ``top_mosaic_09cm_areaN.tif`` (NIR, R, G), labels of the same name in
``gts_for_participants/`` or a ground truth archive, eroded ``*_noBoundary.tif``,
``dsm_09cm_matching_areaN.tif``. Potsdam: ``top_potsdam_R_C_{RGB,IRRG,RGBIR}.tif``,
``..._label.tif``, ``..._label_noBoundary.tif``, ``dsm_potsdam_RR_CC.tif``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from terradapt.classes import ISPRS
from terradapt.data.labels import ColourForm
from terradapt.errors import DataError
from terradapt.prepare.archives import Gathered, gather
from terradapt.prepare.jobs import Record
from terradapt.prepare.options import Benchmark, Prepared, PrepareOptions, Tell, tell_nothing
from terradapt.prepare.run import prepare_benchmark
from terradapt.progress import Track, silent


def _tiles(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VAIHINGEN = {
    "train": _tiles("1 3 5 7 11 13 15 17 21 23 26 28 32 34 37"),
    "val": _tiles("30"),
    "test": _tiles("2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38"),
}
POTSDAM = {
    "train": _tiles(
        "2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 "
        "6_7 6_8 6_9 6_10 6_11 6_12 7_7 7_8 7_9 7_11 7_12"
    ),
    "val": _tiles("2_10"),
    "test": _tiles("2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13"),
}
POTSDAM_OUT = ("7_10",)  # its label is known to be wrong
POTSDAM_BANDS = ("RGB", "IRRG", "RGBIR")

_AREA = re.compile(r"^top_mosaic_09cm_area(\d+)(_noboundary)?$")
_AREA_DSM = re.compile(r"^dsm_09cm_matching_area(\d+)$")
_TILE = re.compile(r"^top_potsdam_(\d+)_(\d+)_(rgb|irrg|rgbir|label|label_noboundary)$")
_TILE_DSM = re.compile(r"^dsm_potsdam_(\d+)_(\d+)$")
_TRUTH = re.compile(r"gts|ground_?truth|(^|/)labels?(/|$)")

Roles = Mapping[str, Mapping[str, Gathered]]
"""File by role, by tile."""


def prepare_vaihingen(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Prepared:
    """Prepare ISPRS Vaihingen; see :func:`find_vaihingen` and :func:`prepare_benchmark`."""
    found = find_vaihingen(source, out, options, track)
    return prepare_benchmark(found, out, options, track, tell)


def prepare_potsdam(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Prepared:
    """Prepare ISPRS Potsdam; see :func:`find_potsdam` and :func:`prepare_benchmark`."""
    found = find_potsdam(source, out, options, track)
    return prepare_benchmark(found, out, options, track, tell)


def find_vaihingen(
    source: Path, out: Path, options: PrepareOptions, track: Track = silent
) -> Benchmark:
    """Find the areas of ISPRS Vaihingen; nine centimetres per pixel, bands NIR, R, G.

    Raises:
        DataError: No area, no label, a missing surface model, or a damaged archive.
    """
    roles = _gather(source, out, _vaihingen_role, track)
    if options.bands not in (None, "IRRG"):
        raise DataError(
            f"{source}: Vaihingen has no {options.bands} imagery",
            "leave bands= out: its bands are NIR, R, G",
        )
    records = _records(roles, "image", options, source, "top_mosaic_09cm_areaN.tif")
    return _benchmark("vaihingen", records, 0.09, VAIHINGEN)


def find_potsdam(
    source: Path, out: Path, options: PrepareOptions, track: Track = silent
) -> Benchmark:
    """Find the tiles of ISPRS Potsdam; five centimetres per pixel, tile 7_10 left out.

    Raises:
        DataError: No tile, no label, missing imagery, or a damaged archive.
    """
    roles = _gather(source, out, _potsdam_role, track)
    roles = {tile: files for tile, files in roles.items() if tile not in POTSDAM_OUT}
    bands = options.bands or _first_bands(roles)
    if bands not in POTSDAM_BANDS:
        raise DataError(
            f"{source}: no imagery is called '{bands}'", f"use one of: {', '.join(POTSDAM_BANDS)}"
        )
    records = _records(roles, bands.lower(), options, source, f"top_potsdam_R_C_{bands}.tif")
    return _benchmark("potsdam", records, 0.05, POTSDAM)


def _benchmark(
    name: str,
    records: tuple[Record, ...],
    resolution: float,
    paper: Mapping[str, Sequence[str]],
) -> Benchmark:
    return Benchmark(name, records, ISPRS, ColourForm(), resolution, paper=paper, default="paper")


def _gather(
    source: Path, out: Path, role: Callable[[Gathered], tuple[str, str] | None], track: Track
) -> Roles:
    def wanted(name: str) -> bool:
        found = Gathered(Path(name), name)
        return Path(name).suffix.lower() in (".tif", ".tiff") and role(found) is not None

    roles: dict[str, dict[str, Gathered]] = {}
    for found in gather(source, out / "unpacked", wanted, track):
        key = role(found)
        assert key is not None
        roles.setdefault(key[0], {}).setdefault(key[1], found)
    return roles


def _vaihingen_role(found: Gathered) -> tuple[str, str] | None:
    stem = found.stem.lower()
    if match := _AREA_DSM.match(stem):
        return match[1], "dsm"
    match = _AREA.match(stem)
    if match is None:
        return None
    if match[2]:
        return match[1], "eroded"
    return match[1], "label" if _TRUTH.search(found.folders) else "image"


def _potsdam_role(found: Gathered) -> tuple[str, str] | None:
    stem = found.stem.lower()
    if match := _TILE_DSM.match(stem):
        return f"{int(match[1])}_{int(match[2])}", "dsm"
    match = _TILE.match(stem)
    if match is None:
        return None
    role = {"label_noboundary": "eroded"}.get(match[3], match[3])
    return f"{int(match[1])}_{int(match[2])}", role


def _first_bands(roles: Roles) -> str:
    for bands in POTSDAM_BANDS:
        if any(bands.lower() in files for files in roles.values()):
            return bands
    return POTSDAM_BANDS[0]


def _records(
    roles: Roles, image: str, options: PrepareOptions, source: Path, pattern: str
) -> tuple[Record, ...]:
    """Tiles that have both image and label; a tile with one of them alone is told."""
    tiles = sorted((t for t, f in roles.items() if image in f), key=_order)
    if not tiles:
        raise DataError(f"{source}: no {pattern} in it", "give the folder or archive of the images")
    labelled = [t for t in tiles if "label" in roles[t]]
    if not labelled:
        raise DataError(
            f"{source}: {len(tiles)} images, but no labels for them",
            "add the ground truth (archive or folder) beside the images",
        )
    if options.dsm:
        bare = [t for t in labelled if "dsm" not in roles[t]]
        if bare:
            raise DataError(
                f"{source}: no surface model for {', '.join(bare[:8])}",
                "add the DSM files, or leave dsm=true out",
            )
    return tuple(_record(t, roles[t], image, options.dsm) for t in labelled)


def _record(tile: str, files: Mapping[str, Gathered], image: str, dsm: bool) -> Record:
    eroded = files["eroded"].path if "eroded" in files else None
    extra = files["dsm"].path if dsm else None
    return Record(tile, tile, files[image].path, files["label"].path, eroded, extra)


def _order(tile: str) -> tuple[int, ...]:
    return tuple(int(part) for part in tile.split("_"))
