"""The land-cover baselines: their counts at 6 classes, and their layers against other people's.

Parameters and MACs are those that were measured on the networks as their authors released them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from terradapt.complexity import measure
from terradapt.config import EncoderConfig, ModelConfig, ObjectiveConfig
from terradapt.losses.pixel import relation
from terradapt.models import MODELS, build, build_on_meta
from terradapt.models.baselines.layers import LinearAttention, adaptive_mean, reflect_pad
from terradapt.models.baselines.manet import ChannelAffinity, KernelAttention
from terradapt.models.baselines.slcnet import LongRangeCorrelation
from terradapt.models.baselines.stunet import ModulatedDeformConv, ShiftedWindowAttention
from terradapt.models.baselines.unetformer import from_windows, relative_index, to_windows
from terradapt.models.contract import SegmentationModel
from terradapt.training.objectives import Supervised

STRIDES = (16, 8, 4, 2)

COUNTS = {  # parameters that predict, those of training-only heads, GMACs by thop, in truth
    "pspnet": (16_162_374, 591_878, 67.5966, 67.4729),
    "bisenet": (12_893_318, 593_932, 13.0481, 12.9622),
    "banet": (13_910_466, 0, 14.8748, 14.8731),
    "a2fpn": (11_646_983, 0, 13.2524, 13.4527),
    "manet": (35_860_622, 0, 77.7571, 54.0194),
    "maresunet": (16_168_350, 0, 25.4163, 19.0382),
    "unetformer": (11_687_518, 37_376, 11.7420, 11.7074),
    "slcnet": (186_039_686, 1_108_248, 340.9747, 315.0588),
    "cmtfnet": (30_070_649, 0, 33.0697, 33.9725),
    "sfanet": (10_662_745, 37_376, 7.0419, 7.0571),
    "mifnet": (25_358_919, 0, 35.4170, 35.0691),
    "stunet": (81_368_636, 0, 85.3360, 84.3157),
}
VARIANTS: list[tuple[str, str, dict[str, Any], int, int, float]] = [
    ("pspnet", "resnet18", {"output_stride": 32, "bin_channels": 512}, 512, 24_029_766, 12.5618),
    ("pspnet", "resnet18", {"output_stride": 16, "bin_channels": 512}, 512, 24_029_766, 28.0773),
    ("pspnet", "resnet18", {"output_stride": 32, "bin_channels": 512}, 1024, 24_029_766, 50.2075),
    ("manet", "resnet18", {}, 512, 11_986_590, 22.1951),
    ("maresunet", "resnet34", {}, 512, 26_276_510, 35.1062),
    ("maresunet", "resnet18", {}, 1024, 16_168_350, 101.6621),
    ("unetformer", "resnet18", {}, 1024, 11_687_518, 46.9679),
    ("cmtfnet", "resnet50", {}, 256, 30_070_649, 8.5700),
    ("sfanet", "efficientnet_b3", {"fam1": "spatial"}, 512, 10_662_745, 7.0419 + 0.0067),
    ("sfanet", "efficientnet_b3", {}, 1024, 10_662_745, 28.1619),
]


def built(name: str, encoder: str = "", **options: Any) -> SegmentationModel:
    encoder = encoder or MODELS[name].encoder
    config = ModelConfig(name=name, encoder=EncoderConfig(name=encoder), options=options)
    return build_on_meta(config, 6)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_released_network_s(name: str) -> None:
    parameters, aux, thop, true = COUNTS[name]
    model = built(name)
    counted = measure(model, 1, 512)
    assert counted.parameters == parameters
    assert counted.trainable == parameters + aux
    assert counted.macs / 1e9 == pytest.approx(thop, rel=1e-3)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        out = model.eval()(torch.empty(1, 3, 512, 512, device="meta"))
    assert flops.get_total_flops() / 2e9 == pytest.approx(true, rel=1e-3)
    assert out.logits.shape == (1, 6, 512, 512)


@pytest.mark.parametrize("case", VARIANTS, ids=lambda c: f"{c[0]}-{c[1]}-{c[3]}")
def test_counts_of_variants(case: tuple[str, str, dict[str, Any], int, int, float]) -> None:
    name, encoder, options, size, parameters, thop = case
    counted = measure(built(name, encoder, **options), 1, size)
    assert counted.parameters == parameters
    assert counted.macs / 1e9 == pytest.approx(thop, rel=5e-4)


def test_thop_s_parameters_leave_out_what_thop_has_no_rule_for() -> None:
    """Subclasses of convolutions and norms: standardized ones, timm's norm-activations."""
    assert measure(built("stunet"), 1, 64).thop_parameters == 62_909_842
    assert measure(built("sfanet"), 1, 64).thop_parameters == 10_573_115


