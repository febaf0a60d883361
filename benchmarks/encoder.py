"""Our SAM2 trunk against PyPI ``sam2``'s and timm's own: same weights, input, precision, one run.

Rounds of all contenders alternate in a shifting order; a ratio is the median of the rounds' own
ratios, with their quartiles. On a CPU the clock is the process's processor time on one thread, so
that other work on the machine does not count. ``sam2`` is left out where it is not installed (make
test-weights).

    python benchmarks/encoder.py --trunk sam2_hiera_tiny --size 512 -o benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from terradapt.machine import hardware
from terradapt.models.building import build_encoder
from terradapt.models.encoder import SAM2_TRUNKS

SMALLS = {"window_pos_embed_bkg_spatial_size": [7, 7]}
SAM2_ARGS: dict[str, dict[str, Any]] = {
    "sam2_hiera_tiny": {"stages": [1, 2, 7, 2], "global_att_blocks": [5, 7, 9], **SMALLS},
    "sam2_hiera_small": {"stages": [1, 2, 11, 2], "global_att_blocks": [7, 10, 13], **SMALLS},
    "sam2_hiera_base_plus": {"embed_dim": 112, "num_heads": 2},
    "sam2_hiera_large": {
        "embed_dim": 144,
        "num_heads": 2,
        "stages": [2, 6, 36, 4],
        "global_att_blocks": [23, 33, 43],
        "window_spec": [8, 4, 16, 8],
        **SMALLS,
    },
}
OURS, ADAPTED, TIMM, SAM2 = "ours", "ours with adapters", "timm", "sam2"
Forward = Callable[[Tensor], Any]


def sam2_trunk(name: str) -> nn.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sam2.modeling.backbones.hieradet import Hiera
    except ImportError:
        return None
    trunk: nn.Module = Hiera(**SAM2_ARGS[name])
    return trunk


def contenders(name: str, device: str, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Build all trunks with one set of weights."""
    torch.manual_seed(0)
    theirs = sam2_trunk(name)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "trunk.pt")
        source = theirs or timm.create_model(name)
        prefix = "image_encoder.trunk." if theirs is not None else ""
        torch.save({"model": {prefix + k: v for k, v in source.state_dict().items()}}, path)
        made: dict[str, nn.Module] = {OURS: build_encoder(name, path, adapters=False, freeze=True)}
        made[ADAPTED] = build_encoder(name, path)
    own = timm.create_model(name, features_only=True)
    own.get_submodule("model").load_state_dict(
        made[OURS].get_submodule("trunk").state_dict(), strict=False
    )
    made[TIMM] = own
    if theirs is not None:
        made[SAM2] = theirs
    return {k: m.to(device, dtype).eval().requires_grad_(False) for k, m in made.items()}


def check_equal(made: dict[str, nn.Module], x: Tensor) -> float:
    """Return the largest difference of the trunks' maps; the adapted one is another function."""
    with torch.inference_mode():
        base = made[OURS](x)
        others = [made[k](x) for k in made if k not in (OURS, ADAPTED)]
    return max(float((a - b).abs().max()) for o in others for a, b in zip(base, o, strict=True))


def seconds(model: nn.Module, x: Tensor) -> float:
    with torch.inference_mode():
        clock = time.perf_counter if x.is_cuda else time.process_time
        start = clock()
        model(x)
        if x.is_cuda:
            torch.cuda.synchronize()
        return clock() - start


def measure(made: dict[str, nn.Module], x: Tensor, rounds: int) -> dict[str, list[float]]:
    names = list(made)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        seconds(made[name], x)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(seconds(made[name], x))
    return times


def ratio(times: dict[str, list[float]], top: str, bottom: str) -> dict[str, float]:
    """Return the median and the quartiles of time(top) / time(bottom), round by round."""
    values = [a / b for a, b in zip(times[top], times[bottom], strict=True)]
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def result_of(args: argparse.Namespace, device: str) -> dict[str, Any]:
    dtype = getattr(torch, args.dtype)
    made = contenders(args.trunk, device, dtype)
    x = torch.randn(args.batch, 3, args.size, args.size, device=device, dtype=dtype)
    difference = check_equal(made, x)
    times = measure(made, x, args.rounds)
    medians = {name: statistics.median(t) for name, t in times.items()}
    faster = min((n for n in (TIMM, SAM2) if n in medians), key=lambda n: medians[n])
    return {
        "milliseconds": {name: 1000 * m for name, m in medians.items()},
        "ours_over": {n: ratio(times, OURS, n) for n in (TIMM, SAM2) if n in times},
        "faster_of_the_others": faster,
        "adapters_add": ratio(times, ADAPTED, OURS),
        "largest_difference": difference,
        "settings": {k: v for k, v in vars(args).items() if k != "output"},
        "clock": "wall time" if device == "cuda" else "processor time on one thread",
        "torch": torch.__version__,
        "hardware": torch.cuda.get_device_name() if device == "cuda" else hardware(),
    }


def page(result: dict[str, Any]) -> str:
    s = result["settings"]
    rows = [f"| {name} | {ms:.1f} |" for name, ms in result["milliseconds"].items()]
    pairs = {f"ours / {name}": r for name, r in result["ours_over"].items()}
    pairs["with adapters / without"] = result["adapters_add"]
    ratios = [
        f"| {name} | {r['median']:.3f} | {r['low']:.3f} to {r['high']:.3f} |"
        for name, r in pairs.items()
    ]
    return f"""# SAM2's trunk: ours, timm's, sam2's

{result["hardware"]}, torch {result["torch"]}. {s["trunk"]}, batch {s["batch"]}, {s["size"]} px,
{s["dtype"]}, forward pass, {s["rounds"]} rounds, {result["clock"]}. Without adapters all give the
same maps (largest difference {result["largest_difference"]:.1e}).

| trunk | milliseconds, median |
|---|---:|
{chr(10).join(rows)}

| time ratio, paired by round | median | quartiles |
|---|---:|---:|
{chr(10).join(ratios)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trunk", default="sam2_hiera_tiny", choices=SAM2_TRUNKS)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = result_of(args, args.device)
    print(page(result))
    if args.output:
        where = "gpu" if args.device == "cuda" else f"{os.cpu_count()}cpu"
        name = f"encoder_{where}_{date.today().isoformat()}"
        (args.output / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        (args.output / f"{name}.md").write_text(page(result), "utf-8")


if __name__ == "__main__":
    main()
