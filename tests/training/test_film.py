"""The metres per pixel as one more channel, by which the encoder's maps are scaled (FiLM)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import training_files
from data_files import write_folder
from scene_files import ArrayScene, PlainPredictor, noise
from terradapt import checkpoint, predictors, training
from terradapt.config import InputSpec, RunConfig, load_config
from terradapt.data import Dataset, input_spec, open_dataset
from terradapt.data.sampling import CropDataset
from terradapt.errors import ConfigError
from terradapt.export import run as export
from terradapt.export.windows import collect
from terradapt.models import build
from terradapt.raster import SceneReader
from terradapt.scene import PredictOptions, predict_blocks
from terradapt.scene.job import Job
from terradapt.training.loading import two_views
from terradapt.training.trainer import Trainer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five images of 0.5 m per pixel."""
    root = write_folder(tmp_path_factory.mktemp("data"), 4)
    (root / "splits.json").write_text('{"train": ["s0", "s1"], "val": ["s2"], "test": ["s3"]}')
    return open_dataset(root)


def config(*more: str) -> RunConfig:
    over = [*training_files.SMALL, "train.epochs=1", "train.steps_per_epoch=2"]
    return load_config("landcover").with_overrides([*over, "encoder.film=true", *more])


class Told(PlainPredictor):
    """Notes what the last channel says."""

    def __init__(self) -> None:
        super().__init__(window=32)
        more = {"mean": (0.0,) * 4, "std": (1.0,) * 4, "film": True, "resolution": 0.5}
        self.spec = self.spec.model_copy(update=more)
        self.levels: set[int] = set()

    def predict(self, images: np.ndarray, /) -> np.ndarray:
        assert images.shape[1] == 4
        self.levels |= set(np.unique(images[:, 3]).tolist())
        return super().predict(images[:, :3])


def test_levels_are_sixteenths_of_an_octave() -> None:
    spec = InputSpec(resolution=0.5, film=True)
    assert [spec.level(m) for m in (1.0, 2.0, 0.5, 0.25, 1e-9, 1e9)] == [128, 144, 112, 96, 0, 255]
    assert spec.level(None) == 112
    assert spec.channels == ((1, 1), (2, 1), (3, 1), (0, 0))


@pytest.mark.parametrize(
    ("metres", "resolution", "level"),
    [(0.5, "auto", 112), (0.125, "native", 80), (0.125, "auto", 112), (None, "auto", 112)],
)
def test_a_model_is_told_the_scale_that_it_sees(
    metres: float | None, resolution: str, level: int
) -> None:
    class Placed(ArrayScene):
        @property
        def resolution(self) -> float | None:
            return metres

    predictor = Told()
    job = Job.of(Placed(noise(90, 70)), predictor, PredictOptions(resolution=resolution))
    assert sum(b.window.height for b in job.blocks()) == 90
    assert predictor.levels == {level}


def test_crops_say_the_scale_that_they_show(dataset: Dataset) -> None:
    wanted = config("augment.scale=[0.5,2]", "augment.rotate=30")
    spec = input_spec(dataset, wanted.data).model_copy(update={"film": True})
    crops = CropDataset(dataset, "train", wanted, spec, length=12)
    levels = set()
    for index in range(12):
        image = crops[index]["image"]
        assert image.shape == (4, 64, 64)
        (level,) = image[3].unique().tolist()
        levels.add(level)
    assert 112 - 16 <= min(levels) < 106 and 118 < max(levels) <= 112 + 16
    views = two_views(crops, 0, 3)
    assert torch.equal(views["strong"][0][3], views["unlabelled"][3])


def test_maps_are_scaled_by_gain_and_shift_of_each_channel() -> None:
    plan = config().model.model_copy(update={"in_channels": 4})
    model = build(plan, 3).eval()
    bare = plan.encoder.model_copy(update={"film": False})
    plain = build(plan.model_copy(update={"encoder": bare, "in_channels": 3}), 3).eval()
    added = {n for n, _ in model.named_parameters()} - {n for n, _ in plain.named_parameters()}
    assert sum(model.get_parameter(n).numel() for n in added) == 2 * sum(model.encoder.channels)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k not in added})
    image = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    image[:, 3] = torch.tensor([0.0, 2.0]).view(2, 1, 1)
    with torch.no_grad():
        maps = plain.encoder(image[:, :3])
        torch.testing.assert_close(model.encoder(image), maps)
        model.encoder.film[0].fill_(0.25)  # the gains of F1
        model.encoder.film[1].fill_(3.0)  # its shifts
        scaled = model.encoder(image)
    torch.testing.assert_close(scaled[0][0], maps[0][0])
    torch.testing.assert_close(scaled[0][1], 1.5 * maps[0][1] + 6)
    torch.testing.assert_close(scaled[1:], maps[1:])


def test_a_run_with_it_from_crops_to_the_exported_file(dataset: Dataset, tmp_path: Path) -> None:
    training.train(config("data.context=2"), dataset.root, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    model, meta = checkpoint.load(path)
    assert meta.spec.film and meta.config.model.in_channels == 7
    assert meta.spec.mean[-1] == 112 / 255 and meta.spec.std[-1] == 16 / 255
    assert any(p.abs().max() > 0 for p in model.encoder.film)  # it has learned
    images = collect(dataset.root, meta.spec, meta.classes, 64, 2).images
    assert images.shape[1] == 7 and (images[:, 6] == 112).all()
    images = np.concatenate([images, images])
    images[2:, 6] = 150
    done = export.export_with_proof(path, tmp_path / "model.onnx", images=images)
    assert done.parity is not None and done.parity.equal_classes == 1
    found = []
    for file in (path, tmp_path / "model.onnx"):
        predictor = predictors.load(file)
        with SceneReader(dataset.item("s3").image, predictor.spec) as scene:
            found += [np.concatenate([b.classes for b in predict_blocks(scene, predictor)])]
    assert (found[0] == found[1]).mean() > 0.999
    warm = load_config("landcover").with_overrides(
        [*training_files.SMALL, f"train.start={path}", "data.context=2"]
    )
    trainer = Trainer(warm, dataset, tmp_path / "warm")
    assert trainer.spec.mean == meta.spec.mean and trainer.spec.film
    for name, value in model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], value), name


def test_a_start_with_it_may_see_more_bands_and_the_ground_around(
    dataset: Dataset, tmp_path: Path
) -> None:
    training.train(config(), dataset.root, tmp_path / "run")
    start = tmp_path / "run" / "checkpoint.safetensors"
    more = [f"train.start={start}", "data.context=2", "data.bands=[1,2,3,1]"]
    wider = Trainer(config(*more), dataset, tmp_path / "wider").model.eval()
    image = torch.randn(1, 9, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = checkpoint.load(start)[0](image[:, [0, 1, 2, 8]]).logits
        image[:, 3] = 0
        torch.testing.assert_close(wider(image).logits, before)


def test_what_has_no_scale_or_no_stages_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    bare = open_dataset(training_files.write_folder(tmp_path / "bare"))
    with pytest.raises(ConfigError, match="metres per pixel"):
        Trainer(config(), bare, tmp_path / "run")
    with pytest.raises(ConfigError, match="scaled"):
        Trainer(config("model.name=smp-unet"), dataset, tmp_path / "smp")
