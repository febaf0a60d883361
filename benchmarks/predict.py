"""``predict`` on a synthetic scene against the bare model on the same windows; memory by height.

Rounds alternate. The bare model is the limit: a loop that normalises and runs the network on as
many windows, in the same batches, from one batch in memory; it reads, blends, labels and writes
nothing. "bare" gives all cores to one batch after another, as the network is ordinarily run;
"abreast" runs the loop in as many streams as predict does, a share of the cores each, which is the
harder limit. Each run is a process of its own; memory is the process's peak resident set.
Processor time counts all threads and is the fair figure on a machine that others use too.

    python benchmarks/predict.py -o benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from terradapt.scene import Predictor

SIDE = 10_000  # px
TALL = 40_000


def write_scene(path: Path, height: int, width: int) -> None:
    """Write a tiled, compressed aerial look-alike: smooth patches with a little noise."""
    import rasterio
    from rasterio.transform import Affine

    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8",
               "crs": "EPSG:32633", "transform": Affine(0.3, 0, 500_000, 0, -0.3, 5_400_000),
               "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "jpeg",
               "photometric": "ycbcr", "interleave": "pixel"}  # fmt: skip
    draw = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, height, 512):
            rows = min(512, height - top)
            coarse = draw.integers(40, 215, (3, 16, -(-width // 32)), dtype=np.uint8)
            strip = np.repeat(np.repeat(coarse, 32, 1), 32, 2)[:, :rows, :width]
            strip += draw.integers(0, 24, (1, rows, width), dtype=np.uint8)
            window = rasterio.windows.Window(0, top, width, rows)
            file.write(strip, window=window)


def open_model(args: argparse.Namespace) -> Any:
    import torch

    from terradapt import models
    from terradapt.classes import ISPRS
    from terradapt.config import EncoderConfig, InputSpec, ModelConfig
    from terradapt.predictors.torch import TorchPredictor

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name=args.encoder))
    model = models.build(config, len(ISPRS)).eval().to(memory_format=torch.channels_last)
    return TorchPredictor(model, ISPRS, InputSpec(), args.window)


def run_bare(args: argparse.Namespace, predictor: Any, abreast: bool) -> int:
    """Run the network alone on as many windows, in the same batches."""
    import torch

    from terradapt.predictors.torch import normalize_tensor
    from terradapt.scene import PredictOptions
    from terradapt.scene.predictor import streams_for

    options = PredictOptions()
    grid = options.grid(predictor, args.height, args.width)
    batch = options.batch_for(predictor, grid)
    pixels = np.random.default_rng(0).integers(
        0, 255, (batch, 3, grid.window, grid.window), dtype=np.uint8
    )

    @torch.inference_mode()
    def run(first: int) -> None:
        part = pixels[: min(batch, len(grid.cols.starts) - first)]
        x = normalize_tensor(torch.from_numpy(part), predictor.spec)
        predictor.model(x.contiguous(memory_format=torch.channels_last))

    work = [*range(0, len(grid.cols.starts), batch)] * len(grid.rows.starts)
    if not abreast:
        for first in work:
            run(first)
        return len(grid)
    streams = streams_for(predictor, grid, batch)
    with ThreadPoolExecutor(streams, initializer=lambda: predictor.share(streams)) as pool:
        deque(pool.map(run, work), 0)
    return len(grid)


def run_ours(args: argparse.Namespace, predictor: Any) -> int:
    from terradapt.scene import PredictOptions, predict_scene

    out = args.scene.with_name(f"map-{os.getpid()}.tif")
    predict_scene(predictor, args.scene, out)
    grid = PredictOptions().grid(predictor, args.height, args.width)
    out.unlink()
    return len(grid)


class Cheap(Predictor):
    """A predictor that costs next to nothing: what is left is the scene's own memory."""

    multiple = 1

    def __init__(self, window: int) -> None:
        from terradapt.classes import ISPRS
        from terradapt.config import InputSpec

        self.classes, self.spec, self.window = ISPRS, InputSpec(), window

    def predict(self, images: np.ndarray, /) -> np.ndarray:
        scores = np.empty((len(images), len(self.classes), *images.shape[2:]), np.float32)
        for k in range(len(self.classes)):
            np.multiply(images[:, k % 3], np.float32(1 / 255), out=scores[:, k])
        return scores