def similarity_attention(s_BNN: Tensor, v_BCN: Tensor) -> Tensor:
    """Attention as its definition says: weights of a row divided by their sum."""
    return torch.einsum("bnm,bcm->bcn", s_BNN / s_BNN.sum(2, keepdim=True), v_BCN)


def test_linear_attention_is_1_plus_cosine() -> None:
    torch.manual_seed(0)
    layer, x = LinearAttention(16), torch.randn(2, 16, 5, 6)
    layer.gamma.data.fill_(0.7)
    q, k, v = (f(x).flatten(2) for f in (layer.query, layer.key, layer.value))
    cosine = F.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=1)
    expected = 0.7 * similarity_attention(1 + cosine, v).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)
    layer.query.weight.data.zero_()
    layer.query.bias.data.zero_()
    assert layer(x).isfinite().all(), "a query of zero length divides by zero"


def test_kernel_attention_is_a_product_of_softpluses() -> None:
    torch.manual_seed(0)
    layer, x = KernelAttention(16), torch.randn(2, 16, 5, 6)
    torch.testing.assert_close(layer(x), x)
    layer.gamma.data.fill_(0.7)
    q, k, v = (f(x).flatten(2) for f in (layer.query, layer.key, layer.value))
    similarity = torch.einsum("bcn,bcm->bnm", F.softplus(q), F.softplus(k))
    expected = x + 0.7 * similarity_attention(similarity, v).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_channels_attend_most_to_the_least_alike() -> None:
    """Softmax of (row's maximum - E): the opposite channel wins, the channel itself loses."""
    x = torch.stack([torch.ones(3, 3), 2 * torch.ones(3, 3), -3 * torch.ones(3, 3)])[None]
    layer = ChannelAffinity()
    layer.gamma.data.fill_(1)
    expected = x + torch.tensor([-3.0, -3.0, 2.0])[None, :, None, None]
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [LinearAttention, KernelAttention, lambda _: ChannelAffinity()])
def test_attention_keeps_full_precision_under_autocast(kind: Any) -> None:
    """Sums over 4096 pixels: half floats would be off by far more than they are here."""
    torch.manual_seed(0)
    layer, x = kind(16), 0.1 * torch.randn(1, 16, 64, 64)
    layer.gamma.data.fill_(1)
    exact = layer(x) - x * (kind is not LinearAttention)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x) - x * (kind is not LinearAttention)
    assert (half - exact).abs().max() < 0.01 * exact.abs().max()


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_reflection_is_torch_s_and_goes_on_where_torch_s_ends(side: int) -> None:
    x = torch.randn(1, 2, side, side + 1)
    pads = (min(side - 1, 7), min(side, 7))
    expected = F.pad(x, (0, pads[1], 0, pads[0]), mode="reflect")
    assert torch.equal(reflect_pad(x, *pads), expected)
    far = reflect_pad(x, 7, 7)
    assert far.shape == (1, 2, side + 7, side + 8)
    period = max(1, 2 * (side - 1))
    assert torch.equal(far[:, :, period:], far[:, :, : side + 7 - period])


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (12, 12), (17, 32)])
@pytest.mark.parametrize("side", [1, 2, 3, 6, 16])
def test_exported_means_are_adaptive_pooling(
    size: tuple[int, int], side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 3, *size)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    torch.testing.assert_close(adaptive_mean(x, side), F.adaptive_avg_pool2d(x, side))


def test_windows_are_windows_and_come_back() -> None:
    x = torch.arange(2 * 16 * 16 * 24.0).reshape(2, 16, 16, 24)
    cut = to_windows(x, heads=4)
    assert cut.shape == (2 * 2 * 3, 4, 64, 4)
    corner = x[0, 4:8, 8:, 16:]  # second head, last window of the first image
    assert torch.equal(cut[5, 1].T.reshape(4, 8, 8), corner)
    assert torch.equal(from_windows(cut, x), x)


def test_relative_positions_are_swin_s() -> None:
    from timm.models.swin_transformer import get_relative_position_index

    assert torch.equal(relative_index(8), get_relative_position_index(8, 8))


