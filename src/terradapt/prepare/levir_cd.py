"""LEVIR-CD: buildings that changed between two dates, 1024 x 1024 px, 0.5 m.

``{train,val,test}/{A,B,label}/NAME.png``: A is the earlier date, B the later one, masks are 0 and
255 (0 and 1 where they are stored with one bit). ``A``, ``B`` and ``label`` without such folders,
cut into crops (``train_386_0512_0768.png``), are read as well: the name states the split, and crops
of one image stay together. Chen and Shi, Remote Sensing 2020.

A pair is an item of six bands: A is its image, bands 1 to 3, and B its ``extra``, bands 4 to 6.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from terradapt.classes import CHANGES
from terradapt.data.labels import IndexForm
from terradapt.prepare.archives import Gathered, gather
from terradapt.prepare.jobs import Record
from terradapt.prepare.options import Benchmark, Prepared, PrepareOptions, Tell, tell_nothing
from terradapt.prepare.pairs import check_together
from terradapt.prepare.run import prepare_benchmark
from terradapt.progress import Track, silent

_RESOLUTION = 0.5
_SPLITS = ("train", "val", "test")
_CROP = re.compile(r"^((?:train|val|test)_\d+)_\d+_\d+$")


def prepare_levir_cd(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Prepared:
    """Prepare LEVIR-CD; see :func:`find_levir_cd` and :func:`prepare_benchmark`."""
    found = find_levir_cd(source, out, options, track)
    tell(
        "levir-cd: a pair has six bands, A is 1 to 3 and B is 4 to 6: train on both dates with "
        "data.bands=[1,2,3,4,5,6] model.in_channels=6"
    )
    return prepare_benchmark(found, out, options, track, tell)


def find_levir_cd(
    source: Path, out: Path, options: PrepareOptions, track: Track = silent
) -> Benchmark:
    """Find the pairs and their masks, with the benchmark's own train, val and test.

    Raises:
        DataError: A, B or label is missing, or lacks a file that another one has.
    """
    roles: dict[str, dict[str, Gathered]] = {"A": {}, "B": {}, "label": {}}
    home: dict[str, str] = {}
    for found in gather(source, out / "unpacked", lambda n: _place(n) is not None, track):
        place = _place(found.name)
        assert place is not None
        role, split = place
        name = f"{split}_{found.stem.lower().removeprefix(f'{split}_')}" if split else found.stem
        roles[role].setdefault(name, found)
        home[name] = split
    check_together(source, roles)
    first, second, masks = roles.values()
    group = {n: m[1] if (m := _CROP.match(n)) else n for n in first}
    records = tuple(
        Record(n, group[n], first[n].path, masks[n].path, extra=second[n].path) for n in first
    )
    official = {s: sorted({group[n] for n in first if home[n] == s}) for s in _SPLITS}
    stated = official["train"] and all(home[n] for n in first)
    return Benchmark(
        "levir-cd",
        records,
        CHANGES,
        IndexForm({0: 0, 1: 1, 255: 1}, ignored=()),
        _RESOLUTION,
        paper={},
        official=official if stated else None,
        default="official" if stated else "by_image",
    )


def _place(name: str) -> tuple[str, str] | None:
    """Role (``A``, ``B``, ``label``) and split that a path states; the split may be ""."""
    path = PurePosixPath(name.lower())
    role = {"a": "A", "b": "B", "label": "label"}.get(path.parent.name)
    if role is None or path.suffix not in (".png", ".jpg", ".jpeg", ".tif", ".tiff"):
        return None
    above = path.parent.parent.name.split(".")[0]  # a folder, or an archive such as train.zip
    split = above if above in _SPLITS else path.name.split("_")[0]
    return role, split if split in _SPLITS else ""
