"""SAM2's official files and timm's: both load whole or not at all.

The oracle is PyPI's ``sam2`` (marked ``weights``); the rest writes the official form from timm's
trunk, by the key names of the published checkpoints.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from terradapt.errors import CheckpointError
from terradapt.models.building import build_encoder, load_weights
from terradapt.models.encoder import SAM2_TRUNKS, Sam2Encoder

TINY = "sam2_hiera_tiny"
OFFICIAL_KEYS = (
    "image_encoder.trunk.pos_embed",
    "image_encoder.trunk.pos_embed_window",
    "image_encoder.trunk.patch_embed.proj.weight",
    "image_encoder.trunk.blocks.0.norm1.weight",
    "image_encoder.trunk.blocks.0.attn.qkv.weight",
    "image_encoder.trunk.blocks.0.attn.proj.bias",
    "image_encoder.trunk.blocks.0.mlp.layers.0.weight",
    "image_encoder.trunk.blocks.0.mlp.layers.1.bias",
    "image_encoder.trunk.blocks.1.proj.weight",
)
ORACLE = {
    "sam2_hiera_tiny": {"stages": [1, 2, 7, 2], "global_att_blocks": [5, 7, 9]},
    "sam2_hiera_small": {"stages": [1, 2, 11, 2], "global_att_blocks": [7, 10, 13]},
    "sam2_hiera_base_plus": {"embed_dim": 112, "num_heads": 2},
    "sam2_hiera_large": {
        "embed_dim": 144,
        "num_heads": 2,
        "stages": [2, 6, 36, 4],
        "global_att_blocks": [23, 33, 43],
        "window_pos_embed_bkg_spatial_size": [7, 7],
        "window_spec": [8, 4, 16, 8],
    },
}
for _name in ("sam2_hiera_tiny", "sam2_hiera_small"):
    ORACLE[_name]["window_pos_embed_bkg_spatial_size"] = [7, 7]
"""The trunks of sam2's own configs (sam2/configs/sam2.1/*.yaml)."""


@pytest.fixture(scope="module")
def source() -> Sam2Encoder:
    torch.manual_seed(11)
    encoder = build_encoder(TINY)
    assert isinstance(encoder, Sam2Encoder)
    return encoder.eval()


def official(source: Sam2Encoder) -> dict[str, Tensor]:
    def name(key: str) -> str:
        key = key.replace(".mlp.fc1.", ".mlp.layers.0.").replace(".mlp.fc2.", ".mlp.layers.1.")
        return f"image_encoder.trunk.{key}"

    state = {name(k): v for k, v in source.trunk.state_dict().items()}
    state["image_encoder.neck.convs.0.conv.weight"] = torch.zeros(4, 4, 1, 1)
    state["sam_mask_decoder.iou_token.weight"] = torch.zeros(1, 4)
    return state


def trunk_only(source: Sam2Encoder) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in source.trunk.state_dict().items()}


def assert_loaded(source: Sam2Encoder, path: Path) -> None:
    ours = build_encoder(TINY, str(path)).eval()
    for key, value in source.trunk.state_dict().items():
        assert torch.equal(ours.get_submodule("trunk").state_dict()[key], value), key


def test_official_form_loads(tmp_path: Path, source: Sam2Encoder) -> None:
    state = official(source)
    assert set(OFFICIAL_KEYS) <= set(state)
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": state}, path)
    assert_loaded(source, path)


@pytest.mark.parametrize("prefix", ["", "trunk.", "image_encoder.trunk."])
def test_timm_names_load_from_safetensors(tmp_path: Path, source: Sam2Encoder, prefix: str) -> None:
    path = tmp_path / "model.safetensors"
    state = {prefix + k: v for k, v in trunk_only(source).items()}
    save_file({**state, prefix + "head.norm.weight": torch.ones(768)}, path)
    assert_loaded(source, path)


@pytest.fixture(scope="module")
def targets() -> dict[str, Sam2Encoder]:
    made: dict[str, Sam2Encoder] = {}
    for name in (TINY, "sam2_hiera_base_plus"):
        encoder = build_encoder(name)
        assert isinstance(encoder, Sam2Encoder)
        made[name] = encoder
    return made


