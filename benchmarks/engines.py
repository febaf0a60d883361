"""KD-ARAFNet on the CPU, float32: each engine against PyTorch eager and the machine's arithmetic.

Rounds of all contenders alternate in a shifting order and each holds a product of 2048 x 2048
matrices; a ratio is the median of the rounds' own ratios, with their quartiles. "x limit" is a
contender's time over that of its multiply-adds (thop's) at the product's rate. "In streams" is how
scenes are predicted: a window per core at once, and the time of a window is that of the round over
their number. Weights are random: speed does not depend on them. Normalisation and softmax are
inside every contender. OpenVINO is told to compute in float32, which it would not by itself on
processors with bfloat16.

    python benchmarks/engines.py --encoder efficientnet_b0 -o benchmarks/results

On a machine with other work, OMP_NUM_THREADS=1 and --clock cpu count the processor time alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terradapt.bench.run import random_model
from terradapt.complexity import measure
from terradapt.export.run import export_model
from terradapt.machine import cpu_threads, hardware
from terradapt.predictors import engines
from terradapt.predictors.torch import TorchPredictor, normalize_tensor

PEER, LIMIT = "PyTorch eager", "2048^3 product"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
CLOCK_NAMES = {"wall": "the time that passed", "cpu": "the processor time that was used"}
NHWC = "PyTorch eager, channels last"
SIDE = 2048
STREAMS = ", in streams"
Call = Callable[[], Any]


def contenders(
    encoder: str, size: int, compiled: bool, folder: Path
) -> tuple[dict[str, Call], float]:
    """Return what is timed, by name, and the multiply-adds of one image."""
    model, meta = random_model(encoder, size)
    macs = measure(model, 1, size).macs
    export_model(model, meta, folder / "model.onnx", window=size)
    plain = copy.deepcopy(model)
    model = model.to(memory_format=torch.channels_last)
    opened: dict[str, Any] = {NHWC: TorchPredictor(model, meta.classes, meta.spec, size)}
    if compiled:
        opened["PyTorch compiled"] = TorchPredictor(
            model, meta.classes, meta.spec, size, engine="compiled"
        )
    for name in engines.installed():
        opened[name] = engines.open_engine(folder / "model.onnx", name)
    images = np.random.default_rng(0).integers(0, 256, (1, 3, size, size), dtype=np.uint8)
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    calls: dict[str, Call] = {LIMIT: lambda: a @ b}

    def eager() -> Any:
        """PyTorch as it comes: its default layout, as the papers ran it."""
        with torch.inference_mode():
            x = normalize_tensor(torch.from_numpy(images), meta.spec)
            return plain(x).logits.softmax(1).numpy()

    calls[PEER] = eager

    def call(predictor: Any) -> Call:
        return lambda: predictor.numpy(predictor.predict(images))

    calls |= {name: call(p) for name, p in opened.items()}
    if cpu_threads() > 1:
        calls[NHWC + STREAMS] = abreast(opened[NHWC], images)
        ort = engines.open_engine(folder / "model.onnx", "onnxruntime")
        calls["onnxruntime" + STREAMS] = abreast(ort, images)
    return calls, macs


def abreast(predictor: Any, images: NDArray[np.uint8]) -> Call:
    """Return a call that predicts the images once in each stream, a core each."""
    count = predictor.streams
    pool = ThreadPoolExecutor(count, initializer=lambda: predictor.share(count))

    def call() -> None:
        waiting = [pool.submit(predictor.predict, images) for _ in range(count)]
        for future in waiting:
            predictor.numpy(future.result())

    return call


def rounds(calls: dict[str, Call], count: int, clock: Call) -> list[dict[str, float]]:
    """Time every contender once in each round, the order shifting by one."""
    for call in calls.values():
        for _ in range(2):
            call()
    names = list(calls)
    found = []
    for number in range(count):
        shift = number % len(names)
        times = {}
        for name in names[shift:] + names[:shift]:
            start = clock()
            calls[name]()
            times[name] = (clock() - start) / (cpu_threads() if name.endswith(STREAMS) else 1)
        found.append(times)
    return found


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def summarize(encoder: str, times: list[dict[str, float]], macs: float) -> list[dict[str, Any]]:
    rows = []
    for name in times[0]:
        if name == LIMIT:
            continue
        limit = [2 * macs * t[LIMIT] / (2 * SIDE**3) for t in times]
        rows.append(
            {
                "encoder": encoder,
                "engine": name,
                "ms": spread([1000 * t[name] for t in times]),
                "x_limit": spread([t[name] / k for t, k in zip(times, limit, strict=True)]),
                "x_limit_of_bests": min(t[name] for t in times) / min(limit),
                "speedup_over_eager": spread([t[PEER] / t[name] for t in times]),
                "speedup_over_channels_last": spread([t[NHWC] / t[name] for t in times]),
            }
        )
    return sorted(rows, key=lambda row: row["ms"]["median"])


def markdown(values: dict[str, Any]) -> str:
    lines = [
        "# Engines of KD-ARAFNet on the CPU, float32",
        "",
        f"{values['hardware']}; {values['threads']} threads; one image of 3 x {values['size']} x "
        f"{values['size']}; {values['rounds']} alternating rounds; medians with quartiles of "
        f"{CLOCK_NAMES[values['clock']]}. The "
        f"product of {SIDE} x {SIDE} matrices ran at {values['gflops']:.0f} GFLOP/s (median; "
        f"{values['best_gflops']:.0f} at best) in the same rounds. Command: `{values['command']}`.",
        "",
        "| encoder | engine | ms | x limit | x limit, bests | x PyTorch eager | x channels last |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in values["rows"]:
        ms, limit, gain = row["ms"], row["x_limit"], row["speedup_over_eager"]
        lines.append(
            f"| {row['encoder']} | {row['engine']} | {ms['median']:.1f} "
            f"({ms['low']:.1f} to {ms['high']:.1f}) | {limit['median']:.2f} ({limit['low']:.2f} to "
            f"{limit['high']:.2f}) | {row['x_limit_of_bests']:.2f} | {gain['median']:.2f} "
            f"({gain['low']:.2f} to {gain['high']:.2f}) | "
            f"{row['speedup_over_channels_last']['median']:.2f} |"
        )
    lines += ["", f"Load of the machine when it began: {values['load']:.1f}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", nargs="+", default=["efficientnet_b0"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(cpu_threads())
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    products: list[float] = []
    for encoder in arguments.encoder:
        with TemporaryDirectory() as folder:
            calls, macs = contenders(encoder, arguments.size, arguments.compiled, Path(folder))
            times = rounds(calls, arguments.rounds, CLOCKS[arguments.clock])
        rows += summarize(encoder, times, macs)
        products += [2 * SIDE**3 / t[LIMIT] / 1e9 for t in times]
    values = {
        "hardware": hardware(), "threads": cpu_threads(), "size": arguments.size,
        "rounds": arguments.rounds, "clock": arguments.clock, "gflops": statistics.median(products),
        "best_gflops": max(products), "load": load, "torch": torch.__version__,
        "command": " ".join(["python", "benchmarks/engines.py", *sys.argv[1:]]),
        "rows": rows,
    }  # fmt: skip
    clock = "" if arguments.clock == "wall" else f"-{arguments.clock}time"
    name = f"engines{clock}_{os.cpu_count()}cpu_{date.today()}"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    (arguments.output / f"{name}.md").write_text(markdown(values), "utf-8")
    print(markdown(values))


if __name__ == "__main__":
    main()
