"""Broken inputs of every kind, made from whole ones by a seed, and the verbs that read them."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import shapely
import torch

from onnx_files import write_tiny
from scene_files import PLACE, UTM, noise, write_scene
from terradapt import checkpoint, cli, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.meta import Meta
from terradapt.prepare.folder import prepare
from terradapt.raster import SceneWriter, write_raster
from terradapt.raster.georef import parse_crs
from terradapt.vector.geopackage import write_geopackage

HUGE = (b"4294967295", b"-1", b"1e308", b"nan", b"99999999999999999999", b"0", b"''", b"[[[[")
CONFIG = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))


def broken(data: bytes, seed: int) -> bytes:  # noqa: PLR0911
    """Return bytes with one kind of damage."""
    draw = random.Random(seed)
    kind = seed % 7
    at = draw.randrange(max(1, len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return (
            b"" if seed % 3 == 0 else data[:at] + bytes(min(64, len(data) - at)) + data[at + 64 :]
        )
    if kind == 2:
        out = bytearray(data)
        for _ in range(draw.choice((1, 4, 32))):
            out[draw.randrange(len(out))] = draw.randrange(256)
        return bytes(out)
    if kind == 3:  # the head, where sizes stand
        out = bytearray(data)
        for _ in range(draw.choice((1, 3))):
            out[draw.randrange(min(512, len(out)))] = draw.choice((0, 255, 127, 128))
        return bytes(out)
    if kind == 4:
        stop = draw.randrange(at, len(data) + 1)
        return data[:stop] + data[at:]
    if kind == 5:
        digits = [i for i, b in enumerate(data[:4096]) if chr(b).isdigit()] or [at]
        place = draw.choice(digits)
        return data[:place] + draw.choice(HUGE) + data[place + 1 :]
    return data[:at] + draw.choice((b"\0", b"\xff\xfe", b"<!--", b'"', b"}", b"]]>")) + data[at:]


@dataclass
class Whole:
    """A whole input and what reads it.

    Args:
        name: Of the kind.
        file: The file that is broken, within the case's folder.
        make: Writes the whole case into a folder.
        call: The verb's arguments, in that folder.
        raster: The result must have the scene's size.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    call: tuple[str, ...]
    raster: bool = False


def scenes(home: Path, **options: object) -> None:
    write_scene(home / "s.tif", noise(96, 80), **options)


def image(home: Path, name: str, driver: str) -> None:
    with rasterio.MemoryFile() as memory:
        profile = {"driver": driver, "count": 3, "dtype": "uint8", "height": 96, "width": 80}
        if driver == "JP2OpenJPEG":
            profile |= {"crs": UTM, "transform": PLACE}
        with memory.open(**profile) as file:
            file.write(noise(96, 80))
        (home / name).write_bytes(bytes(memory.getbuffer()))


def dataset(home: Path) -> None:
    for i in range(3):
        write_scene(home / f"ds/images/{i}.tif", noise(64, 64, seed=i))
        write_scene(home / f"ds/labels/{i}.tif", noise(64, 64, 1, seed=i) % 3)
    (home / "ds/classes.yaml").write_text("names: [field, wood, water]\ncolours: ['#ff0000', ")
    with (home / "ds/classes.yaml").open("a") as file:
        file.write("'#00ff00', [0, 0, 255]]\nvalues: [0, 1, 2]\nignore: [255]\n")
    splits = {"train": ["0"], "val": ["1"], "test": ["2"]}
    (home / "ds/splits.json").write_text(json.dumps(splits))


BOXES = np.array([shapely.box(5e5 + i, 54e5 - 9, 5e5 + 9, 54e5 - i) for i in range(3)], object)


def package(path: Path) -> None:
    columns = {"class": np.array(["a", "b", "a"], object)}
    write_geopackage(path, [("areas", "Polygon", BOXES, columns)], parse_crs(UTM, "test"))


