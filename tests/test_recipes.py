"""Every packaged recipe builds as it is, and trains two steps on files in the real layout."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmark_files import (
    write_deepglobe,
    write_massachusetts,
    write_potsdam,
    write_spacenet,
    write_vaihingen,
)
from terradapt import checkpoint, training
from terradapt.config import RunConfig, load_config, recipe_names, recipe_text
from terradapt.models import build_on_meta
from terradapt.models.encoder import SAM2_TRUNKS
from terradapt.prepare import DATASETS
from training_files import write_folder

FEW_AREAS = ("1", "3", "30", "2", "4", "5", "6", "7")
FEW_TILES = ("2_11", "2_12", "2_10", "2_13", "2_14", "3_10", "3_11", "3_12")


def write_road_folder(folder: Path) -> Path:
    (write_folder(folder, classes=2) / "classes.yaml").write_text("names: [background, road]\n")
    return folder


def write_seeds(folder: Path) -> Path:
    """Synthetic sets are made of numbers, not of files."""
    return Path("1-3")


WRITERS: dict[str, Callable[[Path], Path]] = {
    "vaihingen": lambda folder: write_vaihingen(folder, FEW_AREAS, 96, 96),
    "potsdam": lambda folder: write_potsdam(folder, FEW_TILES, 96, bands=("RGB",), dsm=False),
    "deepglobe": write_deepglobe,
    "spacenet": write_spacenet,
    "massachusetts": write_massachusetts,
    "landcover": write_folder,
    "roads": write_road_folder,
    "synthetic-pairs": write_seeds,
}
LAYOUTS = {
    "arafnet-vaihingen": "vaihingen",
    "arafnet-potsdam": "potsdam",
    "kd-arafnet-vaihingen": "vaihingen",
    "kd-arafnet-potsdam": "potsdam",
    "sam2ms-deepglobe": "deepglobe",
    "sam2ms-spacenet": "spacenet",
    "sam2ms-massachusetts": "massachusetts",
    "sam2unet-roads": "massachusetts",
    "landcover": "landcover",
    "roads": "roads",
    "retrain": "landcover",
    "landcover-few": "landcover",
    "roads-few": "roads",
    "adapt": "landcover",
    "changes": "synthetic-pairs",
    "demo": "landcover",
}
CLASSES = {"vaihingen": 6, "potsdam": 6, "landcover": 3}  # of the others: 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


def prepared(root: Path, layout: str) -> Path:
    """A dataset as its users get it: the real layout, then `terradapt data`."""
    folder = root / layout
    if folder.exists():
        return folder
    if layout not in DATASETS:
        return WRITERS[layout](folder)
    module, name = DATASETS[layout].split(":")
    source = WRITERS[layout](root / f"{layout} source")
    options = {
        "workers": 1,
        **({"split": "by_image"} if layout in ("vaihingen", "potsdam") else {}),
    }
    if layout == "synthetic-pairs":
        options = {"size": 96, "shift": 1}
    getattr(importlib.import_module(module), name)(source, folder, options)
    return folder


def shrunk(recipe: str, *more: str) -> RunConfig:
    """A recipe with a small encoder of the same kind, random weights, small crops, two steps."""
    config = load_config(recipe)
    small = (
        "sam2_hiera_tiny" if config.model.encoder.name in SAM2_TRUNKS else "mobilenetv3_small_050"
    )
    cut = [
        f"encoder.name={small}", "encoder.weights=null", "data.crop=64", "data.workers=0",
        "train.batch=2", "train.epochs=1", "train.steps_per_epoch=2",
    ]  # fmt: skip
    if config.objective.lossnet is not None:
        cut.append("objective.lossnet.weights=random")
    return config.with_overrides([*cut, *more])


def test_the_recipes_are_those_of_the_papers_and_for_ones_own_data() -> None:
    assert sorted(LAYOUTS) == recipe_names()


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_builds_as_it_is_and_says_where_it_comes_from(recipe: str) -> None:
    config = load_config(recipe)
    encoder = config.model.encoder.model_copy(update={"weights": None})
    classes = CLASSES.get(LAYOUTS[recipe], 2)
    model = build_on_meta(config.model.model_copy(update={"encoder": encoder}), classes)
    groups = model.parameter_groups()
    assert all(groups.values())
    if encoder.name in SAM2_TRUNKS:
        assert encoder.name == "sam2_hiera_large"
        trained = sum(p.numel() for p in groups["backbone"])
        assert trained == 1_714_416, "the adapters alone"
    header = recipe_text(recipe).split("name:")[0]
    for word in ("# Paper: ", "# Command: ", "# Time: ", "# Expected: "):
        assert word in header, word
    assert config.name == recipe


def unlabelled(root: Path) -> Path:
    """Other images than those of the folders."""
    folder = root / "unlabelled"
    if not folder.exists():
        write_folder(folder, images=5)
        for name in ("2", "3"):  # those that decide in the other folders
            (folder / "images" / f"{name}.tif").unlink()
    return folder


def run_of(root: Path, recipe: str) -> Path:
    """Train two steps of a recipe; a student's teacher is the paper's recipe on the same data."""
    run = root / f"{recipe} run"
    if not run.exists():
        more = []
        if load_config(recipe).objective.name == "consistency":
            more.append(f"data.unlabelled={unlabelled(root)}")
        if recipe == "adapt":
            more.append(f"train.start={run_of(root, 'landcover') / 'checkpoint.safetensors'}")
        if load_config(recipe).objective.name == "distill":
            before = "landcover" if recipe == "retrain" else recipe.removeprefix("kd-")
            teacher = run_of(root, before) / "checkpoint.safetensors"
            key = "train.start" if recipe == "retrain" else "objective.distill.teacher"
            more = [f"{key}={teacher}"]
        data = prepared(root, LAYOUTS[recipe])
        training.train(shrunk(recipe, *more), data, run)
    return run


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_trains_two_steps_on_the_real_layout(root: Path, recipe: str) -> None:
    run = run_of(root, recipe)
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "val"] == [2]
    model, meta = checkpoint.load(run / "checkpoint.safetensors")
    assert math.isfinite(meta.metrics["miou"])
    assert len(meta.classes) == CLASSES.get(LAYOUTS[recipe], 2)
    with torch.no_grad():
        assert model(torch.zeros(1, meta.config.model.in_channels, 64, 64)).logits.isfinite().all()
    moments = load_file(run / "last.safetensors")
    trained = {k.split(".", 2)[2] for k in moments if k.startswith("state.optimizer.")}
    if meta.trunk is not None:
        assert not any(name.startswith("encoder.trunk") for name in trained)
        assert any(name.startswith("encoder.adapters") for name in trained)
