"""Unlabelled images: the formula by hand, what is read, and a run that resumes bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import eval_files
from terradapt import training
from terradapt.config import ConsistencyConfig, DataConfig, ObjectiveConfig, RunConfig, load_config
from terradapt.data import input_spec, open_dataset, read_mask
from terradapt.data.sampling import CropDataset
from terradapt.data.unlabelled import unlabelled_images
from terradapt.errors import ConfigError, DataError
from terradapt.models.contract import Prediction
from terradapt.raster import write_raster
from terradapt.training.building import build_objective
from terradapt.training.consistency import Consistency, aligned, boxes, steady
from terradapt.training.loading import two_views
from terradapt.training.objectives import Supervised
from terradapt.training.run import Run
from terradapt.training.trainer import Trainer
from training_files import SMALL, StopError, same_run, write_folder

CONSISTENT = ["objective.name=consistency", "objective.consistency.threshold=0.4"]


class Linear(nn.Module):
    """Logits as a linear function of a pixel, so that everything can be done by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> Prediction:
        return Prediction(self.head(x))


def batch_of(size: int = 8) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    box = torch.tensor([[[0, 0, 4, 5]], [[2, 3, 0, 0]]])
    known = torch.ones(2, size, size, dtype=torch.bool)
    known[1, :2] = False
    return {
        "image": torch.randn(2, 3, size, size),
        "mask": torch.randint(0, 4, (2, size, size)),
        "weak": 3 * torch.randn(2, 3, size, size),
        "strong": torch.randn(2, 1, 3, size, size),
        "known": known,
        "box": box,
        "progress": torch.tensor(0.1),
    }


class Normed(Linear):
    """The same behind a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.encoder = Maps(self.norm)

    def forward(self, x: torch.Tensor) -> Prediction:
        return Prediction(self.head(self.encoder(x)[0]))


class Maps(nn.Module):
    """An encoder's one map, in a tuple as encoders give them."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.norm(x),)


@pytest.mark.parametrize("begin", [0.0, 0.2])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_statistics_are_those_of_labelled_crops_and_stay(dropout: float, begin: float) -> None:
    torch.manual_seed(1)
    model, batch = Normed(), batch_of()
    config = ConsistencyConfig(threshold=0.0, dropout=dropout, begin=begin)
    supervised = Supervised(ObjectiveConfig())
    objective = Consistency(config, supervised, lambda x: torch.zeros(len(x), 4, *x.shape[2:]))
    loss, logs = objective(model, batch)
    loss.backward()
    seen = nn.BatchNorm2d(3)
    if begin:  # it has not come to that: a labelled batch as ever
        seen(batch["image"])
        assert logs["sure"] == logs["unlabelled"] == 0
    assert torch.equal(model.norm.running_mean, seen.running_mean)
    assert torch.equal(model.norm.running_var, seen.running_var)
    assert model.norm.training and model.norm.weight.grad is not None
    assert model.norm.weight.grad.any()


def test_a_crop_is_seen_as_a_map_is() -> None:
    """With the statistics so far, not with those of its batch."""
    torch.manual_seed(1)
    model, strong = Normed(), batch_of()["strong"][:, 0]
    asked = model.eval()(strong).logits
    model.train()
    frozen = nn.BatchNorm2d(3).eval()
    model.add_module("frozen", frozen)
    with steady(model):
        assert torch.equal(model(strong).logits, asked)
    assert model.norm.training and not frozen.training


@pytest.mark.parametrize(("relative", "strength"), [(False, 0.0), (True, 0.0), (False, 0.5)])
def test_the_loss_is_the_formula(relative: bool, strength: float) -> None:
    config = ConsistencyConfig(
        weight=2.0, begin=0.0, ramp=0.4, threshold=0.6, relative=relative, shares=strength
    )
    torch.manual_seed(1)
    model, teacher, batch = Linear(), Linear(), batch_of()
    shares = torch.tensor([0.7, 0.1, 0.1, 0.1]) if strength else None
    supervised = Supervised(ObjectiveConfig())
    objective = Consistency(config, supervised, lambda x: teacher(x).logits, shares)
    loss, logs = objective(model, batch)

    p = teacher(batch["weak"]).logits.softmax(1).detach().numpy()
    if shares is not None:
        mean = p.transpose(0, 2, 3, 1)[batch["known"].numpy()].mean(0)
        p = p * np.sqrt(shares.numpy() / mean)[:, None, None]
        p /= p.sum(1, keepdims=True)
    confidence, label = p.max(1), p.argmax(1)
    known = batch["known"].numpy()
    means = np.array([confidence[(label == k) & known].mean() for k in range(4)])
    threshold = 0.6 * (means / means.max())[label] if relative else np.full_like(confidence, 0.6)
    total, count = 0.0, 0
    for b in range(2):
        for y in range(8):
            for x in range(8):
                from_next = b == 0 and y < 4 and x < 5
                source = (b + 1) % 2 if from_next else b
                if not batch["known"][source, y, x]:
                    continue
                count += 1
                if confidence[source, y, x] < threshold[source, y, x]:
                    continue
                pixel = batch["strong"][source, 0, :, y, x][None, :, None, None]
                z = model(pixel).logits[0, :, 0, 0]
                total -= float(z.detach().log_softmax(0)[label[source, y, x]])
    supervised, _ = Supervised(ObjectiveConfig())(model, batch)
    assert count == 2 * 64 - 16 - 10
    wanted = float(supervised.detach())
    assert float(loss.detach()) == pytest.approx(wanted + 2.0 * 0.25 * total / count, rel=1e-5)
    assert 0 < float(logs["sure"]) < 1