@pytest.fixture
def refused(targets: dict[str, Sam2Encoder]) -> Callable[..., None]:
    def check(path: Path, told: str, name: str = TINY) -> None:
        encoder = targets[name]
        before = {k: v.clone() for k, v in encoder.state_dict().items()}
        with pytest.raises(CheckpointError, match=told) as caught:
            load_weights(encoder, str(path))
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.fix
        assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())

    return check


def test_partial_file_is_refused_naming_the_first_missing_key(
    tmp_path: Path,
    source: Sam2Encoder,
    refused: Callable[..., None],
) -> None:
    state = official(source)
    for index in (4, 7):
        del state[f"image_encoder.trunk.blocks.{index}.mlp.layers.1.weight"]
    path = tmp_path / "partial.pt"
    torch.save({"model": state}, path)
    refused(path, r"image_encoder\.trunk\.blocks\.4\.mlp\.layers\.1\.weight")


def test_renamed_keys_are_refused(
    tmp_path: Path,
    source: Sam2Encoder,
    refused: Callable[..., None],
) -> None:
    path = tmp_path / "renamed.pt"
    torch.save({"model": {f"module.{k}": v for k, v in official(source).items()}}, path)
    refused(path, "pos_embed")


@pytest.mark.parametrize("other", ["sam2_hiera_small", "sam2_hiera_base_plus"])
def test_file_of_another_size_is_refused(
    tmp_path: Path,
    source: Sam2Encoder,
    other: str,
    refused: Callable[..., None],
) -> None:
    """A deeper trunk in a shallower one, a narrower in a wider one."""
    path = tmp_path / "other.pt"
    if other == "sam2_hiera_small":
        torch.save({"model": official(build_encoder(other))}, path)  # type: ignore[arg-type]
        refused(path, r"blocks\.10\.proj\.weight' is missing")
    else:
        torch.save({"model": official(source)}, path)
        refused(path, "missing|shape", other)


def test_truncated_and_empty_files_are_refused(
    tmp_path: Path,
    source: Sam2Encoder,
    refused: Callable[..., None],
) -> None:
    path = tmp_path / "cut.pt"
    torch.save({"model": official(source)}, path)
    whole = path.read_bytes()
    for size in (len(whole) - 1000, len(whole) // 3, 100, 0):
        path.write_bytes(whole[:size])
        refused(path, "cut.pt")
    path.write_bytes(b"<html>not found</html>")
    refused(path, "cut.pt")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    refused: Callable[..., None],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.pt"
    if form == "torch":
        torch.save({"model": {"image_encoder.trunk.pos_embed": Bomb()}}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Bomb()}))
    refused(path, "not run")
    assert not (tmp_path / "exploded").exists()


def test_file_without_weights_is_refused(tmp_path: Path, refused: Callable[..., None]) -> None:
    for values in ({"model": {}}, {"epoch": 3}, [1, 2]):
        path = tmp_path / "none.pt"
        torch.save(values, path)
        refused(path, "holds no")


def oracle(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("sam2.modeling.backbones.hieradet", exc_type=ImportError)
    trunk: nn.Module = module.Hiera(**ORACLE[name]).eval()
    for parameter in trunk.parameters():  # its position embeddings start at zero
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return trunk


@pytest.mark.weights
@pytest.mark.parametrize("name", SAM2_TRUNKS)
def test_maps_agree_with_sam2_s_own_trunk(tmp_path: Path, name: str) -> None:
    torch.manual_seed(17)
    theirs = oracle(name)
    path = tmp_path / f"{name}.pt"
    state = {f"image_encoder.trunk.{k}": v for k, v in theirs.state_dict().items()}
    torch.save({"model": state}, path)
    ours = build_encoder(name, str(path), adapters=False).eval()
    for height, width in ((512, 512), (1024, 1024), (416, 608)):
        x = torch.randn(1, 3, height, width)
        with torch.no_grad():
            for a, b in zip(ours(x), theirs(x), strict=True):
                assert a.shape == b.shape
                assert float((a - b).abs().max()) <= 1e-4
