"""Few labels, shifted labels, new places, roads that hang together and more: each measured.

A stage asks one question; every run of it is kept, so that a command that was stopped is called
again. ``few``: a draw's few labelled images alone, with the others' pixels, and with all labels.
``align``: right labels, the same moved by some pixels, and moved ones with ``data.align=auto``.
``adapt``: a model of one place on another one, before and after it has seen half of its images
without labels; the other half decides. ``context``: drone scenes at native detail with the ground
around windows and without. ``cwd``: what a teacher adds to labels by DIST, KL and CWD on roads.
``network``: APLS of roads learnt with skeleton recall and clDice in the loss, and without.

    python benchmarks/few.py few --data SHARED --weights FILE --sets epfl --seeds 0 -o OUT

Test images decide; ``val`` chooses the threshold of two classes, but for ``adapt``: there is no
label of the new place to choose one with, and it stays at one half.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillation import STUDENT, VARIANTS
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
)
from peers import measure
from terradapt import evaluation
from terradapt.classes import IGNORE
from terradapt.config import RunConfig
from terradapt.evaluation import Protocol
from terradapt.training.run import BEST

PUPILS = {
    "pupil alone": "labels alone",
    "DIST": "with DIST (T 0.5)",
    "KL": "with KL (T 2, T^2)",
    "CWD": "with CWD (T 4, T^2, 3)",
}
THIN = {
    "plain": [],
    "skeleton recall 0.1": ["objective.skeleton_recall=0.1"],
    "skeleton recall 0.3": ["objective.skeleton_recall=0.3"],
    "clDice 0.3": ["objective.cldice=0.3"],
}
PIXEL = 0.4  # m/px of EPFL's images, which do not say it
STEP_SECONDS = {  # of one core of an AMD EPYC (2026-11-26), crops of 256 px, pupils' 192, wide 384
    "and unlabelled": 2.6,
    "adapted": 3.7,
    "no ground around": 3.7,
    "ground around": 3.7,
    "pupil alone": 0.27,
    **dict.fromkeys(("DIST", "KL", "CWD"), 0.5),
}
SUPERVISED_SECONDS = 1.6
OTHER_SECONDS = {"epfl": 20.0, "cil": 25.0, "dubai": 41.0, "harvey": 15.0, "harvey native": 96.0}
Train = Callable[[argparse.Namespace, Row], tuple[RunConfig, Path]]
WAYS = ((0, 1), (1, 0), (0, -1))  # rows, columns: where the labels of a seed are moved


def iou_of(row: Row) -> float:
    """Return mIoU, of two classes the second one's IoU, in points."""
    figure: float = row["test"]["figure"]
    return 100 * (figure / (2 - figure) if "f1" in row["test"] else figure)


def few(args: argparse.Namespace) -> Iterator[Job]:
    for seed in args.seeds:
        for name in args.sets:
            for draw in args.draws:
                for way in ("labels alone", "and unlabelled"):
                    yield job(args, train_few, "few", name, seed, way, draw=draw)
            yield job(args, train_few, "few", name, seed, "all labels", draw=None)


def train_few(args: argparse.Namespace, plan: Row) -> tuple[RunConfig, Path]:
    name, draw, recipe = plan["data"], plan["draw"], SETS[plan["data"]].recipe
    data = base(args.data, args.home, name)
    if draw is not None:
        splits = splits_of(args.data, name, draw)
        data = variant(data, args.home / f"{name}_few{draw}", splits)
    shared, more = settings_of(args), list[str]()
    if plan["way"] == "and unlabelled":
        recipe, more = f"{recipe}-few", args.override
    return config_of(recipe, args.steps, plan["seed"], shared, more), data


def align(args: argparse.Namespace) -> Iterator[Job]:
    for seed in args.seeds:
        for name in args.sets:
            yield job(args, train_moved, "align", name, seed, "right", px=0)
            for px in args.pixels:
                for way in ("moved", "moved, align=auto"):
                    yield job(args, train_moved, "align", name, seed, way, px=px)


