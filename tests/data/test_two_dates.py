"""Folders of two dates: LEVIR-CD's A, B, label, and images, images2, labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terradapt import training
from terradapt.classes import CHANGES
from terradapt.config import DataConfig, load_config
from terradapt.data import open_dataset
from terradapt.data.reading import ItemReader
from terradapt.errors import DataError
from terradapt.predictors import load
from terradapt.raster import write_raster
from training_files import SMALL

LAYOUTS = {"levir": ("A", "B", "label"), "ours": ("images", "images2", "labels")}


def write_pairs(folder: Path, layout: str, count: int = 4, size: int = 96) -> Path:
    first, second, label = LAYOUTS[layout]
    rng = np.random.default_rng(0)
    for i in range(count):
        before = rng.integers(0, 120, (3, size, size), dtype=np.uint8)
        changed = np.zeros((size, size), np.uint8)
        changed[20:50, 10 * i : 10 * i + 40] = 255
        after = np.where(changed, 250, before).astype(np.uint8)
        for part, pixels in ((first, before), (second, after), (label, changed)):
            write_raster(folder / part / f"{i}.png", pixels)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pair_is_one_image_of_six_bands(tmp_path: Path, layout: str) -> None:
    dataset = open_dataset(write_pairs(tmp_path, layout), DataConfig())
    assert dataset.classes == CHANGES
    with ItemReader(dataset, dataset.items[1]) as reader:
        pixels, _ = reader.read(reader.window)
        mask = reader.mask(reader.window)
    assert pixels.shape == (6, 96, 96)
    assert ((pixels[:3] != pixels[3:]).any(0) == (mask == 1)).all()


def test_a_siamese_model_trains_on_it_and_both_dates_are_normalised_alike(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "data", "levir")
    config = load_config("changes").with_overrides([*SMALL, "train.epochs=1"])
    training.train(config, folder, tmp_path / "run")
    predictor = load(tmp_path / "run" / "checkpoint.safetensors")
    assert predictor.spec.mean[:3] == predictor.spec.mean[3:]
    scores = predictor.predict(np.zeros((1, 6, 64, 64), np.uint8))
    assert predictor.numpy(scores).shape == (1, 2, 64, 64)


def test_a_pair_that_lacks_a_date_is_refused(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, "levir")
    (folder / "B" / "2.png").unlink()
    with pytest.raises(DataError, match=r"has no 2\.png, as A/ has"):
        open_dataset(folder, DataConfig())
    write_raster(folder / "B" / "2.png", np.zeros((3, 50, 50), np.uint8))
    opened = open_dataset(folder, DataConfig())
    with pytest.raises(DataError, match=r"96"):
        ItemReader(opened, opened.item("2"))
