"""Preparation of a Potsdam-sized set: ours, the usual one-tile-at-a-time script, and bare reading.

The set is written by the tests' writer in the real layout: 38 tiles of 6000 x 6000 px with an RGB
orthophoto, a colour label and an eroded one. Of them 37 are prepared (7_10 is left out). The peer
is what a notebook does: read a label, compare it with every colour, write ids, one after another;
it neither checks the orthophotos nor can it go on where it stopped. The limit is reading the same
bytes and doing nothing. The script and one process of ours run on a few tiles; reading, and ours
with a process per core, on all.

    python benchmarks/prepare.py --tiles 38 --compare 4 -o benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from benchmark_files import POTSDAM_TILES, write_potsdam
from terradapt.classes import ISPRS
from terradapt.prepare.isprs import find_potsdam, prepare_potsdam
from terradapt.prepare.options import PrepareOptions

DIFFERENT = 2  # tiles that are drawn; the others are copies under their own names


def write_set(root: Path, tiles: int, side: int) -> Path:
    """Draw a few tiles and copy them to the names of all others; a set that is there is kept."""
    if root.is_dir():
        return root
    write_potsdam(root, POTSDAM_TILES[:DIFFERENT], side, ("RGB",), dsm=False)
    for number, tile in enumerate(POTSDAM_TILES[DIFFERENT:tiles]):
        like = POTSDAM_TILES[number % DIFFERENT]
        for path in sorted(root.rglob(f"top_potsdam_{like}_*.tif")):
            shutil.copy(path, path.with_name(path.name.replace(like, tile, 1)))
    return root


def ours(source: Path, out: Path, workers: int) -> None:
    prepare_potsdam(source, out, PrepareOptions(split="by_image", workers=workers))


def script(source: Path, out: Path) -> None:
    """The usual script: every label whole, every colour compared, deflated GeoTIFF."""
    out.mkdir()
    for record in find_potsdam(source, out, PrepareOptions()).records:
        for number, path in enumerate((record.label, record.eroded)):
            with rasterio.open(path) as file:
                rgb = np.moveaxis(file.read(), 0, -1)
            height, width = rgb.shape[:2]
            ids = np.full((height, width), 255, np.uint8)
            for value, colour in enumerate(ISPRS.colours):
                ids[(rgb == colour).all(-1)] = value
            profile = {"driver": "GTiff", "height": height, "width": width}
            with rasterio.open(
                out / f"{record.id}_{number}.tif", "w", count=1, dtype="uint8",
                compress="deflate", **profile,
            ) as file:  # fmt: skip
                file.write(ids, 1)


def bare(source: Path) -> None:
    """Read every source in strips and drop it."""
    for path in sorted(source.rglob("*.tif")):
        if "7_10" in path.name:
            continue
        with rasterio.open(path) as file:
            for row in range(0, file.height, 512):
                file.read(window=((row, min(row + 512, file.height)), (0, file.width)))


class PeakMemory:
    """Largest resident memory of this process and its children together, sampled."""

    def __enter__(self) -> PeakMemory:
        self.peak, self.on = 0, True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.on = False
        self._thread.join()

    def _watch(self) -> None:
        while self.on:
            self.peak = max(self.peak, sum(_resident(p) for p in _family(os.getpid())))
            time.sleep(0.05)


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(p) for p in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += _family(child)
    return found


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _cpu() -> float:
    """Processor time of this process and of those that it has ended."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(w)[:2]) for w in whose)


def measure(work: Callable[[], None], pixels: int) -> dict[str, Any]:
    before = _resident(os.getpid())
    with PeakMemory() as memory:
        start, cpu = time.perf_counter(), _cpu()
        work()
        seconds, cpu = time.perf_counter() - start, _cpu() - cpu
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "megapixels_per_cpu_second": round(pixels / cpu / 1e6, 2),
        "megapixels_per_second": round(pixels / seconds / 1e6, 2),
        "peak_mb": round(memory.peak / 1e6),
        "peak_over_start_mb": round((memory.peak - before) / 1e6),
    }


def main() -> None:
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=38)
    parser.add_argument("--compare", type=int, default=4, help="tiles of the comparison")
    parser.add_argument("--side", type=int, default=6000, help="px")
    parser.add_argument("--workers", type=int, default=0, help="0: one per core")
    parser.add_argument("--folder", type=Path, help="where the set is written and kept")
    parser.add_argument("--only-write", action="store_true", help="write the set and stop")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        source = write_set((args.folder or Path(scratch)) / "in", args.tiles, args.side)
        results = {} if args.only_write else run(source, Path(scratch), args)
    if results:
        write(results, args.output)


def run(source: Path, scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    from terradapt.machine import hardware  # not in the processes that prepare

    load = os.getloadavg()[0]
    few = scratch / "few"
    for tile in POTSDAM_TILES[: args.compare]:
        for path in sorted(source.rglob(f"top_potsdam_{tile}_*.tif")):
            (few / path.parent.name).mkdir(parents=True, exist_ok=True)
            os.link(path, few / path.parent.name / path.name)
    prepared = len([t for t in POTSDAM_TILES[: args.tiles] if t != "7_10"])
    part, pixels = args.compare * args.side**2, prepared * args.side**2
    rows = {
        f"bare reading, {args.compare} tiles": measure(lambda: bare(few), part),
        f"script, {args.compare} tiles": measure(lambda: script(few, scratch / "script"), part),
        f"ours, 1 process, {args.compare} tiles": measure(
            lambda: ours(few, scratch / "one", 1), part
        ),
        f"bare reading, {prepared} tiles": measure(lambda: bare(source), pixels),
        f"ours, all cores, {prepared} tiles": measure(
            lambda: ours(source, scratch / "all", args.workers), pixels
        ),
        f"ours, second run, {prepared} tiles": measure(
            lambda: ours(source, scratch / "all", args.workers), pixels
        ),
    }
    written = sum(p.stat().st_size for p in (scratch / "all").rglob("*") if p.is_file())
    read = sum(p.stat().st_size for p in source.rglob("*.tif"))
    return {
        "what": "preparation of a Potsdam-sized set",
        "tiles": args.tiles,
        "prepared": prepared,
        "side": args.side,
        "pixels": pixels,
        "source_gb": round(read / 1e9, 2),
        "written_gb": round(written / 1e9, 3),
        "hardware": hardware(),
        "load": round(load, 1),
        "date": date.today().isoformat(),
        "results": rows,
    }


def write(results: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"prepare_{os.cpu_count()}cpu_{results['date']}"
    (folder / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    lines = [
        f"# Preparation of {results['prepared']} tiles of {results['side']} x {results['side']} px",
        "",
        f"{results['source_gb']} GB of orthophotos and labels in, {results['written_gb']} GB out; "
        f"{results['hardware']}, {results['date']}. Two tiles are drawn, the others are copies; "
        "files are in the page cache where it holds them.",
        "",
        "| way | s | Mpx/s | CPU s | Mpx/CPU s | peak memory MB | over the start |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, row in results["results"].items():
        lines.append(
            f"| {way} | {row['seconds']} | {row['megapixels_per_second']} "
            f"| {row['cpu_seconds']} | {row['megapixels_per_cpu_second']} "
            f"| {row['peak_mb']} | {row['peak_over_start_mb']} |"
        )
    lines += ["", "The script converts labels alone; ours also reads every orthophoto through,"]
    lines += ["checks it against its label, and counts classes and band statistics."]
    lines += [f"One-minute load when it began: {results['load']}.", ""]
    (folder / f"{name}.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
