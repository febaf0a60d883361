"""APLS of two street networks of 5,000 edges: terradapt, and CosmiQ's method written with networkx.

The peer follows apls.py of CosmiQ step by step: control points put into both graphs as nodes that
split edges, Dijkstra from every control point in both, a loop over all pairs. It is generous to the
peer in two places: nearest edges come from a spatial index, and path lengths are not stored. It
runs paths from every 16th control point only, and its time is 16 times that; the values are
compared over the same paths.

    python benchmarks/apls.py -o benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path

import networkx as nx
import numpy as np
import shapely

from terradapt.machine import hardware
from terradapt.metrics.network import Roads, path_lengths, snap
from terradapt.metrics.network_apls import AplsOptions, apls, control_points

Similarity = Callable[[Roads, Roads, AplsOptions, int], float]
Spot = tuple[int, float, str]  # edge, metres along it, name


def streets(side: int, seed: int, missing: float, jitter: float) -> list[shapely.LineString]:
    """Return a bent street grid; junctions of both networks lie within a few metres."""
    layout, rng = np.random.default_rng(1), np.random.default_rng(seed)
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1) * 80.0
    place = place + layout.uniform(-15, 15, place.shape) + rng.uniform(-jitter, jitter, place.shape)
    lines = []
    for r in range(side):
        for c in range(side):
            for s, d in ((r + 1, c), (r, c + 1)):
                bend = layout.uniform(-8, 8, 2)
                if s < side and d < side and rng.random() >= missing:
                    middle = (place[r, c] + place[s, d]) / 2 + bend
                    lines.append(shapely.LineString([place[r, c], middle, place[s, d]]))
    return lines


def nearest(roads: Roads, xy: np.ndarray, reach: float) -> list[Spot]:
    """Return where the points lie on the other network; those out of reach are left out."""
    points = np.asarray(shapely.points(xy))
    found, edges = shapely.STRtree(roads.lines).query_nearest(points, max_distance=reach)
    spots: dict[int, Spot] = {}
    for point, edge in zip(found.tolist(), edges.tolist(), strict=True):
        along = float(shapely.line_locate_point(roads.lines[edge], points[point]))
        spots.setdefault(point, (edge, along, f"p{point}"))
    return list(spots.values())


def with_points(roads: Roads, spots: list[Spot]) -> nx.MultiGraph:
    """Return the network with the points as nodes that split its edges."""
    graph = nx.MultiGraph()
    on_edge: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for edge, along, name in spots:
        on_edge[edge].append((along, name))
    for edge, (u, v) in enumerate(roads.edges.tolist()):
        before, at = u, 0.0
        for along, name in sorted(on_edge[edge]):
            graph.add_edge(before, name, length=along - at)
            before, at = name, along
        graph.add_edge(before, v, length=float(roads.length[edge]) - at)
    return graph


def similarity(one: Roads, two: Roads, options: AplsOptions, every: int) -> float:
    points = control_points(one, options)
    own = [
        (int(e), float(a), f"p{i}")
        for i, (e, a) in enumerate(zip(points.edge, points.along, strict=True))
    ]
    here, there = with_points(one, own), with_points(two, nearest(two, points.xy, options.snap))
    total, number = 0.0, 0
    for _, _, start in own[::every]:
        lengths = nx.single_source_dijkstra_path_length(here, start, weight="length")
        others = (
            nx.single_source_dijkstra_path_length(there, start, weight="length")
            if start in there else {}
        )  # fmt: skip
        for stop, length in lengths.items():
            if not isinstance(stop, str) or length < options.min_path:
                continue
            number += 1
            total += min(1.0, abs(length - others[stop]) / length) if stop in others else 1.0
    return 1.0 - total / number


def ours(one: Roads, two: Roads, options: AplsOptions, every: int) -> float:
    """Return terradapt's similarity over the peer's paths."""
    points = control_points(one, options)
    rows = np.arange(0, len(points.edge), every)
    true = path_lengths(one, points, rows)
    found = path_lengths(two, snap(two, points.xy, options.snap), rows)
    kept = np.isfinite(true) & (true >= options.min_path)
    length, match = true[kept], found[kept]
    gone = ~np.isfinite(match)
    differ = np.abs(length - np.where(gone, 0.0, match)) / length
    return float(1.0 - np.minimum(np.where(gone, 1.0, differ), 1.0).mean())


def harmonic(function: Similarity, truth: Roads, proposal: Roads, every: int) -> float:
    options = AplsOptions()
    one, two = (function(*pair, options, every) for pair in ((truth, proposal), (proposal, truth)))
    return 2 * one * two / (one + two)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--side", type=int, default=53, help="junctions per side")
    parser.add_argument("--every", type=int, default=16, help="control points that the peer skips")
    options = parser.parse_args()
    truth = Roads.from_lines(streets(options.side, 2, 0.08, 0.0))
    proposal = Roads.from_lines(streets(options.side, 3, 0.08, 2.0))
    row: dict[str, float] = {"edges_truth": len(truth.edges), "edges_proposal": len(proposal.edges)}
    apls(truth, truth)  # load what is loaded once
    start = time.perf_counter()
    row["apls"] = apls(truth, proposal)["apls"]
    row["terradapt_seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    row["networkx_apls"] = harmonic(similarity, truth, proposal, options.every)
    row["networkx_seconds"] = (time.perf_counter() - start) * options.every
    row["terradapt_apls"] = harmonic(ours, truth, proposal, options.every)
    row["ratio"] = row["networkx_seconds"] / row["terradapt_seconds"]
    row["difference"] = abs(row["networkx_apls"] - row["terradapt_apls"])
    lines = [
        f"# APLS of networks with {row['edges_truth']} and {row['edges_proposal']} edges", "",
        f"{hardware()}; Python {platform.python_version()}; {date.today()}; "
        "`python benchmarks/apls.py`",
        "", "| method | seconds | APLS |", "|---|---:|---:|",
        *(
            f"| {n} | {row[f'{n}_seconds']:.2f} | {row[f'{n}_apls']:.6f} |"
            for n in ("terradapt", "networkx")
        ),
        "", f"Values over the paths from every {options.every}th control point; "
        f"APLS over all: {row['apls']:.6f}.",
        "", f"{row['ratio']:.1f} times as fast; the values differ by {row['difference']:.1e}.",
    ]  # fmt: skip
    print("\n".join(lines))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"apls_{os.cpu_count()}cpu_{date.today()}.json"
    path.write_text(json.dumps(row, indent=2))
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
