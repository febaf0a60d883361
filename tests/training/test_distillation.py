from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from terradapt import checkpoint, models, training
from terradapt.classes import ClassMap
from terradapt.config import (
    DistillConfig,
    EncoderConfig,
    InputSpec,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    load_config,
)
from terradapt.data import open_dataset
from terradapt.errors import CheckpointError, ConfigError, OutputError
from terradapt.losses.distill import dist, kl
from terradapt.meta import Meta
from terradapt.training.distillation import Distilled, LogitCache, fingerprint
from terradapt.training.objectives import Supervised
from terradapt.training.trainer import Trainer
from training_files import SMALL, StopError, same_run, write_folder

TINY = EncoderConfig(name="mobilenetv3_small_050")
NAMES = ("class0", "class1", "class2")


def write_teacher(path: Path, names: tuple[str, ...] = NAMES, **changes: object) -> Path:
    """A teacher with random weights that has seen some data: its statistics are not 0 and 1."""
    torch.manual_seed(3)
    config = ModelConfig(name=str(changes.pop("model", "kd-arafnet")), encoder=TINY)
    model = models.build(config, len(names)).train()
    for _ in range(3):
        model(torch.randn(4, 3, 64, 64))
    spec = InputSpec(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)).model_copy(update=changes)
    checkpoint.save(path, model, Meta(RunConfig(model=config), ClassMap(names), spec, 64))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "checkpoint.safetensors")


def distilled_run(teacher: Path, *more: str) -> RunConfig:
    chosen = ["objective.name=distill", f"objective.distill.teacher={teacher}"]
    return load_config("landcover").with_overrides([*SMALL, *chosen, *more])


@pytest.fixture(scope="module")
def uncached(folder: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "uncached"
    training.train(distilled_run(teacher), folder, run)
    return run


def objective_of(teacher: Path, config: DistillConfig | None = None) -> Distilled:
    model, meta = checkpoint.load(teacher)
    config = config or DistillConfig()
    return Distilled(config, Supervised(ObjectiveConfig()), model, meta)


def batch_of(classes: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=rng, dtype=torch.uint8)
    mask = torch.randint(0, classes, (2, 64, 64), generator=rng)
    mask[:, :8] = 255
    image = pixels.float() / 127.5 - 1
    return {"image": image, "pixels": pixels, "mask": mask, "key": torch.tensor([0, 1])}


def test_the_teacher_is_left_as_it_was(teacher: Path) -> None:
    """No gradient, statistics that stand still, dropout off: also when the student trains."""
    objective = objective_of(teacher)
    before = {k: v.clone() for k, v in objective.teacher.state_dict().items()}
    student = models.build(ModelConfig(encoder=TINY), 3).train()
    loss, _ = objective(student, batch_of())
    loss.backward()
    assert not objective.teacher.training
    assert all(p.grad is None and not p.requires_grad for p in objective.teacher.parameters())
    after = objective.teacher.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert torch.equal(*(objective.teacher_logits(batch_of()) for _ in range(2)))
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    assert len(grads) > 10
    assert all(g.isfinite().all() for g in grads)


def test_the_teacher_sees_pixels_by_its_own_mean_and_std(teacher: Path) -> None:
    objective, batch = objective_of(teacher), batch_of()
    found = objective.teacher_logits({**batch, "image": torch.full_like(batch["image"], 9.0)})
    mean = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    std = torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = objective.teacher((batch["pixels"] / 255.0 - mean) / std).logits
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)


def test_the_loss_is_hard_and_soft_in_the_given_weights(teacher: Path) -> None:
    config = DistillConfig(hard=0.25, soft=3.0, temperature=2.0, beta=0.5, gamma=4.0)
    objective, batch = objective_of(teacher, config), batch_of()
    student = models.build(ModelConfig(encoder=TINY), 3).eval()
    loss, logs = objective(student, batch)
    prediction = student(batch["image"])
    hard, _ = objective.supervised.compare(prediction, batch)
    logits = objective.teacher_logits(batch)
    soft = dist(prediction.logits, logits, batch["mask"], temperature=2.0, beta=0.5, gamma=4.0)
    torch.testing.assert_close(loss, 0.25 * hard + 3 * soft)
    torch.testing.assert_close(logs["soft"], soft.detach())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_teacher_may_run_in_half_precision(teacher: Path, precision: str) -> None:
    exact = objective_of(teacher).teacher_logits(batch_of())
    rough = objective_of(teacher, DistillConfig(precision=precision)).teacher_logits(batch_of())
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert (exact.softmax(1) - rough.softmax(1)).abs().max() < 0.1


