from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from terradapt import checkpoint, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.errors import CheckpointError, OutputError
from terradapt.meta import Meta

CLASSES = ClassMap(("ground", "roof", "tree"))
STUDENT = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))
TEACHER = ModelConfig(name="sam2-arafnet", encoder=EncoderConfig(name="sam2_hiera_tiny"))


def meta_of(model: ModelConfig) -> Meta:
    config = RunConfig(model=model)
    return Meta(config, CLASSES, InputSpec(resolution=0.3), 64, {"miou": 0.5}, 7, commit="abc")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ckpt") / "checkpoint.safetensors"
    checkpoint.save(path, models.build(STUDENT, 3), meta_of(STUDENT))
    return path


def test_a_checkpoint_explains_itself(saved: Path) -> None:
    meta = checkpoint.read_meta(saved)
    assert meta == meta_of(STUDENT)
    model, again = checkpoint.load(saved)
    assert again == meta
    assert not model.training
    for name, value in load_file(saved).items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_student_on_an_encoder_of_another_library_can_be_opened_again(tmp_path: Path) -> None:
    config = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mit_b0"))
    model = models.build(config, 3)
    checkpoint.save(tmp_path / "checkpoint.safetensors", model, meta_of(config))
    again, _ = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_state_travels_beside_the_weights(saved: Path, tmp_path: Path) -> None:
    model, meta = checkpoint.load(saved)
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, model, meta, state={"optimizer.x": torch.arange(3.0)})
    assert torch.equal(checkpoint.read_training_state(path)["optimizer.x"], torch.arange(3.0))
    assert checkpoint.load(path)[0].state_dict().keys() == model.state_dict().keys()


def test_a_random_frozen_trunk_is_bundled(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    torch.manual_seed(1)
    model = models.build(TEACHER, 3)
    meta = checkpoint.save(path, model, meta_of(TEACHER))
    assert meta.trunk is not None
    assert meta.trunk.bundled
    loaded, _ = checkpoint.load(path)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())


def named_trunk(folder: Path, seed: int) -> tuple[Path, Path]:
    """Write a trunk file and a checkpoint that only names it."""
    import timm

    torch.manual_seed(seed)
    trunk = folder / "trunk.safetensors"
    state = timm.create_model("sam2_hiera_tiny", pretrained=False, num_classes=0).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, trunk)
    encoder = TEACHER.encoder.model_copy(update={"weights": str(trunk)})
    config = TEACHER.model_copy(update={"encoder": encoder})
    path = folder / "tuned.safetensors"
    checkpoint.save(path, models.build(config, 3), meta_of(config))
    return trunk, path


def test_a_named_trunk_is_not_stored_and_found_again(tmp_path: Path) -> None:
    trunk, path = named_trunk(tmp_path, 2)
    meta = checkpoint.read_meta(path)
    assert meta.trunk is not None
    assert not meta.trunk.bundled
    assert path.stat().st_size < trunk.stat().st_size / 2
    checkpoint.load(path)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    trunk.rename(moved / trunk.name)
    with pytest.raises(CheckpointError, match=r"trunk\.safetensors, which is not here"):
        checkpoint.load(path)
    path.rename(moved / path.name)
    checkpoint.load(moved / path.name)


def test_another_trunk_is_refused(tmp_path: Path) -> None:
    trunk, path = named_trunk(tmp_path, 3)
    other = load_file(trunk)
    key = next(k for k in other if k.endswith("qkv.weight"))
    save_file({**other, key: other[key] + 1e-3}, trunk)
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoint.load(path)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path("/tmp/terradapt_was_unpickled").write_text, ("boom",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "zip"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, kind: str) -> None:
    Path("/tmp/terradapt_was_unpickled").unlink(missing_ok=True)
    path = tmp_path / "evil.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "torch":
        torch.save({"model": Bomb()}, path)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"evil\.safetensors: is a pickle"):
        checkpoint.load(path)
    assert not Path("/tmp/terradapt_was_unpickled").exists()


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    path = saved.with_name("cut.safetensors")
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        checkpoint.load(path)


def edited(saved: Path, change: dict[str, object]) -> Path:
    text = json.loads(checkpoint.read_meta(saved).to_json()) | change
    path = saved.with_name("edited.safetensors")
    save_file(load_file(saved), path, metadata={"terradapt": json.dumps(text)})
    return path


def config_with(**encoder: object) -> dict[str, object]:
    values = RunConfig(model=STUDENT).model_dump(mode="json")
    values["model"]["encoder"] |= encoder
    return values


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"config": {"nosuch": 1}},
        {"config": config_with(name="hf-hub:someone/thing")},
        {"config": config_with(args={"checkpoint_path": "evil.pth"})},
        {"config": config_with(name="nosuch_encoder")},
        {"config": config_with(name="resnet18")},
        {"classes": {"names": ["one"]}},
        {"classes": {"names": ["a", "b"]}},
        {"spec": None},
        {"surprise": 1},
        {"trunk": {"name": "x"}},
    ],
)
def test_hostile_metadata_is_refused(saved: Path, change: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"edited\.safetensors"):
        checkpoint.load(edited(saved, change))


def test_no_metadata_or_other_tensors_are_refused(saved: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    save_file({"x": torch.zeros(1)}, plain)
    with pytest.raises(CheckpointError, match="metadata"):
        checkpoint.load(plain)
    held = load_file(saved)
    name = "encoder.body.conv_stem.weight"
    meta = {"terradapt": checkpoint.read_meta(saved).to_json()}
    for tensors, said in [
        ({k: v for k, v in held.items() if k != name}, f"lacks {name}"),
        ({**held, "more": torch.zeros(1)}, "unknown more"),
        ({**held, name: torch.zeros(2, 2)}, f"{name} is"),
    ]:
        save_file(tensors, plain, metadata=meta)
        with pytest.raises(CheckpointError, match=said):
            checkpoint.load(plain)


def test_a_checkpoint_has_the_rights_of_any_file(tmp_path: Path) -> None:
    """safetensors itself writes files that nobody but their owner can read."""
    path = tmp_path / "checkpoint.safetensors"
    (tmp_path / "plain").touch()
    checkpoint.save(path, models.build(STUDENT, 3), meta_of(STUDENT))
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    model = models.build(STUDENT, 3)
    with pytest.raises(OutputError, match="cannot be written"):
        checkpoint.save(blocked / "checkpoint.safetensors", model, meta_of(STUDENT))
    target = tmp_path / "is_a_folder"
    target.mkdir()
    with pytest.raises(OutputError):
        checkpoint.save(target, model, replace(meta_of(STUDENT), step=1))
    assert not list(tmp_path.glob(".*part"))
