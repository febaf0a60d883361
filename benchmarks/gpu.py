"""Everything that is measured on a GPU, in one command of less than ten minutes.

Stages, each in a process of its own with a time limit; a result is written after every row, and a
stage that fails or runs out of time does not end the others:

    tests       the tests marked ``gpu``
    peak        bf16 and fp32 matrix products and a copy: what the card can do today
    inference   teacher and nine students at 3 x 512 x 512, SAM2MS at 1024: images per second,
                latency, memory; fp32 (as the papers ran it), bf16, compiled, reduce-overhead
    training    steps per second of teacher and student beside bare forward + backward
    predict     a whole scene beside the bare model on the same windows, and where the rest goes
    engines     ONNX Runtime CUDA and TensorRT, where they are installed
    resume      two small trainings, one broken and resumed: how far they are apart

    python benchmarks/gpu.py -o benchmarks/results
    python benchmarks/gpu.py --device cpu --quick -o FOLDER     # the same code on toy sizes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_rows import GOALS, Rows, page, per_call, settle

if TYPE_CHECKING:
    from torch import Tensor

    from terradapt.predictors.torch import Precision, TorchPredictor

HERE = Path(__file__).resolve()
LIMITS = {
    "tests": 60, "peak": 20, "inference": 220, "training": 100, "predict": 100, "engines": 50,
    "resume": 40,
}  # fmt: skip
"""Seconds that each stage may take: 590 in all."""


def tests(rows: Rows, args: argparse.Namespace) -> None:
    def run() -> dict[str, Any]:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        command += [] if args.device.startswith("cuda") else ["--collect-only"]
        root = HERE.parents[1]
        done = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True)
        return {"status": done.returncode, "said": done.stdout.strip().splitlines()[-1]}

    rows.attempt(run, what="pytest -m gpu")


def peak(rows: Rows, args: argparse.Namespace) -> None:
    """Measure the ceilings on random numbers; a datasheet is no measurement."""
    import torch

    size = 256 if args.quick else 8192
    for kind in ("bfloat16", "float32"):
        a, b = (torch.randn(size, size, device=args.device).to(getattr(torch, kind)) for _ in "ab")
        rows.attempt(partial(product, a, b, args.device), what=f"{kind} matrix product of {size}")
    x = torch.randn((1 << 20) if args.quick else (1 << 28), device=args.device)
    y = torch.empty_like(x)
    rows.attempt(
        lambda: {"gbytes_s": 8 * x.numel() / per_call(lambda: y.copy_(x), args.device, 1) / 1e9},
        what="copy",
    )


def product(a: Tensor, b: Tensor, device: str) -> dict[str, Any]:
    return {"tflops": 2 * len(a) ** 3 / per_call(lambda: a @ b, device, 1) / 1e12}


def networks(args: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield model, encoder and side, the goals first."""
    from terradapt.models.encoder import SAM2_TRUNKS, STUDENTS

    if args.quick:
        yield "kd-arafnet", "mobilenetv3_small_050", 64
        return
    yield "sam2-arafnet", SAM2_TRUNKS[-1], 512
    first = [s for s in GOALS if s in STUDENTS]
    for student in [*first, *(s for s in STUDENTS if s not in first)]:
        yield "kd-arafnet", student, 512
    yield "sam2ms", SAM2_TRUNKS[-1], 1024


def open_predictor(
    name: str, encoder: str, side: int, device: str, precision: Precision, engine: str
) -> TorchPredictor:
    import torch

    from terradapt import models
    from terradapt.classes import ISPRS, ROADS
    from terradapt.config import EncoderConfig, InputSpec, ModelConfig
    from terradapt.predictors.torch import TorchPredictor

    torch.manual_seed(0)
    classes = ROADS if name == "sam2ms" else ISPRS
    config = ModelConfig(name=name, encoder=EncoderConfig(name=encoder))
    model = models.build(config, len(classes)).eval().to(device)
    model = model.to(memory_format=torch.channels_last)
    return TorchPredictor(
        model, classes, InputSpec(), side, device=device, precision=precision, engine=engine
    )


MODES: tuple[tuple[Precision, str], ...] = (
    ("fp32", "torch"),
    ("bf16", "torch"),
    ("bf16", "compiled"),
    ("bf16", "reduce-overhead"),
)


def inference(rows: Rows, args: argparse.Namespace) -> None:
    """Run the predictor itself: uint8 in, normalized and softmaxed on the device."""
    modes = MODES[:2] if args.quick else MODES  # on a CPU a compiler takes minutes
    compiled = {"sam2-arafnet", *GOALS}
    for precision, engine in modes:
        for name, encoder, side in networks(args):
            if engine != "torch" and not args.quick and not {name, encoder} & compiled:
                continue
            rows.attempt(
                partial(speed, args, name, encoder, side, precision, engine),
                model=name, encoder=encoder, side=side, precision=precision, engine=engine,
            )  # fmt: skip