@pytest.mark.parametrize(
    ("teacher_model", "student_model"),
    [
        ("sam2ms", "kd-arafnet"),
        ("kd-arafnet", "smp-unet"),
        ("smp-unet", "sam2-unet"),
        ("sam2-unet", "sam2ms"),
    ],
)
@pytest.mark.parametrize("loss", ["dist", "kl"])
def test_any_teacher_teaches_any_student_roads(
    tmp_path: Path, teacher_model: str, student_model: str, loss: str
) -> None:
    path = write_teacher(tmp_path / "t.safetensors", ("ground", "road"), model=teacher_model)
    objective = objective_of(path, DistillConfig(loss=loss, hard=0.0))
    student = models.build(ModelConfig(name=student_model, encoder=TINY), 2).train()
    value, _ = objective(student, batch_of(2))
    value.backward()
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    assert max(float(g.abs().max()) for g in grads) > 0


def test_with_two_classes_the_inter_term_of_dist_has_no_gradient() -> None:
    rng = torch.Generator().manual_seed(0)
    student = torch.randn(2, 2, 16, 16, generator=rng, requires_grad=True)
    teacher = torch.randn(2, 2, 16, 16, generator=rng)

    def gradient(**weights: float) -> torch.Tensor:
        return torch.autograd.grad(dist(student, teacher, **weights), student)[0]

    whole = gradient()
    assert gradient(gamma=0.0).abs().max() < 1e-6
    torch.testing.assert_close(whole, gradient(beta=0.0), atol=1e-7, rtol=1e-3)
    assert whole.abs().max() > 1e-5


def test_kl_with_two_classes_is_bce_against_the_teachers_probability() -> None:
    rng = torch.Generator().manual_seed(0)
    student = torch.randn(2, 2, 8, 8, generator=rng, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 8, 8, generator=rng, dtype=torch.float64)
    mask = torch.randint(0, 2, (2, 8, 8), generator=rng)
    mask[0, :3] = 255
    value = kl(student, teacher, mask, temperature=2.0)
    z, soft = ((t[:, 1] - t[:, 0]) / 2 for t in (student, teacher))
    valid = mask != 255
    bce = F.binary_cross_entropy_with_logits(z[valid], soft.sigmoid()[valid])
    expected = torch.autograd.grad(bce, student)[0]
    found = torch.autograd.grad(value, student)[0]
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-4)
    assert not found[0, :, :3].any()
    assert float(kl(teacher, teacher, mask)) == pytest.approx(0, abs=1e-7)
    assert float(kl(student.detach(), teacher, torch.full_like(mask, 255))) == 0


@pytest.mark.parametrize("loss", ["dist", "kl"])
def test_a_student_learns_its_teacher_from_the_soft_loss_alone(loss: str) -> None:
    """The labels are noise; the teacher is right."""
    rng = torch.Generator().manual_seed(1)
    teacher = 4 * torch.randn(1, 2, 12, 12, generator=rng)
    student = torch.zeros(1, 2, 12, 12).normal_(generator=rng).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        value = {"dist": dist, "kl": kl}[loss](student, teacher, temperature=1.0)
        value.backward()
        optimizer.step()
    assert (student.argmax(1) == teacher.argmax(1)).float().mean() > 0.95


# The cache


def test_a_run_with_a_cache_equals_one_without(
    folder: Path, teacher: Path, uncached: Path, tmp_path: Path
) -> None:
    """Both the run that fills the cache and the one that reads it, bit for bit."""
    cache = f"objective.distill.cache={tmp_path / 'cache'}"
    config = distilled_run(teacher, cache)
    training.train(config, folder, tmp_path / "filling")
    same_run(uncached, tmp_path / "filling")
    kept = list((tmp_path / "cache").rglob("*.npy"))
    assert len(kept) == 2 * 4 * 2  # epochs, steps, crops
    assert all(np.load(f).dtype == np.float16 for f in kept)
    trainer = Trainer(config, open_dataset(folder), tmp_path / "reading")
    trainer.objective.teacher = None  # is not asked
    trainer.fit()
    same_run(uncached, tmp_path / "reading")


