"""Two dates of synthetic cities that no training saw: `terradapt compare` against differencing.

The generator tells what was built, demolished, planted, felled and paved; the second date has other
light, another season and camera, other cars, and lies 1 to 4 px beside the first. `compare` gets
the two scenes and a model; differencing gets that model's two maps.

    python benchmarks/changes.py CHECKPOINT --cities 401-408 --validation 301-306 --still 311-320
    python benchmarks/changes.py CHECKPOINT --threshold 0.6 --grow 0.1 --fresh 501-533

- A true change is the ground within one outline that has changed: not what a roof or a crown that
  was there already still covers. It is found where at least half of it is covered by objects of its
  state; an object is right where at least half of it lies on ground of its state (overlap, not IoU:
  a found region may hold two true ones). States: new and gone are buildings, changed is other
  ground. `by outlines` counts whole outlines instead, covered ground and all, for comparison.
- Both leave out what is smaller than the least area, and cars.
- Differencing is what a GIS documents: the two class maps subtracted, connected regions of one pair
  of classes, small ones left out. It is given as it is, and after the true shift is taken out.
- Unchanged pairs are the same cities with other light, season, camera and shift alone: every object
  in them is false. `--fresh` gives further ones, for the rate of false objects alone, with the
  interval of a Poisson count.

The threshold and how far regions grow are chosen on the validation cities, by object F1; what is
found in their unchanged pairs counts as wrong.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import chi2

from terradapt import hub, predictors
from terradapt.changes.calibration import ChangeTable
from terradapt.changes.fitting import expected_error
from terradapt.changes.roads import CHANGED, GONE, NEW, STATES
from terradapt.changes.run import compare
from terradapt.classes import ISPRS
from terradapt.machine import hardware
from terradapt.raster import open_scene, rasterize, read_label, write_raster
from terradapt.report.markdown import markdown_table
from terradapt.scene import PredictOptions, predict_scene
from terradapt.scene.options import STEPS
from terradapt.synthetic.dates import TwoDates, make_two_dates
from terradapt.synthetic.files import CRS, read_seeds, transform_at

BUILDING, CAR = ISPRS.names.index("building"), ISPRS.names.index("car")
PIXEL = 0.09  # m2
HALF = 0.5
SHARES = (0.12, 0.0)  # of things that change: changed and unchanged pairs
CODES = {NEW: 1, GONE: 2, CHANGED: 3}
AREA = 20.0  # m2; smaller changes are neither told nor asked for
THRESHOLDS, GROWN = (0.5, 0.6, 0.7), (0.05, 0.1)


@dataclass
class Found:
    """Objects in the second date's pixels: (H, W) ids from 1, 0 none; (P,) code of each's state."""

    ids: NDArray[np.int32]
    codes: NDArray[np.int64]


@dataclass
class Truth:
    """(H, W) code of each pixel's state, 0 unchanged; true changes as polygons with their codes."""

    state: NDArray[np.uint8]
    outlines: list[Any]
    codes: list[int]


def truth_of(pair: TwoDates) -> Truth:
    """Return what changed, in the second date's pixels."""
    before, after = pair.before.labels, pair.after.labels
    state = np.where(pair.changed > 0, CODES[CHANGED], 0).astype(np.uint8)
    state[(pair.changed > 0) & (after == BUILDING)] = CODES[NEW]
    state[(pair.changed > 0) & (before == BUILDING)] = CODES[GONE]
    rows, cols = pair.shift
    moved = ndimage.shift(state, pair.shift, order=0)
    codes = [
        CODES[NEW] if c.after == BUILDING else CODES[GONE] if c.before == BUILDING else 3
        for c in pair.changes
    ]
    outlines = [shapely.affinity.translate(c.outline, cols, rows) for c in pair.changes]
    return Truth(moved, outlines, codes)


