"""What resampling wins on scenes that are coarser or finer than the model's training.

Real scenes are brought to the model's own metres per pixel times each factor and predicted twice:
as they are (native) and resampled to what the model knows. Both results lie on the same grid and
are scored against the same label, resampled by nearest neighbour. ``--resolution auto`` takes
native within the magnifications of the training's crops, and resamples beyond.

    python benchmarks/resolution.py CHECKPOINT --data DIR --scenes 6445 6935
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from terradapt import predictors
from terradapt.grid import Window
from terradapt.machine import hardware
from terradapt.metrics import Confusion
from terradapt.raster import SceneReader, read_label, write_raster
from terradapt.scene import PredictOptions, Predictor, predict_scene

FACTORS = (0.27, 0.5, 1.0, 2.0, 4.0)


def scaled(scene: Path, metres: float, out: Path) -> tuple[int, int]:
    """Write a scene at other metres per pixel; return its height and width."""
    with SceneReader(scene, resolution=metres) as reader:
        pixels, _ = reader.read(Window(0, 0, reader.height, reader.width))
        write_raster(out, pixels[:3], crs=reader.crs, transform=reader.transform)
        return reader.height, reader.width


def nearest(label: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = ((np.arange(height) + 0.5) * label.shape[0] / height).astype(int)
    cols = ((np.arange(width) + 0.5) * label.shape[1] / width).astype(int)
    moved: np.ndarray = label[rows][:, cols]
    return moved


def measure(
    args: argparse.Namespace, predictor: Predictor, trained: float
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scene, out = Path(folder) / "scene.tif", Path(folder) / "map.tif"
        for factor in args.factors:
            total = {way: Confusion(len(predictor.classes)) for way in ("native", "resampled")}
            for name in args.scenes:
                (source,) = sorted((args.data / "images").glob(f"{name}.*"))
                (target,) = sorted((args.data / "labels").glob(f"{name}.*"))
                label = nearest(read_label(target), *scaled(source, trained * factor, scene))
                for way, confusion in total.items():
                    options = PredictOptions(
                        resolution="native" if way == "native" else trained, overwrite=True
                    )
                    predict_scene(predictor, scene, out, options)
                    confusion.update(label, read_label(out))
            found[str(factor)] = {
                way: confusion.metrics(predictor.classes) for way, confusion in total.items()
            }
            print(factor, {w: round(m["miou"], 4) for w, m in found[str(factor)].items()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", nargs="+", required=True)
    parser.add_argument("--factors", nargs="+", type=float, default=FACTORS)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    predictor = predictors.load(args.checkpoint)
    trained = predictor.spec.resolution
    if trained is None:
        parser.error(f"{args.checkpoint}: does not know its resolution")
    found = measure(args, predictor, trained)
    rows = [
        f"| {float(f) * trained:.3f} m ({f}x) | "
        + " | ".join(
            f"{r[way][key]:.4f}" for key in ("miou", "oa") for way in ("native", "resampled")
        )
        + " |"
        for f, r in found.items()
    ]
    which = f"Trained at {trained} m; {args.data.name}, scenes {', '.join(args.scenes)}."
    text = [f"# Scenes of other resolutions, {date.today()}", "", hardware(), "", which, ""]
    text += [
        "| scene | mIoU native | mIoU resampled | OA native | OA resampled |",
        "|---|---|---|---|---|",
    ]
    text += [*rows, ""]
    args.output.mkdir(parents=True, exist_ok=True)
    name = f"resolution_{os.cpu_count()}cpu_{date.today()}"
    (args.output / f"{name}.md").write_text("\n".join(text))
    facts = {"hardware": hardware(), "scenes": args.scenes, "trained": trained, "found": found}
    (args.output / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
