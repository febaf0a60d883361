"""Small benchmarks in the real layouts: names, bands, types, colours and archives as they come."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from terradapt.classes import IGNORE, ISPRS
from terradapt.raster import write_raster

_AREAS = (
    "1 2 3 4 5 6 7 8 10 11 12 13 14 15 16 17 20 21 22 23 24 26 27 28 29 30 31 32 33 34 35 37 38"
)
_TILES = (
    "2_10 2_11 2_12 2_13 2_14 3_10 3_11 3_12 3_13 3_14 4_10 4_11 4_12 4_13 4_14 4_15 5_10 5_11 "
    "5_12 5_13 5_14 5_15 6_7 6_8 6_9 6_10 6_11 6_12 6_13 6_14 6_15 7_7 7_8 7_9 7_10 7_11 7_12 7_13"
)
VAIHINGEN_AREAS = tuple(_AREAS.split())
POTSDAM_TILES = tuple(_TILES.split())


def fake_ids(seed: int, height: int, width: int, classes: int = 6) -> NDArray[np.uint8]:
    """Patches of class ids with straight and slanting borders."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (height // 16 + 2, width // 16 + 2)).astype(np.uint8)
    rows = (np.arange(height)[:, None] + np.arange(width)[None, :] // 3) // 16
    cols = np.arange(width)[None, :] // 16 + 0 * rows
    ids: NDArray[np.uint8] = coarse[rows % coarse.shape[0], cols % coarse.shape[1]]
    return ids


def fake_image(seed: int, ids: NDArray[np.uint8], bands: int = 3) -> NDArray[np.uint8]:
    """Noise around a level per class: (bands, H, W)."""
    rng = np.random.default_rng([seed, 1])
    levels = rng.integers(20, 180, (bands, 256), np.uint8)
    image: NDArray[np.uint8] = levels[:, ids] + rng.integers(1, 42, (bands, *ids.shape), np.uint8)
    return image


def colours(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ISPRS colours: (3, H, W)."""
    return np.moveaxis(ISPRS.to_rgb(ids), -1, 0)


def eroded(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ids with 255 within a few pixels of every border, as the benchmark erodes them."""
    border = ndimage.maximum_filter(ids, 5) != ndimage.minimum_filter(ids, 5)
    return np.where(border, np.uint8(IGNORE), ids)


def write_vaihingen(
    root: Path, areas: Sequence[str] = VAIHINGEN_AREAS, height: int = 64, width: int = 48
) -> Path:
    """``top/``, ``dsm/``, ``gts_for_participants/`` and the eroded labels; no CRS, bare TIFFs."""
    for number, area in enumerate(areas):
        ids = fake_ids(number, height + number % 3, width)
        name = f"top_mosaic_09cm_area{area}"
        write_raster(root / "top" / f"{name}.tif", fake_image(number, ids), compress=None)
        write_raster(root / "gts_for_participants" / f"{name}.tif", colours(ids), compress=None)
        write_raster(root / "gts_eroded" / f"{name}_noBoundary.tif", colours(eroded(ids)))
        dsm = (ids.astype(np.float32) * 2 + 250)[None]
        write_raster(root / "dsm" / f"dsm_09cm_matching_area{area}.tif", dsm)
    return root


def write_potsdam(
    root: Path,
    tiles: Iterable[str] = POTSDAM_TILES,
    side: int = 64,
    bands: Sequence[str] = ("RGB", "IRRG", "RGBIR"),
    dsm: bool = True,
) -> Path:
    """The folders of the benchmark's archives: orthophotos, labels, eroded labels, DSM."""
    for number, tile in enumerate(tiles):
        ids = fake_ids(number + 100, side, side)
        rgbir = fake_image(number + 100, ids, 4)
        chosen = {"RGB": rgbir[:3], "IRRG": rgbir[[3, 0, 1]], "RGBIR": rgbir}
        row, col = (int(v) for v in tile.split("_"))
        corner = Affine(0.05, 0, 366000 + col * side * 0.05, 0, -0.05, 5808000 - row * side * 0.05)
        frame: dict[str, Any] = {"crs": "EPSG:32633", "transform": corner}
        for name in bands:
            folder = {"RGB": "2_Ortho_RGB", "IRRG": "3_Ortho_IRRG", "RGBIR": "4_Ortho_RGBIR"}[name]
            path = root / folder / f"top_potsdam_{tile}_{name}.tif"
            write_raster(path, chosen[name], compress=None, **frame)
        label = root / "5_Labels_all" / f"top_potsdam_{tile}_label.tif"
        write_raster(label, colours(ids), compress=None)
        label = root / "5_Labels_all_noBoundary" / f"top_potsdam_{tile}_label_noBoundary.tif"
        write_raster(label, colours(eroded(ids)), compress=None)
        if dsm:
            height = (ids.astype(np.float32) + 40)[None]
            path = root / "1_DSM" / f"dsm_potsdam_{row:02d}_{col:02d}.tif"
            write_raster(path, height, **frame)
    return root


def write_deepglobe(root: Path, count: int = 6, side: int = 64) -> Path:
    """``train/`` with images and masks, ``valid/`` with images alone; masks are 3-band PNG."""
    for number in range(count):
        ids = fake_ids(number, side, side, 2)
        name = str(100000 + 37 * number)
        write_raster(root / "train" / f"{name}_sat.jpg", fake_image(number, ids))
        mask = np.repeat(ids[None] * np.uint8(255), 3, 0)
        write_raster(root / "train" / f"{name}_mask.png", mask)
    write_raster(root / "valid" / "999_sat.jpg", fake_image(99, fake_ids(99, side, side, 2)))
    return root


def write_spacenet(
    root: Path, chips: int = 3, side: int = 128, dtype: str = "uint16", city: str = "AOI_2_Vegas"
) -> Path:
    """``AOI_2_Vegas/PS-RGB`` chips in degrees with ``geojson_roads`` centrelines; one is empty."""
    step = 2.7e-6
    for number in range(1, chips + 1):
        ids = fake_ids(number, side, side, 2)
        pixels = fake_image(number, ids).astype(dtype) * (8 if dtype == "uint16" else 1)
        west, north = -115.3 + number * side * step, 36.2
        name = f"SN3_roads_train_{city}_PS-RGB_img{number}.tif"
        write_raster(
            root / city / "PS-RGB" / name,
            pixels,
            crs="EPSG:4326",
            transform=Affine(step, 0, west, 0, -step, north),
        )
        middle = north - side * step / 2
        line = [[west, middle], [west + side * step, middle]]
        empty = number == chips
        write_lines(
            root / city / "geojson_roads"
            / f"SN3_roads_train_{city}_geojson_roads_img{number}.geojson",
            [] if empty else [line],
        )  # fmt: skip
    return root


def write_lines(path: Path, lines: Sequence[Sequence[Sequence[float]]]) -> None:
    """A GeoJSON of lines in WGS 84, with the properties that SpaceNet's have."""
    properties = {"road_type": "5", "lane_number": "2", "paved": "1"}
    features = [
        {
            "type": "Feature",
            "properties": properties,
            "geometry": {"type": "LineString", "coordinates": line},
        }
        for line in lines
    ]
    name = "urn:ogc:def:crs:OGC:1.3:CRS84"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "crs": {"type": "name", "properties": {"name": name}},
                "features": features,
            }
        )
    )


