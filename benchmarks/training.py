"""Crops per second of ``train`` against a bare forward and backward loop on a batch in memory.

Rounds of both alternate in one process; the ratio is of the medians of all step times. The bare
loop neither reads nor augments, has no optimiser, no average and no log: it is the limit.

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

import torch

from terradapt.config import RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.machine import hardware
from terradapt.predictors.torch import normalize_tensor
from terradapt.synthetic import write_dataset
from terradapt.training.loading import run_loader
from terradapt.training.trainer import Trainer

SKIP = 6  # steps until the workers and the allocator have settled


def config_of(args: argparse.Namespace) -> RunConfig:
    return load_config("landcover").with_overrides(
        [
            f"encoder.name={args.encoder}",
            f"data.crop={args.crop}",
            f"train.batch={args.batch}",
            f"train.steps_per_epoch={args.steps}",
            "train.epochs=1",
            "train.save_every=1000000",
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
        if len(laps) == config.train.steps_per_epoch - 1:
            raise EnoughError  # before the validation

    with suppress(EnoughError):
        trainer.fit(lap)
    return [b - a for a, b in zip(laps[SKIP:], laps[SKIP + 1 :], strict=False)]


def bare_round(config: RunConfig, data: Path, run: Path) -> list[float]:
    trainer = Trainer(config, open_dataset(data), run)
    several = (trainer.crops, trainer.unlabelled, config)
    batch = next(iter(run_loader(*several, 0, trainer.accelerator)))
    image = normalize_tensor(batch["image"], trainer.spec).contiguous(
        memory_format=torch.channels_last
    )
    batch = {**batch, "image": image}
    times = []
    trainer.model.train()
    for _ in range(config.train.steps_per_epoch):
        start = time.perf_counter()
        trainer.model.zero_grad(set_to_none=True)
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
    config = config_of(args)
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_dataset(data, {"train": (1, 2), "val": (3,)}, size=768)
        for i in range(args.rounds):
            ours += train_round(config, data, Path(folder) / f"a{i}")
            bare += bare_round(config, data, Path(folder) / f"b{i}")
    rates = [args.batch / statistics.median(t) for t in (ours, bare)]
    result = {
        "train_crops_per_second": rates[0],
        "bare_crops_per_second": rates[1],
        "ratio": rates[0] / rates[1],
        "settings": {k: v for k, v in vars(args).items() if k != "output"},
        "hardware": hardware(),
    }
    print(json.dumps(result, indent=1))
    if args.output:
        write(args.output, result)


def write(folder: Path, result: dict) -> None:
    name = f"training_{os.cpu_count()}cpu_{date.today().isoformat()}"
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    s = result["settings"]
    text = f"""# Training throughput

{result["hardware"]}. kd-arafnet on {s["encoder"]}, {s["batch"]} crops of {s["crop"]} px, medians of
{s["rounds"]} rounds of {s["steps"]} steps each.

| loop | crops per second |
|---|---|
| `train`: reading, augmentation, optimiser, average, log | {result["train_crops_per_second"]:.2f} |
| bare forward and backward, batch in memory | {result["bare_crops_per_second"]:.2f} |
| ratio | {result["ratio"]:.3f} |
"""
    (folder / f"{name}.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
