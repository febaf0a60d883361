"""Distillation on real images: what it gains, and what the cache of teacher logits saves.

``gain`` trains a student with the labels alone and with a teacher beside them, seed by seed from
the same weights on the same crops, and evaluates each on whole test images. ``cache`` times steps
of a student without a teacher, with one, with one that fills a cache and with a filled cache, all
in one run. ``coarsen`` resamples a dataset once, so that short runs spend their time on training:
pixels by their mean, labels by their mode. Finished rows of ``gain`` are kept, so that it may be
stopped and called again.

    python benchmarks/distillation.py coarsen --data DIR --resolution 0.09 -o COARSE
    python benchmarks/distillation.py gain --data COARSE --teacher CKPT --seeds 0 1 2 -o OUT
    python benchmarks/distillation.py gain --data ROADS --recipe roads --teacher CKPT \
        --variants labels KL CWD -o OUT
    python benchmarks/distillation.py cache --data COARSE --teacher CKPT -o OUT
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
import torch
from affine import Affine
from rasterio.enums import Resampling

from terradapt import evaluation, predictors
from terradapt.config import RunConfig, load_config
from terradapt.data import Dataset, open_dataset
from terradapt.machine import hardware
from terradapt.raster import write_raster
from terradapt.training.trainer import Trainer

STUDENT = [
    "encoder.name=mobilenetv3_small_050",
    "model.options.width=64",
    "data.crop=192",
    "data.workers=0",
    "augment.scale=[0.75,1.33]",
    "optim.lr=3e-3",
    "optim.lr_backbone=null",
    "optim.warmup=20",
    "train.epochs=1",
    "train.batch=8",
    "train.ema=0.97",
]
VARIANTS: dict[str, list[str]] = {
    "labels alone": [],
    "with DIST (T 0.5)": ["objective.name=distill"],
    "with KL (T 2, T^2)": [
        "objective.name=distill",
        "objective.distill.loss=kl",
        "objective.distill.temperature=2",
        "objective.distill.t_squared=true",
    ],
    "with CWD (T 4, T^2, 3)": [
        "objective.name=distill",
        "objective.distill.loss=cwd",
        "objective.distill.temperature=4",
        "objective.distill.t_squared=true",
        "objective.distill.soft=3",
    ],
}
FIGURES = ("miou", "mf1", "oa")


def config_of(args: argparse.Namespace, variant: str, seed: int, *more: str) -> RunConfig:
    shared = [*STUDENT, f"train.steps_per_epoch={args.steps}", f"train.seed={seed}", *args.override]
    chosen = [*VARIANTS[variant], *more]
    if VARIANTS[variant]:
        chosen.append(f"objective.distill.teacher={args.teacher}")
        chosen += [f"objective.distill.cache={args.cache}"] if args.cache else []
    return load_config(args.recipe).with_overrides([*shared, *chosen])


def open_data(args: argparse.Namespace, config: RunConfig) -> Dataset:
    """The test images stay unseen; with no validation images, the last weights are the result."""
    dataset = open_dataset(args.data, config.data)
    if not dataset.splits.get("val"):
        first = dataset.splits["train"][:1]
        dataset = replace(dataset, splits={**dataset.splits, "val": first})
    return dataset


def train_and_test(args: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    config = config_of(args, variant, seed)
    dataset = open_data(args, config)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        Trainer(config, dataset, Path(folder) / "run").fit()
        seconds = time.monotonic() - start
        path = Path(folder) / "run" / "checkpoint.safetensors"
        figures = test(path, dataset)
    return {"variant": variant, "seed": seed, "seconds": round(seconds, 1), **figures}


def test(checkpoint: Path, dataset: Dataset) -> dict[str, Any]:
    predictor = predictors.load(checkpoint)
    metrics = evaluation.evaluate(predictor, dataset, "test", pictures=0).metrics
    classes = {name: row["iou"] for name, row in metrics["per_class"].items()}
    return {**{k: metrics[k] for k in FIGURES}, "iou": classes}


def coarsen(args: argparse.Namespace) -> None:
    dataset = open_dataset(args.data)
    for item in dataset.items:
        assert item.resolution and item.label
        factor = args.resolution / item.resolution
        for path, home, how in (
            (item.image, "images", Resampling.average),
            (item.label, "labels", Resampling.mode),
        ):
            with rasterio.open(path) as file:
                height, width = round(file.height / factor), round(file.width / factor)
                shape = (file.count, height, width)
                pixels = file.read(out_shape=shape, resampling=how)
                scale = Affine.scale(file.width / width, file.height / height)
                frame = {"crs": file.crs, "transform": file.transform @ scale}
            write_raster(args.output / home / f"{item.id}.tif", pixels, **frame)
    names = json.dumps(list(dataset.classes.names))
    (args.output / "classes.yaml").write_text(f"names: {names}\n", "utf-8")
    splits = {k: list(v) for k, v in dataset.splits.items()}
    (args.output / "splits.json").write_text(json.dumps(splits), "utf-8")


def gain(args: argparse.Namespace) -> None:
    path = args.output.with_suffix(".json")
    held = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows: list[dict[str, Any]] = held["rows"]
    if not any(r["variant"] == "teacher" for r in rows):
        dataset = open_data(args, config_of(args, "labels alone", 0))
        rows.append({"variant": "teacher", "seed": None, **test(args.teacher, dataset)})
    started = time.monotonic()
    chosen = [v for v in VARIANTS if any(w.casefold() in v.casefold() for w in args.variants)]
    for seed in args.seeds:
        for variant in chosen:
            done = any(r["variant"] == variant and r["seed"] == seed for r in rows)
            if done or time.monotonic() - started > 60 * args.minutes:
                continue
            rows.append(train_and_test(args, variant, seed))
            print(json.dumps(rows[-1]), flush=True)
            write(args, path, rows)
    write(args, path, rows)


def write(args: argparse.Namespace, path: Path, rows: list[dict[str, Any]]) -> None:
    facts = {
        "data": args.data.name, "steps": args.steps, "overrides": overrides(args),
        "hardware": hardware(), "torch": torch.__version__,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", "utf-8")
    head = f"# Distillation: {args.data.name}, {args.steps} steps, {facts['hardware']}\n\n"
    path.with_suffix(".md").write_text(head + table(rows), "utf-8")


def overrides(args: argparse.Namespace) -> list[str]:
    """The student's settings, files by their name alone."""
    pairs = (o.partition("=") for o in (*STUDENT, *args.override))
    return [f"{key}={Path(value).name}" for key, _, value in pairs]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | seeds | mIoU | mF1 | OA | against labels alone, mIoU |",
        "|---|---|---|---|---|---|",
    ]
    plain = {r["seed"]: r["miou"] for r in rows if r["variant"] == "labels alone"}
    for variant in dict.fromkeys(r["variant"] for r in rows):
        mine = [r for r in rows if r["variant"] == variant]
        cells = [spread([100 * r[k] for r in mine]) for k in FIGURES]
        pairs = [100 * (r["miou"] - plain[r["seed"]]) for r in mine if r["seed"] in plain]
        against = spread(pairs, "+") if pairs and variant != "labels alone" else ""
        lines.append(f"| {variant} | {len(mine)} | {' | '.join(cells)} | {against} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float], sign: str = "") -> str:
    mean = f"{statistics.fmean(values):{sign}.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def cache(args: argparse.Namespace) -> None:
    """Times of the same steps, the ways taken in turn so that other load meets all alike."""
    folder = Path(tempfile.mkdtemp())
    args.cache = None
    kept = f"objective.distill.cache={folder / 'cache'}"
    dist = "with DIST (T 0.5)"
    dataset = open_data(args, config_of(args, dist, 0))
    filling = Trainer(config_of(args, dist, 0, kept), dataset, folder / "filling")
    filled = timed(filling, args.steps)
    ways = {
        "no teacher": config_of(args, "labels alone", 0),
        "teacher, no cache": config_of(args, dist, 0),
        "teacher, filled cache": config_of(args, dist, 0, kept),
    }
    times: dict[str, list[float]] = {"teacher, cache being filled": filled}
    trainers = {w: Trainer(c, dataset, folder / w) for w, c in ways.items()}
    steppers = {w: stepper(t) for w, t in trainers.items()}
    for _ in range(args.steps):
        for way, step in steppers.items():
            times.setdefault(way, []).append(step())
    size = sum(f.stat().st_size for f in (folder / "cache").rglob("*.npy"))
    shutil.rmtree(folder)
    medians = {way: statistics.median(t[2:]) for way, t in times.items()}
    rows = {w: {"ms": round(1000 * m, 1)} for w, m in medians.items()}
    crops = args.steps * 8
    facts = {
        "data": args.data.name, "steps": args.steps, "hardware": hardware(),
        "kb_per_crop": round(size / crops / 1e3, 1), "overrides": overrides(args),
        "rows": rows, "note": "median of a whole step, reading of the crops included",
    }  # fmt: skip
    path = args.output.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    lines = ["| way | ms a step | of no cache |", "|---|---|---|"]
    base = medians["teacher, no cache"]
    lines += [f"| {w} | {1000 * m:.0f} | {m / base:.2f} |" for w, m in medians.items()]
    head = f"# Teacher logits from a cache: {facts['hardware']}\n\n{facts['note']}; "
    head += f"{facts['kb_per_crop']} kB on disk per crop\n\n"
    text = head + "\n".join(lines) + "\n"
    path.with_suffix(".md").write_text(text, "utf-8")
    print(text)


def stepper(trainer: Trainer) -> Callable[[], float]:
    batches = trainer.batches()

    def step() -> float:
        start = time.perf_counter()
        trainer._optimize([next(batches)])
        trainer.step += 1
        return time.perf_counter() - start

    return step


def timed(trainer: Trainer, steps: int) -> list[float]:
    step = stepper(trainer)
    return [step() for _ in range(steps)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["coarsen", "gain", "cache"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--resolution", type=float, default=0.09, help="m/px of coarsen")
    parser.add_argument("--recipe", default="landcover")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=["labels", "DIST"])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no row after this")
    parser.add_argument("--override", nargs="*", default=[])
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    {"coarsen": coarsen, "gain": gain, "cache": cache}[args.what](args)


if __name__ == "__main__":
    main()