def speed(
    args: argparse.Namespace, name: str, encoder: str, side: int, precision: Precision, engine: str
) -> dict[str, Any]:
    import torch

    from terradapt.complexity import row

    predictor = open_predictor(name, encoder, side, args.device, precision, engine)
    gpu = args.device.startswith("cuda")
    batches = (1, 2) if args.quick else (1, 8, 32, 64, 128) if engine == "torch" else (1, 64)
    draw, found = np.random.default_rng(0), {}
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    for batch in batches:
        images = draw.integers(0, 256, (batch, 3, side, side), dtype=np.uint8)
        try:
            seconds = per_call(partial(predictor.predict, images), args.device, 0.5)
        except MemoryError:
            break
        found[batch] = batch / seconds
        if len(found) > 2 and found[batch] < 0.9 * max(found.values()):
            break
    best = max(found, key=lambda b: found[b])
    classes = len(predictor.classes)
    macs = row(name, encoder, classes=classes, batch=1, size=side).gmacs
    return {
        "images_s": found[best], "best_batch": best, "latency_ms": 1000 / found[1],
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if gpu else None,
        "tflops": 2 * macs * found[best] / 1000,
        "by_batch": found,
    }  # fmt: skip


def training(rows: Rows, args: argparse.Namespace) -> None:
    from terradapt.models.encoder import SAM2_TRUNKS

    cases = [("sam2-arafnet", SAM2_TRUNKS[-1], 512), ("kd-arafnet", "efficientnet_b0", 512)]
    if args.quick:
        cases = [("kd-arafnet", "mobilenetv3_small_050", 64)]
    for compiled in (False,) if args.quick else (False, True):
        for name, encoder, side in cases:
            rows.attempt(
                partial(steps, args, name, encoder, side, compiled),
                model=name, encoder=encoder, side=side, compiled=compiled,
            )  # fmt: skip


def steps(
    args: argparse.Namespace, name: str, encoder: str, side: int, compiled: bool
) -> dict[str, Any]:
    """A whole step (augmented crops come from memory) beside forward + backward of the network."""
    import torch

    from terradapt import models
    from terradapt.config import EncoderConfig, ModelConfig
    from terradapt.losses import pixel

    gpu, batch = args.device.startswith("cuda"), 2 if args.quick else 8
    torch.manual_seed(0)
    config = ModelConfig(name=name, encoder=EncoderConfig(name=encoder))
    model = models.build(config, 6).to(args.device).to(memory_format=torch.channels_last).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4)
    image = torch.randn(batch, 3, side, side, device=args.device)
    image = image.contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 6, (batch, side, side), device=args.device)
    call = torch.compile(model) if compiled else model

    def forward_backward() -> None:
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=gpu):
            out = call(image)
        out.logits.float().mean().backward()
        optimizer.zero_grad(set_to_none=True)

    def step() -> None:
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=gpu):
            out = call(image)
        loss = pixel.cross_entropy(out.logits.float(), target)
        loss = loss + pixel.dice(out.logits.float(), target)
        loss = loss + sum(0.4 * pixel.cross_entropy(aux.float(), target) for aux in out.aux)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    bare = per_call(forward_backward, args.device, 1 if args.quick else 3)
    whole = per_call(step, args.device, 1 if args.quick else 3)
    return {"steps_s": 1 / whole, "bare_steps_s": 1 / bare, "share_of_bare": bare / whole,
            "batch": batch, "autocast": "bf16" if gpu else "none"}  # fmt: skip


def predict(rows: Rows, args: argparse.Namespace) -> None:
    from predict import write_scene

    side = 300 if args.quick else 20_000
    encoder = "mobilenetv3_small_050" if args.quick else "efficientnet_b0"
    window = 64 if args.quick else 512
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.tif"
        write_scene(path, side, side)
        predictor = open_predictor("kd-arafnet", encoder, window, args.device, "bf16", "torch")
        rows.attempt(lambda: whole_scene(args, predictor, path, side), side=side, encoder=encoder)


