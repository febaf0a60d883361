"""The recipe `retrain`: corrections teach, and the old model speaks where nothing is labelled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_files import box, picture, place, regions, write_features
from terradapt import checkpoint, training
from terradapt.config import DistillConfig, ObjectiveConfig, RunConfig, load_config
from terradapt.data import open_dataset
from terradapt.data.unlabelled import with_corrected
from terradapt.errors import CheckpointError, ConfigError, DataError
from terradapt.evaluation import report_run
from terradapt.files import digest
from terradapt.losses.distill import kl
from terradapt.models.contract import Prediction
from terradapt.raster import write_raster
from terradapt.training.distillation import Distilled
from terradapt.training.objectives import Supervised
from terradapt.training.trainer import Trainer
from training_files import SMALL, StopError, same_run, write_folder

TINY = [*(o for o in SMALL if "encoder" not in o), "train.precision=fp32"]  # not what is faster now


class Fixed(nn.Module):
    """Gives logits that it holds."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: torch.Tensor) -> Prediction:
        return Prediction(self.logits)


@pytest.mark.parametrize("where", ["labelled", "unlabelled", "all"])
def test_the_teacher_speaks_of_the_pixels_it_is_asked_about(where: Any, monkeypatch: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, k, 8, 8, generator=rng) for k in (4, 3))
    mask = torch.full((1, 8, 8), 255)
    mask[:, :3] = 2
    config = DistillConfig(loss="kl", temperature=1.0, where=where)
    shared = [2, 0, 3]  # the teacher's classes in the student's order; 1 is new
    supervised = Supervised(ObjectiveConfig(dice=0.0))
    objective = Distilled(config, supervised, Fixed(teacher), None, shared=shared)  # type: ignore[arg-type]
    monkeypatch.setattr(objective, "teacher_logits", lambda batch: teacher)
    model = Fixed(student)
    loss, logs = objective(model, {"image": torch.zeros(1, 3, 8, 8), "mask": mask})
    rows = {"labelled": slice(0, 3), "unlabelled": slice(3, 8), "all": slice(0, 8)}[where]
    expected = kl(student[:, shared][:, :, rows], teacher[:, :, rows])
    assert logs["soft"] == pytest.approx(float(expected), abs=1e-6)
    loss.backward()
    grad = model.logits.grad
    assert grad is not None
    told = where != "labelled"
    assert bool(grad[:, :, 3:].abs().sum() > 0) == told
    assert not grad[:, 1, 3:].any(), "nothing is said against a new class"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("old data"))
    run = tmp_path_factory.mktemp("old") / "run"
    training.train(load_config("landcover").with_overrides(SMALL), folder, run)
    return run / "checkpoint.safetensors"


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """One image without a label, and corrections that name an old class and a new one."""
    root = tmp_path / "scene"
    where = {"crs": "EPSG:32633", "transform": place()}
    write_raster(root / "images" / "s.tif", picture(regions(128, 128, 3, 1), 1), **where)
    shapes = [(box(10, 10, 20, 20), {"class": "class1"}), (box(60, 60, 12, 12), {"class": "pond"})]
    return root, write_features(tmp_path / "drawn.geojson", shapes, 32633)


def retrain(old: Path, file: Path, *more: str) -> RunConfig:
    over = [*TINY, f"train.start={old}", f"data.corrections={file}", "train.epochs=1", *more]
    return load_config("retrain").with_overrides(over)


