"""A model that sees the ground around, from its crops to its exported file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from conftest import Call
from terradapt import checkpoint, predictors, training
from terradapt.config import RunConfig, load_config
from terradapt.data import Dataset, input_spec, open_dataset
from terradapt.data.reading import ItemReader
from terradapt.data.sampling import CropDataset
from terradapt.errors import ConfigError
from terradapt.evaluation import evaluate
from terradapt.export import run as export
from terradapt.export.windows import collect
from terradapt.grid import Window
from terradapt.raster import SceneReader, write_raster
from terradapt.scene import predict_blocks
from terradapt.training.trainer import Trainer
from training_files import SMALL, write_folder

STILL = [
    "augment.brightness=0", "augment.contrast=0", "augment.saturation=0", "augment.sharpness=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


def config(*more: str, context: int = 4) -> RunConfig:
    over = [*SMALL, "train.epochs=1", "train.steps_per_epoch=2", f"data.context={context}", *more]
    return load_config("landcover").with_overrides(over)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "run"
    training.train(config(), folder, run)
    return run / "checkpoint.safetensors"


@pytest.fixture(scope="module")
def slope(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A picture whose bands are its rows and columns."""
    root = tmp_path_factory.mktemp("slope")
    rows, cols = np.mgrid[:250, :250].astype(np.uint8)
    for name in ("0", "1"):
        write_raster(root / "images" / f"{name}.tif", np.stack([rows, cols, rows // 2]))
        write_raster(root / "labels" / f"{name}.tif", rows // 128)
    (root / "classes.yaml").write_text("names: [above, below]\n")
    (root / "splits.json").write_text('{"train": ["0"], "val": ["1"]}')
    return open_dataset(root)


@pytest.mark.parametrize(
    "more",
    [
        ["augment.scale=[1,1]"],
        ["augment.scale=[0.7,1.5]"],
        ["augment.scale=[1,1]", "augment.rotate=40"],
    ],
)
def test_crops_are_turned_and_mirrored_with_the_ground_around(
    slope: Dataset, more: list[str]
) -> None:
    """The middle of the ground around shows the crop itself; the crop's border may be black."""
    wanted = RunConfig().with_overrides(["data.crop=64", "data.context=4", *STILL, *more])
    crops = CropDataset(slope, "train", wanted, input_spec(slope, wanted.data), length=24)
    turned = set()
    for index in range(24):
        image = crops[index]["image"].float()
        assert image.shape == (6, 64, 64)
        crop = torch.nn.functional.avg_pool2d(image[:3], 4)[:, 4:12, 4:12]
        around = image[3:, 28:36, 28:36]
        assert (crop - around).abs().max() <= 4  # half a cell, and a pixel where it is turned
        steps = [float(image[b].diff(dim=d).mean().sign()) for b in (0, 1) for d in (0, 1)]
        turned.add(tuple(steps) if "augment.rotate=40" not in more else index)
    assert len(turned) > 6


def test_a_loaded_image_has_the_same_ground_around_as_its_file(slope: Dataset) -> None:
    spec = input_spec(slope, config().data)
    with (
        ItemReader(slope, slope.items[0], spec) as file,
        ItemReader(slope, slope.items[0], spec) as loaded,
    ):
        loaded.load()
        for window in (Window(-9, 3, 64, 64), Window(101, 190, 33, 33), Window(0, 0, 250, 250)):
            np.testing.assert_array_equal(loaded.sample(window)[0], file.sample(window)[0])


def test_a_run_sees_it_from_crops_to_the_exported_file(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    model, meta = checkpoint.load(trained)
    assert meta.spec.context == 4 and meta.spec.bands == (1, 2, 3)
    assert meta.config.model.in_channels == 6
    assert meta.spec.mean == meta.spec.mean[:3] * 2 and len(meta.spec.std) == 6
    assert next(model.parameters()).shape[1] == 6
    report = evaluate(predictors.load(trained), open_dataset(folder), "test", pictures=1)
    assert report.metrics["miou"] > 0
    found = collect(folder, meta.spec, meta.classes, 64, 2)
    assert found.images.shape == (2, 6, 64, 64)
    exported = export.export_with_proof(trained, tmp_path / "model.onnx", images=found.images)
    assert exported.parity is not None and exported.parity.equal_classes == 1
    words = onnx.load(str(tmp_path / "model.onnx")).metadata_props
    assert "tiles_size" not in {p.key for p in words}  # Deepness gives windows alone
    (told,) = json.loads((tmp_path / "model.stac.json").read_text())["properties"]["mlm:input"]
    assert told["input"]["shape"][1] == len(told["value_scaling"]) == len(told["bands"]) == 6
    scores = []
    for file in (trained, tmp_path / "model.onnx"):
        predictor = predictors.load(file)
        with SceneReader(folder / "images" / "3.tif", predictor.spec) as scene:
            scores += [np.concatenate([b.classes for b in predict_blocks(scene, predictor)])]
    assert (scores[0] == scores[1]).mean() > 0.999


def test_deepness_gives_windows_alone(terradapt: Call, trained: Path, tmp_path: Path) -> None:
    done = terradapt("export", trained, "-o", tmp_path / "m.onnx", "--for", "deepness")
    assert done.is_user_error("ground around")
    assert not any(tmp_path.iterdir())


def test_a_start_without_it_says_at_first_what_it_said(folder: Path, tmp_path: Path) -> None:
    training.train(config(context=0), folder, tmp_path / "bare")
    start = tmp_path / "bare" / "checkpoint.safetensors"
    wanted = config(f"train.start={start}")
    trainer = Trainer(wanted, open_dataset(folder, wanted.data), tmp_path / "run")
    assert trainer.spec.mean == trainer.spec.mean[:3] * 2
    image = torch.randn(1, 6, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = checkpoint.load(start)[0](image[:, :3]).logits
        after = trainer.model.eval()(image).logits
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    taught = config("objective.name=distill", f"objective.distill.teacher={start}")
    training.train(taught, folder, tmp_path / "taught")  # by a teacher that sees the crop alone
    assert checkpoint.read_meta(tmp_path / "taught" / "checkpoint.safetensors").spec.context == 4


def test_a_teacher_that_sees_more_and_two_dates_are_refused(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    taught = config("objective.name=distill", f"objective.distill.teacher={trained}", context=0)
    with pytest.raises(ConfigError, match="ground around"):
        Trainer(taught, open_dataset(folder, taught.data), tmp_path / "taught")
    dates = ["model.name=siamese", "data.bands=[1,2,3,1,2,3]", "model.in_channels=6"]
    pair = config(*dates)
    with pytest.raises(ConfigError, match="2 dates"):
        Trainer(pair, open_dataset(folder, pair.data), tmp_path / "pair")
