"""The ground around windows: the same runs at native resolution with it and without, seed by seed.

The folder has ``images``, ``labels`` and ``splits.json``. Every row is a run of its own, evaluated
on whole images of one split; with ``--runs`` finished and broken runs are gone on with.

    python benchmarks/context.py DIR --weights FILE --seeds 0 1 2 --split test -o context_harvey
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from terradapt import evaluation, predictors, training
from terradapt.config import load_config
from terradapt.data import open_dataset
from terradapt.machine import hardware


def one_run(args: argparse.Namespace, seed: int, context: int) -> dict[str, Any]:
    """Train with one width of the ground around, and measure."""
    changes = [
        f"encoder.name={args.encoder}",
        f"encoder.weights={args.weights or 'null'}",
        f"data.context={context}",
        f"data.crop={args.crop}",
        "data.workers=0",
        f"train.seed={seed}",
        f"train.steps_per_epoch={args.steps}",
        "train.epochs=1",
        *args.override,
    ]
    config = load_config(args.recipe).with_overrides(changes)
    with tempfile.TemporaryDirectory() as scratch:
        run = (args.runs or Path(scratch)) / f"context{context}_seed{seed}"
        start = time.monotonic()
        training.train(config, args.data, run, resume=True)
        trained = time.monotonic()
        predictor = predictors.load(run / "checkpoint.safetensors")
        dataset = open_dataset(args.data, config.data)
        metrics = evaluation.evaluate(predictor, dataset, args.split, pictures=1).metrics
    return {
        "seed": seed,
        "context": context,
        "miou": metrics["miou"],
        "oa": metrics["oa"],
        "iou": {name: row["iou"] for name, row in metrics["per_class"].items()},
        "train_seconds": round(trained - start),
        "eval_seconds": round(time.monotonic() - trained),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return one row a width: mean and spread of the mIoU, each seed's, and the seconds."""
    lines = [
        "| the ground around | mIoU | of each seed | train s | eval s |",
        "|---|---|---|---|---|",
    ]
    for context in dict.fromkeys(r["context"] for r in rows):
        mine = [r for r in rows if r["context"] == context]
        values = [100 * r["miou"] for r in mine]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        each = ", ".join(f"{v:.2f}" for v in values)
        train, test = (
            statistics.mean(r[k] for r in mine) for k in ("train_seconds", "eval_seconds")
        )
        name = f"{context} times as wide" if context else "none"
        mean = statistics.mean(values)
        lines.append(f"| {name} | {mean:.2f}{spread} | {each} | {train:.0f} | {test:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print each row as it is there, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="landcover")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--weights")
    parser.add_argument("--contexts", type=int, nargs="+", default=(0, 4))
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--crop", type=int, default=384)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--override", nargs="*", default=[])
    parser.add_argument("--runs", type=Path, help="keep the run folders here; they are resumed")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        for context in args.contexts:
            rows.append(one_run(args, seed, context))
            print(json.dumps(rows[-1]), flush=True)
    text = table(rows)
    print(text)
    if args.output:
        facts = {"hardware": hardware(), "split": args.split, "crop": args.crop}
        facts |= {"steps": args.steps, "overrides": args.override, "rows": rows}
        head = f"# The ground around: {args.steps} steps, crops of {args.crop} px, {args.split}\n\n"
        args.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        args.output.with_suffix(".md").write_text(head + text, "utf-8")


if __name__ == "__main__":
    main()
