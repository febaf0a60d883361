"""A compact student on real images: the teacher's decoder pruned, distilled, then in INT8.

The teacher is a KD-ARAFNet of 128 decoder channels. Its student has the same backbone and a decoder
of the strongest channels (``--start pruned``), or starts from the backbone's own weights alone
(``--start backbone``); it learns from the labels and the teacher's logits and is quantized with
windows of the training images. Each model is evaluated on whole test images as an exported file.
Teacher, student and INT8 student take turns in the timing, engine by engine, in a shifting order.
Finished seeds are kept, so that the command may be stopped and called again.

    python benchmarks/distillation.py coarsen --data DIR --resolution 0.06 -o COARSE
    python benchmarks/compact.py --data COARSE --test DIR --teacher CKPT -o OUT
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from terradapt import checkpoint, evaluation
from terradapt.config import RunConfig
from terradapt.data import Dataset, open_dataset
from terradapt.export.quantized import export_int8
from terradapt.export.run import export_checkpoint
from terradapt.machine import cpu_threads, hardware
from terradapt.meta import read_meta
from terradapt.predictors import engines
from terradapt.training.optim import Average
from terradapt.training.pruning import narrow
from terradapt.training.trainer import Trainer

TEACHER, STUDENT, INT8 = "teacher fp32", "student fp32", "student INT8"
TARGETS = {"bytes": 1 / 4, "speed": 2.0, "points": 1.0}
LOSSES = {
    "kl": ["objective.distill.loss=kl", "objective.distill.temperature=2"],
    "dist": ["objective.distill.loss=dist"],
}
Row = dict[str, Any]


def config_of(args: argparse.Namespace, seed: int) -> RunConfig:
    """The teacher's config, with a narrower decoder and the teacher as an objective."""
    config = read_meta(args.teacher).config
    return config.with_overrides(
        [
            f"model.options.width={args.width}",
            f"data.crop={args.crop}",
            "data.workers=0",
            "objective.name=distill",
            f"objective.distill.teacher={args.teacher}",
            *LOSSES[args.loss],
            "optim.lr=2e-3",
            "optim.lr_backbone=5e-4",
            "train.epochs=1",
            f"train.steps_per_epoch={args.steps}",
            f"train.batch={args.batch}",
            "train.ema=0.98",
            f"train.seed={seed}",
            *args.override,
        ]
    )


def train(args: argparse.Namespace, seed: int, folder: Path) -> Path:
    """Distil one student; the last weights are the result, the test images stay unseen."""
    config = config_of(args, seed)
    dataset = open_dataset(args.data, config.data)
    if not dataset.splits.get("val"):
        first = dataset.splits["train"][:1]
        dataset = replace(dataset, splits={**dataset.splits, "val": first})
    trainer = Trainer(config, dataset, folder)
    if args.start == "pruned":
        teacher, _ = checkpoint.load(args.teacher)
        trainer.model.load_state_dict(narrow(teacher, args.width).state_dict())
        trainer.average = Average(trainer.model, config.train.ema) if config.train.ema else None
    trainer.fit()
    return trainer.run.best


def test(file: Path, dataset: Dataset, left_out: list[str]) -> Row:
    predictor = engines.open_engine(file, "onnxruntime")
    metrics = evaluation.evaluate(predictor, dataset, "test", pictures=0).metrics
    ious = {name: row["iou"] for name, row in metrics["per_class"].items()}
    pixels = {name: row.get("pixels") for name, row in metrics["per_class"].items()}
    kept = [v for name, v in ious.items() if name not in left_out]
    return {
        "bytes": file.stat().st_size, "miou": metrics["miou"], "miou_kept": statistics.mean(kept),
        "mf1": metrics["mf1"], "oa": metrics["oa"], "iou": ious, "pixels": pixels,
    }  # fmt: skip


def speed(files: dict[str, Path], rounds: int) -> dict[str, dict[str, float]]:
    """Return windows per second by engine and model; medians of rounds that alternate."""
    found = {}
    for engine in engines.installed():
        opened = {name: engines.open_engine(path, engine) for name, path in files.items()}
        side = opened[TEACHER].window
        images = np.random.default_rng(0).integers(0, 256, (1, 3, side, side), dtype=np.uint8)
        times: dict[str, list[float]] = {name: [] for name in opened}
        for number in range(-2, rounds):
            names = list(opened)
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                start = time.perf_counter()
                opened[name].predict(images)
                times[name].append(time.perf_counter() - start)
        found[engine] = {name: 1 / statistics.median(t[2:]) for name, t in times.items()}
    return found


def one_seed(args: argparse.Namespace, seed: int, dataset: Dataset, scratch: Path) -> Row:
    window = read_meta(args.teacher).window
    files = {TEACHER: scratch / "teacher.onnx", STUDENT: scratch / f"student{seed}.onnx"}
    start = time.monotonic()
    best = train(args, seed, scratch / f"run{seed}")
    seconds = time.monotonic() - start
    export_checkpoint(best, files[STUDENT], window=window)
    files[INT8] = scratch / f"student{seed}.int8.onnx"
    report = export_int8(best, files[INT8], args.data, window=window)
    return {
        "seed": seed,
        "seconds_of_training": round(seconds, 1),
        STUDENT: test(files[STUDENT], dataset, args.without),
        INT8: test(files[INT8], dataset, args.without),
        "float_layers": len(report["int8"]["float_layers"]),
        "speed": speed(files, args.rounds),
    }