def train_moved(args: argparse.Namespace, plan: Row) -> tuple[RunConfig, Path]:
    """Labels of ``train`` and ``val`` are moved, those of ``test`` stay right."""
    name, seed = plan["data"], plan["seed"]
    data = base(args.data, args.home, name)
    if plan["px"]:
        splits = splits_of(args.data, name)
        rows, cols = (plan["px"] * n for n in WAYS[seed % len(WAYS)])
        files = {p.stem: p for p in (data / "labels").iterdir()}
        names = [*splits["train"], *splits["val"]]
        labels = {n: moved(read_ids(files[n]), rows, cols) for n in names}
        data = variant(data, args.home / f"{name}_moved_{rows}_{cols}", splits, labels)
    more = ["data.align=auto"] if plan["way"].endswith("auto") else []
    return config_of(SETS[name].recipe, args.steps, seed, settings_of(args), more), data


def moved(ids: NDArray[np.uint8], rows: int, cols: int) -> NDArray[np.uint8]:
    """Return (H, W) ids moved down and to the right, 255 where nothing came."""
    height, width = ids.shape
    out = np.full_like(ids, IGNORE)
    there = out[max(0, rows) : height + min(0, rows), max(0, cols) : width + min(0, cols)]
    there[:] = ids[max(0, -rows) :, max(0, -cols) :][: there.shape[0], : there.shape[1]]
    return out


def adapt(args: argparse.Namespace) -> Iterator[Job]:
    for seed in args.seeds:
        for way in ("as it is", "adapted"):
            yield job(args, train_there, "adapt", "cil", seed, way, figures=elsewhere)


def train_there(args: argparse.Namespace, plan: Row) -> tuple[RunConfig, Path]:
    """The labels are EPFL's; of CIL's first half there are images alone."""
    old, seed, shared = base(args.data, args.home, "epfl"), plan["seed"], settings_of(args)
    if plan["way"] == "as it is":
        return config_of("roads", args.start_steps, seed, shared), old
    new = new_place(args)
    pixels = args.home / "cil_unlabelled"
    pixels.mkdir(exist_ok=True)
    for name in splits_of(args.data, "cil")["train"]:
        link = pixels / f"{name}.png"
        link.unlink(missing_ok=True)
        link.symlink_to((new / "images" / link.name).resolve())
    start = args.kept.folder({**plan, "way": "as it is"}) / BEST
    more = [f"train.start={start}", f"data.unlabelled={pixels}", *args.override]
    shared = [o for o in shared if not o.startswith("encoder.")]
    return config_of("adapt", args.steps, seed, shared, more), old


def new_place(args: argparse.Namespace) -> Path:
    splits = splits_of(args.data, "cil")
    halves = {"train": splits["train"], "test": [*splits["val"], *splits["test"]]}
    return variant(base(args.data, args.home, "cil"), args.home / "cil_halves", halves)


def elsewhere(args: argparse.Namespace, plan: Row, run: Path) -> Row:
    """Return figures on the new place's halves, seen and unseen, and on the old test images.

    What is chosen is chosen by the seen half; the unseen one decides.
    """
    old = measure(base(args.data, args.home, "epfl"), run, "test")
    new = {}
    for split in ("train", "test"):
        report = evaluation.open_task(run / BEST, new_place(args), split).run(pictures=0)
        road = report.metrics["per_class"]["road"]
        figures = {k: road[k] for k in ("f1", "precision", "recall", "iou")}
        new[split] = {"figure": report.metrics["rlod"], **figures, "ece": report.metrics["ece"]}
    return {"old": old, "seen": new["train"], "test": new["test"]}


def context(args: argparse.Namespace) -> Iterator[Job]:
    for seed in args.seeds:
        for way in ("no ground around", "ground around"):
            yield job(args, train_wide, "context", "harvey native", seed, way)


def train_wide(args: argparse.Namespace, plan: Row) -> tuple[RunConfig, Path]:
    data = base(args.data, args.home, "harvey", resolution=None)
    more = ["data.crop=384", *args.override]
    more += [f"data.context={args.context}"] if plan["way"] == "ground around" else []
    return config_of("landcover", args.steps, plan["seed"], settings_of(args), more), data


