"""The model of land cover of the benchmark of synthetic changes, made again.

The demo's model learns on: both dates of cities that the benchmark does not have, lit twice.

    python benchmarks/changes_model.py DEMO/run/checkpoint.safetensors -o RUN [--cities 101-130]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from terradapt.classes import ISPRS
from terradapt.config import load_config
from terradapt.data.dataset import SPLITS_NAME, Dataset, Item
from terradapt.data.labels import IndexForm
from terradapt.data.splits import write_splits
from terradapt.raster import write_raster
from terradapt.synthetic.dates import make_two_dates
from terradapt.synthetic.files import CRS, read_seeds, transform_at
from terradapt.synthetic.scene import RESOLUTION
from terradapt.training import train

VALIDATION = 2  # cities, the last ones


def both_dates(folder: Path, seeds: list[int], size: int) -> Dataset:
    """Write both dates of cities as images of their own; the dates of a city share a split."""
    items: list[Item] = []
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for seed in seeds:
        pair = make_two_dates(seed, size, size)
        for date, scene in (("before", pair.before), ("after", pair.after)):
            name = f"city{seed}_{date}"
            image, label = (folder / kind / f"{name}.tif" for kind in ("images", "labels"))
            place = transform_at(seed, 0, 0)
            write_raster(image, np.moveaxis(scene.image, -1, 0), crs=CRS, transform=place)
            write_raster(label, scene.labels, crs=CRS, transform=place, colours=ISPRS.colours)
            items.append(Item(name, image, label, f"city{seed}", None, size, size, RESOLUTION))
            splits["val" if seed in seeds[-VALIDATION:] else "train"].append(name)
    form = IndexForm.identity(len(ISPRS))
    fixed = {k: tuple(v) for k, v in splits.items()}
    dataset = Dataset("two-dates", folder, tuple(items), ISPRS, form, fixed, "by_city")
    dataset.save()
    write_splits(folder / SPLITS_NAME, fixed, "by_city", None)
    return dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("start", type=Path)
    parser.add_argument("--cities", default="101-130")
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--data", type=Path, default=Path("runs/changes_data"))
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    if not (args.data / SPLITS_NAME).is_file():
        both_dates(args.data, read_seeds(args.cities), args.size)
    config = load_config("demo").with_overrides(
        [
            f"train.start={args.start}",
            "train.batch=6",
            "train.epochs=1",
            f"train.steps_per_epoch={args.steps}",
            "optim.lr=0.002",
            "train.ema=0.99",
        ]
    )
    print(train(config, args.data, args.output, say=print))


if __name__ == "__main__":
    main()