@pytest.mark.parametrize(("side", "shifted"), [(16, True), (16, False), (8, True), (24, True)])
def test_shifted_windows_are_timm_s(side: int, shifted: bool) -> None:
    from timm.models.swin_transformer import SwinTransformerBlock

    torch.manual_seed(0)
    theirs = SwinTransformerBlock(
        12, (side, side), num_heads=3, window_size=8, shift_size=4 * shifted
    ).eval()
    ours = ShiftedWindowAttention(12, 3, shifted=shifted)
    nn.init.normal_(theirs.attn.relative_position_bias_table)
    ours.qkv.load_state_dict(theirs.attn.qkv.state_dict())
    ours.project.load_state_dict(theirs.attn.proj.state_dict())
    ours.table.data.copy_(theirs.attn.relative_position_bias_table)
    x = torch.randn(2, side, side, 12)
    torch.testing.assert_close(ours(x), theirs._attn(x), atol=1e-5, rtol=1e-4)


def test_sampled_deformable_convolution_is_torchvision_s() -> None:
    torch.manual_seed(0)
    layer, x = ModulatedDeformConv(4), torch.randn(2, 4, 7, 9)
    nn.init.normal_(layer.offset.weight)
    nn.init.normal_(layer.mask.weight)
    offset = layer.offset(x)
    assert offset.abs().max() > 5, "taps leave the map"
    sampled = layer.sampled(x, offset, torch.sigmoid(layer.mask(x)))
    torch.testing.assert_close(layer(x), sampled, atol=1e-5, rtol=1e-4)


def test_an_unmoved_deformable_convolution_is_half_a_convolution() -> None:
    torch.manual_seed(0)
    layer, x = ModulatedDeformConv(4), torch.randn(1, 4, 6, 5)
    for bias in (layer.offset.bias, layer.mask.bias):
        bias.data.zero_()
    expected = F.conv2d(x, layer.weight, padding=1) / 2
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_a_column_attends_to_itself_alone() -> None:
    torch.manual_seed(0)
    layer, x = LongRangeCorrelation(4), torch.randn(1, 4, 6, 5)
    changed = x.clone()
    changed[..., 0, 2] += 1
    for lines, order in ((layer.columns, (0, 3, 2, 1)), (layer.rows, (0, 2, 3, 1))):
        before, after = lines(x.permute(order))[0], lines(changed.permute(order))[0]
        moved = (before - after).abs().sum((0, 3)) > 0
        line = 2 if lines is layer.columns else 0
        assert moved[line].all()
        assert moved.sum() == moved.shape[1]


def test_slcnet_tells_its_attention_in_training_and_it_can_be_supervised() -> None:
    torch.manual_seed(0)
    model = build(
        ModelConfig(name="slcnet", encoder=EncoderConfig(name="mobilenetv3_small_100")), 3
    )
    x, mask = torch.randn(2, 3, 32, 64), torch.randint(0, 3, (2, 32, 64))
    out = model.train()(x)
    shapes = [tuple(r.shape) for r in out.relations]
    expected = [((2, 64 // s, 32 // s, 32 // s), (2, 32 // s, 64 // s, 64 // s)) for s in STRIDES]
    assert shapes == [shape for pair in expected for shape in pair]
    for weights in out.relations:
        torch.testing.assert_close(weights.sum(3), torch.ones(weights.shape[:3]))
    plain, supervised = (
        Supervised(ObjectiveConfig(relation=weight)).compare(out, {"mask": mask})
        for weight in (0.0, 10.0)
    )
    assert "relation" not in plain[1]
    gap = 10 * relation(out.relations, mask)
    torch.testing.assert_close(supervised[0] - plain[0], gap)
    gap.backward()
    assert model.get_submodule("correlations.0.rows.query").weight.grad.abs().max() > 0
    assert model.eval()(x).relations == ()


def test_relation_written_out() -> None:
    """A column of three pixels, classes 0 0 1, then the last one void."""
    target, even = torch.tensor([0, 0, 1])[None, :, None], torch.full((1, 1, 3, 3), 1 / 3)
    alike = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]).softmax(1)
    assert relation([even], target) == pytest.approx(float((alike - 1 / 3).abs().mean()))
    assert relation([alike[None, None]], target) == pytest.approx(0, abs=1e-7)
    row = torch.full((1, 3, 1, 1), 1.0)  # three rows of one pixel: nothing to be unlike
    assert relation([even, row], target) == relation([even], target)
    void = torch.tensor([0, 0, 255])[None, :, None]
    two = (alike[:2, :2] - 1 / 3).abs().mean()
    assert relation([even], void) == pytest.approx(float(two))
    assert relation([even], torch.full_like(void, 255)) == 0
