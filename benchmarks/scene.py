"""Whole scenes: ours against the bare model and against how three other tools do it.

One scene with nodata, one model, the same windows. The other ways are written here from their
public descriptions, with this package's reader and model, so that only the method differs:

``bare`` is the network on the same windows, all cores on one window after another; ``bare abreast``
runs it in as many streams as ``predict`` does, which is the harder limit.

- ``geoai``: windows read one by one; float64 accumulators of all classes and weights over the
  whole scene; cosine ramps over the overlap; division by the weight + 1e-8; written at the end.
- ``terratorch``: the whole scene in memory as float32, reflect padding, half-cosine mask of the
  whole window + 1e-6, float32 accumulators over the whole scene.
- ``geoseg``: the whole scene in memory, windows side by side without overlap, no georeference.

Wrong pixels are those that a model of constant scores gets wrong: a score more than 1 % off, no
class where the scene has data, or a class where it has none. Each run is a process of its own.

    python benchmarks/scene.py -o benchmarks/results [compare memory growth workers]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from predict import Cheap, open_model, peak_mib, run_bare, write_scene
from terradapt.grid import Window
from terradapt.raster import SceneReader, write_raster
from terradapt.scene import PredictOptions, predict_blocks, predict_scene

PARTS = ("compare", "memory", "growth", "workers")
METHODS = ("bare", "bare abreast", "ours", "ours, overlap 0", "geoai", "terratorch", "geoseg")


class Constant(Cheap):
    """Gives class 1 the score 1 everywhere."""

    def predict(self, images: np.ndarray, /) -> np.ndarray:
        scores = np.zeros((len(images), len(self.classes), *images.shape[2:]), np.float32)
        scores[:, 1] = 1
        return scores


def starts(length: int, window: int, stride: int) -> list[int]:
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def batches(places: list[tuple[int, int]], size: int = 4) -> Iterator[list[tuple[int, int]]]:
    for first in range(0, len(places), size):
        yield places[first : first + size]


def numpy_scores(predictor: Any, images: np.ndarray) -> np.ndarray:
    scores: np.ndarray = predictor.numpy(predictor.predict(images))
    return scores


def by_geoai(predictor: Any, scene: Path, out: Path, overlap: float = 0.25) -> np.ndarray:
    window = predictor.window
    ramp = round(window * overlap)
    with SceneReader(scene, predictor.spec) as reader:
        height, width = reader.height, reader.width
        total = np.zeros((len(predictor.classes), height, width), np.float64)
        weight = np.zeros((1, height, width), np.float64)
        edge = np.ones(window)
        edge[:ramp] = 0.5 * (1 - np.cos(np.pi * np.arange(ramp) / ramp))
        edge[-ramp:] = edge[:ramp][::-1]
        taper = np.outer(edge, edge)
        rows, cols = (starts(n, window, window - ramp) for n in (height, width))
        for part in batches([(r, c) for r in rows for c in cols]):
            images = np.stack([reader.read(Window(r, c, window, window))[0] for r, c in part])
            for (r, c), scores in zip(part, numpy_scores(predictor, images), strict=True):
                place = np.s_[:, r : r + window, c : c + window]
                total[place] += scores[:, : height - r, : width - c] * taper
                weight[place] += taper
        total /= weight + 1e-8
        classes = np.where(weight[0] > 0, total.argmax(0), 255).astype(np.uint8)
        write_raster(out, classes, crs=reader.crs, transform=reader.transform, nodata=255)
    return np.where(weight[0] > 0, total[1], np.nan)


def by_terratorch(predictor: Any, scene: Path, out: Path, overlap: float = 0.25) -> np.ndarray:
    window = predictor.window
    stride = round(window * (1 - overlap))
    with SceneReader(scene, predictor.spec) as reader:
        height, width = reader.height, reader.width
        pixels, valid = reader.read(Window(0, 0, height, width))
        crs, transform = reader.crs, reader.transform
    pad = window - stride
    whole = np.pad(pixels.astype(np.float32), ((0, 0), (pad, pad), (pad, pad)), "reflect")
    total = np.zeros((len(predictor.classes), *whole.shape[1:]), np.float32)
    count = np.zeros(whole.shape[1:], np.float32)
    half = np.sin(np.pi * (np.arange(window) + 0.5) / window)
    taper = (np.outer(half, half) + 1e-6).astype(np.float32)
    rows, cols = (starts(n, window, stride) for n in whole.shape[1:])
    for part in batches([(r, c) for r in rows for c in cols]):
        images = np.stack([whole[:, r : r + window, c : c + window] for r, c in part])
        for (r, c), scores in zip(
            part, numpy_scores(predictor, images.astype(np.uint8)), strict=True
        ):
            total[:, r : r + window, c : c + window] += scores * taper
            count[r : r + window, c : c + window] += taper
    total = (total / count)[:, pad : pad + height, pad : pad + width]
    classes = np.where(valid, total.argmax(0), 255).astype(np.uint8)
    write_raster(out, classes, crs=crs, transform=transform, nodata=255)
    return np.where(valid, total[1], np.nan)


def by_geoseg(predictor: Any, scene: Path, out: Path) -> np.ndarray:
    window = predictor.window
    with SceneReader(scene, predictor.spec) as reader:
        height, width = reader.height, reader.width
        pixels, _ = reader.read(Window(0, 0, height, width))
    pads = [(0, -n % window) for n in (height, width)]
    whole = np.pad(pixels, ((0, 0), *pads))
    classes = np.zeros(whole.shape[1:], np.uint8)
    places = [(r, c) for r in range(0, whole.shape[1], window)
              for c in range(0, whole.shape[2], window)]  # fmt: skip
    for part in batches(places):
        images = np.stack([whole[:, r : r + window, c : c + window] for r, c in part])
        for (r, c), scores in zip(part, numpy_scores(predictor, images), strict=True):
            classes[r : r + window, c : c + window] = scores.argmax(0)
    write_raster(out, classes[:height, :width])
    found: np.ndarray = (classes[:height, :width] == 1).astype(np.float32)
    return found


def run_method(args: argparse.Namespace, predictor: Any) -> None:
    out = args.scene.with_name("map.tif")
    if args.method.startswith("bare"):
        run_bare(args, predictor, args.method.endswith("abreast"))
    elif args.method.startswith("ours"):
        overlap = 0.0 if args.method.endswith("0") else 0.25
        predict_scene(predictor, args.scene, out, PredictOptions(overlap=overlap, overwrite=True))
    else:
        ways = {"geoai": by_geoai, "terratorch": by_terratorch, "geoseg": by_geoseg}
        ways[args.method](predictor, args.scene, out)


def wrong_pixels(method: str, scene: Path, window: int) -> int:
    """Pixels that a constant model gets wrong."""
    predictor, out = Constant(window), scene.with_name("constant.tif")
    with SceneReader(scene, predictor.spec) as reader:
        _, valid = reader.read(Window(0, 0, reader.height, reader.width))
        if method.startswith("ours"):
            options = PredictOptions(overlap=0.0 if method.endswith("0") else 0.25, scores="uint8")
            blocks = predict_blocks(reader, predictor, options)
            score = np.concatenate([b.scores[1] for b in blocks if b.scores is not None])
        else:
            ways = {"geoai": by_geoai, "terratorch": by_terratorch, "geoseg": by_geoseg}
            score = ways[method](predictor, scene, out)
    good = np.where(valid, np.abs(score - 1) <= 0.01, np.isnan(score))
    return int((~good).sum())


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    scene = folder / "scene.tif"
    write_holed(scene, args.side)
    found: dict[str, Any] = {}
    for name in METHODS:
        found[name] = child(args, "method", scene, args.side, args.side, method=name)
        if not name.startswith("bare"):
            found[name]["wrong_pixels"] = wrong_pixels(name, scene, args.window)
    return found


def write_holed(path: Path, side: int) -> None:
    """Write a scene with a nodata corner; lossless, so that nodata stays nodata."""
    import rasterio

    write_scene(path, side, side)
    with rasterio.open(path) as file:
        pixels, profile = file.read(), file.profile
    pixels = np.maximum(pixels, 1)
    pixels[:, : side // 4, : side // 3] = 0
    profile.update(nodata=0, compress="deflate", photometric="rgb")
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)


def memory(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Peak memory of a dense strip, and of a sparse scene that holds the same strip."""
    found = {}
    for name, height in (("strip", args.strip), ("sparse scene", args.wide)):
        scene = folder / f"{height}.tif"
        write_sparse(scene, args.wide, height, args.strip)
        found[name] = child(args, "cheap", scene, height, args.wide)
        found[name]["height"] = height
        scene.unlink()
    return found


