"""Encoders: strides, adapters, freezing, checkpointing, weight files."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from terradapt.config import EncoderConfig, ModelConfig
from terradapt.errors import CheckpointError, ConfigError
from terradapt.models import build, default_config
from terradapt.models import resolve as resolve_model
from terradapt.models.adapters import Adapter
from terradapt.models.building import (
    IMAGENET,
    build_encoder,
    encoder_normalization,
    from_config,
    resolve_encoder,
)
from terradapt.models.encoder import HUB, SAM2_TRUNKS, STRIDES, STUDENTS, is_sam2
from terradapt.models.pyramid import SimplePyramid

SMALL = "mobilenetv3_small_100"
TINY = "sam2_hiera_tiny"
TRUNK_SIZES = {
    "sam2_hiera_tiny": (26_849_472, 262_464, (96, 192, 384, 768)),
    "sam2_hiera_small": (33_947_328, 362_432, (96, 192, 384, 768)),
    "sam2_hiera_base_plus": (68_675_712, 648_688, (112, 224, 448, 896)),
    "sam2_hiera_large": (212_149_296, 1_714_416, (144, 288, 576, 1152)),
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", SAM2_TRUNKS)
def test_trunks_and_adapters_have_the_published_sizes(name: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name)
    assert (count(encoder.trunk), count(encoder.adapters), encoder.channels) == TRUNK_SIZES[name]
    assert len(encoder.adapters) == len(encoder.trunk.blocks)


VITS = {
    "vit_pe_spatial_tiny_patch16_512": 192,
    "vit_tiny_patch16_224": 192,
    "eva02_tiny_patch14_224": 192,
}


@pytest.mark.parametrize("name", VITS)
def test_a_plain_transformer_gives_a_pyramid_at_any_size(name: str) -> None:
    encoder = build_encoder(name, checkpointing=True)
    for height, width in ((64, 96), (128, 32)):
        features = encoder(torch.randn(1, 3, height, width))
        assert tuple(f.shape[1] for f in features) == encoder.channels
        sides = [(height // s, width // s) for s in STRIDES]
        assert [tuple(f.shape[2:]) for f in features] == sides
    sum(f.mean() for f in features).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in encoder.pyramid.parameters())


def test_the_pyramid_has_vitdet_s_size() -> None:
    width, out = 384, 256
    tails = sum(c * out + 2 * out + 9 * out * out + 2 * out for c in (96, 192, 384, 384))
    assert count(SimplePyramid(width)) + tails == 3_298_144


def test_a_frozen_transformer_stands_still_and_its_pyramid_trains(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    path = tmp_path / "vit.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model(name).state_dict(), path)  # with its classifier, as timm has it
    config = EncoderConfig(name=name, weights=str(path), freeze=True)
    model = build(ModelConfig(name="kd-arafnet", encoder=config), 3)
    held = {k: v.requires_grad for k, v in model.encoder.named_parameters()}
    assert not any(v for k, v in held.items() if k.startswith("body."))
    assert all(v for k, v in held.items() if k.startswith("pyramid."))
    stored = load_file(path)
    assert torch.equal(
        model.encoder.body.blocks[3].attn.qkv.weight, stored["blocks.3.attn.qkv.weight"]
    )
    model.train()
    model(torch.randn(2, 3, 64, 64)).logits.mean().backward()


def test_interleaved_rotary_embeddings_are_not_exported() -> None:
    encoder = build_encoder("eva02_tiny_patch14_224")
    with pytest.raises(ConfigError, match="interleaved rotary"):
        encoder.settle(64)


def test_a_settled_transformer_says_the_same() -> None:
    encoder, x = build_encoder("vit_tiny_patch16_224").eval(), torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        before = encoder(x)
        encoder.settle(96)
        after = encoder(x)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))


def test_the_pixels_of_a_transformer_are_normalised_as_its_weights_were() -> None:
    config = EncoderConfig(name="vit_large_patch16_dinov3.sat493m", weights=HUB)
    mean, std = encoder_normalization(config)
    assert mean == pytest.approx((0.430, 0.411, 0.296)) and std == pytest.approx(
        (0.213, 0.156, 0.143)
    )


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224", *STUDENTS[3:5]])
def test_channels_and_strides_are_what_comes_out(name: str) -> None:
    args = {"strict_img_size": False} if name.startswith("swin") else {}
    encoder = build_encoder(name, **args).eval()
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, 64, 64))
    assert tuple(f.shape[1] for f in features) == encoder.channels
    assert tuple(64 // f.shape[2] for f in features) == encoder.strides


def test_adapter_is_the_written_formula() -> None:
    torch.manual_seed(1)
    adapter = Adapter(24, width=5)
    x = torch.randn(2, 3, 4, 24)
    hidden = nn.functional.gelu(x @ adapter.down.weight.T + adapter.down.bias)
    expected = x + nn.functional.gelu(hidden @ adapter.up.weight.T + adapter.up.bias)
    torch.testing.assert_close(adapter(x), expected)


def test_adapter_options() -> None:
    encoder = build_encoder(TINY, adapter_width=7, adapter_activation="relu")
    assert all(a.down.out_features == 7 and isinstance(a.act, nn.ReLU) for a in encoder.adapters)
    assert len(build_encoder(TINY, adapters=False).adapters) == 0


def test_adapters_stand_before_every_block() -> None:
    """Silenced adapters give timm's own trunk; each one of them alone changes the last map."""
    torch.manual_seed(0)
    encoder = build_encoder(TINY).eval()
    plain = timm.create_model(TINY, features_only=True).eval()
    plain.model.load_state_dict(encoder.trunk.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        kept = [a.up.weight.clone() for a in encoder.adapters]
        for adapter in encoder.adapters:
            adapter.up.weight.zero_()
            adapter.up.bias.zero_()
        base = encoder(x)
        for ours, theirs in zip(base, plain(x), strict=True):
            torch.testing.assert_close(ours, theirs)
        for adapter, weight in zip(encoder.adapters, kept, strict=True):
            adapter.up.weight.copy_(weight)
            assert not torch.allclose(encoder(x)[-1], base[-1])
            adapter.up.weight.zero_()


def test_exact_trainable_set_of_the_teacher() -> None:
    with torch.device("meta"):
        model = build(default_config("sam2-arafnet"), 6)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    adapters = {
        f"encoder.adapters.{i}.{layer}.{kind}"
        for i in range(48)
        for layer in ("down", "up")
        for kind in ("weight", "bias")
    }
    decoder = {n for n, _ in model.named_parameters() if not n.startswith("encoder.")}
    assert trainable == adapters | decoder
    assert {n.split(".")[0] for n in decoder} == {"low", "high", "fusion", "head", "aux_head"}


@pytest.mark.parametrize("name", ["sam2ms", "sam2-unet"])
def test_exact_trainable_set_of_the_road_models(name: str) -> None:
    with torch.device("meta"):
        model = build(default_config(name), 2)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith("encoder.trunk.")}
    assert frozen