def whole_scene(args: argparse.Namespace, predictor: Any, path: Path, side: int) -> dict[str, Any]:
    """Time predict, the bare model on as many windows, and each other part alone."""
    import torch

    from terradapt.grid import Window
    from terradapt.raster import SceneReader
    from terradapt.scene import PredictOptions, predict_scene
    from terradapt.scene.blend import Plan, read_chunks
    from terradapt.scene.predictor import Predictor

    options = PredictOptions()
    grid = options.grid(predictor, side, side)
    batch = options.batch_for(predictor, grid)
    images = np.random.default_rng(0).integers(
        0, 256, (batch, 3, grid.window, grid.window), dtype=np.uint8
    )
    predictor.numpy(predictor.predict(images))
    calls = -(-len(grid.cols.starts) // batch) * len(grid.rows.starts)

    def bare() -> None:
        for _ in range(calls):
            predictor.predict(images)
        settle(args.device)

    def read() -> None:
        with SceneReader(path, predictor.spec) as scene:
            for _ in read_chunks(scene, Plan(grid, Window(0, 0, side, side), batch)):
                pass

    class Free(Predictor):
        """The same answer at no cost, where the model's would be: reading, blending, writing."""

        classes, spec, window = predictor.classes, predictor.spec, predictor.window
        multiple, device = predictor.multiple, predictor.device
        asarray, numpy = predictor.asarray, predictor.numpy
        fetch, label = predictor.fetch, predictor.label

        def predict(self, images: np.ndarray, /) -> Any:
            shape = (len(images), len(self.classes), *images.shape[2:])
            return torch.ones(shape, device=predictor.device)

    def seconds(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    out = path.with_name("map.tif")
    if args.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    ours = seconds(lambda: predict_scene(predictor, path, out, options))
    memory = torch.cuda.max_memory_allocated() / 2**20 if args.device.startswith("cuda") else None
    alone = seconds(bare)
    rest = seconds(lambda: predict_scene(Free(), path, out.with_name("free.tif"), options))
    return {
        "windows": len(grid), "batch": batch, "seconds": ours, "bare_seconds": alone,
        "share_of_bare": alone / ours, "device_idle": max(0.0, 1 - alone / ours),
        "seconds_without_the_model": rest, "seconds_reading": seconds(read), "peak_mib": memory,
    }  # fmt: skip


def engines(rows: Rows, args: argparse.Namespace) -> None:
    from importlib.util import find_spec

    from terradapt.export.run import export_model
    from terradapt.predictors.engines import installed, makers, rate

    side = 64 if args.quick else 512
    encoder = "mobilenetv3_small_050" if args.quick else "efficientnet_b0"
    with tempfile.TemporaryDirectory() as folder:
        from terradapt.bench.run import random_model

        model, meta = random_model(encoder, side)
        path = export_model(model, meta, Path(folder) / "model.onnx").path

        def running(name: str) -> dict[str, Any]:
            return {"images_s": rate(makers(path)[name](), batch=1, seconds=1)}

        for name in installed():
            rows.attempt(partial(running, name), engine=name, encoder=encoder, batch=1)
    if find_spec("tensorrt") is None:
        rows.add(engine="tensorrt", failed="not installed")


def resume(rows: Rows, args: argparse.Namespace) -> None:
    """Two trainings of eight steps, one of them stopped at the third and resumed."""
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    from safetensors.torch import load_file

    from terradapt import training as verbs
    from terradapt.config import load_config
    from terradapt.data import open_dataset
    from terradapt.training.trainer import Trainer
    from training_files import SMALL, StopError, write_folder

    def apart() -> dict[str, Any]:
        config = load_config("landcover").with_overrides(SMALL)
        with tempfile.TemporaryDirectory() as folder:
            data = write_folder(Path(folder) / "data")
            whole, broken = Path(folder) / "whole", Path(folder) / "broken"
            verbs.train(config, data, whole)
            left = 3

            def stop(_: int) -> None:
                nonlocal left
                left -= 1
                if not left:
                    raise StopError

            try:
                Trainer(config, open_dataset(data), broken).fit(stop)
            except StopError:
                verbs.train(config, data, broken, resume=True)
            a, b = (load_file(f / "checkpoint.safetensors") for f in (whole, broken))
            far = max(float((a[k].float() - b[k].float()).abs().max()) for k in a)
            return {"largest_difference": far, "tolerance": 0.0 if args.device == "cpu" else 1e-3}

    rows.attempt(apart, what="eight steps, broken after three and resumed")


STAGES: dict[str, Callable[[Rows, argparse.Namespace], None]] = {
    "tests": tests, "peak": peak, "inference": inference, "training": training,
    "predict": predict, "engines": engines, "resume": resume,
}  # fmt: skip


def run_stage(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run a stage in a process of its own; keep the rows that it wrote, whatever happened."""
    part, start = folder / f"{name}.json", time.monotonic()
    command = [sys.executable, str(HERE), "--stage", name, "--part", str(part)]
    command += ["--device", args.device, *(["--quick"] if args.quick else [])]
    failed = ""
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=LIMITS[name] * 1.2
        )
        if done.returncode:
            failed = (done.stderr.strip().splitlines() or ["ended without a word"])[-1][:200]
    except subprocess.TimeoutExpired:
        failed = "ran out of time"
    rows = json.loads(part.read_text()) if part.is_file() else []
    found = {"seconds": time.monotonic() - start, "rows": rows}
    return found | ({"failed": failed} if failed else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="toy sizes: does the script run?")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        STAGES[args.stage](Rows(args.part, LIMITS[args.stage]), args)
        return
    import torch

    from terradapt.machine import hardware

    gpu = args.device.startswith("cuda")
    name = torch.cuda.get_device_name(args.device) if gpu else hardware()
    result: dict[str, Any] = {
        "date": str(date.today()), "device": args.device, "device_name": name,
        "torch": torch.__version__, "quick": args.quick, "stages": {},
    }  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    kind = name.replace(" ", "-") if gpu else f"{os.cpu_count()}cpu"
    target = args.output / f"gpu_{kind}_{date.today()}.json"
    with tempfile.TemporaryDirectory() as folder:
        for stage in args.only:
            result["stages"][stage] = run_stage(stage, args, Path(folder))
            target.write_text(json.dumps(result, indent=2) + "\n")
            target.with_suffix(".md").write_text(page(json.loads(json.dumps(result))))
    print(target.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
