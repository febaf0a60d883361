"""Runs without labels, or without images to validate on, are refused or say so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from terradapt import checkpoint
from terradapt.hub.card import model_card
from terradapt.raster import write_raster
from training_files import SMALL, write_folder

SHORT = [*SMALL, "train.epochs=1", "train.steps_per_epoch=1"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_labelled_pixel_is_refused(terradapt, tmp_path: Path, split: str) -> None:  # type: ignore[no-untyped-def]
    root = write_folder(tmp_path / "d")
    for name in json.loads((root / "splits.json").read_text())[split]:
        write_raster(root / "labels" / f"{name}.tif", np.full((96, 96), 255, np.uint8))
    told = f"no pixel of the split '{split}' is labelled"
    assert terradapt("data", "check", root).is_user_error(told)
    run = tmp_path / "r"
    done = terradapt("train", "demo", "--data", root, "-o", run, *SHORT, "--no-report")
    assert done.is_user_error(told)
    assert not run.exists()


def test_figures_of_training_images_are_called_so(terradapt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = write_folder(tmp_path / "d")
    (root / "splits.json").write_text('{"train": ["0", "1"], "test": ["3"]}')
    assert "no image in the split 'val'" in terradapt("data", "check", root).out
    run = tmp_path / "r"
    done = terradapt("train", "demo", "--data", root, "-o", run, *SHORT, "--no-report")
    assert done.status == 0, done.err
    assert "training images (no validation split): mIoU" in done.out
    assert "validation: mIoU" not in done.out
    meta = checkpoint.read_meta(run / "checkpoint.safetensors")
    assert meta.metrics["split"] == "train"
    card = model_card(meta, "me/x", None, run / "report.json")
    assert "on the training images (none were set aside)" in card


def test_an_evaluation_of_nothing_is_refused(terradapt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = write_folder(tmp_path / "d")
    run = tmp_path / "r"
    done = terradapt("train", "demo", "--data", root, "-o", run, *SHORT, "--no-report")
    assert "validation: mIoU" in done.out
    write_raster(root / "labels" / "3.tif", np.full((96, 96), 255, np.uint8))
    done = terradapt("eval", run / "checkpoint.safetensors", "--data", root, "-o", tmp_path / "e")
    assert done.is_user_error("no pixel of the split 'test' is labelled")


def test_a_crop_that_the_model_cannot_take_is_refused(terradapt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root, run = write_folder(tmp_path / "d"), tmp_path / "r"
    done = terradapt("train", "demo", "--data", root, "-o", run, *SHORT, "data.crop=70")
    assert done.is_user_error("a crop of 70 px", "multiples of 32")
    assert "data.crop=64" in done.err
    assert not run.exists()
