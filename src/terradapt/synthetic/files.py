"""Synthetic cities on disk: the folder layout, datasets with splits, scenes of any size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from terradapt.classes import ISPRS, ROADS
from terradapt.config import DataConfig
from terradapt.data.dataset import SPLITS_NAME, Dataset, Item
from terradapt.data.labels import IndexForm
from terradapt.data.splits import Splits, make_splits, write_splits
from terradapt.errors import DataError
from terradapt.files import write_json, write_text
from terradapt.progress import Advance, Track, silent
from terradapt.raster import Layer, SceneWriter, write_raster
from terradapt.synthetic.city import CityRoad
from terradapt.synthetic.scene import RESOLUTION, make_scene

CRS = "EPSG:32633"
BLOCK = 512  # px, rows that a scene writer takes at once


def origin(seed: int) -> tuple[float, float]:
    """Return easting and northing (m, UTM 33N) of a city's pixel (0, 0); no two cities overlap."""
    return 300_000.0 + seed % 20 * 20_000, 5_400_000.0 + seed // 20 % 20 * 20_000


def transform_at(seed: int, row: int, col: int) -> Affine:
    """Return pixel to UTM of the window that begins at (row, col)."""
    east, north = origin(seed)
    return Affine(RESOLUTION, 0, east + col * RESOLUTION, 0, -RESOLUTION, north - row * RESOLUTION)


def write_city(
    folder: Path,
    seed: int,
    scenes: int = 1,
    size: int = 1024,
    advance: Advance | None = None,
) -> Path:
    """Write scenes of one city side by side in the folder layout.

    ``images/cityS_N.tif`` (RGB), ``labels/`` (ISPRS ids), ``roads/`` (0 and 1, also under trees),
    ``roads/cityS.geojson`` (centrelines with width in metres and kind), ``classes.yaml``.

    Args:
        folder: Made when missing; may hold other cities.
        seed: The city.
        scenes: How many, from west to east, each touching the next.
        size: Side of a scene, px.
        advance: Called with 1 after each scene.
    """
    features = []
    for number in range(scenes):
        row, col = 0, number * size
        scene = make_scene(seed, size, size, row, col)
        transform = transform_at(seed, row, col)
        name = f"city{seed}_{number}.tif"
        for part, pixels, colours in (
            ("images", np.moveaxis(scene.image, -1, 0), None),
            ("labels", scene.labels, ISPRS.colours),
            ("roads", scene.roads, ROADS.colours),
        ):
            target = folder / part / name
            write_raster(target, pixels, crs=CRS, transform=transform, colours=colours)
        features += [_feature(road, transform, name) for road in scene.lines]
        if advance is not None:
            advance(1)
    write_json(folder / "roads" / f"city{seed}.geojson", collection(features))
    _write_classes(folder / "classes.yaml")
    return folder


def _feature(road: CityRoad, transform: Affine, scene: str) -> dict[str, object]:
    scale = (transform.a, transform.e)
    points = np.round(road.line * scale + (transform.c, transform.f), 3).tolist()
    return {
        "type": "Feature",
        "properties": {"width": round(road.width, 2), "kind": road.kind, "scene": scene},
        "geometry": {
            "type": "LineString",
            "coordinates": points,
        },
    }


def collection(features: Sequence[dict[str, object]]) -> dict[str, object]:
    """Return features as one GeoJSON in the cities' CRS."""
    name = "urn:ogc:def:crs:EPSG::32633"
    return {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": name}},
        "features": list(features),
    }


def _write_classes(path: Path) -> None:
    import yaml

    values = {
        "names": list(ISPRS.names),
        "colours": [list(c) for c in ISPRS.colours],
        "values": list(range(len(ISPRS))),
        "evaluated": [ISPRS.names[i] for i in ISPRS.evaluated],
    }
    write_text(path, yaml.safe_dump(values, sort_keys=False))


def write_dataset(
    folder: Path,
    cities: Mapping[str, Sequence[int]],
    scenes: int = 1,
    size: int = 1024,
    roads: bool = False,
    advance: Advance | None = None,
) -> Dataset:
    """Write cities with ``dataset.json`` and ``splits.json``: every city in one split alone.

    Args:
        folder: Where to.
        cities: Seeds by split, for example ``{"train": (1, 2), "val": (3,), "test": (4,)}``.
        scenes: Scenes of each city.
        size: Side of a scene, px.
        roads: Label with roads against background instead of the six ISPRS classes.
        advance: Called with 1 after each scene.
    """
    splits: Splits = {}
    items: list[Item] = []
    for split, seeds in cities.items():
        for seed in seeds:
            write_city(folder, seed, scenes, size, advance)
        part = [_item(folder, seed, n, size, roads) for seed in seeds for n in range(scenes)]
        splits[split] = tuple(item.id for item in part)
        items += part
    return _saved(folder, items, splits, roads, "by_city")