def test_damaged_files_of_a_cache_are_made_again(
    folder: Path, teacher: Path, uncached: Path, tmp_path: Path
) -> None:
    config = distilled_run(teacher, f"objective.distill.cache={tmp_path / 'cache'}")
    training.train(config, folder, tmp_path / "filling")
    kept = sorted((tmp_path / "cache").rglob("*.npy"))
    whole = [f.read_bytes() for f in kept]
    kept[0].write_bytes(whole[0][: len(whole[0]) // 2])
    kept[3].write_bytes(b"")
    kept[5].write_bytes(b"not an array")
    kept[6].unlink()
    training.train(config, folder, tmp_path / "mending")
    same_run(uncached, tmp_path / "mending")
    assert [f.read_bytes() for f in kept] == whole


def test_a_broken_distilled_run_resumes_bit_for_bit(
    folder: Path, teacher: Path, uncached: Path, tmp_path: Path
) -> None:
    left = 5

    def broken(_: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise StopError

    config = distilled_run(teacher, f"objective.distill.cache={tmp_path / 'cache'}")
    with pytest.raises(StopError):
        Trainer(config, open_dataset(folder), tmp_path / "run").fit(broken)
    training.train(config, folder, tmp_path / "run", resume=True)
    same_run(uncached, tmp_path / "run")


def test_a_cache_stays_below_its_limit_over_all_runs(tmp_path: Path) -> None:
    logits = torch.randn(4, 3, 16, 16)
    one = 3 * 16 * 16 * 2 + 128
    cache = LogitCache(tmp_path, "a", 2.5 * one)
    cache.put([0, 1, 2, 3], logits)
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    assert torch.equal(cache.get([0, 1]), logits[:2].half().float())
    assert cache.get([1, 2]) is None
    again = LogitCache(tmp_path, "b", 2.5 * one)
    again.put([0], logits[:1])
    assert again.get([0]) is None
    assert sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()) <= 2.5 * one


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot keep teacher logits"):
        LogitCache(tmp_path / "file", "a", 1e9)


def test_logits_are_kept_apart_by_all_they_depend_on(
    folder: Path, teacher: Path, tmp_path: Path
) -> None:
    dataset = open_dataset(folder)
    other = write_teacher(tmp_path / "other.safetensors", mean=(0.1, 0.1, 0.1))
    plain = distilled_run(teacher)
    same = distilled_run(teacher, "optim.lr=1", "encoder.name=resnet18", "train.epochs=9")
    assert fingerprint(plain, dataset, teacher) == fingerprint(same, dataset, teacher)
    changes = [
        "train.seed=1",
        "data.crop=96",
        "train.batch=1",
        "augment.hflip=0",
        "objective.distill.precision=bf16",
        "train.steps_per_epoch=3",
    ]
    names = {fingerprint(distilled_run(teacher, c), dataset, teacher) for c in changes}
    names |= {fingerprint(plain, dataset, t) for t in (teacher, other)}
    assert len(names) == len(changes) + 2


# Teachers that do not fit


def test_a_teacher_that_does_not_fit_is_told(folder: Path, tmp_path: Path) -> None:
    def train(path: Path) -> None:
        training.train(distilled_run(path), folder, tmp_path / "run")

    with pytest.raises(CheckpointError, match=r"b\.safetensors: the teacher has the classes"):
        train(write_teacher(tmp_path / "b.safetensors", ("class0", "class2", "class1")))
    with pytest.raises(ConfigError, match=r"c\.safetensors: the teacher reads the bands"):
        train(write_teacher(tmp_path / "c.safetensors", bands=(3, 2, 1)))
    with pytest.raises(ConfigError, match=r"d\.safetensors: the teacher stretches"):
        train(write_teacher(tmp_path / "d.safetensors", stretch=((0.0, 9.0),) * 3))
    with pytest.raises(ConfigError, match="needs a teacher"):
        config = distilled_run(Path("x")).with_overrides(["objective.distill.teacher=null"])
        training.train(config, folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def write_bad(path: Path, kind: str, good: Path) -> Path:
    if kind == "missing":
        return path
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:5000])
    elif kind == "pickle":
        torch.save({"model": object}, path)
    elif kind == "no checkpoint":
        path.write_text(json.dumps({}))
    else:
        write_teacher(path, ("water", "land", "roof"))
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "truncated", "pickle", "no checkpoint", "other classes"]
)
def test_a_bad_teacher_on_the_command_line(
    terradapt, folder: Path, teacher: Path, tmp_path: Path, kind: str
) -> None:
    bad = write_bad(tmp_path / "teacher.safetensors", kind, teacher)
    chosen = ["objective.name=distill", f"objective.distill.teacher={bad}"]
    run = tmp_path / "run"
    done = terradapt("train", "landcover", *SMALL, *chosen, "--data", folder, "-o", run)
    assert done.is_user_error("teacher.safetensors")
    assert not run.exists()
