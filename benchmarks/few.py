"""Few labels: the same labelled images with and without the unlabelled ones, at equal steps.

Each draw is a folder of labelled images with ``splits.json`` and a folder of further images whose
labels are not read. The recipe's figures are taken on ``val`` unless ``--split test`` decides.

    python benchmarks/few.py --recipe roads --weights FILE --split test \
        --draws few0 few1 few2 --unlabelled few0_images few1_images few2_images -o few_epfl
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
from terradapt.config import load_config
from terradapt.data import open_dataset


def one_run(
    args: argparse.Namespace, draw: int, variant: str, changes: list[str]
) -> dict[str, Any]:
    """Train on one draw with its number as the seed, and measure."""
    shared = [
        "encoder.name=mobilenetv2_100",
        "encoder.args.pad_type=same",
        f"encoder.weights={args.weights}",
        f"train.steps_per_epoch={args.steps}",
        "train.epochs=1",
        f"train.seed={draw}",
        f"data.crop={args.crop}",
        "train.batch=8",
        "data.workers=0",
        *args.override,
    ]
    config = load_config(args.recipe).with_overrides([*shared, *changes])
    folder = args.draws[draw]
    with tempfile.TemporaryDirectory() as scratch:
        run = (args.runs or Path(scratch)) / f"{folder.name}_{variant}".replace(" ", "-")
        start = time.monotonic()
        training.train(config, folder, run, resume=True)
        seconds = time.monotonic() - start
        predictor = predictors.load(run / "checkpoint.safetensors")
        dataset = open_dataset(folder, config.data)
        metrics = evaluation.evaluate(predictor, dataset, args.split).metrics
    figures = {"miou": metrics["miou"], "oa": metrics["oa"]}
    if "road" in metrics["per_class"] and len(metrics["per_class"]) == 2:
        figures |= {k: metrics["per_class"]["road"][k] for k in ("f1", "precision", "recall")}
    return {"draw": folder.name, "variant": variant, "seconds": round(seconds), **figures}


def table(rows: list[dict[str, Any]]) -> str:
    """Return one row a variant: mean and spread over the draws, and each draw's figure."""
    key = "f1" if "f1" in rows[0] else "miou"
    lines = [f"| variant | {key} | of each draw | seconds |", "|---|---|---|---|"]
    for variant in dict.fromkeys(r["variant"] for r in rows):
        mine = [r for r in rows if r["variant"] == variant]
        values = [100 * r[key] for r in mine]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        each = ", ".join(f"{v:.2f}" for v in values)
        seconds = statistics.mean(r["seconds"] for r in mine)
        lines.append(
            f"| {variant} | {statistics.mean(values):.2f}{spread} | {each} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print each row as it is there, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="roads")
    parser.add_argument("--draws", type=Path, nargs="+", required=True)
    parser.add_argument("--unlabelled", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--also", action="append", default=[], help="overrides of one more variant")
    parser.add_argument("--override", nargs="*", default=[])
    parser.add_argument("--runs", type=Path, help="keep the run folders here; they are resumed")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    rows = []
    for draw, images in enumerate(args.unlabelled):
        consistent = ["objective.name=consistency", f"data.unlabelled={images}"]
        variants = {"labels alone": [], "and unlabelled": consistent}
        variants |= {text: [*consistent, *text.split()] for text in args.also}
        for name, changes in variants.items():
            rows.append(one_run(args, draw, name, changes))
            print(json.dumps(rows[-1]), flush=True)
    text = table(rows)
    print(text)
    if args.output:
        head = f"# Few labels: {args.recipe}, {args.steps} steps of 8 crops of {args.crop} px\n\n"
        values = {"rows": rows, "split": args.split, "overrides": args.override}
        values["python"] = platform.python_version()
        args.output.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
        args.output.with_suffix(".md").write_text(head + text, "utf-8")


if __name__ == "__main__":
    main()
