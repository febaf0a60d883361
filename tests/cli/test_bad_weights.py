"""Weight files that cannot be used, through `terradapt train`: two lines, no run left behind."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from terradapt.models.sam2_weights import PREFIX, RENAMES
from training_files import SMALL, write_folder

State = dict[str, Tensor]
RAN = Path("/tmp/terradapt_weights_ran_code")


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (RAN.write_text, ("boom",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), classes=2)


@pytest.fixture(scope="module")
def official() -> State:
    """The state dict of the tiny trunk under the names of the published checkpoints."""
    state = timm.create_model("sam2_hiera_tiny", num_classes=0).state_dict()

    def named(key: str) -> str:
        for old, new in RENAMES:
            key = key.replace(new, old)
        return PREFIX + key

    return {named(k): v for k, v in state.items() if not k.startswith("head.")}


def truncated(path: Path, state: State) -> Path:
    torch.save({"model": state}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    return path


def renamed_file(path: Path, state: State) -> Path:
    """A torch file under the name of a safetensors file."""
    torch.save({"model": state}, path)
    return path.rename(path.with_name("sam2_hiera.safetensors"))


def renamed_keys(path: Path, state: State) -> Path:
    torch.save({"model": {k.replace("attn", "attention"): v for k, v in state.items()}}, path)
    return path


def without_a_block(path: Path, state: State) -> Path:
    torch.save({"model": {k: v for k, v in state.items() if ".blocks.5." not in k}}, path)
    return path


def of_another_size(path: Path, state: State) -> Path:
    wider = {k: torch.cat([v, v]) if k.endswith("patch_embed.proj.bias") else v
             for k, v in state.items()}  # fmt: skip
    torch.save({"model": wider}, path)
    return path


def with_code(path: Path, state: State) -> Path:
    torch.save({"model": Bomb()}, path)
    return path


def bare_pickle(path: Path, state: State) -> Path:
    path.write_bytes(pickle.dumps(Bomb()))
    return path


def missing(path: Path, state: State) -> Path:
    return path


TRUNKS = [
    truncated, renamed_file, renamed_keys, without_a_block, of_another_size, with_code,
    bare_pickle, missing,
]  # fmt: skip


@pytest.mark.parametrize("make", TRUNKS, ids=lambda f: f.__name__)
def test_an_official_trunk_that_cannot_be_used(
    terradapt, folder: Path, official: State, tmp_path: Path, make: Callable[[Path, State], Path]
) -> None:
    RAN.unlink(missing_ok=True)
    path, run = make(tmp_path / "sam2_hiera.pt", official), tmp_path / "run"
    chosen = ["model.name=sam2ms", "encoder.name=sam2_hiera_tiny", f"encoder.weights={path}"]
    small = [s for s in SMALL if not s.startswith("model.encoder.name")]
    done = terradapt("train", "landcover", *small, *chosen, "--data", folder, "-o", run)
    assert done.is_user_error(path.name)
    assert not run.exists()
    assert not RAN.exists()


def lossnet_of_another_net(path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), path)


def lossnet_cut(path: Path) -> None:
    lossnet_of_another_net(path)
    path.write_bytes(path.read_bytes()[:-100])


def lossnet_with_code(path: Path) -> None:
    torch.save({"state_dict": Bomb()}, path)


def lossnet_missing(path: Path) -> None:
    pass


LOSSNETS = [lossnet_of_another_net, lossnet_cut, lossnet_with_code, lossnet_missing]


CASES = [*((f, "resnet50") for f in LOSSNETS), (lossnet_of_another_net, "vgg16")]


@pytest.mark.parametrize(("make", "name"), CASES, ids=lambda v: getattr(v, "__name__", v))
def test_lossnet_weights_that_cannot_be_used(
    terradapt, folder: Path, tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    RAN.unlink(missing_ok=True)
    path, run = tmp_path / "lossnet.safetensors", tmp_path / "run"
    make(path)
    chosen = ["objective.name=structure", f"objective.lossnet.name={name}"]
    chosen.append(f"objective.lossnet.weights={path}")
    done = terradapt("train", "landcover", *SMALL, *chosen, "--data", folder, "-o", run)
    assert done.is_user_error("lossnet.safetensors")
    assert not run.exists()
    assert not RAN.exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("objective.lossnet.name=resnet99", "lossnet.name"),
        ("objective.distill.loss=mse", "distill.loss"),
        ("objective.distill.temperature=0", "temperature"),
        ("objective.distill.precision=int8", "precision"),
        ("objective.distill.cache_gb=-1", "cache_gb"),
    ],
)
def test_settings_that_cannot_be(
    terradapt, folder: Path, tmp_path: Path, override: str, named: str
) -> None:
    run = tmp_path / "run"
    done = terradapt("train", "landcover", *SMALL, override, "--data", folder, "-o", run)
    assert done.is_user_error(named)
    assert not run.exists()


def test_structure_loss_and_binary_models_want_two_classes(terradapt, tmp_path: Path) -> None:
    data, run = write_folder(tmp_path / "three"), tmp_path / "run"
    for chosen in ("objective.name=structure", "model.name=sam2ms"):
        done = terradapt("train", "landcover", *SMALL, chosen, "--data", data, "-o", run)
        assert done.is_user_error("classes")
        assert not run.exists()
