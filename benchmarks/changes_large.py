"""A pair of two large scenes: peak memory of `terradapt compare`, and its time beside `predict`.

Two dates of one city are laid over scenes of any size like tiles of a floor, the later one 1 px
down and 2 px to the left, with other light and season. What is compared is the whole way: both
dates mapped by one model, the difference, objects, pictures. The peer is two calls of `predict` on
the same two scenes, with scores (which `compare` needs) and without. Every run is a process of its
own, on one thread; the ways take turns, and their order turns round from round to round. Throughput
is pixels a second of processor time: on a machine that others use too it is steadier than the
clock's.

    python benchmarks/changes_large.py CHECKPOINT --width 10000 --heights 2500,10000 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np

from predict import peak_mib
from terradapt.machine import hardware
from terradapt.raster import Layer, SceneWriter
from terradapt.raster.cog import TILE
from terradapt.report.markdown import markdown_table
from terradapt.synthetic.dates import make_two_dates
from terradapt.synthetic.files import CRS, transform_at

SIDE, SEED, SHIFT = 2048, 97, (1, -2)
DATES = ("old", "new")
WAYS = ("two predictions", "two predictions, scores", "compare")


def write_scenes(folder: Path, height: int, width: int) -> None:
    """Write both dates, ``old.tif`` and ``new.tif``, in memory that the height does not change."""
    pair = make_two_dates(SEED, SIDE, SIDE, shift=SHIFT)
    cols = np.arange(width) % SIDE
    for name, scene in zip(DATES, (pair.before, pair.after), strict=True):
        layer = {"image": Layer(folder / f"{name}.tif", 3, "uint8")}
        frame: dict[str, Any] = {"crs": CRS, "transform": transform_at(SEED, 0, 0)}
        with SceneWriter(layer, width=width, height=height, signature={}, **frame) as writer:
            for top in range(0, height, TILE):
                rows = np.arange(top, min(top + TILE, height)) % SIDE
                pixels = scene.image[rows[:, None], cols]
                writer.write_row({"image": np.moveaxis(pixels, -1, 0)})
            writer.commit()


def measured(way: str, model: Path, folder: Path) -> dict[str, Any]:
    """Go one way in this process; return seconds, the peak of memory, and what was found."""
    from terradapt import predictors
    from terradapt.changes.run import compare
    from terradapt.scene import PredictOptions, predict_scene

    predictor = predictors.load(model)
    parts: dict[str, float] = {}

    @contextmanager
    def bar(total: int | None, label: str, unit: str) -> Any:
        begin = time.process_time()
        yield lambda _: None
        parts[label] = parts.get(label, 0.0) + time.process_time() - begin

    clock, begin, found = time.perf_counter(), time.process_time(), {}
    if way == "compare":
        old, new = (folder / f"{n}.tif" for n in DATES)
        figures = compare(old, new, folder / "u.gpkg", model=predictor, bar=bar, overwrite=True)
        found = {"polygons": figures["polygons"], "shift_px": figures["shift_px"]}
    else:
        scores: Literal["uint8"] | None = "uint8" if way.endswith("scores") else None
        for name in DATES:
            options = PredictOptions(scores=scores, overwrite=True)
            predict_scene(predictor, folder / f"{name}.tif", folder / f"{name}_map.tif", options)
    return {
        "cpu_s": time.process_time() - begin,
        "wall_s": time.perf_counter() - clock,
        "peak_mib": peak_mib(),
        "parts_cpu_s": parts,
        "found": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--width", type=int, default=10_000)
    parser.add_argument("--heights", default="2500,10000")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder for the scenes")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measured(args.way, args.model, args.work)))
        return
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    runs: list[dict[str, Any]] = []
    for height in map(int, args.heights.split(",")):
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            write_scenes(Path(folder), height, args.width)
            for number in range(args.rounds):
                for way in WAYS[:: 1 - 2 * (number % 2)]:
                    command = [sys.executable, __file__, str(args.model), "--way", way]
                    told = subprocess.run(
                        [*command, "--work", folder], env=environment, check=True,
                        stdout=subprocess.PIPE,
                    )  # fmt: skip
                    values = json.loads(told.stdout.splitlines()[-1])
                    runs.append({"height": height, "way": way, "round": number, **values})
                    print(runs[-1], flush=True)
    day = date.today().isoformat()
    setting = f"{hardware()}; one thread; Python {platform.python_version()}; {day}"
    rows = []
    for height in dict.fromkeys(r["height"] for r in runs):
        mine = [r for r in runs if r["height"] == height]
        cost = {w: np.mean([r["cpu_s"] for r in mine if r["way"] == w]) for w in WAYS}
        for way in WAYS:
            some = [r for r in mine if r["way"] == way]
            rows.append([
                f"{args.width} x {height}", way, f"{cost[way]:.1f}",
                f"{np.mean([r['wall_s'] for r in some]):.1f}",
                f"{2 * args.width * height / cost[way] / 1e6:.2f}",
                *(f"{cost[peer] / cost[way]:.3f}" for peer in WAYS[:2]),
                f"{max(r['peak_mib'] for r in some):.0f}",
            ])  # fmt: skip
    head = [
        "scene, px", "way", "CPU s", "clock s", "Mpx a CPU second",
        "of two predictions", "of two with scores", "peak MiB",
    ]  # fmt: skip
    text = (
        f"# Two dates of large scenes\n\n{setting}; {args.model.parent.name}/{args.model.name}, "
        f"{args.rounds} rounds\n\n{markdown_table(head, rows)}\n"
    )
    args.output.mkdir(parents=True, exist_ok=True)
    stem = args.output / f"changes_large_2cpu_{day}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(
        json.dumps({"setting": setting, "width": args.width, "runs": runs}, indent=1) + "\n"
    )
    print(text)


if __name__ == "__main__":
    main()
