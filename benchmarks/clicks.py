"""Simulated clicks: what 300 of them add to a model, against random ones and against all labels.

The model begins with an ImageNet backbone and is trained on the few labelled images of a draw. Then
it is retrained in four ways for the same number of steps, with the same recipe:

- ``dense``: all labels of the other training images too;
- ``queue``: one pixel of the label a click. Places (blocks of 512 px) are asked for by the page's
  own queue (:func:`terradapt.viewer.asking.next_places`), all images as parts of one scene; in a
  place the pixels of which the model is least sure are clicked, some pixels apart. After each round
  the last convolution is refitted as *Look again* does it, so that the queue sees what was learnt;
- ``random``: as many pixels, drawn from all labelled ones with equal chance;
- ``none``: no click, for what the steps alone add.

Held-out test images decide, those of ``val`` choose threshold and temperature; no place of the
queue is held out besides. Where dense labels add fewer than ``--least`` points the draw does not
count, and no click is made. Retraining is the recipe ``retrain``: clicks teach, the old model
speaks elsewhere; with ``--older`` the few images' labels are learnt again, and the clicks are
corrections above them. An arm may have overrides of its own, ``queue@objective.distill.soft=0.2``:
the same clicks, learnt so; ``{pixels}`` in them is a folder of the clicked images without labels.

    python benchmarks/clicks.py --data SHARED --weights FILE --seeds 0 1 2 -o OUT

The seed is the number of the draw. Finished rows are kept in OUT.json and a broken run is gone on
with: the same command again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from draws import (
    BATCH,
    SETS,
    Job,
    Kept,
    Row,
    base,
    config_of,
    read_ids,
    settings_of,
    splits_of,
    variant,
    with_spread,
)  # fmt: skip
from peers import measure
from terradapt import predictors
from terradapt.classes import IGNORE
from terradapt.config import RunConfig
from terradapt.data import open_dataset
from terradapt.data.reading import ItemReader
from terradapt.files import write_json
from terradapt.grid import Window
from terradapt.models.contract import class_logits
from terradapt.raster.opening import quiet
from terradapt.training.refitting import MOST_NUMBERS, HeadView, refit
from terradapt.training.run import BEST
from terradapt.viewer.asking import next_places
from terradapt.viewer.pyramid import TILE

ARMS = ("dense", "queue", "random", "none")
CLICKS = "clicks.geojson"
FAR = 1000  # blocks between two images on the queue's plane
STEP_SECONDS = (1.6, 1.85)  # of one core of an AMD EPYC (2026-11-26), without a teacher and with
OTHER_SECONDS = {"epfl": 20.0, "dubai": 41.0, "harvey": 15.0}  # start, look, calibration, figures
Place = tuple[int, int]
Click = tuple[str, int, int, int]  # image, row, column, class id


@dataclass(frozen=True)
class Pool:
    """Labelled pixels that may be clicked, drawn alike from all windows.

    Attributes:
        features: (N, D) float32, what the last convolution takes.
        truth: (N,) class ids.
        image: (N,) index of the image.
        spots: (N, 2) row and column.
        logits: Weight (R, D) and bias (R,) or None of that convolution, calibrated.
    """

    features: torch.Tensor
    truth: NDArray[np.uint8]
    image: NDArray[np.intp]
    spots: NDArray[np.intp]
    head: tuple[torch.Tensor, torch.Tensor | None]
    temperature: float

    def doubt(self, head: tuple[torch.Tensor, torch.Tensor | None]) -> NDArray[np.float64]:
        """Return (N,) 1 - margin of the two best classes, 0..1, under a last convolution."""
        z = self.features @ head[0].T + (0.0 if head[1] is None else head[1])
        scores = (class_logits(z[..., None, None])[..., 0, 0] / self.temperature).softmax(1)
        best = scores.topk(2, 1).values
        doubt: NDArray[np.float64] = (1 - best[:, 0] + best[:, 1]).double().numpy()
        return doubt

    @property
    def places(self) -> list[Place]:
        """The block of each pixel, on a plane where images lie far from each other."""
        rows, cols = self.spots.T // TILE
        return list(zip((rows + FAR * self.image).tolist(), cols.tolist(), strict=True))


def look(checkpoint: Path, full: Path, ids: list[str], each: int) -> Pool:
    """See all windows of some images; keep ``each`` labelled pixels of a window at most."""
    predictor = predictors.load(checkpoint)
    view, side = HeadView(predictor), predictor.window
    dataset, draw = open_dataset(full), np.random.default_rng(0)
    parts: list[tuple[Any, ...]] = []
    for number, name in enumerate(ids):
        with ItemReader(dataset, dataset.item(name), predictor.spec) as reader:
            for window in windows(reader.height, reader.width, side):
                pixels, _ = reader.read(window)
                truth = reader.mask(window)
                below = view.see(pixels, side)
                known = np.flatnonzero(truth.ravel() != IGNORE)
                at = draw.choice(known, min(each, len(known)), replace=False)
                rows, cols = np.divmod(at, side)
                spots = np.stack([rows + window.row, cols + window.col], 1)
                found = view.features(below, side, rows, cols)
                parts.append((found, truth.ravel()[at], np.full(len(at), number), spots))
    features, truth, image, spots = (np.concatenate(p) for p in zip(*parts, strict=True))
    conv, calibration = view.head.conv, predictor.meta and predictor.meta.calibration
    weight, bias = conv.weight.detach().float().flatten(1), conv.bias
    head = weight, None if bias is None else bias.detach().float()
    temperature = calibration.temperature if calibration else 1.0
    return Pool(torch.from_numpy(features), truth, image, spots, head, temperature)


def windows(height: int, width: int, side: int) -> Iterator[Window]:
    """Yield windows side by side; the last ones end with the image."""
    for row in range(0, height, side):
        for col in range(0, width, side):
            top, left = min(row, max(0, height - side)), min(col, max(0, width - side))
            yield Window(top, left, side, side)


def ask(pool: Pool, budget: int, rounds: int, each: int, apart: float) -> NDArray[np.intp]:
    """Return the pixels that are clicked when the queue chooses the places.

    Args:
        pool: What may be clicked.
        budget: Clicks in all.
        rounds: The last convolution is refitted after each.
        each: Clicks in a place, at most.
        apart: Least distance of two clicks of one image, px.
    """
    places = pool.places
    members: dict[Place, list[int]] = {}
    for index, place in enumerate(places):
        members.setdefault(place, []).append(index)
    draw = np.random.default_rng(0)
    share = min(len(places), MOST_NUMBERS // pool.features.shape[1])
    others = draw.choice(len(places), share, replace=False)
    head, asked, chosen = pool.head, list[Place](), list[int]()
    for turn in range(1, rounds + 1):
        wanted = budget * turn // rounds
        doubt = pool.doubt(head)
        means = {place: float(doubt[own].mean()) for place, own in members.items()}
        empty = 0
        while len(chosen) < wanted and empty < len(members):
            found = next_places(means, asked, [], 1)
            if not found:  # every place was asked: begin again
                asked = []
                continue
            place = found[0][0]
            asked.append(place)
            count = min(each, wanted - len(chosen))
            new = spread_out(members[place], doubt, pool, chosen, count, apart)
            empty = 0 if new else empty + 1
            chosen += new
        if turn < rounds:
            rest = np.setdiff1d(others, chosen)
            taught = np.concatenate([pool.truth[chosen], np.full(len(rest), IGNORE, np.uint8)])
            rows = torch.from_numpy(np.concatenate([np.array(chosen, np.intp), rest]))
            head = refit(pool.features[rows], torch.from_numpy(taught), *pool.head)
    return np.array(chosen, np.intp)


def spread_out(
    own: list[int],
    doubt: NDArray[np.float64],
    pool: Pool,
    chosen: list[int],
    count: int,
    apart: float,
) -> list[int]:
    """Return up to ``count`` pixels of a place, the least sure first, some pixels apart."""
    near = pool.spots[[i for i in chosen if pool.image[i] == pool.image[own[0]]]]
    found: list[int] = []
    for index in sorted(own, key=lambda i: -doubt[i]):
        spot = pool.spots[index]
        taken = np.concatenate([near, pool.spots[found]])
        if len(taken) and np.hypot(*(taken - spot).T).min() < apart:
            continue
        found.append(index)
        if len(found) == count:
            break
    return found


def jobs_of(args: argparse.Namespace) -> Iterator[list[Job]]:
    """Yield the runs of a draw after the other: the start, then the arms."""
    for seed in args.seeds:
        for name in args.sets:
            jobs = []
            for arm in ("few", *args.arms):
                plan: Row = {"data": name, "seed": seed, "arm": arm}
                steps = args.start_steps if arm == "few" else args.steps
                taught = arm.startswith(("queue", "random"))
                seconds = steps * STEP_SECONDS[taught] + OTHER_SECONDS[name]
                parts = partial(make, args, plan), partial(figures, args, plan)
                jobs.append(Job(plan, *parts, seconds, keep=arm == "few"))
            yield jobs


def make(args: argparse.Namespace, plan: Row) -> tuple[RunConfig, Path]:
    """Return config and folder of a run; what is clicked is chosen here."""
    name, seed = plan["data"], plan["seed"]
    arm, _, own = plan["arm"].partition("@")
    full, splits = base(args.data, args.home, name), splits_of(args.data, name, seed)
    few, rest = splits["train"], splits["unlabelled"]
    held = {k: splits[k] for k in ("val", "test")}
    folder = args.home / f"{name}_{seed}_{arm}"
    if arm == "few":
        config = config_of(SETS[name].recipe, args.start_steps, seed, settings_of(args))
        return config, variant(full, folder, splits)
    start = args.kept.folder({**plan, "arm": "few"}) / BEST
    shared = [o for o in settings_of(args) if not o.startswith("encoder.")]
    more = [f"train.start={start}", *args.override, *(own.split(",") if own else [])]
    labels = None
    if arm in ("dense", "none"):
        train = [*few, *rest] if arm == "dense" else few
        more.insert(0, "objective.name=supervised")  # every pixel has a label: no teacher speaks
    elif args.older:
        return corrected(args, plan, full, start, [*shared, *more])
    else:
        train = rest
        if not (folder / "splits.json").is_file():
            labels = blank(full, rest)
            for image, row, col, class_id in clicked(args, full, rest, start, (arm, seed)):
                labels[image][row, col] = class_id
    data = variant(full, folder, {"train": train, **held}, labels)
    return config_of("retrain", args.steps, seed, shared, more), data


def corrected(
    args: argparse.Namespace, plan: Row, full: Path, start: Path, overrides: list[str]
) -> tuple[RunConfig, Path]:
    """Clicks above the few images' labels, as a mapping team has both."""
    name, seed, arm = plan["data"], plan["seed"], plan["arm"].partition("@")[0]
    splits = splits_of(args.data, name, seed)
    few, rest = splits["train"], splits["unlabelled"]
    folder = args.home / f"{name}_{seed}_{arm}_corrected_{args.dab}"
    parts = {"train": [*few, *rest], "val": splits["val"], "test": splits["test"]}
    if not (folder / "splits.json").is_file():
        clicks = clicked(args, full, rest, start, (arm, seed))
        variant(full, folder, parts, dict.fromkeys(rest))
        pixels = folder / "clicked"
        pixels.mkdir()
        for image in rest:
            file = next((full / "images").glob(f"{image}.*"))
            (pixels / file.name).symlink_to(file.resolve())
        write_json(folder / CLICKS, features(clicks, full, args.dab // 2))
    own = [f"data.corrections={folder / CLICKS}"]
    own += [o.replace("{pixels}", str(folder / "clicked")) for o in overrides]
    return config_of("retrain", args.steps, seed, own), folder


def features(clicks: list[Click], full: Path, reach: int) -> Row:
    """Return clicks as GeoJSON: squares, in the image's CRS or in its pixels.

    Args:
        clicks: What was clicked.
        full: Where the images and the classes are.
        reach: Pixels of a square to each side of the one that was clicked.
    """
    near, far = -reach, reach + 1
    corners = ((near, near), (far, near), (far, far), (near, far), (near, near))
    found = []
    names = json.loads((full / "classes.yaml").read_text("utf-8").partition(":")[2])
    for image, row, col, class_id in clicks:
        with quiet(), rasterio.open(next((full / "images").glob(f"{image}.*"))) as file:
            placed = file.transform if file.crs else rasterio.Affine.identity()
            lonlat = file.crs is not None and file.crs.to_epsg() == 4326
        assert lonlat or placed.is_identity, image
        ring = [placed @ (col + x, row + y) for x, y in corners]
        shape = {"type": "Polygon", "coordinates": [ring]}
        facts = {"class": names[class_id], "image": image}
        found.append({"type": "Feature", "geometry": shape, "properties": facts})
    return {"type": "FeatureCollection", "features": found}


def blank(full: Path, ids: list[str]) -> dict[str, NDArray[np.uint8]]:
    """Return labels of which nothing is known, by id."""
    files = {p.stem: p for p in (full / "labels").iterdir()}
    return {name: np.full(read_ids(files[name]).shape, IGNORE, np.uint8) for name in ids}


def clicked(
    args: argparse.Namespace, full: Path, ids: list[str], start: Path, how: tuple[str, int]
) -> list[Click]:
    """Return what is clicked on images of which nothing else is known."""
    pool = look(start, full, ids, args.candidates)
    arm, seed = how
    if arm == "queue":
        chosen = ask(pool, args.budget, args.rounds, args.visit, args.apart)
    else:
        draw = np.random.default_rng([seed, 0xC11C])
        chosen = draw.choice(len(pool.truth), args.budget, replace=False)
    spots = ((int(i), *map(int, pool.spots[i])) for i in chosen)
    return [(ids[pool.image[i]], row, col, int(pool.truth[i])) for i, row, col in spots]


def figures(args: argparse.Namespace, plan: Row, run: Path) -> Row:
    full = base(args.data, args.home, plan["data"])
    return {split: measure(full, run, split) for split in ("val", "test")}


def summary(rows: list[Row], least: float) -> list[Row]:
    """Return a line for each data set and way: what it adds to the start, in points.

    ``share`` of what dense labels add, and ``ahead`` of random clicks that are learnt alike, are of
    draws that count alone.
    """
    lines = []
    for name in dict.fromkeys(r["data"] for r in rows):
        mine = [r for r in rows if r["data"] == name]
        adds = {split: added(mine, split) for split in ("val", "test")}
        dense = adds["test"].get("dense", {})
        counted = [s for s, v in dense.items() if v >= least]
        for arm, test in adds["test"].items():
            kind, _, own = arm.partition("@")
            other = adds["test"].get(f"random@{own}" if own else "random", {})
            seeds = [s for s in counted if s in test]
            shares = [100 * test[s] / dense[s] for s in seeds]
            ahead = [test[s] - other[s] for s in seeds if s in other and kind == "queue"]
            line = {"data": name, "arm": arm, "adds": [*test.values()], "counted": len(seeds)}
            line |= {"val": [*adds["val"][arm].values()], "share": shares, "ahead": ahead}
            lines.append(line)
    return lines


def added(rows: list[Row], split: str) -> dict[str, dict[int, float]]:
    """Return by way and draw what was added to the start, in points."""
    figures = {(r["arm"], r["seed"]): 100 * r[split]["figure"] for r in rows}
    found: dict[str, dict[int, float]] = {}
    for (arm, seed), figure in figures.items():
        if arm != "few" and ("few", seed) in figures:
            found.setdefault(arm, {})[seed] = figure - figures["few", seed]
    return found


def page(settings: Row, rows: list[Row]) -> str:
    """Return the table as Markdown."""
    text = f"# Clicks: {settings['budget']} clicks, {settings['steps']} steps of {BATCH} crops of "
    text += f"{settings['crop']} px\n\nTest images; F1 of two classes, otherwise mIoU. Points that "
    text += (
        "each way adds to the start, mean and spread of the draws; shares and differences where "
    )
    text += f"dense labels add {settings['least']:g} points or more.\n\n"
    heads = ["data", "way", "adds", "of each draw", "on val", "draws that count", "of dense, %"]
    heads += ["less random"]
    text += f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
    lines = summary(rows, settings["least"])
    for line in lines:
        cells = [line["data"], line["arm"], with_spread(line["adds"], "+")]
        cells += [", ".join(f"{v:+.2f}" for v in line["adds"]), with_spread(line["val"], "+")]
        cells += [str(line["counted"]), with_spread(line["share"])]
        cells += [with_spread(line["ahead"], "+")]
        text += f"| {' | '.join(cells)} |\n"
    starts = [
        f"{r['data']} {r['seed']}: {100 * r['test']['figure']:.2f}"
        for r in rows
        if r["arm"] == "few"
    ]
    text += f"\nStarts: {', '.join(starts)}.\n"
    ahead = [v for line in lines if line["arm"] == "queue" for v in line["ahead"]]
    if ahead:
        text += f"\nQueue less random clicks, all draws that count: {with_spread(ahead, '+')} "
        text += f"({sum(v > 0 for v in ahead)} of {len(ahead)} ahead).\n"
    return text


def work(args: argparse.Namespace, kept: Kept) -> None:
    for jobs in jobs_of(args):
        few = kept.do(jobs[0])["test"]["figure"]
        for job in jobs[1:]:
            row = kept.do(job)
            adds = 100 * (row["test"]["figure"] - few)
            if job.plan["arm"] == "dense" and adds < args.least and not args.always:
                print(f"dense labels add {adds:.1f} points: the draw does not count", flush=True)
                break
        if all(kept.find(j.plan) for j in jobs):
            shutil.rmtree(kept.folder(jobs[0].plan), ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds the data sets and splits/")
    parser.add_argument("--weights", type=Path, required=True, help="of the ImageNet backbone")
    parser.add_argument(
        "--sets", nargs="+", default=["epfl", "dubai", "harvey"], choices=OTHER_SECONDS
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the draws")
    parser.add_argument("--arms", nargs="+", default=[*ARMS[:3]], help=", ".join(ARMS))
    parser.add_argument("--start-steps", type=int, default=300, help="on the few images")
    parser.add_argument("--steps", type=int, default=300, help="of each retraining")
    parser.add_argument("--budget", type=int, default=300, help="clicks")
    parser.add_argument("--rounds", type=int, default=6, help="looks again, one less")
    parser.add_argument("--visit", type=int, default=5, help="clicks in a place, at most")
    parser.add_argument("--dab", type=int, default=1, help="px a click labels, with --older")
    parser.add_argument("--apart", type=float, default=16, help="px between clicks")
    parser.add_argument("--candidates", type=int, default=250, help="pixels of a window")
    parser.add_argument("--least", type=float, default=8, help="points that dense labels must add")
    parser.add_argument("--always", action="store_true", help="click where they add fewer, too")
    parser.add_argument("--older", action="store_true", help="the few images' labels beside clicks")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--override", nargs="*", default=[], help="of all retrainings")
    parser.add_argument("--expect", action="store_true", help="say how long it takes, and end")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without a suffix")
    args = parser.parse_args()
    if unknown := [a for a in args.arms if a.partition("@")[0] not in ARMS]:
        parser.error(f"no way '{unknown[0]}', but {', '.join(ARMS)}")
    args.home = args.output.with_name(f"{args.output.name}_data")
    names = ("start_steps", "steps", "budget", "rounds", "visit", "dab", "apart", "candidates")
    settings: Row = {
        k: getattr(args, k) for k in (*names, "least", "older", "crop", "precision", "override")
    }
    settings["weights"] = args.weights.name
    args.kept = kept = Kept(args.output, settings, partial(page, settings))
    print(kept.told([j for jobs in jobs_of(args) for j in jobs]), flush=True)
    if not args.expect:
        work(args, kept)
        print(page(settings, kept.rows))


if __name__ == "__main__":
    main()