def collection(path: Path) -> None:
    features = [
        {"type": "Feature", "properties": {"class": "ab"[i % 2]}, "geometry": g}
        for i, g in enumerate(map(shapely.geometry.mapping, BOXES))
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    whole = {"type": "FeatureCollection", "crs": crs, "features": features}
    path.write_text(json.dumps(whole))


def vector_dataset(home: Path, name: str, write: Callable[[Path], None]) -> None:
    for i in range(3):
        write_scene(home / f"ds/images/{i}.tif", noise(64, 64, seed=i))
    write(home / "ds" / name)


def mosaic(home: Path) -> None:
    scenes(home)
    part = '<SimpleSource><SourceFilename relativeToVRT="1">s.tif</SourceFilename><SourceBand>{0}'
    part += '</SourceBand><SrcRect xOff="0" yOff="0" xSize="80" ySize="96"/>'
    part += '<DstRect xOff="0" yOff="0" xSize="80" ySize="96"/></SimpleSource>'
    band = '<VRTRasterBand dataType="Byte" band="{0}">' + part + "</VRTRasterBand>"
    head = '<VRTDataset rasterXSize="80" rasterYSize="96"><SRS>EPSG:32633</SRS>'
    head += "<GeoTransform>500000, .3, 0, 5400000, 0, -.3</GeoTransform>"
    text = head + "".join(band.format(i) for i in (1, 2, 3)) + "</VRTDataset>"
    (home / "s.vrt").write_text(text)


def trained(home: Path) -> None:
    scenes(home)
    torch.manual_seed(0)
    meta = Meta(RunConfig(model=CONFIG), ClassMap(("a", "b", "c")), InputSpec(), 64)
    checkpoint.save(home / "m.safetensors", models.build(CONFIG, 3), meta)


def exported(home: Path) -> None:
    scenes(home)
    write_tiny(home / "m.onnx")


def benchmark(home: Path) -> None:
    """Four pairs as DeepGlobe names them."""
    for i in range(4):
        (home / "dg").mkdir(exist_ok=True)
        image(home, f"dg/{i}_sat.jpg", "JPEG")
        mask = np.repeat((noise(96, 80, 1, seed=i) > 127).astype(np.uint8) * 255, 3, axis=0)
        write_raster(home / f"dg/{i}_mask.png", mask)


def packed(home: Path, kind: str) -> None:
    benchmark(home)
    shutil.make_archive(str(home / "road"), kind, str(home / "dg"))


def indexed(home: Path) -> None:
    dataset(home)
    prepare(home / "ds", home / "q", {})


def stopped(home: Path) -> None:
    """A map that was stopped after its first row of blocks."""
    write_scene(home / "s.tif", noise(1600, 80))
    write_tiny(home / "m.onnx")
    write = SceneWriter.write_row

    def once(self: SceneWriter, *row: object) -> None:
        write(self, *row)
        raise KeyboardInterrupt

    SceneWriter.write_row = once
    try:
        assert call(home, *RESUME[:-1]).code == 130
    finally:
        SceneWriter.write_row = write


def recipe(home: Path) -> None:
    (home / "r.yaml").write_text(RunConfig(model=CONFIG).to_yaml())


def beside(make: Callable[[Path], None], write: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(home: Path) -> None:
        make(home)
        write(home)

    return both


TILED = {"tiled": True}
MAP = ("predict", "{onnx}", "{file}", "-o", "o.tif", "--cluster", "none")
AREA = ("predict", "{onnx}", "s.tif", "-o", "o.tif", "--cluster", "none", "--aoi", "{file}")
MODEL = ("predict", "{file}", "s.tif", "-o", "o.tif", "--cluster", "none")
RESUME = ("predict", "m.onnx", "s.tif", "-o", "o.tif", "--cluster", "none", "--resume")
CHECK = ("data", "check", "ds")
PREPARE = ("data", "deepglobe", "{file}", "-o", "to", "workers=1")
WHOLE = (
    Whole(
        "GeoTIFF, tiles", "s.tif", lambda h: scenes(h, tiled=True, compress="deflate"), MAP, True
    ),
    Whole("GeoTIFF, strips", "s.tif", lambda h: scenes(h, compress="lzw"), MAP, True),
    Whole("GeoTIFF, JPEG", "s.tif", lambda h: scenes(h, tiled=True, compress="jpeg"), MAP, True),
    Whole("PNG", "s.png", lambda h: image(h, "s.png", "PNG"), MAP, True),
    Whole("JPEG", "s.jpg", lambda h: image(h, "s.jpg", "JPEG"), MAP, True),
    Whole("JPEG 2000", "s.jp2", lambda h: image(h, "s.jp2", "JP2OpenJPEG"), MAP, True),
    Whole("VRT", "s.vrt", mosaic, MAP, True),
    Whole("GeoPackage, area", "a.gpkg", beside(scenes, lambda h: package(h / "a.gpkg")), AREA),
    Whole("GeoJSON, area", "a.json", beside(scenes, lambda h: collection(h / "a.json")), AREA),
    Whole("label", "ds/labels/1.tif", dataset, CHECK),
    Whole("image", "ds/images/1.tif", dataset, CHECK),
    Whole("classes", "ds/classes.yaml", dataset, CHECK),
    Whole("splits", "ds/splits.json", dataset, CHECK),
    Whole(
        "GeoPackage, labels",
        "ds/labels.gpkg",
        lambda h: vector_dataset(h, "labels.gpkg", package),
        CHECK,
    ),
    Whole(
        "GeoJSON, labels",
        "ds/labels.geojson",
        lambda h: vector_dataset(h, "labels.geojson", collection),
        CHECK,
    ),
    Whole("checkpoint", "m.safetensors", trained, MODEL),
    Whole("ONNX", "m.onnx", exported, MODEL),
    Whole("recipe", "r.yaml", recipe, ("train", "{file}", "--data", "none", "-o", "run")),
    Whole("journal", "o.tif.part/journal.jsonl", stopped, RESUME),
    Whole("index", "q/dataset.json", indexed, ("data", "check", "q")),
    Whole("zip", "road.zip", lambda h: packed(h, "zip"), PREPARE),
    Whole("tar.gz", "road.tar.gz", lambda h: packed(h, "gztar"), PREPARE),
)


@dataclass
class Seen:
    """What one call did."""

    code: int
    said: str
    seconds: float


def call(home: Path, *args: str) -> Seen:
    """Run the command line in this process, in a folder."""
    out, err = io.StringIO(), io.StringIO()
    before, argv = Path.cwd(), sys.argv
    start = time.monotonic()
    os.chdir(home)
    sys.argv = ["terradapt", *args]
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        code = 70
        err.write(f"Traceback {type(error).__name__}: {error}")
    finally:
        os.chdir(before)
        sys.argv = argv
    return Seen(code, err.getvalue(), time.monotonic() - start)


def files(home: Path) -> dict[str, int]:
    return {str(p.relative_to(home)): p.stat().st_size for p in home.rglob("*") if p.is_file()}


def peak() -> int:
    """Return the most memory that this process has held since the last call, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(s.split()[1]) << 10 for s in lines if s.startswith("VmHWM"))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return held


def folders(home: Path, whole: Whole, seeds: range) -> Iterator[tuple[int, Path]]:
    """Yield a folder with a broken input for each seed."""
    base = home / "whole"
    for place in ("ds/images", "ds/labels"):
        (base / place).mkdir(parents=True)
    if not whole.file.startswith("ds/labels/") and "labels." in whole.file:
        (base / "ds/labels").rmdir()
    whole.make(base)
    data = (base / whole.file).read_bytes()
    for seed in seeds:
        case = home / f"case{seed}"
        shutil.copytree(base, case)
        (case / whole.file).write_bytes(broken(data, seed))
        yield seed, case
        shutil.rmtree(case)
    call_whole = call(base, *(a.format(file=whole.file, onnx=home / "x.onnx") for a in whole.call))
    assert call_whole.code in ((0, 1) if whole.name != "recipe" else (2,)), call_whole.said