def test_shares_that_are_wanted_are_the_mean_of_what_the_teacher_says() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 8, 8).softmax(1)
    known = torch.rand(2, 8, 8) < 0.7
    wanted = (scores * known[:, None]).sum((0, 2, 3)) / known.sum()
    torch.testing.assert_close(aligned(scores, wanted, known, 1.0), scores)
    rarer = aligned(scores, torch.tensor([0.05, 0.475, 0.475]), known, 1.0)
    torch.testing.assert_close(rarer.sum(1), torch.ones(2, 8, 8))
    assert (rarer[:, 0] < scores[:, 0]).all()
    torch.testing.assert_close(aligned(scores, torch.rand(3), known, 0.0), scores)


def test_a_run_knows_the_shares_of_its_labels(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    more = ["objective.consistency.shares=1", "train.ema=0.9"]
    config = load_config("landcover").with_overrides([*SMALL, *CONSISTENT, *more])
    dataset = open_dataset(tmp_path / "data")
    objective = build_objective(config, dataset, torch.device("cpu"), lambda x: x)
    assert isinstance(objective, Consistency)
    masks = [read_mask(dataset, item) for item in dataset.split("train")]
    ids = np.concatenate([m.ravel() for m in masks])
    counts = np.bincount(ids[ids != 255], minlength=len(dataset.classes))
    assert objective.shares is not None
    np.testing.assert_allclose(objective.shares.numpy(), counts / counts.sum(), rtol=1e-6)


def test_one_more_view_lacks_channels_of_the_encoder() -> None:
    class WithEncoder(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv2d(3, 16, 1)
            self.head = nn.Conv2d(16, 4, 1)
            self.seen: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> Prediction:
            (maps,) = self.encode(x)
            self.seen.append(maps)
            return Prediction(self.head(maps))

        def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.encoder(x)

    class Maps(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
            return (super().forward(x),)

    model, batch = WithEncoder(), batch_of()
    model.encoder = Maps(3, 16, 1)
    config = ConsistencyConfig(dropout=0.5, threshold=0.3, begin=0.0)
    objective = Consistency(config, Supervised(ObjectiveConfig()), lambda x: x[:, [0, 1, 2, 0]])
    loss, _ = objective(model, batch)
    assert loss.isfinite()
    *plain, dropped = model.seen  # labelled crops, strong views, and the view without channels
    assert len(plain) == 2
    assert not any((p == 0).flatten(2).all(2).any() for p in plain)
    assert 0.2 < (dropped == 0).flatten(2).all(2).float().mean() < 0.8


def test_boxes_show_the_next_crop() -> None:
    inside = boxes(torch.tensor([[1, 2, 2, 3], [0, 0, 0, 0]]), torch.Size([4, 6]))
    assert inside[0].sum() == 6 and inside[0, 1:3, 2:5].all() and not inside[1].any()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with two training images, and a folder of four others without labels."""
    home = tmp_path_factory.mktemp("few")
    folder = write_folder(home / "data", images=8)
    (home / "more").mkdir()
    splits = '{"train": ["0", "1"], "val": ["2"], "test": ["3"]}'
    (folder / "splits.json").write_text(splits)
    for i in range(4, 8):
        shutil.move(folder / "images" / f"{i}.tif", home / "more" / f"{i}.tif")
        (folder / "labels" / f"{i}.tif").unlink()
    return folder, home / "more"


def config_of(more: Path, *others: str) -> RunConfig:
    chosen = [*SMALL, *CONSISTENT, f"data.unlabelled={more}", *others]
    return load_config("landcover").with_overrides(chosen)


def test_two_views_lie_pixel_upon_pixel_and_depend_on_the_index_alone(
    few: tuple[Path, Path],
) -> None:
    config = config_of(few[1], "augment.brightness=0", "augment.contrast=0", "augment.saturation=0")
    config = config.with_overrides(["augment.sharpness=0", "objective.consistency.blur=0"])
    dataset = open_dataset(few[0], config.data)
    spec = input_spec(dataset, config.data)
    images, told = unlabelled_images(dataset, few[1], spec)
    assert images is not None and len(images.items) == 4 and not told
    crops = CropDataset(images, "unlabelled", config, spec, labelled=False, stream=1)
    one, again = two_views(crops, 0, 3), two_views(crops, 0, 3)
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert one["known"].all() or config.augment.scale[0] < 1
    weak = one["unlabelled"].float().mean(0).flatten()
    strong = one["strong"][0].float().mean(0).flatten()
    related = torch.corrcoef(torch.stack([weak, strong]))[0, 1]
    assert not torch.equal(weak, strong) and related > 0.9


@pytest.mark.parametrize(
    "objective", ["consistency", pytest.param("distill", marks=pytest.mark.slow)]
)
def test_a_broken_run_resumes_bit_for_bit(
    few: tuple[Path, Path], tmp_path: Path, objective: str
) -> None:
    folder, more = few
    extra = []
    if objective == "distill":
        training.train(config_of(more, "train.epochs=1"), folder, tmp_path / "teacher")
        teacher = tmp_path / "teacher" / "checkpoint.safetensors"
        extra = ["objective.name=distill", f"objective.distill.teacher={teacher}"]
    config = config_of(more, *extra)
    training.train(config, folder, tmp_path / "whole")
    trainer = Trainer(config, open_dataset(folder, config.data), tmp_path / "broken")

    def broken(_: int) -> None:
        if trainer.step == 5:
            raise StopError

    with pytest.raises(StopError):
        trainer.fit(broken)
    training.train(config, folder, tmp_path / "broken", resume=True)
    same_run(tmp_path / "whole", tmp_path / "broken")
    told = next(e for e in Run(tmp_path / "whole").events() if e["event"] == "val")
    assert told["miou"] >= 0


def test_images_that_decide_are_left_out_and_others_are_told(
    few: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, more = few
    for path in more.iterdir():
        shutil.copy(path, tmp_path)
    shutil.copy(folder / "images" / "3.tif", tmp_path / "copied.tif")
    write_raster(tmp_path / "grey.tif", np.zeros((1, 64, 64), np.uint8))
    write_raster(tmp_path / "deep.tif", np.zeros((3, 64, 64), np.uint16))
    dataset = open_dataset(folder, DataConfig())
    images, told = unlabelled_images(dataset, tmp_path, input_spec(dataset, DataConfig()))
    assert images is not None and [i.image.stem for i in images.items] == ["4", "5", "6", "7"]
    assert sorted(told) == [
        "left out copied.tif: they are images of val or test",
        "left out deep.tif: of type uint16, not uint8",
        "left out grey.tif: of 1 bands, not 3",
    ]
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    write_raster(tmp_path / "grey.tif", np.zeros((1, 64, 64), np.uint8))
    with pytest.raises(DataError, match=r"no image can be used without labels; left out grey"):
        unlabelled_images(dataset, tmp_path, input_spec(dataset, DataConfig()))


def test_another_scale_and_an_unknown_one_are_told(few: tuple[Path, Path], tmp_path: Path) -> None:
    pixels = np.zeros((3, 64, 64), np.uint8)
    eval_files.write_raster(tmp_path / "fine.tif", pixels, resolution=0.3)
    eval_files.write_raster(tmp_path / "coarse.tif", pixels, resolution=0.6)
    eval_files.write_raster(tmp_path / "plain.tif", pixels)
    dataset = open_dataset(few[0], DataConfig())
    spec = input_spec(dataset, DataConfig())
    assert unlabelled_images(dataset, tmp_path, spec)[1] == []  # nothing to compare with
    known = spec.model_copy(update={"resolution": 0.3})
    assert unlabelled_images(dataset, tmp_path, known)[1] == [
        "unlabelled images have 0.3 to 0.6 m/px; they are resampled to the labelled ones' 0.3",
        "1 of 3 unlabelled images do not say their metres per pixel and are read as they are, "
        "the labelled ones have 0.3",
    ]


def test_what_the_objective_lacks_is_said(few: tuple[Path, Path], tmp_path: Path) -> None:
    folder, more = few
    config = config_of(more).with_overrides(["data.unlabelled=null"])
    with pytest.raises(DataError, match="no image without a label"):
        training.train(config, folder, tmp_path / "none")
    with pytest.raises(ConfigError, match="run's average"):
        training.train(config_of(more, "train.ema=null"), folder, tmp_path / "flat")
    assert not (tmp_path / "none").exists()


def test_the_teacher_is_the_average_in_evaluation_mode(
    few: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, more = few
    config = config_of(more)
    trainer = Trainer(config, open_dataset(folder, config.data), tmp_path / "run")
    assert isinstance(trainer.objective, Consistency)
    assert trainer.average is not None
    trainer.model.train()
    for value in trainer.average.tensors.values():
        value.mul_(1.01)
    x = torch.randn(2, 3, 64, 64)
    logits = trainer.objective.teacher(x)
    assert trainer.model.training and not logits.requires_grad
    trainer.model.load_state_dict(trainer.average.state_dict(trainer.model))
    with torch.no_grad():
        expected = trainer.model.eval()(x).logits
    assert F.mse_loss(logits, expected) < 1e-10
