"""A small run: its overrides, its folder of blocks, and what makes two runs the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from terradapt.meta import read_meta
from terradapt.raster import write_raster

SMALL = [
    "model.encoder.name=mobilenetv3_small_050",
    "model.encoder.weights=null",
    "data.crop=64",
    "data.workers=0",
    "train.batch=2",
    "train.steps_per_epoch=4",
    "train.epochs=2",
    "train.save_every=3",
    "train.ema=0.9",
    "train.val_every=1",
]


def write_folder(folder: Path, images: int = 4, size: int = 96, classes: int = 3) -> Path:
    """Blocks of colour with noise; the label is the block's class."""
    rng = np.random.default_rng(5)
    for i in range(images):
        label = rng.integers(0, classes, (size // 16, size // 16)).repeat(16, 0).repeat(16, 1)
        image = 40 + 80 * label[None] + rng.integers(-20, 20, (3, size, size))
        write_raster(folder / "images" / f"{i}.tif", image.clip(0, 255).astype(np.uint8))
        write_raster(folder / "labels" / f"{i}.tif", label.astype(np.uint8))
    names = ", ".join(f"class{i}" for i in range(classes))
    (folder / "classes.yaml").write_text(f"names: [{names}]\n")
    splits = {"train": ["0", "1"], "val": ["2"], "test": [str(i) for i in range(3, images)]}
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def same_run(a: Path, b: Path) -> None:
    for name in ("checkpoint.safetensors", "last.safetensors"):
        x, y = load_file(a / name), load_file(b / name)
        assert x.keys() == y.keys()
        differing = [k for k in x if not torch.equal(x[k], y[k])]
        assert not differing, (name, differing[:3])
        assert read_meta(a / name).metrics == read_meta(b / name).metrics
    timing = {"seconds", "crops_per_second"}
    logs = [
        [{k: v for k, v in json.loads(s).items() if k not in timing} for s in text.splitlines()]
        for text in ((run / "log.jsonl").read_text() for run in (a, b))
    ]
    assert logs[0] == logs[1]


class StopError(Exception):
    pass
