"""OpenEarthMap: land cover of 97 regions, about 1000 x 1000 px, 0.25 to 0.5 m.

``REGION/{images,labels}/REGION_N.tif``; labels hold 1..8, and 0 where the class is unknown.
``train.txt``, ``val.txt`` and ``test.txt`` list file names; test comes without labels. The download
lacks the images that are xBD's and lists them in ``xbd_files.csv`` (their name, the name here).
Xia et al., WACV 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from terradapt.classes import ClassMap
from terradapt.data.labels import IndexForm
from terradapt.errors import DataError
from terradapt.prepare.archives import Gathered, gather
from terradapt.prepare.jobs import Record
from terradapt.prepare.options import Benchmark, Prepared, PrepareOptions, Tell, tell_nothing
from terradapt.prepare.pairs import check_together
from terradapt.prepare.run import prepare_benchmark
from terradapt.progress import Track, silent

OPEN_EARTH_MAP = ClassMap(
    (
        "bareland", "rangeland", "developed space", "road",
        "tree", "water", "agriculture land", "building",
    ),
    (
        (128, 0, 0), (0, 255, 36), (148, 148, 148), (255, 255, 255),
        (34, 97, 38), (0, 69, 255), (75, 181, 73), (222, 31, 7),
    ),
)  # fmt: skip
"""Classes of OpenEarthMap in the benchmark's colours; a label's value is the id plus 1."""

_LISTS = {"train.txt": "train", "val.txt": "val", "test.txt": "test"}
_XBD = "xbd_files.csv"


def prepare_openearthmap(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Prepared:
    """Prepare OpenEarthMap; see :func:`find_openearthmap` and :func:`prepare_benchmark`."""
    found = find_openearthmap(source, out, options, track, tell)
    return prepare_benchmark(found, out, options, track, tell)


def find_openearthmap(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Benchmark:
    """Find the tiles that have labels, with the split of the benchmark's lists.

    Left out are tiles that ``test.txt`` lists and that have no label, and, told, those whose images
    are xBD's and were not added.

    Raises:
        DataError: No images, no labels, a tile without its partner, a tile in two lists, or a
            tile of ``train.txt`` or ``val.txt`` that is not there (unless the split is drawn).
    """
    roles: dict[str, dict[str, Gathered]] = {"images": {}, "labels": {}}
    lists: dict[str, Gathered] = {}
    for found in gather(source, out / "unpacked", lambda n: _role(n) is not None, track):
        role = _role(found.name)
        if role in roles:
            roles[role].setdefault(found.stem, found)
        else:
            lists.setdefault(found.path.name.lower(), found)
    home = _home(source, lists)
    images, labels = roles["images"], roles["labels"]
    xbd = _listed(lists[_XBD]) if _XBD in lists else []
    absent = set(xbd) - images.keys()
    labels = {n: f for n, f in labels.items() if n not in absent}
    images = {n: f for n, f in images.items() if n in labels or home.get(n) != "test"}
    if absent:
        tell(
            f"openearthmap: {len(absent)} tiles are left out: their images are xBD's and were not "
            f"added ({_XBD})"
        )
    check_together(source, {"images": images, "labels": labels})
    records = tuple(Record(n, n, images[n].path, labels[n].path) for n in sorted(images))
    official: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in sorted(images.keys() & home.keys()):
        official[home[name]].append(name)
    if home and options.split != "by_image":
        _check_lists(source, home, images, absent)
    if home and (others := len(images.keys() - home.keys())):
        tell(f"openearthmap: {others} tiles stand in no list and are in no official split")
    return Benchmark(
        "openearthmap",
        records,
        OPEN_EARTH_MAP,
        IndexForm({i + 1: i for i in range(len(OPEN_EARTH_MAP))}, ignored=(0,)),
        paper={},
        official=official if home else None,
        default="official" if home else "by_image",
    )


def _role(name: str) -> str | None:
    """``images``, ``labels`` or ``list``; None for files that are not needed."""
    path = PurePosixPath(name.lower())
    if path.name in _LISTS or path.name == _XBD:
        return "list"
    known = path.suffix in (".tif", ".tiff") and path.parent.name in ("images", "labels")
    return path.parent.name if known else None


def _listed(file: Gathered) -> list[str]:
    """Tile names of a list; of several columns the last one counts."""
    try:
        lines = file.path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file.path}: no text file", "download it again") from error
    return [Path(line.split(",")[-1].strip()).stem for line in lines if line.strip()]


def _home(source: Path, lists: Mapping[str, Gathered]) -> dict[str, str]:
    """The split of each listed tile."""
    home: dict[str, str] = {}
    for file, split in _LISTS.items():
        for name in _listed(lists[file]) if file in lists else []:
            if home.setdefault(name, split) != split:
                raise DataError(
                    f"{source}: {name} stands in {home[name]}.txt and in {file}",
                    "remove it from one of the lists",
                )
    return home


def _check_lists(
    source: Path, home: Mapping[str, str], images: Mapping[str, Gathered], absent: set[str]
) -> None:
    missing = [n for n, s in home.items() if s != "test" and n not in images and n not in absent]
    if missing:
        shown = ", ".join(missing[:6]) + (" ..." if len(missing) > 6 else "")
        raise DataError(
            f"{source}: {len(missing)} tiles of train.txt and val.txt are missing: {shown}",
            "add their image and label files, or use split=by_image for what is there",
        )
