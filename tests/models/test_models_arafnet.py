"""ARAFNet: the decoder's published formula, the ten ablations, the printed parameters and MACs.

The oracle is PyPI's ``thop``. It counts from shapes, so models live on the device ``meta``; that
this equals thop on real tensors, and that MACs are linear in the batch, is tested too.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from terradapt.complexity import measure
from terradapt.config import EncoderConfig, ModelConfig
from terradapt.errors import ConfigError
from terradapt.models import build, build_on_meta
from terradapt.models.arafnet import ABLATIONS, BFM, ARAFNetOptions, MLPPath
from terradapt.models.contract import SegmentationModel
from terradapt.models.layers import CBAM

TABLE_4 = {  # parameters M, GMACs at 8 x 3 x 512 x 512 and 6 classes
    "sam2_hiera_large": (222.980, 1712.479),
    "efficientnet_b0": (6.678, 56.360),
    "efficientnet_b1": (9.164, 64.027),
    "mobilenetv3_large_100": (9.941, 57.799),
    "mobilenetv3_small_100": (5.472, 43.227),
    "resnet18": (15.763, 129.946),
    "resnet50": (39.178, 295.683),
    "mit_b0": (6.152, 60.903),
    "mit_b1": (17.811, 123.374),
    "ghostnetv3_100": (4.020, 50.713),
}
ROADS = {  # name, options: parameters, trainable, thop M, GMACs at 1 x 3 x 1024 x 1024
    ("sam2ms", "release"): (217_121_185, 4_971_889, 217.105, 867.281),
    ("sam2-unet", ""): (216_419_043, 4_269_747, 216.403, 863.719),
}
SMALL = "mobilenetv3_small_100"


def thop_counts(model: nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import thop
        import timm.layers
        from segmentation_models_pytorch.encoders import mix_transformer
        from thop.vision.basic_hooks import count_normalization

        kinds = (timm.layers.LayerNorm, timm.layers.LayerNorm2d, mix_transformer.LayerNorm)
        device = next(model.parameters()).device
        macs, parameters = thop.profile(
            model,
            (torch.zeros(shape, device=device),),
            custom_ops=dict.fromkeys(kinds, count_normalization),
            verbose=False,
        )
    return macs, parameters


def arafnet(encoder: str, options: dict[str, Any] | None = None, k: int = 6) -> SegmentationModel:
    name = "sam2-arafnet" if encoder.startswith("sam2") else "kd-arafnet"
    config = ModelConfig(name=name, encoder=EncoderConfig(name=encoder), options=options or {})
    return build_on_meta(config, k)


@pytest.mark.parametrize("encoder", TABLE_4)
def test_thop_prints_the_paper_s_table_4_and_so_do_we(encoder: str) -> None:
    model = arafnet(encoder)
    macs, parameters = thop_counts(model, (8, 3, 512, 512))
    assert (round(parameters / 1e6, 3), round(macs / 1e9, 3)) == TABLE_4[encoder]
    ours = measure(model, 8, 512)
    assert (ours.thop_parameters, ours.macs) == (parameters, macs)


@pytest.mark.parametrize("case", ROADS, ids="-".join)
def test_thop_prints_the_figures_of_the_road_models(case: tuple[str, str]) -> None:
    name, drb = case
    options = {"drb": drb} if drb else {}
    encoder = EncoderConfig(name="sam2_hiera_large")
    model = build_on_meta(ModelConfig(name=name, encoder=encoder, options=options), 2)
    macs, parameters = thop_counts(model, (1, 3, 1024, 1024))
    ours = measure(model, 1, 1024)
    assert (ours.thop_parameters, ours.macs) == (parameters, macs)
    printed = (round(parameters / 1e6, 3), round(macs / 1e9, 3))
    assert (ours.parameters, ours.trainable, *printed) == ROADS[case]


def test_meta_counts_equal_real_ones_and_macs_are_linear_in_the_batch() -> None:
    """``meta`` and real tensors give thop the same shapes; 8 images cost 8 times one."""
    real = build(ModelConfig(encoder=EncoderConfig(name=SMALL)), 6)
    one = thop_counts(real, (1, 3, 64, 64))
    assert thop_counts(arafnet(SMALL), (1, 3, 64, 64)) == one
    eight = thop_counts(arafnet(SMALL), (8, 3, 64, 64))
    assert eight == (8 * one[0], one[1])


def decoder_size(c: tuple[int, ...]) -> int:
    """The decoder's parameters at K = 6, as a formula of the encoder's channels."""
    c1, c2, c3, c4 = c
    return (
        (c4 * (c4 // 16) * 2 + 98)
        + (128 * c4 + 256 + 2146)
        + 5 * (1152 * c4 + 384 + 2146)
        + 82304
        + 1152 * (c1 + c2 + c3)
        + 297826
        + 478720
        + 148486
    )


@pytest.mark.parametrize("encoder", ["sam2_hiera_base_plus", "efficientnet_b0", "resnet18"])
def test_decoder_has_the_published_size(encoder: str) -> None:
    model = arafnet(encoder)
    found = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("encoder."))
    aux = 148_486 if encoder.startswith("sam2") else 0
    channels: Any = model.encoder.channels
    assert found - aux == decoder_size(channels)
    assert sum(p.numel() for p in BFM(128).parameters()) == 478_720
    assert sum(p.numel() for p in CBAM(128).parameters()) == 2 * 128**2 // 16 + 98


def test_table_6_has_ten_variants_that_all_differ() -> None:
    assert len(ABLATIONS) == 10
    sizes = {name: measure(arafnet(SMALL, o), 1, 64).parameters for name, o in ABLATIONS.items()}
    full = measure(arafnet(SMALL), 1, 64).parameters
    same = [name for name, size in sizes.items() if size == full]
    assert same == []
    assert max(sizes.values()) < full
    assert len({str(o) for o in ABLATIONS.values()}) == 10


@pytest.mark.parametrize("variant", ABLATIONS)
def test_ablation_trains(variant: str) -> None:
    options = {**ABLATIONS[variant], "aux": True}
    encoder = EncoderConfig(name=SMALL)
    model = build(ModelConfig(encoder=encoder, options=options), 3).train()
    out = model(torch.randn(2, 3, 64, 64))
    assert out.logits.shape == out.aux[0].shape == (2, 3, 64, 64)
    (out.logits.square().mean() + out.aux[0].square().mean()).backward()
    assert all(p.grad is not None for p in model.parameters())


def kinds(model: nn.Module) -> set[str]:
    return {type(m).__name__ for m in model.modules()}


def test_ablations_remove_what_they_say() -> None:
    def built(variant: str) -> SegmentationModel:
        return arafnet(SMALL, ABLATIONS[variant])

    assert "ResASPP" not in kinds(built("w/o ResASPP module"))
    assert "CBAM" not in kinds(built("w/o all attention in ResASPP").get_submodule("high"))
    branches = built("w/o branch attention in ResASPP").get_submodule("high")
    assert sum(isinstance(m, CBAM) for m in branches.modules()) == 2
    trunk = built("w/o trunk attention in ResASPP").get_submodule("high")
    assert sum(isinstance(m, CBAM) for m in trunk.modules()) == 5
    assert {"LowPath"} & kinds(built("w/o LowPath (BFM retained)")) == set()
    assert {"LowPath", "BFM"} & kinds(built("w/o LowPath (BFM removed)")) == set()
    assert {"BFM", "ConcatFusion"} & kinds(built("w/o BFM (add)")) == set()
    assert "ConcatFusion" in kinds(built("w/o BFM (concat)"))
    for fusion in ("add", "concat"):
        bare = built(f"w/o attention, BFM, and ResASPP ({fusion})")
        assert {"CBAM", "BFM", "ResASPP"} & kinds(bare) == set()


@pytest.mark.parametrize(
    "options", [{"fusion": "none"}, {"low_path": False, "fusion": "add"}, {"width": "wide"}]
)
def test_options_that_contradict_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        arafnet(SMALL, options)


def test_a_wrong_value_is_not_taken_for_a_wrong_name() -> None:
    with pytest.raises(ConfigError) as caught:
        arafnet(SMALL, {"mlp_width": -1})
    assert caught.value.fix == "give another value; its default is 0"
    with pytest.raises(ConfigError) as caught:
        arafnet(SMALL, {"mlp_widht": 1})
    assert "did you mean 'mlp_width'?" in caught.value.fix


def test_defaults_are_the_paper_s() -> None:
    options = ARAFNetOptions()
    assert (options.width, options.up_mode, options.fusion) == (128, "nearest", "bfm")
    assert options.mlp_width == 0


def test_an_mlp_path_adds_segformer_s_vote() -> None:
    """On even maps, where enlarging does nothing: concatenate, project, norm, ReLU, classify."""
    channels, width, k = (8, 12, 16, 24), 6, 3
    path = MLPPath(channels, width, k).eval()
    values = [torch.randn(2, c) for c in channels]
    maps = tuple(
        v[:, :, None, None].expand(-1, -1, 32 // 2**i, 64 // 2**i) for i, v in enumerate(values)
    )
    projection = torch.cat([s.weight for s in path.sides], 1)[:, :, 0, 0]  # type: ignore[union-attr]
    hidden = (torch.cat(values, 1) @ projection.T / (1 + 1e-5) ** 0.5).relu()
    last: Any = path.head[1]
    expected = hidden @ last.weight[:, :, 0, 0].T + last.bias
    logits = path(maps)
    assert logits.shape == (2, k, 128, 256)
    torch.testing.assert_close(logits, expected[:, :, None, None].expand_as(logits))


def test_logits_of_an_mlp_path_are_added_to_the_paper_s() -> None:
    config = ModelConfig(
        name="kd-arafnet",
        encoder=EncoderConfig(name=SMALL),
        options={"width": 8, "mlp_width": 16},
    )
    model: Any = build(config, 3).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        both, path = model(x).logits, model.mlp(model.encoder(x))
        model.mlp = None
        alone = model(x).logits
    torch.testing.assert_close(both, alone + path)
    assert path.std() > 0
    with pytest.raises(ConfigError):
        arafnet(SMALL, {"mlp_width": -1})


def test_attention_gates_are_between_0_and_1_and_written_out() -> None:
    torch.manual_seed(2)
    cbam = CBAM(32)
    x = torch.randn(2, 32, 5, 7)
    first, last = cbam.channel.mlp[0].weight[:, :, 0, 0], cbam.channel.mlp[2].weight[:, :, 0, 0]

    def mlp(v: torch.Tensor) -> torch.Tensor:
        return (v @ first.T).relu() @ last.T

    gate = (mlp(x.mean((2, 3))) + mlp(x.flatten(2).max(2).values)).sigmoid()[:, :, None, None]
    y = x * gate
    pooled = torch.stack([y.mean(1), y.max(1).values], 1)
    spatial = nn.functional.conv2d(pooled, cbam.spatial.conv.weight, padding=3).sigmoid()
    torch.testing.assert_close(cbam(x), y * spatial)