def write_massachusetts(
    root: Path, counts: tuple[int, int, int] = (4, 1, 2), side: int = 96, mirror: bool = False
) -> Path:
    """``{train,valid,test}/{sat,map}``, or the mirror's ``tiff/{train,val,test}[_labels]``."""
    number = 0
    for split, count in zip(("train", "valid", "test"), counts, strict=True):
        for _ in range(count):
            ids = fake_ids(number, side, side, 2)
            name = f"{10078660 + number}_15"
            if mirror:
                part = "val" if split == "valid" else split
                image, label = root / "tiff" / part, root / "tiff" / f"{part}_labels"
            else:
                image, label = root / split / "sat", root / split / "map"
            corner = Affine(1, 0, 230000 + number * side, 0, -1, 900000)
            frame: dict[str, Any] = {"crs": "EPSG:26986", "transform": corner}
            write_raster(image / f"{name}.tiff", fake_image(number, ids), **frame)
            write_raster(label / f"{name}.tif", ids * np.uint8(255), **frame)
            number += 1
    return root


def write_loveda(root: Path, side: int = 64) -> Path:
    """``{Train,Val,Test}/{Urban,Rural}``; masks of 1..7 with a corner of 0; Test without masks."""
    places = [(s, c) for s in ("Train", "Val", "Test") for c in ("Rural", "Urban")]
    for number, (split, scene) in enumerate(p for p in places for _ in range(2)):
        ids = fake_ids(number, side, side, 7)
        folder = root / split / scene
        write_raster(folder / "images_png" / f"{number}.png", fake_image(number, ids))
        if split != "Test":
            values = ids + np.uint8(1)
            values[:4, :4] = 0
            write_raster(folder / "masks_png" / f"{number}.png", values)
    return root


def write_openearthmap(root: Path, side: int = 64) -> Path:
    """Three regions with lists; test without labels, the image of one tile is xBD's and absent."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    number = 0
    for region in ("aachen", "kyoto", "santa-rosa"):
        for tile, split in enumerate(("train", "train", "val", "test"), 1):
            name = f"{region}_{tile}.tif"
            lists[split].append(name)
            ids = fake_ids(number, side, side, 8)
            corner = Affine(0.3, 0, 300000 + number * side, 0, -0.3, 5600000)
            frame: dict[str, Any] = {"crs": "EPSG:32632", "transform": corner}
            if name != "santa-rosa_1.tif":
                image = root / region / "images" / name
                write_raster(image, fake_image(number, ids), **frame)
            if split != "test":
                values = ids + np.uint8(1)
                values[:4, :4] = 0
                write_raster(root / region / "labels" / name, values, **frame)
            number += 1
    for split, names in lists.items():
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
    (root / "xbd_files.csv").write_text(
        "santa-rosa-wildfire_00000042_pre_disaster.png,santa-rosa_1.tif\n"
    )
    return root


def write_levir_cd(root: Path, counts: tuple[int, int, int] = (4, 1, 2), side: int = 64) -> Path:
    """``{train,val,test}/{A,B,label}``: PNG, RGB dates and masks of 0 and 255."""
    number = 0
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        for place in range(1, count + 1):
            changed = fake_ids(number, side, side, 2)
            name = f"{split}_{place}.png"
            before = np.zeros_like(changed)
            write_raster(root / split / "A" / name, fake_image(number, before))
            write_raster(root / split / "B" / name, fake_image(number + 500, changed))
            write_raster(root / split / "label" / name, changed * np.uint8(255))
            number += 1
    return root


def pack_zip(folder: Path, archive: Path) -> Path:
    """Pack a folder's content; the folder's own name is not in the archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            packed.write(path, path.relative_to(folder).as_posix())
    return archive


def pack_tar(folder: Path, archive: Path) -> Path:
    """Pack a folder's content as tar, gzipped when the name says so."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    mode: Literal["w:gz", "w"] = "w:gz" if archive.suffix in (".gz", ".tgz") else "w"
    with tarfile.open(archive, mode) as packed:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            packed.add(path, path.relative_to(folder).as_posix())
    return archive