@pytest.mark.parametrize("name", ["kd-arafnet", "smp-unet"])
def test_students_train_whole(name: str) -> None:
    with torch.device("meta"):
        model = build(default_config(name), 6)
    assert all(p.requires_grad for p in model.parameters())


def test_trunk_without_adapters_trains_and_freezing_is_a_choice() -> None:
    with torch.device("meta"):
        assert all(p.requires_grad for p in build_encoder(TINY, adapters=False).parameters())
        frozen = build_encoder(TINY, adapters=False, freeze=True)
        assert not any(p.requires_grad for p in frozen.parameters())
        tuned = build_encoder(TINY, freeze=False)
        assert all(p.requires_grad for p in tuned.parameters())


def test_no_gradient_is_computed_for_frozen_weights() -> None:
    encoder = build_encoder(TINY)
    touched: list[str] = []
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda g, name=name: touched.append(name))
    first = encoder.trunk._pos_embed(encoder.trunk.patch_embed(torch.randn(1, 3, 64, 64)))
    assert not first.requires_grad  # nothing is stored before the first adapter
    sum(f.mean() for f in encoder(torch.randn(1, 3, 64, 64))).backward()
    assert set(touched) == {n for n, _ in encoder.named_parameters() if n.startswith("adapters.")}
    assert all(p.grad is None for p in encoder.trunk.parameters())


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    encoder = build_encoder(SMALL, freeze=True).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize("name", [TINY, "mit_b0", "resnet18", "convnext_atto"])
def test_checkpointing_gives_equal_gradients(name: str) -> None:
    gradients = []
    x = torch.randn(1, 3, 64, 64)
    args = {"drop_path_rate": 0.0} if name == "convnext_atto" else {}
    for checkpointing in (False, True):
        torch.manual_seed(3)
        encoder = build_encoder(name, checkpointing=checkpointing, **args).train()
        for module in encoder.modules():
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0
        sum(f.square().mean() for f in encoder(x)).backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value, msg=key)


# weight files


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    torch.manual_seed(5)
    return timm.create_model(SMALL)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", [SMALL, "convnext_atto"])
