"""Does the work of a verb grow as its input? 1, 4, 16 and 64 times as much, in one table.

Each verb runs as its users run it, in a process of its own: its processor seconds (user and system,
its children included) and its peak memory come from the kernel. A verb that grows as its work keeps
the seconds for a megapixel; one that grows faster shows a slope above 1 between the last two sizes.

    python benchmarks/growth.py --model CHECKPOINT -o growth_2cpu
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VERBS = ("predict", "vectorize", "roads", "data check", "compare")
TIMES = (1, 4, 16, 64)

MAKE = """
import sys
from pathlib import Path
import numpy as np
from terradapt.raster import write_raster
from terradapt.synthetic import make_scene, transform_at, write_large_scene
from terradapt.synthetic.files import CRS
folder, side, base, count = Path(sys.argv[1]), *map(int, sys.argv[2:])
def tiled(plane):
    index = np.arange(side) % (2 * base)
    index = np.minimum(index, 2 * base - 1 - index)
    return np.ascontiguousarray(plane[..., index[:, None], index])
drawn = make_scene(7, base, base)
place = {"crs": CRS, "transform": transform_at(7, 0, 0)}
write_large_scene(folder / "scene.tif", 7, side, side, side=base)
write_raster(folder / "classes.tif", tiled(drawn.labels), nodata=255, **place)
later = drawn.labels.copy()
for k in range(0, base - 64, 128):
    later[k : k + 40, k : k + 40] = 1
write_raster(folder / "later.tif", tiled(later), nodata=255, **place)
write_raster(folder / "roads.tif", tiled(drawn.roads), nodata=255, **place)
rng = np.random.default_rng(0)
for i in range(count):
    pixels = np.roll(np.moveaxis(drawn.image, -1, 0), int(rng.integers(base)), 1 + i % 2)
    write_raster(folder / f"data/images/{i}.tif", np.ascontiguousarray(pixels), **place)
    write_raster(folder / f"data/labels/{i}.tif", drawn.labels, **place)
"""


def command(verb: str, folder: Path, model: str) -> list[str]:
    """Return what its users type."""
    out = str(folder / "out")
    words = {
        "predict": ["predict", model, str(folder / "scene.tif"), "-o", f"{out}.tif"],
        "vectorize": ["vectorize", str(folder / "classes.tif"), "-o", f"{out}.gpkg"],
        "roads": ["vectorize", str(folder / "roads.tif"), "--roads", "1", "-o", f"{out}r.gpkg"],
        "data check": ["data", "check", str(folder / "data")],
        "compare": [
            "compare",
            str(folder / "classes.tif"),
            str(folder / "later.tif"),
            "-o",
            f"{out}c.gpkg",
        ],
    }
    return [sys.executable, "-m", "terradapt", *words[verb]]


def run(words: list[str]) -> dict[str, float]:
    """Run a command, and ask the kernel what it took."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        if os.waitstatus_to_exitcode(status) not in (0, 1):
            said.seek(0)
            raise SystemExit(f"{' '.join(words)}\n{said.read()}")
    return {
        "seconds": round(time.monotonic() - start, 2),
        "cpu": round(usage.ru_utime + usage.ru_stime, 2),
        "mib": round(usage.ru_maxrss / 1024),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return a row a verb: processor seconds and memory of each size, and the slope at the end."""
    sizes = sorted({r["pixels"] for r in rows})
    heads = [f"{n / 1e6:.2f} Mpx" for n in sizes]
    lines = [f"| verb | {' | '.join(heads)} | slope | memory |", "|---" * (len(heads) + 3) + "|"]
    for verb in dict.fromkeys(r["verb"] for r in rows):
        mine = sorted((r for r in rows if r["verb"] == verb), key=lambda r: r["pixels"])
        start = mine[0]["cpu"]
        last, before = mine[-1], mine[-2]
        work = math.log(last["pixels"] / before["pixels"])
        slope = math.log(last["cpu"] / before["cpu"]) / work
        cells = [f"{r['cpu']:.1f} s" for r in mine]
        memory = f"{mine[0]['mib']} to {last['mib']} MiB"
        lines.append(f"| {verb} | {' | '.join(cells)} | {slope:.2f} | {memory} |")
        assert start > 0
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a checkpoint, for predict")
    parser.add_argument("--base", type=int, default=512, help="side of the smallest scene, px")
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=VERBS)
    parser.add_argument("--times", type=int, nargs="+", default=list(TIMES))
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    rows = []
    for factor in args.times:
        side = round(args.base * math.sqrt(factor))
        with tempfile.TemporaryDirectory() as scratch:
            sizes = [str(v) for v in (side, args.base, 4 * factor)]
            subprocess.run([sys.executable, "-c", MAKE, scratch, *sizes], check=True)
            for verb in args.verbs:
                took = run(command(verb, Path(scratch), args.model))
                rows.append({"verb": verb, "pixels": side * side, **took})
                print(json.dumps(rows[-1]), flush=True)
    text = table(rows)
    print(text)
    if args.output:
        values = {"rows": rows, "python": platform.python_version(), "machine": platform.machine()}
        args.output.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
        head = "# Growth: processor seconds of each verb as its input grows\n\n"
        args.output.with_suffix(".md").write_text(head + text, "utf-8")


if __name__ == "__main__":
    main()