def cwd(args: argparse.Namespace) -> Iterator[Job]:
    for seed in args.seeds:
        for way in ("teacher", *PUPILS):
            yield job(args, train_pupil, "cwd", "epfl", seed, way)


def train_pupil(args: argparse.Namespace, plan: Row) -> tuple[RunConfig, Path]:
    data, seed = base(args.data, args.home, "epfl"), plan["seed"]
    if plan["way"] == "teacher":
        return config_of("roads", args.start_steps, seed, settings_of(args)), data
    more = VARIANTS[PUPILS[plan["way"]]]
    teacher = args.kept.folder({**plan, "way": "teacher"}) / BEST
    more = [*more, *([f"objective.distill.teacher={teacher}"] if more else [])]
    return config_of("roads", args.steps, seed, STUDENT, more, args.override), data


def network(args: argparse.Namespace) -> Iterator[Job]:
    for seed in args.seeds:
        for way in args.ways or THIN:
            yield job(args, train_thin, "network", "epfl", seed, way, figures=connected)


def train_thin(args: argparse.Namespace, plan: Row) -> tuple[RunConfig, Path]:
    more = [*settings_of(args), *THIN[plan["way"]], *args.override]
    return config_of("roads", args.steps, plan["seed"], more), base(args.data, args.home, "epfl")


def connected(args: argparse.Namespace, plan: Row, run: Path) -> Row:
    """Return APLS and the mask's figures at the threshold that is best on ``val``."""
    folder = train_thin(args, plan)[1]
    protocol = Protocol(threshold_from="val", network=True, pixel=PIXEL)
    found = {}
    for split in ("val", "test"):
        report = evaluation.open_task(run / BEST, folder, split).run(protocol, pictures=0)
        metrics, road = report.metrics, report.metrics["per_class"]["road"]
        found[split] = {"figure": metrics["apls"], "topo_f1": metrics["topo_f1"]}
        found[split] |= {k: road[k] for k in ("f1", "precision", "recall")}
        found[split] |= {"ece": metrics["ece"], "threshold": report.protocol["threshold"]}
    return found


def here(train: Train, args: argparse.Namespace, plan: Row, run: Path) -> Row:
    """Return the figures on the images of the run's own folder."""
    folder = train(args, plan)[1]
    return {split: measure(folder, run, split) for split in ("val", "test")}


def job(
    args: argparse.Namespace,
    train: Train,
    stage: str,
    name: str,
    seed: int,
    way: str,
    figures: Callable[[argparse.Namespace, Row, Path], Row] | None = None,
    **more: Any,
) -> Job:
    """Return a run; the first of two that follow from each other is kept."""
    plan: Row = {"stage": stage, "data": name, **more, "seed": seed, "way": way}
    found = partial(figures or partial(here, train), args, plan)
    first = way in ("as it is", "teacher")
    steps = args.start_steps if first else args.steps
    seconds = steps * STEP_SECONDS.get(way, SUPERVISED_SECONDS) + OTHER_SECONDS[name]
    return Job(plan, partial(train, args, plan), found, seconds, keep=first)


STAGES = {
    "few": few,
    "align": align,
    "adapt": adapt,
    "context": context,
    "cwd": cwd,
    "network": network,
}
FIGURES = {"adapt": "RLOD", "network": "APLS"}
DEFAULT_SETS = {"few": ["epfl", "dubai", "harvey"], "align": ["epfl", "cil", "dubai", "harvey"]}


def pairs(rows: list[Row], better: str, worse: str) -> list[float]:
    """Return the points between two ways, run by run, at the same data, draw, shift and seed."""

    def key(row: Row) -> tuple[Any, ...]:
        return tuple(row.get(k) for k in ("data", "draw", "px", "seed"))

    found = {key(r): 100 * r["test"]["figure"] for r in rows if r["way"] == worse}
    return [
        100 * r["test"]["figure"] - found[key(r)]
        for r in rows
        if r["way"] == better and key(r) in found
    ]


