"""LoveDA: land cover of three Chinese cities, 1024 x 1024 px, 0.3 m, urban and rural.

``{Train,Val,Test}/{Urban,Rural}/{images_png,masks_png}/N.png``; masks hold 1..7, and 0 where there
is no data. Test comes without masks. ``img_dir/{train,val}`` with ``ann_dir/{train,val}``, as
conversion for a well-known toolbox leaves it, is read as well. Wang et al., NeurIPS Datasets and
Benchmarks 2021.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from terradapt.classes import ClassMap
from terradapt.data.labels import IndexForm
from terradapt.prepare.archives import Gathered, gather
from terradapt.prepare.jobs import Record
from terradapt.prepare.options import Benchmark, Prepared, PrepareOptions, Tell, tell_nothing
from terradapt.prepare.pairs import check_together
from terradapt.prepare.run import prepare_benchmark
from terradapt.progress import Track, silent

LOVEDA = ClassMap(
    ("background", "building", "road", "water", "barren", "forest", "agriculture"),
    (
        (255, 255, 255), (255, 0, 0), (255, 255, 0), (0, 0, 255),
        (159, 129, 183), (0, 255, 0), (255, 195, 128),
    ),
)  # fmt: skip
"""Classes of LoveDA in the benchmark's colours; a mask's value is the id plus 1."""

_RESOLUTION = 0.3
_ROLES = {"images_png": "image", "img_dir": "image", "masks_png": "mask", "ann_dir": "mask"}
_SPLITS = ("train", "val", "test")
_SCENES = ("urban", "rural")


def prepare_loveda(
    source: Path,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
) -> Prepared:
    """Prepare LoveDA; see :func:`find_loveda` and :func:`prepare_benchmark`."""
    found = find_loveda(source, out, options, track)
    return prepare_benchmark(found, out, options, track, tell)


def find_loveda(
    source: Path, out: Path, options: PrepareOptions, track: Track = silent
) -> Benchmark:
    """Find the images that have masks, with the benchmark's own train and val.

    Test images are left out as long as none of them has a mask.

    Raises:
        DataError: No images, no masks, or an image or a mask without its partner.
    """
    images: dict[str, Gathered] = {}
    masks: dict[str, Gathered] = {}
    home: dict[str, str] = {}
    for found in gather(source, out / "unpacked", lambda n: _place(n) is not None, track):
        place = _place(found.name)
        assert place is not None
        role, split, scene = place
        name = "_".join(part for part in (split, scene, found.stem) if part)
        (images if role == "image" else masks).setdefault(name, found)
        home[name] = split
    if not any(home[name] == "test" for name in masks):
        images = {name: found for name, found in images.items() if home[name] != "test"}
    check_together(source, {"images_png": images, "masks_png": masks})
    records = tuple(Record(n, n, images[n].path, masks[n].path) for n in images)
    official = {split: [n for n in images if home[n] == split] for split in _SPLITS}
    stated = official["train"] and sum(map(len, official.values())) == len(images)
    return Benchmark(
        "loveda",
        records,
        LOVEDA,
        IndexForm({i + 1: i for i in range(len(LOVEDA))}, ignored=(0,)),
        _RESOLUTION,
        paper={},
        official=official if stated else None,
        default="official" if stated else "by_image",
    )


def _place(name: str) -> tuple[str, str, str] | None:
    """Role, split and scene that a path states, the last two may be ""; None for other files."""
    path = PurePosixPath(name.lower())
    role = next((_ROLES[p] for p in reversed(path.parts[:-1]) if p in _ROLES), None)
    if role is None or path.suffix != ".png":
        return None
    split, scene = (
        next((p for p in reversed(path.parts[:-1]) if p in known), "")
        for known in (_SPLITS, _SCENES)
    )
    return role, split, scene