def conclude(teacher: Row, rows: list[Row]) -> Row:
    """Set the seeds' INT8 students beside the teacher, with the engine that runs it fastest."""
    rate: dict[str, list[float]] = {}
    for row in rows:
        for engine, rates in row["speed"].items():
            rate.setdefault(engine, []).append(rates[TEACHER])
    engine = max(rate, key=lambda name: statistics.median(rate[name]))
    return {
        "engine": engine,
        "bytes": statistics.median(r[INT8]["bytes"] / teacher["bytes"] for r in rows),
        "speed": statistics.median(
            r["speed"][engine][INT8] / r["speed"][engine][TEACHER] for r in rows
        ),
        "points": statistics.mean(100 * (teacher["miou"] - r[INT8]["miou"]) for r in rows),
        "points_kept": statistics.mean(
            100 * (teacher["miou_kept"] - r[INT8]["miou_kept"]) for r in rows
        ),
    }


def markdown(values: Row) -> str:
    teacher, rows, end = values["teacher"], values["rows"], values["conclusion"]
    without = ", ".join(values["without"])
    lines = [
        f"# A compact student: {values['data']}",
        "",
        f"{values['hardware']}, {values['threads']} threads. Decoder of {values['width']} channels "
        f"(start: {values['start']}), {values['steps']} steps of {values['batch']} crops of "
        f"{values['crop']} px, {values['loss']} and the labels; ONNX Runtime QDQ per channel, "
        f"calibrated on the training images. Test: whole images of {values['test']}. "
        f"Command: `{values['command']}`.",
        "",
        "| | seed | MB | mIoU | " + (f"mIoU without {without} | " if without else "") + "OA |",
        "|---|---|---:|---:|---:|" + ("---:|" if without else ""),
        line(TEACHER, "", teacher, bool(without)),
    ]
    for row in rows:
        lines += [line(n, row["seed"], row[n], bool(without)) for n in (STUDENT, INT8)]
    lines += ["", "Windows per second, one at a time:", ""]
    lines += [f"| engine | seed | {TEACHER} | {STUDENT} | {INT8} |", "|---|---|---:|---:|---:|"]
    for row in rows:
        for engine, rates in row["speed"].items():
            cells = " | ".join(f"{rates[n]:.2f}" for n in (TEACHER, STUDENT, INT8))
            lines.append(f"| {engine} | {row['seed']} | {cells} |")
    return "\n".join([*lines, "", *verdict(end, without), ""])


def line(name: str, seed: Any, row: Row, kept: bool) -> str:
    cells = [100 * row["miou"], *([100 * row["miou_kept"]] if kept else []), 100 * row["oa"]]
    shown = " | ".join(f"{c:.2f}" for c in cells)
    return f"| {name} | {seed} | {row['bytes'] / 1e6:.2f} | {shown} |"


def verdict(end: Row, without: str) -> list[str]:
    met = [
        (f"bytes: {end['bytes']:.3f} of the teacher's", "1/4", end["bytes"] <= TARGETS["bytes"]),
        (
            f"speed with {end['engine']}, the teacher's fastest engine: {end['speed']:.2f} times",
            "2 times", end["speed"] >= TARGETS["speed"],
        ),
        (f"mIoU: {-end['points']:+.2f} points", "-1 point", end["points"] <= TARGETS["points"]),
    ]  # fmt: skip
    if without:
        kept = end["points_kept"]
        name = f"mIoU without {without}: {-kept:+.2f} points"
        met.append((name, "-1 point", kept <= TARGETS["points"]))
    lines = [f"- {name} (target {goal}): {'met' if yes else 'not met'}" for name, goal, yes in met]
    return ["INT8 student beside the teacher, over all seeds:", "", *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="images to train on")
    parser.add_argument("--test", type=Path, help="folder whose test split counts; --data's")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--start", choices=["pruned", "backbone"], default="pruned")
    parser.add_argument("--loss", choices=sorted(LOSSES), default="kl")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=1e9, help="start no seed after this")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without", nargs="*", default=[], help="classes of a second mean")
    parser.add_argument("--override", nargs="*", default=[])
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(cpu_threads())
    run(args)


def run(args: argparse.Namespace) -> None:
    tested = args.test or args.data
    what = f"compact_{tested.resolve().name}_{args.start}{args.width}"
    name = f"{what}_{os.cpu_count()}cpu_{date.today()}"
    path = args.output / f"{name}.json"
    held = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows: list[Row] = held["rows"]
    dataset = open_dataset(tested)
    started = time.monotonic()
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "teacher.onnx"
        export_checkpoint(args.teacher, file)
        teacher = held.get("teacher") or test(file, dataset, args.without)
        for seed in args.seeds:
            late = time.monotonic() - started > 60 * args.minutes
            if late or any(row["seed"] == seed for row in rows):
                continue
            rows.append(one_seed(args, seed, dataset, Path(scratch)))
            write(args, path, teacher, rows)
            print(path.with_suffix(".md").read_text(), flush=True)


def write(args: argparse.Namespace, path: Path, teacher: Row, rows: list[Row]) -> None:
    values = {
        "data": args.data.name, "test": (args.test or args.data).name, "hardware": hardware(),
        "threads": cpu_threads(), "torch": torch.__version__, "width": args.width,
        "start": args.start, "loss": args.loss, "steps": args.steps, "crop": args.crop,
        "batch": args.batch, "override": args.override, "without": args.without,
        "command": " ".join(["python", "benchmarks/compact.py", *map(plain, sys.argv[1:])]),
        "teacher": teacher, "rows": rows, "conclusion": conclude(teacher, rows),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    path.with_suffix(".md").write_text(markdown(values), "utf-8")


def plain(text: str) -> str:
    """Leave the machine's folders out of what is kept."""
    return Path(text).name if text.startswith("/") else text


if __name__ == "__main__":
    main()