def road_labels(dataset: Dataset, folder: Path) -> Dataset:
    """Write an index of the same scenes and splits, labelled with roads, also under trees.

    Args:
        dataset: What :func:`write_dataset` returned.
        folder: Where ``dataset.json`` and ``splits.json`` go; made when missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    roads = dataset.root / "roads"
    items = [
        replace(i, image=i.image.absolute(), label=(roads / i.image.name).absolute())
        for i in dataset.items
    ]
    return _saved(folder, items, dict(dataset.splits), True, dataset.protocol)


def write_single(
    folder: Path,
    seed: int,
    scenes: int,
    size: int,
    roads: bool = False,
    advance: Advance | None = None,
) -> Dataset:
    """Write one city with ``dataset.json`` and ``splits.json``, split by scene.

    Args:
        folder: Where to.
        seed: The city.
        scenes: How many, at least 2.
        size: Side of a scene, px.
        roads: Label with roads against background.
        advance: Called with 1 after each scene.
    """
    write_city(folder, seed, scenes, size, advance)
    items = [_item(folder, seed, n, size, roads) for n in range(scenes)]
    items = [replace(item, group=item.id) for item in items]
    splits = make_splits(items, DataConfig(val_fraction=0.2, test_fraction=0.2))
    return _saved(folder, items, splits, roads, "by_image")


def _saved(
    folder: Path, items: Sequence[Item], splits: Splits, roads: bool, protocol: str
) -> Dataset:
    classes = ROADS if roads else ISPRS
    name = "synthetic-roads" if roads else "synthetic"
    form = IndexForm.identity(len(classes))
    dataset = Dataset(name, folder, tuple(items), classes, form, splits, protocol)
    dataset.save()
    write_splits(folder / SPLITS_NAME, splits, protocol, None)
    return dataset


def _item(folder: Path, seed: int, number: int, size: int, roads: bool) -> Item:
    name = f"city{seed}_{number}"
    label = folder / ("roads" if roads else "labels") / f"{name}.tif"
    image = folder / "images" / f"{name}.tif"
    return Item(name, image, label, f"city{seed}", None, size, size, RESOLUTION)


def prepare(source: Path, out: Path, options: Mapping[str, Any], track: Track = silent) -> Dataset:
    """Write a synthetic dataset; of its cities the last one is the test, the one before val.

    One city alone is split by scene.

    Args:
        source: Seeds of the cities, as ``1,2,5`` or ``1-6``.
        out: Folder to write.
        options: ``scenes`` of each city (1; of a single city 6), ``size`` (px), ``roads`` (label
            roads alone).
        track: Progress.

    Raises:
        DataError: No seeds, an unknown option or a value out of range.
    """
    seeds = read_seeds(str(source))
    values = {"scenes": 6 if len(seeds) == 1 else 1, "size": 1024, "roads": False, **options}
    unknown = sorted(set(values) - {"scenes", "size", "roads"})
    if unknown:
        raise DataError(f"no option '{unknown[0]}' for synthetic", "options: scenes, size, roads")
    scenes, size, roads = values["scenes"], values["size"], bool(values["roads"])
    least = 2 if len(seeds) == 1 else 1
    if not (whole(scenes, least, 1000) and whole(size, 32, 8192)):
        raise DataError(
            f"synthetic: {scenes} scenes of {size} px",
            f"give scenes={least}..1000 and size=32..8192",
        )
    with track(len(seeds) * scenes, "draw cities", "scene") as advance:
        if len(seeds) == 1:
            return write_single(out, seeds[0], scenes, size, roads, advance)
        return write_dataset(out, by_city(seeds), scenes, size, roads, advance)


def by_city(seeds: Sequence[int]) -> dict[str, Sequence[int]]:
    """Return cities by split: the last is the test, the one before validates."""
    if len(seeds) == 2:
        return {"train": seeds[:1], "val": seeds[1:], "test": ()}
    return {"train": seeds[:-2], "val": seeds[-2:-1], "test": seeds[-1:]}


def read_seeds(text: str) -> list[int]:
    """Read ``7``, ``1,2,5`` or ``1-6`` as distinct seeds.

    Raises:
        DataError: Anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not low <= high < low + 1000:
            raise DataError(
                f"'{text}' are no seeds of cities", "write them as 7, as 1,2,5 or as 1-6"
            )
        seeds += range(low, high + 1)
    return list(dict.fromkeys(seeds))


def whole(value: Any, low: int, high: int) -> bool:
    """Tell whether an option is a whole number in a range."""
    return isinstance(value, int) and low <= value <= high


def write_large_scene(
    path: Path,
    seed: int,
    height: int,
    width: int,
    collar: float = 0.0,
    advance: Advance | None = None,
    side: int = 2048,
) -> Path:
    """Write a scene of any size, in memory that its height does not change.

    One square of the city is mirrored over the scene like tiles of a floor: for measuring speed
    and memory, not for training.

    Args:
        path: The GeoTIFF, tiled, with overviews; nodata is 0 and no other pixel is 0.
        seed: The city.
        height: Rows, px.
        width: Columns, px.
        collar: Share of the width that a slanting border without data takes on either side.
        advance: Called with the rows written.
        side: Side of the square that is drawn, px.
    """
    square = np.maximum(make_scene(seed, side, side).image, 1)
    cols = _mirrored(np.arange(width), side)
    layer = {"image": Layer(path, 3, "uint8", 0)}
    frame: dict[str, Any] = {"crs": CRS, "transform": transform_at(seed, 0, 0)}
    with SceneWriter(layer, width=width, height=height, signature={}, **frame) as writer:
        for top in range(0, height, BLOCK):
            rows = np.arange(top, min(top + BLOCK, height))
            pixels = square[_mirrored(rows, side)[:, None], cols]
            if collar:
                pixels[_collar(rows, height, width, collar)] = 0
            writer.write_row({"image": np.moveaxis(pixels, -1, 0)})
            if advance is not None:
                advance(len(rows))
        writer.commit()
    return path


def _mirrored(index: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Fold indexes into 0..side-1, back and forth."""
    folded: NDArray[np.int64] = np.minimum(index % (2 * side), 2 * side - 1 - index % (2 * side))
    return folded


def _collar(rows: NDArray[np.int64], height: int, width: int, share: float) -> NDArray[np.bool_]:
    left = (share * width * rows / max(height - 1, 1))[:, None]
    across = np.arange(width)[None, :]
    hidden: NDArray[np.bool_] = (across < left) | (across >= width - share * width + left)
    return hidden
