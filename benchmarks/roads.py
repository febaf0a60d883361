"""Road mask to network: seconds and peak memory of terradapt, sknw and skan on one scene.

A dense street grid of 100 Mpx in a tiled GeoTIFF; each program reads it from the file, in a process
of its own, after a warm-up on a small scene. Memory is the peak above what the process held before.
terradapt gives the whole product (junctions merged, spurs pruned, gaps bridged, smooth lines,
widths, metres); sknw and skan give the graph of skimage's skeleton with lengths in pixels. sknw is
left out where it is not installed.

    python benchmarks/roads.py -o benchmarks/results
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
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

PEERS = ("terradapt", "sknw", "skan")
SPACING, WIDTH = 64, 9  # px


def write_grid(path: Path, side: int) -> None:
    """Write a street grid, bent a little, with one road in ten missing between two crossings."""
    from rasterio.transform import Affine

    from terradapt.raster import write_raster

    rng = np.random.default_rng(7)
    mask = np.zeros((side, side), np.uint8)
    at = np.arange(side)
    for line in range(SPACING // 2, side - WIDTH, SPACING):
        bend = np.rint(6 * np.sin(at / 300 + line)).astype(int)
        shown = np.repeat(rng.random(side // SPACING + 1) > 0.1, SPACING)[:side]
        for k in range(WIDTH):
            inside = np.clip(line + bend + k, 0, side - 1)
            mask[inside[shown], at[shown]] = 1
            mask[at[shown], inside[shown]] = 1
    transform = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    write_raster(path, mask, crs="EPSG:32633", transform=transform)


def run_terradapt(path: Path) -> dict[str, float]:
    from terradapt.vector import RasterSource, road_network

    return road_network(RasterSource(path, 1)).summary()


def skeleton_of(path: Path) -> np.ndarray:
    import rasterio
    from skimage.morphology import skeletonize

    with rasterio.open(path) as file:
        skeleton: np.ndarray = skeletonize(file.read(1) > 0)
    return skeleton


def run_sknw(path: Path) -> dict[str, float]:
    import networkx as nx
    import sknw

    graph = sknw.build_sknw(skeleton_of(path).astype(np.uint16), multi=True)
    length = sum(w for _, _, w in graph.edges(data="weight"))
    return {
        "nodes": graph.number_of_nodes(), "edges": graph.number_of_edges(), "length_m": length,
        "components": nx.number_connected_components(graph),
        "dead_ends": sum(d == 1 for _, d in graph.degree()),
    }  # fmt: skip


def run_skan(path: Path) -> dict[str, float]:
    import skan

    branches = skan.summarize(skan.Skeleton(skeleton_of(path)), separator="-")
    kind = branches["branch-type"]
    nodes = np.unique(branches[["node-id-src", "node-id-dst"]].to_numpy())
    return {
        "nodes": len(nodes), "edges": len(branches),
        "length_m": float(branches["branch-distance"].sum()),
        "components": int(branches["skeleton-id"].nunique()),
        "dead_ends": int((kind == 1).sum() + 2 * (kind == 0).sum()),
    }  # fmt: skip


RUNS: dict[str, Callable[[Path], dict[str, float]]] = {
    "terradapt": run_terradapt, "sknw": run_sknw, "skan": run_skan,
}  # fmt: skip


def memory(key: str) -> int:
    """Return a line of this process's status, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(key)


def child(name: str, small: Path, path: Path) -> None:
    """Measure one program in this process and print a line of JSON."""
    warnings.simplefilter("ignore")
    RUNS[name](small)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = memory("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    figures = RUNS[name](path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = memory("VmHWM")
    row = {"peak_mb": (peak - before) / 2**20, "process_mb": peak / 2**20, "seconds": seconds}
    row["cpu_seconds"] = cpu
    print(json.dumps(row | figures))


def measure(name: str, small: Path, path: Path) -> dict[str, Any] | None:
    command = [sys.executable, __file__, "--child", name, str(small), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: left out ({done.stderr.strip().splitlines()[-1]})")
        return None
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(name, row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--side", type=int, default=10_000, help="px")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], *map(Path, options.child[1:]))
        return
    with tempfile.TemporaryDirectory() as folder:
        small, path = Path(folder) / "small.tif", Path(folder) / "grid.tif"
        write_grid(small, 500)
        write_grid(path, options.side)
        rows: dict[str, dict[str, Any]] = {}
        for _ in range(options.rounds):
            for name in PEERS:
                row = measure(name, small, path)
                if (
                    row
                    and row["cpu_seconds"] < rows.get(name, {"cpu_seconds": np.inf})["cpu_seconds"]
                ):
                    rows[name] = row
    write(options.output, rows, options.side**2 / 1e6)


def _against_peers(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Say how terradapt stands to the fastest peer."""
    peers = {k: v for k, v in rows.items() if k != "terradapt"}
    if "terradapt" not in rows or not peers:
        return []
    own = rows["terradapt"]
    name, peer = min(peers.items(), key=lambda item: item[1]["seconds"])
    speed, share = peer["seconds"] / own["seconds"], own["peak_mb"] / peer["peak_mb"]
    return [f"terradapt: {speed:.2f} times as fast as {name}, in {share:.3f} of its memory.", ""]


def write(folder: Path, rows: dict[str, dict[str, Any]], megapixels: float) -> None:
    from terradapt.machine import hardware

    keys = (
        "seconds", "cpu_seconds", "peak_mb", "process_mb", "edges", "nodes", "components",
        "dead_ends", "length_m",
    )  # fmt: skip
    lines = [
        f"# Roads: a street grid of {megapixels:g} Mpx to a network", "",
        f"{hardware()}; Python {platform.python_version()}; {date.today()}; "
        "`python benchmarks/roads.py`", "",
        "| program | " + " | ".join(keys) + " |", "|---|" + "---:|" * len(keys),
    ]  # fmt: skip
    for name, row in rows.items():
        cells = [f"{row[k]:.2f}" if "seconds" in k else f"{row[k]:.0f}" for k in keys]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *_against_peers(rows)]
    lines += [
        "peak_mb: above what the process held before; process_mb: the whole process; "
        "cpu_seconds: of the process, that of each program's best round. Lengths of sknw and skan "
        "are along pixels, ours along the smooth lines.",
    ]  # fmt: skip
    name = f"roads_{os.cpu_count()}cpu_{date.today()}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.json").write_text(
        json.dumps({"megapixels": megapixels, "rows": rows}, indent=2)
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
