"""Cities at two dates on disk, in LEVIR-CD's form: ``A/``, ``B/``, ``label/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from terradapt.classes import CHANGES, ISPRS
from terradapt.data.dataset import SPLITS_NAME, Dataset, Item
from terradapt.data.labels import IndexForm
from terradapt.data.splits import write_splits
from terradapt.errors import DataError
from terradapt.files import write_json
from terradapt.progress import Track, silent
from terradapt.raster import write_raster
from terradapt.synthetic.dates import TwoDates, make_two_dates
from terradapt.synthetic.files import CRS, by_city, collection, read_seeds, transform_at, whole
from terradapt.synthetic.scene import RESOLUTION

_OPTIONS = {
    "scenes": 1, "size": 512, "share": 0.12, "shift": 2, "relit": True, "of": "any",
    "unchanged": 0.0,
}  # fmt: skip


def write_pair(
    folder: Path, seed: int, number: int, size: int, *, of: str = "any", **drawn: Any
) -> TwoDates:
    """Write one pair of a city.

    ``A/NAME.tif`` and ``B/NAME.tif`` (RGB, the earlier and the later date), ``label/`` (0 and 1),
    ``before/`` and ``after/`` (ISPRS ids of each date), ``changes/NAME.geojson`` (what was built,
    demolished, planted, felled, paved).

    Args:
        folder: Made when missing; may hold other pairs.
        seed: The city.
        number: Which of its scenes, from west to east.
        size: Side, px.
        of: What the label tells: ``any`` change of the land cover, or of ``building`` alone.
        drawn: Further arguments of :func:`make_two_dates`.
    """
    row, col = 0, number * size
    pair = make_two_dates(seed, size, size, row, col, **drawn)
    transform, name = transform_at(seed, row, col), f"city{seed}_{number}"
    changed = pair.changed
    if of == "building":
        house = ISPRS.names.index("building")
        changed &= ((pair.before.labels == house) != (pair.after.labels == house)).astype(np.uint8)
    for part, pixels, colours in (
        ("A", np.moveaxis(pair.before.image, -1, 0), None),
        ("B", np.moveaxis(pair.after.image, -1, 0), None),
        ("label", changed, CHANGES.colours),
        ("before", pair.before.labels, ISPRS.colours),
        ("after", pair.after.labels, ISPRS.colours),
    ):
        target = folder / part / f"{name}.tif"
        write_raster(target, pixels, crs=CRS, transform=transform, colours=colours)
    features = [
        _outline(change.outline.exterior.coords, transform)
        | {
            "properties": {
                "kind": change.kind,
                "state": change.state,
                "before": ISPRS.names[change.before],
                "after": ISPRS.names[change.after],
            }
        }
        for change in pair.changes
    ]
    (folder / "changes").mkdir(exist_ok=True)
    write_json(folder / "changes" / f"{name}.geojson", collection(features))
    return pair


def _outline(corners: Any, transform: Affine) -> dict[str, object]:
    places = np.asarray(corners) * (transform.a, transform.e) + (transform.c, transform.f)
    ring = np.round(places, 3).tolist()
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}


def prepare_pairs(
    source: Path, out: Path, options: Mapping[str, Any], track: Track = silent
) -> Dataset:
    """Write pairs of dates as a dataset; of its cities the last is the test, the one before val.

    Args:
        source: Seeds of the cities, at least three, as ``1,2,5`` or ``1-6``.
        out: Folder to write.
        options: ``scenes`` of each city (1), ``size`` (512 px), ``share`` of things that change
            (0.12), ``shift`` (largest, 2 px), ``relit`` (true), ``of`` (``any`` or ``building``),
            ``unchanged`` (0): share of the pairs in which nothing but light, season and cars
            change, as on most ground.
        track: Progress.

    Raises:
        DataError: Too few seeds, an unknown option or a value out of range.
    """
    seeds = read_seeds(str(source))
    values = {**_OPTIONS, **options}
    unknown = sorted(set(values) - set(_OPTIONS))
    if unknown:
        raise DataError(
            f"no option '{unknown[0]}' for synthetic-pairs", f"options: {', '.join(_OPTIONS)}"
        )
    scenes, size, shift = values["scenes"], values["size"], values["shift"]
    fits = whole(scenes, 1, 1000) and whole(size, 32, 8192) and whole(shift, 0, 8)
    known = values["of"] in ("any", "building") and 0 <= float(values["share"]) <= 0.5
    known = known and 0 <= float(values["unchanged"]) <= 1
    if not (fits and known):
        raise DataError(
            f"synthetic-pairs: {values} are no pairs",
            "give scenes=1..1000, size=32..8192, shift=0..8, share=0..0.5, unchanged=0..1, "
            "of=any or building",
        )
    if len(seeds) < 3:
        raise DataError(
            f"synthetic-pairs: {len(seeds)} cities", "give three or more: the last is the test"
        )
    items: list[Item] = []
    with track(len(seeds) * scenes, "draw cities", "pair") as advance:
        for seed in seeds:
            for number in range(scenes):
                rng = np.random.default_rng([seed, number, 61])
                rows, cols = (int(v) for v in rng.integers(-shift, shift + 1, 2))
                still = float(values["unchanged"])
                same = int((len(items) + 1) * still) > int(len(items) * still)
                share = 0.0 if same else float(values["share"])
                drawn = {"share": share, "relit": bool(values["relit"])}
                write_pair(out, seed, number, size, of=values["of"], shift=(rows, cols), **drawn)
                items.append(_item(out, seed, number, size))
                advance(1)
    return _saved(out, items, seeds)


def _item(folder: Path, seed: int, number: int, size: int) -> Item:
    name = f"city{seed}_{number}"
    first, second, label = (folder / part / f"{name}.tif" for part in ("A", "B", "label"))
    return Item(name, first, label, f"city{seed}", second, size, size, RESOLUTION)


def _saved(folder: Path, items: Sequence[Item], seeds: Sequence[int]) -> Dataset:
    cities = by_city(seeds)
    splits = {
        part: tuple(i.id for i in items if int(i.group.removeprefix("city")) in chosen)
        for part, chosen in cities.items()
    }
    form = IndexForm.identity(len(CHANGES))
    dataset = Dataset("synthetic-pairs", folder, tuple(items), CHANGES, form, splits, "by_city")
    dataset.save()
    write_splits(folder / SPLITS_NAME, splits, "by_city", None)
    return dataset
