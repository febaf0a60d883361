"""Pixels per second of the confusion matrix: ours, torchmetrics, scikit-learn, and the limit.

The limit is the time to read both arrays once from memory. All run in one process, in turns, on one
thread; the clock is the process's CPU time, so that other work on the machine counts little; each
figure is the best of the rounds. Maps are patches with 2 % of wrong pixels and 2 % of ignored ones.

    python benchmarks/confusion.py -o benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import multiclass_confusion_matrix

from terradapt.machine import hardware
from terradapt.metrics import Confusion
from terradapt.report.markdown import markdown_table

PEERS = ("terradapt", "numpy bincount", "torchmetrics", "scikit-learn", "limit: read both")
SLOW = {"scikit-learn": 32, "torchmetrics": 16}  # these get this part of the pixels


def maps(classes: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    target = np.repeat(rng.integers(0, classes, pixels // 64).astype(np.uint8), 64)
    prediction = target.copy()
    wrong = rng.random(len(target)) < 0.02
    prediction[wrong] = rng.integers(0, classes, int(wrong.sum()))
    target[rng.random(len(target)) < 0.02] = 255
    return target, prediction


def bincount(target: np.ndarray, prediction: np.ndarray, k: int) -> np.ndarray:
    kept = target != 255
    codes = target[kept].astype(np.int64) * k + prediction[kept]
    return np.bincount(codes, minlength=k * k).reshape(k, k)


def sklearn(target: np.ndarray, prediction: np.ndarray, k: int) -> np.ndarray:
    kept = target != 255
    return np.asarray(confusion_matrix(target[kept], prediction[kept], labels=np.arange(k)))


def read_both(target: np.ndarray, prediction: np.ndarray, k: int) -> int:
    return int(target.max()) + int(prediction.max())


def metrics_of_torch(target: torch.Tensor, prediction: torch.Tensor, k: int) -> torch.Tensor:
    return multiclass_confusion_matrix(prediction, target, k, ignore_index=255, validate_args=False)


def works(classes: int, pixels: int) -> dict[str, tuple[Callable[[], object], int]]:
    target, prediction = maps(classes, pixels)
    jobs: dict[str, tuple[Callable[[], object], int]] = {}
    for name in PEERS:
        n = pixels // SLOW.get(name, 1)
        t, p = target[:n], prediction[:n]
        if name == "torchmetrics":  # it wants int64 tensors; the conversion is not its time
            a, b = torch.from_numpy(t.astype(np.int64)), torch.from_numpy(p.astype(np.int64))
            jobs[name] = partial(metrics_of_torch, a, b, classes), n
            continue
        functions: dict[str, Callable[[np.ndarray, np.ndarray, int], object]] = {
            "terradapt": lambda t, p, k: Confusion(k).update(t, p).matrix,
            "numpy bincount": bincount,
            "scikit-learn": sklearn,
            "limit: read both": read_both,
        }
        jobs[name] = partial(functions[name], t, p, classes), n
    return jobs


def check(classes: int) -> None:
    target, prediction = maps(classes, 1 << 16)
    ours = Confusion(classes).update(target, prediction).matrix
    a, b = (torch.from_numpy(x.astype(np.int64)) for x in (target, prediction))
    for other in (
        bincount(target, prediction, classes),
        sklearn(target, prediction, classes),
        metrics_of_torch(a, b, classes).numpy(),
    ):
        np.testing.assert_array_equal(ours, other)


def measure(classes: int, pixels: int, rounds: int) -> dict[str, float]:
    check(classes)
    jobs = works(classes, pixels)
    best = dict.fromkeys(jobs, 0.0)
    for _ in range(rounds):
        for name, (job, n) in jobs.items():
            start = time.process_time()
            job()
            best[name] = max(best[name], n / (time.process_time() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=1 << 25)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rates = {k: measure(k, args.pixels, args.rounds) for k in (2, 6, 19)}
    header = ["Mpx per CPU second", *(f"{k} classes" for k in rates)]
    rows = [[name, *(f"{r[name] / 1e6:.1f}" for r in rates.values())] for name in PEERS]
    text = f"{hardware()}; {args.pixels / 1e6:.0f} Mpx, best of {args.rounds}, "
    text += "one thread, CPU time\n\n"
    text += markdown_table(header, rows) + "\n"
    print(text)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        path = args.output / f"confusion_2cpu_{date.today()}.json"
        values = {"hardware": hardware(), "pixels": args.pixels, "rounds": args.rounds}
        path.write_text(json.dumps({**values, "pixels_per_cpu_second": rates}, indent=1) + "\n")
        path.with_suffix(".md").write_text(f"# Confusion matrix\n\n{text}")


if __name__ == "__main__":
    main()
