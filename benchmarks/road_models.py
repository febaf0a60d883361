"""Roads on real images: KD-ARAFNet against segmentation_models_pytorch's Unet.

Both train in this one script with the same backbone, weights, crops (the same pixels, seed by
seed), steps, optimiser and schedule; only the decoder differs. ``--also plain`` adds
the Unet with AdamW at a constant rate and no average of the weights, ``--also SAM2MS`` SAM2MS's
decoder.

    python benchmarks/road_models.py --data DIR --weights FILE --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from terradapt import evaluation, predictors, training
from terradapt.config import DataConfig, RunConfig, load_config
from terradapt.data import open_dataset

VARIANTS = {
    "kd-arafnet": ["model.name=kd-arafnet"],
    "smp Unet": ["model.name=smp-unet"],
    "smp Unet, plain AdamW": [
        "model.name=smp-unet",
        "train.ema=null",
        "optim.warmup=0",
        "optim.clip=null",
        "optim.lr_backbone=1e-3",
        "optim.min_lr=1e-3",
    ],
    "SAM2MS's decoder": ["model.name=sam2ms"],
}


BOTH = ("kd-arafnet", "smp Unet")


def config_of(args: argparse.Namespace, variant: str, seed: int) -> RunConfig:
    shared = [
        "encoder.name=mobilenetv2_100",
        "encoder.args.pad_type=same",
        f"encoder.weights={args.weights}",
        f"train.steps_per_epoch={args.steps}",
        "train.epochs=1",
        f"train.seed={seed}",
        f"data.crop={args.crop}",
        "train.batch=8",
        *args.override,
    ]
    return load_config("roads").with_overrides([*shared, *VARIANTS[variant]])


def one_run(args: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.runs or Path(scratch)) / f"{variant.replace(' ', '-')}_{seed}"
        start = time.monotonic()
        training.train(config_of(args, variant, seed), args.data, folder)
        seconds = time.monotonic() - start
        predictor = predictors.load(folder / "checkpoint.safetensors")
        dataset = open_dataset(args.data, DataConfig())
        metrics = evaluation.evaluate(predictor, dataset, "test").metrics
    road = metrics["per_class"]["road"]
    return {"variant": variant, "seed": seed, "seconds": round(seconds, 1), **road}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | F1 | IoU | precision | recall | seconds |", "|---|---|---|---|---|---|"]
    for variant in dict.fromkeys(r["variant"] for r in rows):
        mine = [r for r in rows if r["variant"] == variant]
        cells = [spread([r[k] for r in mine]) for k in ("f1", "iou", "precision", "recall")]
        seconds = statistics.mean(r["seconds"] for r in mine)
        lines.append(f"| {variant} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--also", nargs="*", default=[], help="plain, SAM2MS")
    parser.add_argument("--override", nargs="*", default=[])
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    variants = [*BOTH, *(v for v in VARIANTS if any(word in v for word in args.also))]
    rows = []
    for seed in args.seeds:
        for variant in variants:
            rows.append(one_run(args, variant, seed))
            print(json.dumps(rows[-1]), flush=True)
    text = table(rows)
    print(text)
    if args.output:
        head = f"# Roads: {args.data.name}, {args.steps} steps of 8 crops of {args.crop} px\n\n"
        values = {"rows": rows, "python": platform.python_version(), "overrides": args.override}
        args.output.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
        args.output.with_suffix(".md").write_text(head + text, "utf-8")


if __name__ == "__main__":
    main()