def test_a_scene_without_labels_retrains_a_model(
    old: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    root, file = scene
    training.train(retrain(old, file), root, tmp_path / "run")
    meta = checkpoint.read_meta(tmp_path / "run" / "checkpoint.safetensors")
    assert meta.classes.names == ("class0", "class1", "class2", "pond")
    assert meta.start == digest(old)
    assert meta.confidence == "not calibrated", "one scene has no validation split"
    assert meta.config.model.encoder.name == "mobilenetv3_small_050"
    report = report_run(tmp_path / "run", root)
    assert report.metrics["pixels"] == 20 * 20 + 12 * 12
    portable = meta.portable().config
    assert (portable.data.corrections, portable.train.start) == (file.name, old.name)


def test_older_labels_speak_instead_of_the_old_model(
    old: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    root, file = scene
    said: list[str] = []
    training.train(retrain(old, file), root, tmp_path / "alone", say=said.append)
    assert "teacher   the old model, where nothing is labelled" in said
    meta = checkpoint.read_meta(tmp_path / "alone" / "checkpoint.safetensors")
    assert (meta.config.objective.name, meta.config.objective.distill.where) == (
        "distill",
        "unlabelled",
    )
    with_older_labels(root)
    said.clear()
    training.train(retrain(old, file), root, tmp_path / "beside", say=said.append)
    assert "teacher   none: older labels say what is not to be forgotten" in said
    meta = checkpoint.read_meta(tmp_path / "beside" / "checkpoint.safetensors")
    assert meta.config.objective.name == "supervised"
    assert meta.config.objective.corrections == 1.0
    asked = retrain(old, file, "objective.distill.where=unlabelled")
    training.train(asked, root, tmp_path / "asked")
    meta = checkpoint.read_meta(tmp_path / "asked" / "checkpoint.safetensors")
    assert meta.config.objective.name == "distill"


def test_a_scene_elsewhere_is_learnt_beside_a_folder_of_labels(
    old: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    """As the page does it with --data: what decides stays what it was, and nothing is written."""
    root, file = scene
    labelled = write_folder(tmp_path / "labelled")
    shutil.copy(labelled / "images" / "2.tif", root / "images" / "decides.tif")
    before = (labelled / "splits.json").read_text()
    said: list[str] = []
    config = retrain(old, file, f"data.unlabelled={root}")
    training.train(config, labelled, tmp_path / "run", say=said.append)
    text = "\n".join(said)
    assert "3 train, 1 val, 1 test" in text
    assert "teacher   none" in text
    assert "left out decides.tif: they are images of val or test" in text
    assert (labelled / "splits.json").read_text() == before
    assert "unlabelled" not in json.loads((tmp_path / "run" / "splits.json").read_text())["train"]
    training.train(config, labelled, tmp_path / "run", resume=True)
    meta = checkpoint.read_meta(tmp_path / "run" / "checkpoint.safetensors")
    assert "pond" in meta.classes.names
    assert meta.confidence != "not calibrated"
    config = retrain(old, file, f"data.unlabelled={root}", "train.epochs=2")
    training.train(config, labelled, tmp_path / "whole")
    with pytest.raises(StopError):
        broken_off(config, labelled, tmp_path / "broken")
    training.train(config, labelled, tmp_path / "broken", resume=True)
    same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_scene_without_a_correction_is_not_learnt(
    old: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    root, file = scene
    where = {"crs": "EPSG:32633", "transform": place(0, 900)}
    write_raster(root / "images" / "far.tif", picture(regions(64, 64, 3, 1), 1), **where)
    config = retrain(old, file, f"data.unlabelled={root}")
    dataset = open_dataset(write_folder(tmp_path / "labelled"), config.data)
    items = with_corrected(dataset, config.data)[0].split("train")
    assert [i.image.name for i in items if i.id.startswith("unlabelled/")] == ["s.tif"]


def test_corrections_that_lie_nowhere_are_no_training(
    old: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    """Also where splits are stated, and on images that have no place for them at all."""
    _, file = scene
    labelled = write_folder(tmp_path / "labelled")
    with pytest.raises(DataError, match="no correction lies on an image"):
        training.train(retrain(old, file), labelled, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def broken_off(config: RunConfig, root: Path, run: Path) -> None:
    """Train as the verb does, and break after five steps."""
    left = 5

    def broken(_: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise StopError

    start = config.train.start
    assert start is not None
    known = checkpoint.read_meta(Path(start)).classes
    dataset = with_corrected(open_dataset(root, config.data, known=known), config.data)[0]
    Trainer(config, dataset, run).fit(broken)


def with_older_labels(root: Path) -> None:
    """Beside the scene, an image with a label of its own."""
    ids = regions(128, 128, 3, 2)
    where = {"crs": "EPSG:32633", "transform": place(0, 500)}
    write_raster(root / "images" / "t.tif", picture(ids, 2), **where)
    write_raster(root / "labels" / "t.tif", ids, **where)
    (root / "classes.yaml").write_text("names: [class0, class1, class2]\n")
    (root / "splits.json").write_text('{"train": ["s", "t"]}')


@pytest.mark.parametrize("labelled", [False, True])
def test_a_retraining_resumes_bit_for_bit(
    old: Path, scene: tuple[Path, Path], tmp_path: Path, labelled: bool
) -> None:
    root, file = scene
    if labelled:
        with_older_labels(root)
    config = retrain(old, file, "train.epochs=2")
    training.train(config, root, tmp_path / "whole")
    with pytest.raises(StopError):
        broken_off(config, root, tmp_path / "run")
    training.train(config, root, tmp_path / "run", resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_what_the_model_knew_is_kept_where_nothing_is_drawn(
    old: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    """Without the teacher the same steps change more of what is not corrected."""
    root, file = scene
    moved = {}
    before, meta = checkpoint.load(old)
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64))).float()
    for soft in ("4.0", "0.0"):
        run = tmp_path / soft
        more = [f"objective.distill.soft={soft}", "train.ema=null", "optim.lr=1e-3"]
        more += ["optim.lr_backbone=1e-3", "optim.warmup=0", "train.epochs=3", "train.batch=4"]
        training.train(retrain(old, file, *more), root, run)
        model, _ = checkpoint.load(run / "last.safetensors")
        with torch.no_grad():
            moved[soft] = float(kl(model(image).logits[:, :3], before(image).logits))
    assert moved["4.0"] < moved["0.0"]
    assert len(meta.classes) == 3


def test_the_recipe_asks_for_what_it_needs(scene: tuple[Path, Path], tmp_path: Path) -> None:
    root, file = scene
    config = load_config("retrain").with_overrides([*TINY, f"data.corrections={file}"])
    with pytest.raises(ConfigError, match="needs a teacher"):
        training.train(config.with_overrides(["encoder.weights=null"]), root, tmp_path / "run")


def test_only_kl_takes_a_teacher_of_fewer_classes(
    old: Path, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    root, file = scene
    with pytest.raises(CheckpointError, match="the teacher has the classes"):
        training.train(retrain(old, file, "objective.distill.loss=dist"), root, tmp_path / "run")


@pytest.mark.parametrize("classes", [None, (1.0, 2.0, 4.0)])
def test_corrected_pixels_weigh_as_the_config_says(classes: tuple[float, ...] | None) -> None:
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 5, generator=rng)
    mask = torch.randint(0, 3, (2, 4, 5), generator=rng)
    mask[0, :2] = 255
    corrected = torch.zeros(2, 4, 5, dtype=torch.bool)
    corrected[0] = True
    given = None if classes is None else torch.tensor(classes)
    config = ObjectiveConfig(dice=0.0, corrections=3.0)
    batch = {"image": logits, "mask": mask, "corrected": corrected}
    loss, logs = Supervised(config, given)(Fixed(logits), batch)
    total = 0.0
    for kind, share in ((False, 1 / 4), (True, 3 / 4)):
        summed, whole = 0.0, 0.0
        for b, r, c in torch.nonzero((mask != 255) & (corrected == kind)).tolist():
            weight = 1.0 if classes is None else classes[mask[b, r, c]]
            summed -= weight * float(logits[b, :, r, c].log_softmax(0)[mask[b, r, c]])
            whole += weight
        total += share * summed / whole
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)
    assert float(logs["ce"]) == pytest.approx(total, rel=1e-5)
    alone = {**batch, "corrected": torch.ones_like(corrected)}
    del batch["corrected"]
    plain, _ = Supervised(config, given)(Fixed(logits), batch)
    assert float(plain.detach()) != pytest.approx(total, rel=1e-3)
    same, _ = Supervised(config, given)(Fixed(logits), alone)
    assert float(same.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    nothing = {**batch, "corrected": corrected, "mask": torch.full_like(mask, 255)}
    assert float(Supervised(config, given)(Fixed(logits), nothing)[0].detach()) == 0