def write_sparse(path: Path, width: int, height: int, strip: int) -> None:
    import rasterio
    from rasterio.transform import Affine

    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8",
               "crs": "EPSG:32633", "transform": Affine(0.3, 0, 500_000, 0, -0.3, 5_400_000),
               "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "lzw", "nodata": 0,
               "sparse_ok": True, "bigtiff": "YES", "interleave": "pixel"}  # fmt: skip
    row = np.random.default_rng(0).integers(1, 255, (3, 16, -(-width // 32)), dtype=np.uint8)
    block = np.repeat(np.repeat(row, 32, 1), 32, 2)[:, :, :width]
    first = (height - strip) // 2 // 512 * 512
    with rasterio.open(path, "w", **profile) as file:
        for top in range(first, first + strip, 512):
            rows = min(512, first + strip - top)
            window = rasterio.windows.Window(0, top, width, rows)
            file.write(block[:, :rows], window=window)


def growth(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time per window and per pixel of 1, 4, 16, 64 windows of work for each core."""
    found, stride, cores = {}, args.window * 3 // 4, os.cpu_count() or 1
    for side in (1, 2, 4, 8):
        height, width = (args.window + (n - 1) * stride for n in (side, side * cores))
        scene, windows = folder / f"{side}.tif", side * side * cores
        write_scene(scene, height, width)
        runs = [
            child(args, "method", scene, height, width, method="ours") for _ in range(args.rounds)
        ]
        best = {key: min(r[key] for r in runs) for key in ("seconds", "cpu_seconds")}
        found[str(side * side)] = {
            **{key: value / windows for key, value in best.items()},
            "microseconds_per_pixel": 1e6 * best["seconds"] / (height * width),
        }
    return found


def workers(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same scene on one and on two local Dask workers of one thread each."""
    scene = folder / "scene.tif"
    height = 16 * 512
    write_scene(scene, height, args.window * 2)
    return {
        str(n): child(args, "cluster", scene, height, args.window * 2, method=str(n))
        for n in (1, 2)
    }


def in_child(args: argparse.Namespace) -> None:
    args.threads = 1 if args.child == "cluster" else args.threads
    predictor = Cheap(args.window) if args.child == "cheap" else open_model(args)
    predictor.predict(np.zeros((1, 3, args.window, args.window), np.uint8))
    if args.child == "cluster":
        start, cpu = over_cluster(args, predictor)
    else:
        start, cpu = time.perf_counter(), time.process_time()
        if args.child == "cheap":
            predict_scene(
                predictor,
                args.scene,
                args.scene.with_name("map.tif"),
                PredictOptions(overwrite=True),
            )
        else:
            run_method(args, predictor)
    figures = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
    }
    print(json.dumps(figures))


def over_cluster(args: argparse.Namespace, predictor: Any) -> tuple[float, float]:
    from terradapt.scene.cluster import Cluster

    again = PredictOptions(overwrite=True)
    plain = argparse.Namespace(encoder=args.encoder, window=args.window, threads=1)
    out = args.scene.with_name("map.tif")
    os.environ["OMP_NUM_THREADS"] = "1"
    with Cluster("local", partial(open_model, plain), "model", workers=int(args.method)) as pool:
        small = args.scene.with_name("small.tif")
        write_scene(small, 512 * int(args.method), args.window)
        # every worker opens its model
        predict_scene(predictor, small, out, again, blocks=pool.blocks)
        start, cpu = time.perf_counter(), time.process_time()
        predict_scene(predictor, args.scene, out, again, blocks=pool.blocks)
        return start, cpu


def child(
    args: argparse.Namespace, kind: str, scene: Path, height: int, width: int, method: str = ""
) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", kind, "--scene", str(scene)]
    command += ["--method", method, "--height", str(height), "--width", str(width)]
    command += ["--window", str(args.window), "--encoder", args.encoder]
    command += ["--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind} {method} {width} x {height}: {figures}", flush=True)
    return figures


def tables(args: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if "compare" in found:
        runs = found["compare"]
        lines += [f"## The same {args.side} x {args.side} scene and model", "",
                  "| way | wall s | share of bare | of bare abreast | processor s | peak MiB | "
                  "wrong pixels |", "|---|---|---|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {name} | {r['seconds']:.2f} | {runs['bare']['seconds'] / r['seconds']:.3f} | "
            f"{runs['bare abreast']['seconds'] / r['seconds']:.3f} | {r['cpu_seconds']:.2f} | "
            f"{r['peak_mib']:.0f} | {r.get('wrong_pixels', '')} |"
            for name, r in runs.items()
        ]
    if "memory" in found:
        strip, whole = found["memory"]["strip"], found["memory"]["sparse scene"]
        lines += ["", "## Peak memory by height", "", "| scene | peak MiB |", "|---|---|"]
        lines += [f"| {args.wide} x {r['height']} | {r['peak_mib']:.0f} |" for r in (strip, whole)]
        lines += [f"| ratio | {whole['peak_mib'] / strip['peak_mib']:.3f} |"]
    if "growth" in found:
        rows = found["growth"]
        mean = sum(r["microseconds_per_pixel"] for r in rows.values()) / len(rows)
        lines += ["", "## Cost by windows of work for each core", "",
                  "| windows | wall s per window | processor s | us per pixel | of their mean |",
                  "|---|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {n} | {r['seconds']:.4f} | {r['cpu_seconds']:.4f} | "
            f"{r['microseconds_per_pixel']:.3f} | {r['microseconds_per_pixel'] / mean:.3f} |"
            for n, r in rows.items()
        ]
    if "workers" in found:
        one, two = (found["workers"][n]["seconds"] for n in ("1", "2"))
        lines += [
            "",
            "## Local Dask workers of one thread",
            "",
            "| workers | wall s |",
            "|---|---|",
        ]
        lines += [f"| 1 | {one:.2f} |", f"| 2 | {two:.2f} |", f"| speed-up | {one / two:.2f} |"]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {PARTS}")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--side", type=int, default=4000, help="of the compared scene, px")
    parser.add_argument("--wide", type=int, default=100_000, help="of the scenes for memory, px")
    parser.add_argument("--strip", type=int, default=20_000, help="dense rows, px")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--encoder", default="mobilenetv3_small_100")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--child")
    parser.add_argument("--method", default="")
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    args = parser.parse_args()
    if args.child:
        in_child(args)
        return
    from terradapt.machine import hardware

    found: dict[str, Any] = {}
    for part in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            found[part] = globals()[part](args, Path(folder))
    settings = {k: v for k, v in vars(args).items() if isinstance(v, (int, str)) and v != ""}
    text = [f"# Whole scenes, {date.today()}", "", hardware(), "",
            f"kd-arafnet, {args.encoder}, random weights, window {args.window} px, overlap 0.25, "
            f"{args.threads} threads of the model.", "", *tables(args, found), ""]  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    name = f"scene_{'_'.join(args.parts) if len(args.parts) < len(PARTS) else 'all'}"
    name += f"_{os.cpu_count()}cpu_{date.today()}"
    (args.output / f"{name}.md").write_text("\n".join(text))
    facts = {"hardware": hardware(), "settings": settings, **found}
    (args.output / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
