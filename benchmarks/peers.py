"""Ours against segmentation_models_pytorch's decoders: the same backbone, crops, steps and search.

Every model meets the same pixels, seed by seed, and gets the same search: with the first seed each
learning rate (and loss) is tried, and the one that is best on the validation images is trained with
all seeds. Only these runs see the test images. With two classes the figure is the second one's F1
at the threshold that is best on the validation images, otherwise mIoU; scores are calibrated on
validation images by every run. Each folder of ``--data`` holds its own ``splits.json``. A model may
have overrides of its own: ``kd-arafnet@objective.dice=0``.

Finished runs are kept in OUT.json and a broken one is resumed, so that the command may be stopped
and called again; OUT.md is the table so far.

    python benchmarks/peers.py --data ROADS DRONE SATELLITE --weights FILE -o OUT
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from terradapt import evaluation, training
from terradapt.config import RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.documents import read_log
from terradapt.evaluation import Protocol
from terradapt.files import write_json, write_text
from terradapt.machine import hardware
from terradapt.training.run import BEST, LAST, LOG

OURS = "kd-arafnet"
PEERS = ("smp-unet", "smp-upernet", "smp-deeplabv3plus", "smp-segformer", "smp-fpn")
RATES = (5e-4, 1e-3, 2e-3)
BATCH = 8

Row = dict[str, Any]


def recipe_of(data: Path) -> str:
    return "roads" if len(open_dataset(data).classes) == 2 else "landcover"


def config_of(args: argparse.Namespace, data: Path, plan: Row) -> RunConfig:
    """The recipe of the data's task; a try's rate is that of decoder and backbone."""
    name, _, own = plan["model"].partition("@")
    shared = [
        f"model.name={name}",
        f"encoder.name={args.encoder}",
        *([f"encoder.weights={args.weights}"] if args.weights else []),
        f"data.crop={args.crop}",
        f"train.batch={BATCH}",
        "data.workers=0",
        "train.epochs=1",
        f"train.steps_per_epoch={args.steps}",
        f"train.seed={plan['seed']}",
        f"optim.warmup={args.steps // 10}",
        *args.override,
    ]
    tried = [f"optim.lr={plan['rate']}", "optim.lr_backbone=null", *plan["loss"].split()]
    tried += own.split(",") if own else []
    return load_config(recipe_of(data)).with_overrides([*shared, *tried])


def folder_of(args: argparse.Namespace, plan: Row) -> Path:
    name = "_".join(str(v) for v in plan.values()) or "run"
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    home: Path = args.output.parent / f"{args.output.name}_runs"
    return home / kept


def train(args: argparse.Namespace, data: Path, plan: Row) -> Row:
    """Train, or go on with a run that was stopped, and measure on the validation images."""
    folder = folder_of(args, plan)
    training.train(config_of(args, data, plan), data, folder, resume=True)
    speeds = [e["crops_per_second"] for e in read_log(folder / LOG) if "crops_per_second" in e]
    seconds = BATCH / statistics.median(speeds) if speeds else None
    return {**plan, "val": measure(data, folder, "val"), "step_seconds": seconds}


def measure(data: Path, folder: Path, split: str) -> Row:
    task = evaluation.open_task(folder / BEST, data, split)
    two = len(task.dataset.classes) == 2
    report = task.run(Protocol(threshold_from="val" if two else None), pictures=0)
    second = report.metrics["per_class"][task.dataset.classes.names[1]]
    row = {"figure": second["f1"] if two else report.metrics["miou"], "ece": report.metrics["ece"]}
    if two:
        row |= {k: second[k] for k in ("f1", "precision", "recall")}
        row["threshold"] = report.protocol["threshold"]
    return {**row, "parameters": task.predictor.parameters}


def plans(args: argparse.Namespace, rows: list[Row]) -> Iterator[tuple[Path, Row, bool]]:
    """Yield what is to be trained next: data, plan, whether it sees the test images.

    Asked for a model's next plan, ``rows`` must hold what came of all plans before it.
    """
    tries = [{"rate": rate, "loss": loss} for rate in args.rates for loss in args.losses]
    for seed in args.seeds:
        for data in args.data:
            for model in args.models:
                base = {"data": data.name, "model": model}
                if seed == args.seeds[0] and len(tries) > 1:
                    for one in tries:
                        yield data, {**base, "seed": seed, **one}, False
                searched = [r for r in rows if matches(r, {**base, "seed": args.seeds[0]})]
                best = max(searched, key=lambda r: r["val"]["figure"], default=tries[0])
                chosen = {k: best[k] for k in tries[0]}
                yield data, {**base, "seed": seed, **chosen}, True


def matches(row: Row, wanted: Row) -> bool:
    return all(row[k] == v for k, v in wanted.items())


def work(args: argparse.Namespace, settings: Row, rows: list[Row]) -> None:
    started = time.monotonic()
    for data, plan, tested in plans(args, rows):
        folder = folder_of(args, plan)
        row = next((r for r in rows if matches(r, plan)), None)
        if row is not None and ("test" in row or not tested):
            continue
        if time.monotonic() - started > 60 * args.minutes:
            return
        if row is None or not folder.is_dir():
            rows[:] = [r for r in rows if r is not row]
            rows.append(row := train(args, data, plan))
        if tested:
            row["test"] = measure(data, folder, "test")
        write(args, settings, rows)
        print(json.dumps(row), flush=True)
        (folder / LAST).unlink(missing_ok=True)
        if tested:  # nor are the tries that lost needed any more
            for old in rows:
                if matches(old, {k: plan[k] for k in ("data", "model")}):
                    shutil.rmtree(folder_of(args, {k: old[k] for k in plan}), ignore_errors=True)


def summary(rows: list[Row], models: list[str]) -> dict[str, list[Row]]:
    """Return a line a model for each data set: mean, spread, each seed, and against the first.

    A difference is the model's figure less the first model's with the same seed, in points; a win
    is a seed in which the first model is higher.
    """
    tested = [r for r in rows if "test" in r]
    tables: dict[str, list[Row]] = {}
    for data in dict.fromkeys(r["data"] for r in tested):
        ours = of_seeds(tested, data, models[0])
        for model in models:
            mine = [r for r in tested if matches(r, {"data": data, "model": model})]
            if not mine:
                continue
            figures = of_seeds(tested, data, model)
            differences = [v - ours[s] for s, v in figures.items() if s in ours]
            differences = [] if model == models[0] else differences
            times = [r["step_seconds"] for r in mine if r["step_seconds"]]
            line = {
                "model": model,
                "figure": "F1" if "f1" in mine[0]["test"] else "mIoU",
                "seeds": figures,
                "mean": statistics.fmean(figures.values()),
                "spread": spread([*figures.values()]),
                "difference": statistics.fmean(differences) if differences else None,
                "difference_spread": spread(differences),
                "wins": sum(d < 0 for d in differences),
                "pairs": len(differences),
                "ece": statistics.fmean(r["test"]["ece"] for r in mine),
                "rate": mine[0]["rate"],
                "loss": mine[0]["loss"],
                "step_seconds": statistics.median(times) if times else None,
                "parameters": mine[0]["test"]["parameters"],
            }
            tables.setdefault(data, []).append(line)
    return tables


def of_seeds(tested: list[Row], data: str, model: str) -> dict[int, float]:
    """The figure of each seed, in points."""
    mine = (r for r in tested if matches(r, {"data": data, "model": model}))
    return {r["seed"]: 100 * r["test"]["figure"] for r in mine}


def spread(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def page(tables: dict[str, list[Row]], settings: Row) -> str:
    """Return the table as Markdown, a section for each data set."""
    text = f"# Peers: {settings['steps']} steps of {BATCH} crops of {settings['crop']} px, "
    text += f"{settings['encoder']}, {hardware()}\n\nTest images. Rate and loss are chosen on "
    text += "validation images with the first seed, the threshold of two classes on them too.\n"
    for data, lines in tables.items():
        ours = lines[0]["model"]
        heads = ["model", lines[0]["figure"], "of each seed", f"less {ours}", f"{ours} wins"]
        heads += ["ECE", "rate", "ms a step", "parameters M"]
        text += f"\n## {data}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
        for line in lines:
            seconds = line["step_seconds"]
            cells = [
                line["model"],
                with_spread(line["mean"], line["spread"]),
                ", ".join(f"{v:.2f}" for v in line["seeds"].values()),
                with_spread(line["difference"], line["difference_spread"], "+"),
                f"{line['wins']} of {line['pairs']}" if line["pairs"] else "",
                f"{100 * line['ece']:.2f}",
                f"{line['rate']:g} {line['loss']}".strip(),
                f"{1000 * seconds:.0f}" if seconds else "",
                f"{line['parameters'] / 1e6:.2f}",
            ]
            text += f"| {' | '.join(cells)} |\n"
    return text


def with_spread(mean: float | None, deviation: float | None, sign: str = "") -> str:
    if mean is None:
        return ""
    return f"{mean:{sign}.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def write(args: argparse.Namespace, settings: Row, rows: list[Row]) -> None:
    tables = summary(rows, args.models)
    facts = {"hardware": hardware(), "torch": torch.__version__}
    path = args.output.with_name(f"{args.output.name}.json")
    write_json(path, {"settings": settings, **facts, "tables": tables, "rows": rows})
    write_text(args.output.with_name(f"{args.output.name}.md"), page(tables, settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", help="of the encoder, a file; none: random")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--models", nargs="+", default=[OURS, *PEERS], help="ours first")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rates", type=float, nargs="+", default=[*RATES])
    parser.add_argument("--losses", nargs="+", default=[""], help="overrides to try with each rate")
    parser.add_argument("--override", nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=1e9, help="start no run after this")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without a suffix")
    args = parser.parse_args()
    for data in args.data:
        if not (data / "splits.json").is_file():
            parser.error(f"{data}: no splits.json, on which images is chosen and tested?")
    if len({data.name for data in args.data}) < len(args.data):
        parser.error("two folders of --data have one name")
    overrides = [f"{k}={Path(v).name}" for k, _, v in (o.partition("=") for o in args.override)]
    settings: Row = {k: getattr(args, k) for k in ("encoder", "steps", "crop", "rates", "losses")}
    settings |= {"weights": Path(args.weights).name if args.weights else None}
    settings |= {"overrides": overrides, "search_seed": args.seeds[0]}
    path = args.output.with_name(f"{args.output.name}.json")
    held: Row = json.loads(path.read_text("utf-8")) if path.is_file() else {"settings": settings}
    if held["settings"] != settings:
        parser.error(f"{path}: holds runs of other settings ({held['settings']})")
    rows: list[Row] = held.get("rows", [])
    work(args, settings, rows)
    write(args, settings, rows)
    print(page(summary(rows, args.models), settings))


if __name__ == "__main__":
    main()
