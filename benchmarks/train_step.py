"""Step time and peak memory of teacher and student: eager, compiled, with checkpointing.

A step is forward, CE + Dice (+ 0.4 auxiliary CE), backward, AdamW. Each variant runs in a process
of its own. On a CPU the clock is the process's processor time on one thread, so that other work on
the machine does not count. Memory is the device's peak on a GPU; on a CPU it is the peak resident
set less what the process held before the model was built. segmentation_models_pytorch's Unet on the
student's encoder is the yardstick; ``whole trunk trains`` shows what the frozen weights save.

    python benchmarks/train_step.py -o benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "teacher, eager": {"name": "sam2-arafnet"},
    "teacher, eager, checkpointing": {"name": "sam2-arafnet", "checkpointing": True},
    "teacher, eager, whole trunk trains": {"name": "sam2-arafnet", "freeze": False},
    "teacher, compiled": {"name": "sam2-arafnet", "compile": True},
    "teacher, compiled, checkpointing": {
        "name": "sam2-arafnet",
        "compile": True,
        "checkpointing": True,
    },
    "student, eager": {"name": "kd-arafnet"},
    "student, eager, checkpointing": {"name": "kd-arafnet", "checkpointing": True},
    "student, compiled": {"name": "kd-arafnet", "compile": True},
    "smp Unet, eager": {"name": "smp-unet"},
    "smp Unet, compiled": {"name": "smp-unet", "compile": True},
}


def run_variant(args: argparse.Namespace, variant: dict[str, Any]) -> dict[str, float]:
    """Take the steps of one variant in this process."""
    import torch

    from terradapt.config import EncoderConfig, ModelConfig
    from terradapt.losses import pixel
    from terradapt.models import build

    torch.manual_seed(0)
    torch.set_num_threads(1)
    clock = time.perf_counter if args.device == "cuda" else time.process_time
    trunk = variant["name"] == "sam2-arafnet"
    encoder = EncoderConfig(
        name=args.trunk if trunk else args.student,
        checkpointing=variant.get("checkpointing", False),
        freeze=variant.get("freeze"),
    )
    image = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    target = torch.randint(0, 6, (args.batch, args.size, args.size), device=args.device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = build(ModelConfig(name=variant["name"], encoder=encoder), 6).to(args.device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4)
    call = torch.compile(model) if variant.get("compile") else model
    gpu = args.device == "cuda"

    def step() -> float:
        start = clock()
        with torch.autocast(args.device, torch.bfloat16, enabled=gpu and args.bf16):
            out = call(image)
        loss = pixel.cross_entropy(out.logits, target) + pixel.dice(out.logits, target)
        loss = loss + sum(0.4 * pixel.cross_entropy(aux, target) for aux in out.aux)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if gpu:
            torch.cuda.synchronize()
        return clock() - start

    first = step()
    step()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    times = [step() for _ in range(args.steps)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() / 2**20 if gpu else (peak - before) / 2**10
    return {
        "milliseconds": 1000 * statistics.median(times),
        "first_step_seconds": first,
        "memory_mib": memory,
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in VARIANTS:
        if args.only and args.only not in name:
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", name]
        results[name] = outcome(command, args.limit)
        print(name, results[name], file=sys.stderr, flush=True)
    return results


def outcome(command: list[str], limit: float) -> dict[str, Any]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"not ready after {limit:.0f} s"}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def page(result: dict[str, Any]) -> str:
    s = result["settings"]
    rows = []
    for name, r in result["variants"].items():
        if "failed" in r:
            rows.append(f"| {name} | failed: {r['failed']} | | |")
        else:
            rows.append(
                f"| {name} | {r['milliseconds']:.0f} | {r['memory_mib']:.0f} "
                f"| {r['first_step_seconds']:.1f} |"
            )
    precision = "bfloat16 autocast" if s["bf16"] and s["device"] == "cuda" else "float32"
    return f"""# A training step of teacher and student

{result["hardware"]}, torch {result["torch"]}. Batch {s["batch"]}, {s["size"]} px, {precision};
teacher sam2-arafnet on {s["trunk"]} (frozen, adapters), student kd-arafnet and smp Unet on
{s["student"]}. Median of {s["steps"]} steps, {result["clock"]}.

| variant | milliseconds per step | peak memory MiB | first step s |
|---|---:|---:|---:|
{chr(10).join(rows)}
"""


def earlier(path: Path) -> dict[str, Any]:
    """Return the variants that were written by an earlier run of the day."""
    return json.loads(path.read_text("utf-8"))["variants"] if path.is_file() else {}


def options() -> argparse.Namespace:
    import torch

    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trunk", default="sam2_hiera_large" if gpu else "sam2_hiera_tiny")
    parser.add_argument("--student", default="efficientnet_b0")
    parser.add_argument("--size", type=int, default=512 if gpu else 256)
    parser.add_argument("--batch", type=int, default=8 if gpu else 2)
    parser.add_argument("--steps", type=int, default=20 if gpu else 8)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--only", help="variants that hold this text; the others stay as written")
    parser.add_argument("--limit", type=float, default=600, help="seconds for a variant")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    return parser.parse_args()


def main() -> None:
    import torch

    from terradapt.machine import hardware

    args = options()
    if args.variant:
        print(json.dumps(run_variant(args, VARIANTS[args.variant])))
        return
    result: dict[str, Any] = {
        "variants": measure(args),
        "settings": {k: v for k, v in vars(args).items() if k not in ("output", "variant", "only")},
        "clock": "wall time" if args.device == "cuda" else "processor time on one thread",
        "torch": torch.__version__,
        "hardware": torch.cuda.get_device_name() if args.device == "cuda" else hardware(),
    }
    print(page(result))
    if args.output:
        where = "gpu" if args.device == "cuda" else f"{os.cpu_count()}cpu"
        name = f"train_step_{where}_{date.today().isoformat()}"
        result["variants"] = {**earlier(args.output / f"{name}.json"), **result["variants"]}
        (args.output / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        (args.output / f"{name}.md").write_text(page(result), "utf-8")


if __name__ == "__main__":
    main()