def test_local_file_of_timm_s_state_dict(tmp_path: Path, name: str, suffix: str) -> None:
    torch.manual_seed(7)
    source = timm.create_model(name).eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": source.state_dict()}, path)
    else:
        save_file(source.state_dict(), path)
    ours = build_encoder(name, str(path)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = source.forward_intermediates(x, indices=4, intermediates_only=True)
        for a, b in zip(ours(x), wanted[-4:], strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bands", [1, 4])
def test_first_convolution_is_adapted_to_the_bands(
    tmp_path: Path, whole: nn.Module, bands: int
) -> None:
    path = str(tmp_path / "w.safetensors")
    save_file(whole.state_dict(), path)
    encoder = build_encoder(SMALL, path, in_channels=bands).eval()
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        three = build_encoder(SMALL, path).eval()(grey.expand(-1, 3, -1, -1))
        ours = encoder(grey.expand(-1, bands, -1, -1))
    if bands == 1:  # a grey image gives what it gave as three equal bands
        torch.testing.assert_close(ours[-1], three[-1], atol=1e-4, rtol=1e-3)
    assert ours[0].shape == three[0].shape


def test_metadata_of_the_file_completes_the_config(tmp_path: Path, whole: nn.Module) -> None:
    path = str(tmp_path / "w.safetensors")
    said = {"pad_type": "same", "mean": "0.5,0.4,0.3", "std": "0.2,0.3,0.4"}
    save_file(whole.state_dict(), path, said)
    config = EncoderConfig(name=SMALL, weights=path)
    assert resolve_encoder(config).args == {"pad_type": "same"}
    own = config.model_copy(update={"args": {"pad_type": ""}})
    assert resolve_encoder(own).args == {"pad_type": ""}
    assert encoder_normalization(config) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    mean, _ = encoder_normalization(config, 4)
    assert mean == (0.5, 0.4, 0.3, pytest.approx(0.4))
    kinds = {type(m).__name__ for m in from_config(config).modules()}
    assert "Conv2dSame" in kinds


def test_resolved_model_needs_the_file_no_more(tmp_path: Path, whole: nn.Module) -> None:
    path = tmp_path / "w.safetensors"
    save_file(whole.state_dict(), path, {"pad_type": "same"})
    config = resolve_model(ModelConfig(encoder=EncoderConfig(name=SMALL, weights=str(path))))
    model = build(config, 3).eval()
    path.unlink()
    bare = config.model_copy(
        update={"encoder": config.encoder.model_copy(update={"weights": None})}
    )
    twin = build(bare, 3).eval()
    twin.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x).logits, twin(x).logits)


def test_normalization_without_a_file() -> None:
    assert encoder_normalization(EncoderConfig()) == IMAGENET
    hub = EncoderConfig(name="mobilenetv2_100", weights="hub")
    assert encoder_normalization(hub) == IMAGENET
    assert encoder_normalization(EncoderConfig(name="mit_b0", weights="hub")) == IMAGENET


def test_wrong_files_are_refused_naming_file_and_key(tmp_path: Path, whole: nn.Module) -> None:
    good = whole.state_dict()
    partial = {k: v for k, v in good.items() if k != "blocks.1.0.conv_pw.weight"}
    other = {**good, "conv_stem.weight": good["conv_stem.weight"][:8].clone()}
    for name, state, told in (
        ("partial", partial, "blocks.1.0.conv_pw.weight"),
        ("other", other, "conv_stem.weight"),
        ("resnet", timm.create_model("resnet18").state_dict(), "is missing"),
    ):
        path = tmp_path / f"{name}.safetensors"
        save_file(state, path)
        with pytest.raises(CheckpointError, match=told) as caught:
            build_encoder(SMALL, str(path))
        assert str(path) in caught.value.message
    with pytest.raises(CheckpointError, match="no such weight file"):
        build_encoder(SMALL, str(tmp_path / "absent.safetensors"))


def test_truncated_files_are_refused(tmp_path: Path, whole: nn.Module) -> None:
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"w{suffix}"
        if suffix == ".pth":
            torch.save(whole.state_dict(), path)
        else:
            save_file(whole.state_dict(), path)
        for size in (path.stat().st_size // 2, 5, 0):
            path.write_bytes(path.read_bytes()[:size])
            with pytest.raises(CheckpointError, match=path.name):
                build_encoder(SMALL, str(path))
        if suffix == ".safetensors":
            with pytest.raises(CheckpointError, match=path.name):
                encoder_normalization(EncoderConfig(name=SMALL, weights=str(path)))


def test_hub_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def unreachable(name: str, pretrained: bool = False, **kwargs: object) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return real(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("terradapt.weights.hub_fault", lambda _: "")
    with pytest.raises(CheckpointError, match="no route to host") as caught:
        build_encoder(SMALL, "hub")
    assert "local file" in caught.value.fix


def test_names() -> None:
    assert is_sam2("sam2_hiera_tiny.fb_r896_2pt1")
    assert not is_sam2("hieradet_small")
    with pytest.raises(ConfigError, match="no encoder"):
        build_encoder("sam2_hiera_giant")
