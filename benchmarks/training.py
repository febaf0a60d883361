"""Crops per second of ``train`` against a bare forward and backward loop on a batch in memory.

Both in float32 and in bfloat16. Rounds of the four alternate in one process; the ratios are of the
medians of all step times. The bare loop neither reads nor augments, has no optimiser, no average
and no log: it is the limit.

    python benchmarks/training.py -o benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import torch

from terradapt.config import RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.machine import hardware
from terradapt.predictors.torch import normalize_tensor
from terradapt.synthetic import write_dataset
from terradapt.training.trainer import Trainer

SKIP = 6  # steps until the workers and the allocator have settled


PRECISIONS = ("fp32", "bf16")


def config_of(args: argparse.Namespace, precision: str) -> RunConfig:
    return load_config("landcover").with_overrides(
        [
            f"encoder.name={args.encoder}",
            f"data.crop={args.crop}",
            f"train.batch={args.batch}",
            f"train.steps_per_epoch={args.steps}",
            "train.epochs=1",
            "train.save_every=1000000",
            f"train.precision={precision}",
            "encoder.weights=null",
            f"data.workers={args.workers}",
        ]
    )


class EnoughError(Exception):
    """The round is over."""


def train_round(config: RunConfig, data: Path, run: Path) -> list[float]:
    laps: list[float] = []
    trainer = Trainer(config, open_dataset(data), run)

    def lap(_: int) -> None:
        laps.append(time.perf_counter())
        if len(laps) == trainer.steps_per_epoch - 1:
            raise EnoughError  # before the validation

    with suppress(EnoughError):
        trainer.fit(lap)
    return [b - a for a, b in zip(laps[SKIP:], laps[SKIP + 1 :], strict=False)]


def bare_round(config: RunConfig, data: Path, run: Path) -> list[float]:
    trainer = Trainer(config, open_dataset(data), run)
    batch = next(trainer.batches())
    image = normalize_tensor(batch["image"], trainer.spec).contiguous(
        memory_format=torch.channels_last
    )
    batch = {**batch, "image": image}
    times = []
    trainer.model.train()
    for _ in range(trainer.steps_per_epoch):
        start = time.perf_counter()
        trainer.model.zero_grad(set_to_none=True)
        with trainer.accelerator.autocast():
            loss, _logs = trainer.objective(trainer.model, batch)
        loss.backward()
        times.append(time.perf_counter() - start)
    return times[SKIP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="efficientnet_b0")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=26)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    loops = {"train": train_round, "bare": bare_round}
    times: dict[str, list[float]] = {f"{w} {p}": [] for w in loops for p in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_dataset(data, {"train": (1, 2), "val": (3,)}, size=768)
        for i in range(args.rounds):
            for what, round_of in loops.items():
                for precision in PRECISIONS:
                    run = Path(folder) / f"{what}-{precision}-{i}"
                    config = config_of(args, precision)
                    times[f"{what} {precision}"] += round_of(config, data, run)
    rates = {what: args.batch / statistics.median(laps) for what, laps in times.items()}
    result = {
        "crops_per_second": rates,
        "train_to_bare": {p: rates[f"train {p}"] / rates[f"bare {p}"] for p in PRECISIONS},
        "bf16_to_fp32": {w: rates[f"{w} bf16"] / rates[f"{w} fp32"] for w in loops},
        "settings": {k: v for k, v in vars(args).items() if k != "output"},
        "hardware": hardware(),
    }
    print(json.dumps(result, indent=1))
    if args.output:
        write(args.output, result)


def write(folder: Path, result: dict[str, Any]) -> None:
    name = f"training_{os.cpu_count()}cpu_{date.today().isoformat()}"
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    s, rates = result["settings"], result["crops_per_second"]
    text = f"""# Training throughput

{result["hardware"]}. kd-arafnet on {s["encoder"]}, {s["batch"]} crops of {s["crop"]} px, medians of
{s["rounds"]} rounds of {s["steps"]} steps each, in crops per second.

| loop | fp32 | bf16 | bf16 to fp32 |
|---|---:|---:|---:|
| `train`: reading, augmentation, optimiser, average, log | {rates["train fp32"]:.2f} |\
 {rates["train bf16"]:.2f} | {result["bf16_to_fp32"]["train"]:.3f} |
| bare forward and backward, batch in memory | {rates["bare fp32"]:.2f} |\
 {rates["bare bf16"]:.2f} | {result["bf16_to_fp32"]["bare"]:.3f} |
| `train` to bare | {result["train_to_bare"]["fp32"]:.3f} |\
 {result["train_to_bare"]["bf16"]:.3f} | |
"""
    (folder / f"{name}.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
