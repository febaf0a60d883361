"""Known changes of road networks, made from a seed, found again by `terradapt compare`'s roads.

Of every network a tenth of the edges is removed, a tenth of its length is added as new streets, a
tenth of the edges is moved by 3 m, and every line that stays gets other vertices (resampled every 3
to 12 m, each off by 0.2 m). Scores are by length: a found piece is right where it runs within 1 m
of a true piece of its state. What was moved or resampled must be neither new nor gone. The peer is
what a GIS does: buffer one network by the tolerance, and take the difference.

    python benchmarks/changes_roads.py FOLDER_OF_GEOJSON... -o benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import shapely

from terradapt.changes.roads import CHANGED, GONE, NEW, STATES, AlongOptions, compare_roads
from terradapt.machine import hardware
from terradapt.metrics.network import Roads
from terradapt.metrics.network_files import read_pair
from terradapt.report.markdown import markdown_table

SHARE, SHIFT, LEAST, CLOSE = 0.1, 3.0, 20.0, 1.0  # of edges; m; m of an edge that changes; m
Pieces = dict[str, list[shapely.LineString]]


def changed_network(roads: Roads, rng: np.random.Generator) -> tuple[Roads, Pieces]:
    """Return the network after the changes, and the true pieces of each state."""
    truth: Pieces = {state: [] for state in STATES}
    large = rng.permutation(np.flatnonzero(roads.length >= LEAST))
    count = max(1, round(SHARE * len(large)))
    gone, moved = set(large[:count].tolist()), set(large[count : 2 * count].tolist())
    lines = []
    for i, line in enumerate(roads.lines):
        if i in gone:
            truth[GONE].append(line)
        elif i in moved:
            lines.append(beside(line, SHIFT * rng.choice([-1, 1])))
            truth[CHANGED].append(shapely.LineString(lines[-1].coords[1:-1]))
        else:
            lines.append(resampled(line, rng))
    added, wanted = 0.0, SHARE * roads.length.sum()
    while added < wanted:
        base = lines[rng.integers(len(lines))]
        street = side_street(base, rng)
        lines.append(street)
        truth[NEW].append(street)
        added += street.length
    return Roads.from_lines(lines), truth


def beside(line: shapely.LineString, shift: float) -> shapely.LineString:
    """Return a line moved to its side, joined to its old ends."""
    xy = np.array(line.coords)
    aside = shapely.offset_curve(line, shift, join_style="mitre")
    parts = [np.array(part.coords) for part in shapely.get_parts(aside)]
    return shapely.LineString(np.concatenate([xy[:1], *parts, xy[-1:]]))


def resampled(line: shapely.LineString, rng: np.random.Generator) -> shapely.LineString:
    """Return a line with other vertices; its ends stay."""
    count = max(1, round(line.length / rng.uniform(3, 12)))
    at = np.sort(rng.uniform(0, line.length, count))
    inner = shapely.get_coordinates(shapely.line_interpolate_point(line, at))
    ends = np.array(line.coords)[[0, -1]]
    inner = inner + rng.normal(0, 0.2, inner.shape)
    return shapely.LineString(np.concatenate([ends[:1], inner, ends[1:]]))


def side_street(base: shapely.LineString, rng: np.random.Generator) -> shapely.LineString:
    """Return a street of 40 to 150 m that leaves a line at 50 to 130 degrees, bent once."""
    at = rng.uniform(0, base.length)
    start, ahead = (np.array(base.interpolate(s).coords[0]) for s in (at, min(at + 1, base.length)))
    way = ahead - start
    turn = np.arctan2(way[1], way[0]) + np.radians(rng.uniform(50, 130) * rng.choice([-1, 1]))
    length = rng.uniform(40, 150)
    middle = start + length / 2 * np.array([np.cos(turn), np.sin(turn)])
    turn += np.radians(rng.uniform(-20, 20))
    end = middle + length / 2 * np.array([np.cos(turn), np.sin(turn)])
    return shapely.LineString([start, middle, end])


def ours(old: Roads, new: Roads) -> Pieces:
    """Return the pieces that terradapt tells."""
    found = compare_roads(old, new)
    return {s: list(found.lines[found.state == s]) for s in STATES}


def buffered(old: Roads, new: Roads) -> Pieces:
    """Return the differences of lines and buffers of the same tolerance."""
    reach, least = AlongOptions().tolerance, AlongOptions().min_length
    one, two = (shapely.union_all(r.lines) for r in (old, new))
    alone = {NEW: two - one.buffer(reach), GONE: one - two.buffer(reach)}
    pieces = {s: shapely.get_parts(shapely.line_merge(x)) for s, x in alone.items()}
    return {s: [p for p in pieces.get(s, ()) if p.length >= least] for s in STATES}


def scored(truth: Pieces, found: Pieces, states: tuple[str, ...]) -> np.ndarray:
    """Return metres found, of them right, metres true, of them found."""
    sums = np.zeros(4)
    for state in states:
        one, two = (shapely.union_all(x[state]) for x in (truth, found))
        sums += (
            two.length,
            two.intersection(one.buffer(CLOSE)).length,
            one.length,
            one.intersection(two.buffer(CLOSE)).length,
        )
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    methods: dict[str, Callable[[Roads, Roads], Pieces]] = {"terradapt": ours, "buffers": buffered}
    asked = {"new and gone": (NEW, GONE), NEW: (NEW,), GONE: (GONE,), "moved": (CHANGED,)}
    rows, total = [], {(m, a): np.zeros(4) for m in methods for a in asked}
    seconds, kilometres, networks = dict.fromkeys(methods, 0.0), 0.0, 0
    lowest: dict[str, float] = {}
    for folder in args.folders:
        for path in sorted(folder.glob("*.geojson")):
            roads = read_pair(path, path)[0]
            networks += 1
            mine = np.zeros(4)
            for seed in range(args.seeds):
                new, truth = changed_network(roads, np.random.default_rng([seed, networks]))
                kilometres += roads.length.sum() / 1000
                for method, function in methods.items():
                    begin = time.perf_counter()
                    found = function(roads, new)
                    seconds[method] += time.perf_counter() - begin
                    for name, states in asked.items():
                        total[method, name] += scored(truth, found, states)
                    if method == "terradapt":
                        mine += scored(truth, found, asked["new and gone"])
            lowest[f"{folder.name}/{path.stem}"] = f1(mine)[2]
    for (method, name), sums in total.items():
        if sums[0]:
            precision, recall, both = f1(sums)
            rows.append([method, name, f"{precision:.4f}", f"{recall:.4f}", f"{both:.4f}"])
    worst = min(lowest, key=lambda k: lowest[k])
    day = date.today().isoformat()
    setting = f"{hardware()}; Python {platform.python_version()}; {day}"
    text = (
        f"# Known changes of {networks} road networks, {args.seeds} seeds each\n\n{setting}; "
        f"`python benchmarks/changes_roads.py` on SpaceNet's and OSM's Vegas graphs\n\n"
        + markdown_table(["method", "state", "precision", "recall", "F1 by length"], rows)
        + f"\n\n{kilometres:.1f} km compared; {seconds['terradapt']:.1f} s (terradapt), "
        f"{seconds['buffers']:.1f} s (buffers). Lowest F1 of new and gone of a network: "
        f"{lowest[worst]:.4f} ({worst}). Buffers know no moved roads.\n"
    )
    args.output.mkdir(parents=True, exist_ok=True)
    stem = args.output / f"changes_roads_2cpu_{day}"
    stem.with_suffix(".md").write_text(text)
    values = {
        "setting": setting,
        "seeds": args.seeds,
        "networks": networks,
        "scores": {f"{m}: {a}": f1(s) for (m, a), s in total.items() if s[0]},
        "f1_by_network": lowest,
        "seconds": seconds,
    }
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    print(text)


def f1(sums: np.ndarray) -> tuple[float, float, float]:
    """Return precision, recall and F1."""
    found, right, true, met = sums
    precision, recall = right / max(found, 1e-9), met / max(true, 1e-9)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


if __name__ == "__main__":
    main()