def scored(truth: Truth, found: Found, least: float, outlines: bool = False) -> NDArray[np.float64]:
    """Return objects found, of them right, true changes, of them found; in all and per state.

    Args:
        truth: What changed.
        found: What was found.
        least: Square metres; smaller true changes are not asked for.
        outlines: Count the whole outline of a change, not the ground in it that changed.
    """
    sizes = np.bincount(found.ids.ravel(), minlength=len(found.codes) + 1)
    code_at = np.concatenate([[0], found.codes])[found.ids]
    right = np.bincount(found.ids[(code_at == truth.state) & (found.ids > 0)], minlength=len(sizes))
    told = sizes[1:] > 0
    good = right[1:] >= HALF * sizes[1:]
    sums = np.zeros((4, 4))
    for code in (1, 2, 3):
        mine = told & (found.codes == code)
        sums[code, :2] = mine.sum(), (mine & good).sum()
    height, width = truth.state.shape
    for outline, code in zip(truth.outlines, truth.codes, strict=True):
        inside = rasterize([(outline, 1)], height=height, width=width, transform=Affine.identity())
        inside = inside.astype(bool)
        if not outlines:
            inside &= truth.state == code
        if inside.sum() * PIXEL < least:
            continue
        sums[code, 2] += 1
        sums[code, 3] += (code_at[inside] == code).mean() >= HALF
    sums[0] = sums[1:].sum(axis=0)
    return sums


def ours(folder: Path, out: Path, **options: Any) -> Found:
    """Return what `terradapt compare` finds between two scenes."""
    old, new = (folder / "images" / f"{name}.tif" for name in ("old", "new"))
    compare(old, new, out, overwrite=True, **options)
    meta, _, wkb, fields = pyogrio.raw.read(out, layer="polygons")
    table = dict(zip(meta["fields"], fields, strict=True))
    kept = (table["class_before"] != "car") & (table["class_after"] != "car")
    shapes, states = shapely.from_wkb(wkb)[kept], table["state"][kept]
    with open_scene(folder / "new.tif", None) as reader:
        georef = reader.georef
    ids = rasterize(
        zip(shapes, range(1, len(shapes) + 1), strict=True),
        height=georef.height,
        width=georef.width,
        transform=georef.transform,
        dtype="int32",
    )
    return Found(ids, np.array([CODES[s] for s in states], np.int64))


def differenced(folder: Path, least: float, shift: tuple[int, int] = (0, 0)) -> Found:
    """Return the regions in which two class maps differ."""
    before, after = (read_label(folder / f"{n}.tif").astype(np.int64) for n in ("old", "new"))
    before = ndimage.shift(before, shift, order=0, mode="nearest")
    pair = np.where(before != after, before * 16 + after, -1)
    pair[(before == CAR) | (after == CAR)] = -1
    ids, codes = np.zeros(pair.shape, np.int32), list[int]()
    for value in np.unique(pair[pair >= 0]):
        regions, count = ndimage.label(pair == value)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        kept = np.flatnonzero(sizes[1:] * PIXEL >= least) + 1
        number = np.zeros(count + 1, np.int32)
        number[kept] = np.arange(len(kept)) + len(codes) + 1
        ids += number[regions]
        one, two = divmod(int(value), 16)
        codes += [CODES[NEW if two == BUILDING else GONE if one == BUILDING else CHANGED]] * len(
            kept
        )
    return Found(ids, np.array(codes, np.int64))


def drawn(work: Path, seed: int, size: int, share: float, predictor: Any) -> tuple[Path, TwoDates]:
    """Draw a pair, and map both dates once; what is there already is read."""
    rng = np.random.default_rng([seed, 61])
    far = int(rng.integers(1, 5))
    turn = rng.permutation([far, int(rng.integers(0, far + 1))]) * rng.choice([-1, 1], 2)
    shift = int(turn[0]), int(turn[1])
    pair = make_two_dates(seed, size, size, share=share, shift=shift)
    folder = work / f"city{seed}_{share:g}_{size}"
    for name, date_ in (("old", pair.before), ("new", pair.after)):
        if not (folder / f"{name}.tif").is_file():
            image = folder / "images" / f"{name}.tif"
            write_raster(
                image, np.moveaxis(date_.image, -1, 0), crs=CRS, transform=transform_at(seed, 0, 0)
            )
            predict_scene(predictor, image, folder / f"{name}.tif", PredictOptions(overwrite=True))
    return folder, pair