def peak_mib() -> float:
    """Return this process's peak resident set; getrusage may give the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def child(args: argparse.Namespace) -> None:
    import terradapt.scene  # noqa: F401  imports are not part of the measure

    predictor = Cheap(args.window) if args.child == "cheap" else open_model(args)
    if args.child != "cheap":
        predictor.predict(np.zeros((1, 3, args.window, args.window), np.uint8))
    start, cpu = time.perf_counter(), time.process_time()
    if args.child in ("bare", "abreast"):
        windows = run_bare(args, predictor, args.child == "abreast")
    else:
        windows = run_ours(args, predictor)
    figures = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "windows": windows,
        "peak_mib": peak_mib(),
    }
    print(json.dumps(figures))


def measure(
    args: argparse.Namespace, kind: str, scene: Path, height: int, width: int
) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", kind, "--scene", str(scene)]
    for name, value in (("height", height), ("width", width), ("window", args.window),
                        ("encoder", args.encoder), ("threads", args.threads)):  # fmt: skip
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind} {width} x {height}: {figures}", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--side", type=int, default=SIDE, help="of the timed scene, px")
    parser.add_argument("--wide", type=int, default=SIDE, help="of the scenes for memory, px")
    parser.add_argument("--tall", type=int, default=TALL, help="height of the tall one, px")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--encoder", default="mobilenetv3_small_100")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--child", choices=["bare", "abreast", "ours", "cheap"])
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    write(args, compare(args))


def compare(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.tif"
        write_scene(path, args.side, args.side)
        runs: dict[str, list[dict[str, float]]] = {"bare": [], "abreast": [], "ours": []}
        for _ in range(args.rounds):
            for kind, found in runs.items():
                found.append(measure(args, kind, path, args.side, args.side))
        memory = {}
        for height in (args.wide, args.tall):
            write_scene(path, height, args.wide)
            memory[str(height)] = measure(args, "cheap", path, height, args.wide)["peak_mib"]
    return {"runs": runs, "memory_mib": memory}


def write(args: argparse.Namespace, found: dict[str, Any]) -> None:
    from terradapt.machine import hardware

    wall, cpu = (
        {k: statistics.median(r[key] for r in runs) for k, runs in found["runs"].items()}
        for key in ("seconds", "cpu_seconds")
    )
    small, large = (found["memory_mib"][str(h)] for h in (args.wide, args.tall))
    windows = found["runs"]["bare"][0]["windows"]
    rows = [
        ("windows", f"{windows}"),
        ("processor seconds per window, bare model", f"{cpu['bare'] / windows:.4f}"),
        ("processor seconds per window, bare model abreast", f"{cpu['abreast'] / windows:.4f}"),
        ("processor seconds per window, predict", f"{cpu['ours'] / windows:.4f}"),
        ("share of the bare model, wall clock", f"{wall['bare'] / wall['ours']:.3f}"),
        ("share of the bare model abreast, wall clock", f"{wall['abreast'] / wall['ours']:.3f}"),
        ("share of the bare model, processor time", f"{cpu['bare'] / cpu['ours']:.3f}"),
        (f"peak memory, {args.wide} x {args.wide}, MiB", f"{small:.0f}"),
        (f"peak memory, {args.wide} x {args.tall}, MiB", f"{large:.0f}"),
        ("ratio of both", f"{large / small:.3f}"),
    ]
    how = (
        f"kd-arafnet, {args.encoder}, random weights, window {args.window} px, overlap 0.25, "
        f"{args.threads} threads of the model, {args.rounds} rounds; scene {args.side} x "
        f"{args.side}, JPEG tiles. Memory with a predictor that costs nothing, so that the "
        "scene's own share shows."
    )
    text = [f"# predict against the bare model, {date.today()}", "", hardware(), "", how, ""]
    text += ["| figure | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), ""]
    args.output.mkdir(parents=True, exist_ok=True)
    name = f"predict_{args.encoder}_{os.cpu_count()}cpu_{date.today()}"
    (args.output / f"{name}.md").write_text("\n".join(text))
    settings = ("side", "wide", "tall", "window", "encoder", "threads", "rounds")
    facts = {"hardware": hardware(), **{k: getattr(args, k) for k in settings}, **found}
    (args.output / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