def given_back(rows: list[Row]) -> list[float]:
    """Return the share of the IoU lost to moved labels that aligning gives back, run by run."""
    right = {r["seed"]: iou_of(r) for r in rows if r["way"] == "right"}
    lost = {(r["px"], r["seed"]): iou_of(r) for r in rows if r["way"] == "moved"}
    return [
        100 * (iou_of(r) - lost[r["px"], r["seed"]]) / gap
        for r in rows
        if r["way"].endswith("auto")
        and (r["px"], r["seed"]) in lost
        and (gap := right.get(r["seed"], 0) - lost[r["px"], r["seed"]]) > 0
    ]


AGAINST = {
    "few": ("and unlabelled", "labels alone"),
    "align": ("moved, align=auto", "moved"),
    "adapt": ("adapted", "as it is"),
    "context": ("ground around", "no ground around"),
    "cwd": ("CWD", "DIST"),
    "network": ("skeleton recall 0.3", "plain"),
}


def page(settings: Row, rows: list[Row]) -> str:
    """Return a table of each data set, and what the goal asks."""
    stage = settings["stage"]
    text = f"# {stage}: {settings['steps']} steps of {BATCH} crops, test images\n"
    for name in dict.fromkeys(r["data"] for r in rows):
        mine = [r for r in rows if r["data"] == name]
        test = mine[0]["test"]
        figure = FIGURES.get(stage) or ("F1" if "f1" in test else "mIoU")
        columns = {"f1": "F1"} if stage == "network" else {}
        columns |= {"precision": "precision", "recall": "recall", "ece": "ECE"}
        heads = ["way", "runs", figure, "of each", *columns.values()]
        text += f"\n## {name}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
        for way, pixels in dict.fromkeys((r["way"], r.get("px")) for r in mine):
            some = [r["test"] for r in mine if (r["way"], r.get("px")) == (way, pixels)]
            values = [100 * r["figure"] for r in some]
            cells = [f"{way}, {pixels} px" if pixels else way, str(len(some)), with_spread(values)]
            cells += [", ".join(f"{v:.2f}" for v in values)]
            for key in columns:
                cells.append(with_spread([100 * r[key] for r in some if key in r]))
            text += f"| {' | '.join(cells)} |\n"
        better, worse = AGAINST[stage]
        ahead = pairs(mine, better, worse)
        if ahead:
            text += f"\n{better} less {worse}: {with_spread(ahead, '+')} points, "
            text += f"{sum(v > 0 for v in ahead)} of {len(ahead)} runs above 0.\n"
        if stage == "align" and (shares := given_back(mine)):
            text += f"Of the lost IoU given back: {with_spread(shares)} %.\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--data", type=Path, required=True, help="holds the data sets and splits/")
    parser.add_argument("--weights", type=Path, required=True, help="of the ImageNet backbone")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="of few and align")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="of few")
    parser.add_argument("--pixels", type=int, nargs="+", default=[3, 6], help="of align")
    parser.add_argument("--context", type=int, default=4, help="how many times as wide, of context")
    parser.add_argument("--ways", nargs="+", choices=THIN, help="of network")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--start-steps", type=int, default=300, help="of adapt's and cwd's first model"
    )
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--override", nargs="*", default=[], help="of the way that is questioned")
    parser.add_argument("--expect", action="store_true", help="say how long it takes, and end")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without a suffix")
    args = parser.parse_args()
    args.sets = args.sets or DEFAULT_SETS.get(args.stage, [])
    args.home = args.output.with_name(f"{args.output.name}_data")
    settings: Row = {
        k: getattr(args, k)
        for k in ("stage", "steps", "start_steps", "crop", "precision", "override")
    }
    settings["weights"] = args.weights.name
    settings |= {"context": args.context} if args.stage == "context" else {}
    args.kept = kept = Kept(args.output, settings, partial(page, settings))
    jobs = list(STAGES[args.stage](args))
    print(kept.told(jobs), flush=True)
    if args.expect:
        return
    for one in jobs:
        kept.do(one)
    print(page(settings, kept.rows))


if __name__ == "__main__":
    main()