def reliable(change: Path, truth: Truth) -> NDArray[np.float64]:
    """Count (2, 251) pixels and changed ones by the probability of change."""
    steps = read_label(change)
    seen = steps <= STEPS
    true = seen & (truth.state > 0)
    return np.stack([np.bincount(steps[m], minlength=STEPS + 1) for m in (seen, true)]).astype(
        float
    )


def f1(sums: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of found, right, true, met."""
    found, right, true, met = sums
    precision, recall = right / max(found, 1e-9), met / max(true, 1e-9)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def counted(number: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a Poisson count (Garwood, Biometrika 1936)."""
    low = chi2.ppf(0.025, 2 * number) / 2 if number else 0.0
    return float(low), float(chi2.ppf(0.975, 2 * number + 2) / 2)


def pairs(
    args: argparse.Namespace,
    seeds: Sequence[int],
    predictor: Any,
    shares: tuple[float, ...] = SHARES,
) -> Iterator[tuple[int, float, Path, TwoDates]]:
    for seed in seeds:
        for share in shares:
            folder, pair = drawn(args.work, seed, args.size, share, predictor)
            yield seed, share, folder, pair


def chosen(args: argparse.Namespace, predictor: Any) -> dict[str, Any]:
    """Return the threshold and growth with the best F1 on validation cities, and all scores."""
    grid = [(t, g) for t in THRESHOLDS for g in GROWN]
    sums, false = {key: np.zeros((4, 4)) for key in grid}, dict.fromkeys(grid, 0)
    cities = read_seeds(args.validation), read_seeds(args.still) if args.still else []
    for seeds, share in zip(cities, SHARES, strict=True):
        for _, _, folder, pair in pairs(args, seeds, predictor, (share,)):
            truth = truth_of(pair)
            for threshold, grow in grid:
                found = ours(
                    folder, folder / "v.gpkg", min_area=args.min_area, threshold=threshold,
                    grow=grow, calibration=args.calibration, model=predictor,
                )  # fmt: skip
                if share:
                    sums[threshold, grow] += scored(truth, found, args.min_area)
                else:
                    sums[threshold, grow][0, 0] += len(found.codes)
                    false[threshold, grow] += len(found.codes)
    scores = {
        f"threshold {t:g}, grow {g:g}": (*f1(s[0]), false[t, g]) for (t, g), s in sums.items()
    }
    best = max(grid, key=lambda k: f1(sums[k][0])[2])
    return {
        "min_area": args.min_area, "threshold": best[0], "grow": best[1], "validation": scores,
    }  # fmt: skip


def main() -> None:  # noqa: PLR0915
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cities", default="401-406")
    parser.add_argument("--validation", default="", help="cities that the threshold is chosen on")
    parser.add_argument("--still", default="", help="unchanged cities that it is chosen on too")
    parser.add_argument("--fresh", default="", help="unchanged cities, for false objects alone")
    parser.add_argument("--min-area", type=float, default=AREA)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--grow", type=float)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--work", type=Path, default=Path("runs/changes"))
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    predictor = predictors.load(hub.local(args.model))
    seeds = read_seeds(args.cities)
    setting: dict[str, Any] = {
        "min_area": args.min_area,
        "threshold": args.threshold,
        "grow": args.grow,
    }
    if args.validation:
        setting = chosen(args, predictor)
        print(setting, flush=True)
    area = setting["min_area"]
    options = {k: setting[k] for k in ("min_area", "threshold", "grow")}
    methods = ("terradapt", "differencing", "differencing, true shift taken out")
    sums = {m: np.zeros((4, 4)) for m in methods}
    whole = {m: np.zeros((4, 4)) for m in methods}
    false, square, seconds, shifts = dict.fromkeys(methods, 0), 0.0, 0.0, []
    chance = np.zeros((2, 2, STEPS + 1))
    for seed, share, folder, pair in pairs(args, seeds, predictor):
        truth = truth_of(pair)
        begin = time.perf_counter()
        found = {
            methods[0]: ours(
                folder, folder / "u.gpkg", model=predictor, calibration=args.calibration, **options
            )
        }
        seconds += time.perf_counter() - begin
        told = json.loads((folder / "u.json").read_text())
        shifts.append({"city": seed, "share": share, "true": pair.shift, "told": told["shift_px"]})
        chance[int(share > 0)] += reliable(folder / "u_change.tif", truth)
        found[methods[1]] = differenced(folder, area)
        found[methods[2]] = differenced(folder, area, pair.shift)
        if not share:
            square += truth.state.size * PIXEL / 1e6
        for method, objects in found.items():
            if share:
                sums[method] += scored(truth, objects, area)
                whole[method] += scored(truth, objects, area, outlines=True)
            else:
                false[method] += len(objects.codes)
        print(seed, share, shifts[-1], {m: len(o.codes) for m, o in found.items()}, flush=True)
    rows = []
    for method in methods:
        for code, state in enumerate(("all", *STATES)):
            precision, recall, both = f1(sums[method][code])
            per = f"{false[method] / square:.1f}" if not code else ""
            rows.append(
                [
                    method,
                    state,
                    f"{sums[method][code][2]:.0f}",
                    f"{precision:.3f}",
                    f"{recall:.3f}",
                    f"{both:.3f}",
                    per,
                ]
            )
    fresh = [
        len(ours(f, f / "u.gpkg", model=predictor, calibration=args.calibration, **options).codes)
        for _, _, f, _ in pairs(
            args, read_seeds(args.fresh) if args.fresh else (), predictor, (0.0,)
        )
    ]
    ground = len(fresh) * args.size**2 * PIXEL / 1e6
    errors = [
        expected_error(seen, true, ChangeTable()) for seen, true in (chance[1], chance.sum(axis=0))
    ]
    day = date.today().isoformat()
    where = f"{hardware()}; Python {platform.python_version()}; {day}"
    head = [
        "method",
        "state",
        "true",
        "precision",
        "recall",
        "object F1",
        "false per km2, unchanged",
    ]
    text = (
        f"# Two dates of {len(seeds)} synthetic cities, {args.size} px of 0.3 m each\n\n{where}; "
        f"classes of {args.model.parent.name}/{args.model.name}\n\n"
        f"Least area {area:g} m2, threshold {setting['threshold']:g}, "
        f"grow {setting['grow'] or 0:g}.\n\n"
        + markdown_table(head, rows)
        + f"\n\n{square:.3f} km2 of unchanged pairs; {seconds:.1f} s for all comparisons. "
        f"ECE of the probability of change: {errors[0]:.4f} on the changed pairs, {errors[1]:.4f} "
        f"on all ({args.calibration.name if args.calibration else 'no table'}).\n\nObject F1 by "
        f"outlines: {', '.join(f'{m} {f1(s[0])[2]:.3f}' for m, s in whole.items())}.\n"
    )
    if fresh:
        low, high = (v / ground for v in counted(sum(fresh)))
        text += (
            f"\n{sum(fresh)} false objects on {ground:.3f} km2 of {len(fresh)} further unchanged "
            f"pairs: {sum(fresh) / ground:.2f} per km2 (95 %: {low:.2f} to {high:.2f}).\n"
        )
    values = {
        "setting": where, "cities": args.cities, "validation_cities": args.validation,
        "unchanged_validation_cities": args.still,
        "size": args.size,
        **setting, "scores": {m: [f1(s) for s in sums[m]] for m in methods},
        "counts": {m: sums[m].tolist() for m in methods},
        "by_outlines": {m: f1(whole[m][0]) for m in methods},
        "false_objects": false, "unchanged_km2": square, "fresh": fresh, "fresh_km2": ground,
        "shifts": shifts, "seconds": seconds,
        "ece": {"changed pairs": errors[0], "all pairs": errors[1]},
        "calibration": str(args.calibration and args.calibration.name),
    }  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    stem = args.output / f"changes_2cpu_{day}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
