"""The networks that SAM2MS compares with: sizes, what their papers say, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from terradapt.complexity import ROAD_BASELINES, build_on_meta, measure
from terradapt.config import EncoderConfig, ModelConfig, ObjectiveConfig
from terradapt.errors import CheckpointError, ConfigError
from terradapt.losses.connectivity import connectivity, connectivity_targets
from terradapt.models import MODELS, build, default_config
from terradapt.models.baselines.m2snet import WindowDifference
from terradapt.models.baselines.msmdffnet import Strips, rotate, shear, unshear
from terradapt.models.baselines.sgcnnet import GraphConvolutions, gradients
from terradapt.models.baselines.swinunet import Expand
from terradapt.models.contract import SegmentationModel
from terradapt.training.objectives import Structure, Supervised

SWIN = "swin_tiny_patch4_window7_224"
COUNTS = {  # parameters, thop's parameters, thop's GMACs: one logit, 1 x 3 x 1024 x 1024
    "unet": (31_037_633, 31_037_633, 875.8042),
    "unet++": (47_182_788, 47_182_788, 3197.5696),
    "d-linknet": (217_645_089, 217_645_089, 481.2502),
    "msnet": (27_692_329, 27_692_329, 143.9051),
    "m2snet": (27_692_585, 27_692_585, 144.4126),
    "seg-road": (28_684_479, 28_684_479, 314.4107),
    "swin-unet": (27_175_524, 27_145_824, 123.5879),
    "sgcnnet": (42_726_273, 42_726_273, 1234.3764),
    "msmdffnet": (39_256_881, 39_256_881, 603.2041),
}
OTHER_COUNTS = [
    ("d-linknet", "resnet34", {"dilations": [1, 2, 4, 8]}, (31_096_129, 134.347)),
    ("msmdffnet", "own", {"decoder": "rotation"}, (39_256_881, 598.4076)),
    ("msmdffnet", "own", {"init": "shear", "decoder": "rotation"}, (39_256_881, 598.5207)),
    ("msmdffnet", "own", {"init": "shear"}, (39_256_881, 603.3171)),
    ("sgcnnet", "own", {"graph": "release"}, (42_726_273, 1234.3764)),
    ("swin-unet", SWIN, {"window": 16}, (27_175_524 + 29_700 * 961 // 225 - 29_700, 124.409)),
]


def make(name: str, encoder: str, classes: int = 2, **options: Any) -> SegmentationModel:
    torch.manual_seed(0)
    config = ModelConfig(name=name, encoder=EncoderConfig(name=encoder), options=options)
    return build(config, classes)


def whole(model: SegmentationModel) -> SegmentationModel:
    """Let a model be counted with what it runs in training only, as the papers' tool sees it."""
    model.training_only = ()
    model.eval = model.train  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_published_code(name: str) -> None:
    """The papers' tables; two classes are one logit here, so nothing is to be subtracted."""
    parameters, seen, gmacs = COUNTS[name]
    model = build_on_meta(default_config(name), 2)
    found = measure(whole(model) if model.training_only else model, 1, 1024)
    assert (found.parameters, found.thop_parameters) == (parameters, seen)
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=1e-3)


def test_the_registry_s_road_baselines_are_those_counted() -> None:
    assert set(COUNTS) == set(ROAD_BASELINES)


@pytest.mark.parametrize(("name", "encoder", "options", "counts"), OTHER_COUNTS)
def test_other_published_forms(
    name: str, encoder: str, options: dict[str, Any], counts: tuple[int, float]
) -> None:
    config = ModelConfig(name=name, encoder=EncoderConfig(name=encoder), options=options)
    found = measure(build_on_meta(config, 2), 1, 1024)
    assert found.parameters == counts[0]
    assert found.macs / 1e9 == pytest.approx(counts[1], rel=1e-3)


def test_seg_road_predicts_without_its_branches() -> None:
    """The branches of 9 logits: 768 -> 64 -> 9 and a gate of 9 -> 3 -> 9, twice."""
    model = build_on_meta(default_config("seg-road"), 2)
    branches = 2 * (768 * 64 * 9 + 64 + 64 * 9 * 9 + 9 + 2 * 27)
    assert measure(model, 1, 1024).parameters == COUNTS["seg-road"][0] - branches


@pytest.mark.parametrize("name", [n for n in COUNTS if not MODELS[n].binary])
def test_more_classes_have_a_logit_each(name: str) -> None:
    config = default_config(name)
    with torch.device("meta"):
        two, five = build(config, 2), build(config, 5)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (two, five)]
    heads = 4 if name == "unet++" else 1
    assert (sizes[1] - sizes[0]) % (4 * heads) == 0
    logits = five.eval()(torch.empty(1, 3, 64, 64, device="meta")).logits
    assert logits.shape == (1, 5, 64, 64)


@pytest.mark.parametrize("name", ["unet", "msmdffnet", "sgcnnet"])
def test_any_encoder_but_its_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="encoder 'resnet18'") as caught:
        make(name, "resnet18")
    assert "own" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "encoder", "told"),
    [
        ("msnet", "mobilenetv3_small_100", "64 channels at stride 2"),
        ("m2snet", "convnext_atto", "convnext_atto"),
        ("msnet", "mit_b0", "not .2, 4"),
        ("msnet", "sam2_hiera_tiny", "not .2, 4"),
        ("swin-unet", "resnet18", "resnet18"),
        ("swin-unet", "swin_none", "swin_none"),
        ("d-linknet", "own", "encoder 'own'"),
    ],
)
def test_encoders_that_do_not_fit_are_told(name: str, encoder: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        make(name, encoder)
    assert caught.value.fix


def test_seg_road_is_for_two_classes() -> None:
    with pytest.raises(ConfigError, match="3 classes"):
        make("seg-road", "mobilenetv3_small_100", 3)


def test_unet_answers_the_mean_of_four_heads_and_can_show_them() -> None:
    model = make("unet++", "own", width=4, deep_supervision=True)
    x = torch.randn(2, 3, 32, 32)
    out = model.train()(x)
    assert len(out.aux) == 4
    torch.testing.assert_close(torch.stack(out.aux).mean(0), out.logits)
    assert model.eval()(x).aux == ()
    assert make("unet++", "own", width=4).train()(x).aux == ()


def test_window_differences_are_convolutions_with_ones() -> None:
    torch.manual_seed(0)
    module = WindowDifference().train()
    a, b = torch.randn(2, 64, 7, 9), torch.randn(2, 64, 7, 9)
    wanted = (a - b).abs()
    for kernel in (3, 5):
        ones = torch.ones(64, 64, kernel, kernel)
        p, q = (
            F.batch_norm(F.conv2d(m, ones, padding=kernel // 2), None, None, training=True).relu()
            for m in (a, b)
        )
        wanted = wanted + (p - q).abs()
    torch.testing.assert_close(module(a, b), wanted, atol=1e-4, rtol=1e-4)


def test_window_sums_stay_in_float32() -> None:
    module = WindowDifference().eval()
    a = torch.full((1, 64, 8, 8), 2000.0, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = module(a, torch.zeros_like(a))
    assert out.dtype == torch.float32
    assert out[0, 0, 4, 4] == pytest.approx(2000 + 2000 * 64 * (9 + 25) / (1 + 1e-5) ** 0.5)


def test_msnet_s_equal_maps_leave_nothing() -> None:
    model = make("m2snet", "resnet18").eval()
    a = torch.randn(1, 64, 8, 8)
    assert not model.get_submodule("difference")(a, a).any()


def test_gradients_are_sobel_s() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8, 9)
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    for found, k in zip(gradients(x), (kernel, kernel.T), strict=True):
        wanted = F.conv2d(x, k.expand(5, 1, 3, 3), padding=1, groups=5).abs()
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("over", ["channels", "positions"])
def test_graph_layers_are_the_written_formula(over: Any) -> None:
    torch.manual_seed(0)
    module = GraphConvolutions(6, over, "paper").eval()
    x = torch.randn(2, 6, 4, 5)
    a = module.adjacency(x)
    torch.testing.assert_close(a.sum(2), torch.ones(2, a.shape[1]))
    hat = a + torch.eye(a.shape[1])
    scale = torch.diag_embed(hat.sum(2).rsqrt())
    hat = scale @ hat @ scale
    weights = [layer.weight[:, :, 0, 0] for layer in module.layers]
    nodes = x.flatten(2) if over == "channels" else x.flatten(2).transpose(1, 2)
    for index, weight in enumerate(weights):
        nodes = hat @ nodes
        nodes = weight @ nodes if over == "channels" else nodes @ weight.T
        nodes = nodes if index == 2 else nodes.relu()
    wanted = nodes if over == "channels" else nodes.transpose(1, 2)
    torch.testing.assert_close(module(x).flatten(2), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("over", ["channels", "positions"])
def test_the_release_s_graph_of_one_image_knows_no_image(over: Any) -> None:
    release = GraphConvolutions(6, over, "release")
    x = torch.randn(1, 6, 4, 5)
    assert torch.equal(release.adjacency(x), torch.ones_like(release.adjacency(x)))
    pair = torch.cat([x, 3 * x])
    assert not torch.allclose(release.adjacency(pair)[0], release.adjacency(x)[0])
    paper = GraphConvolutions(6, over, "paper")
    torch.testing.assert_close(paper.adjacency(pair)[:1], paper.adjacency(x))


def test_only_the_paper_s_adjacency_has_a_gradient() -> None:
    x = torch.randn(1, 6, 4, 5, requires_grad=True)
    assert GraphConvolutions(6, "channels", "paper").adjacency(x).requires_grad
    assert not GraphConvolutions(6, "channels", "release").adjacency(x).requires_grad


@pytest.mark.parametrize(("height", "width"), [(6, 6), (4, 7), (7, 4)])
def test_shear_moves_row_r_by_r(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width)
    moved = shear(x)
    assert moved.shape == (2, 3, height, width + height - 1)
    for row in range(height):
        assert torch.equal(moved[:, :, row, row : row + width], x[:, :, row])
    assert moved.count_nonzero() == x.count_nonzero()
    assert torch.equal(unshear(moved), x)


@pytest.mark.parametrize("degrees", [45, 90, 135, -45])
@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_rotation_is_torchvision_s(degrees: float, size: tuple[int, int]) -> None:
    vision = pytest.importorskip("torchvision.transforms.v2.functional")
    x = torch.randn(2, 3, *size)
    wanted = vision.rotate(x, degrees, vision.InterpolationMode.BILINEAR)
    torch.testing.assert_close(rotate(x, degrees), wanted, atol=1e-4, rtol=1e-4)


def seen(strips: Strips) -> list[set[tuple[int, int]]]:
    """Return where an impulse in the middle is answered, for the four directions."""
    for layer in strips.convs:
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.zeros(1, 1, 21, 21)
    x[0, 0, 10, 10] = 1
    with torch.no_grad():
        maps = strips(x)
    return [{(int(r) - 10, int(c) - 10) for r, c in (m[0, 0] > 0.2).nonzero()} for m in maps]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12)])
def test_strided_strips_are_every_second_pixel(height: int, width: int) -> None:
    torch.manual_seed(0)
    two, one = Strips(3, 2, 2, "shear", True), Strips(3, 2, 1, "shear", True)
    two.load_state_dict(one.state_dict())
    x = torch.randn(1, 3, height, width)
    for half, full in zip(two(x)[:3], one(x)[:3], strict=True):
        torch.testing.assert_close(half, full[..., ::2, ::2])
    # a mirrored map counts its pixels from the other side
    torch.testing.assert_close(two(x)[3], one(x)[3].flip(3)[..., ::2, ::2].flip(3))


def test_strips_look_in_their_directions() -> None:
    k = range(-4, 5)
    across, down, *same = seen(Strips(1, 1, 1, "shear", False))
    assert (across, down) == ({(0, i) for i in k}, {(i, 0) for i in k})
    assert same == [{(i, -i) for i in k}] * 2  # the release's slip
    assert seen(Strips(1, 1, 1, "shear", True))[2:] == [
        {(i, -i) for i in k},
        {(i, i) for i in k},
    ]
    first, second = seen(Strips(1, 1, 1, "rotation", False))[2:]
    assert {(1, 1), (2, 2), (-2, -2)} <= first or {(1, 1), (2, 2), (-2, -2)} <= second
    assert {(1, -1), (2, -2), (-2, 2)} <= first or {(1, -1), (2, -2), (-2, 2)} <= second


def test_expand_puts_rows_before_columns() -> None:
    expand = Expand(4, 1, 2)
    expand.norm = nn.Identity()  # type: ignore[assignment]
    nn.init.eye_(expand.linear.weight)
    out = expand(torch.arange(4.0).reshape(1, 1, 1, 4))
    assert out[0, :, :, 0].tolist() == [[0, 1], [2, 3]]


def test_swin_s_weights_go_into_encoder_and_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = timm.create_model(SWIN)
    for parameter in body.parameters():
        nn.init.normal_(parameter)
    path = tmp_path / "swin.safetensors"
    save_file({k: v.contiguous() for k, v in body.state_dict().items()}, path)
    config = ModelConfig(
        name="swin-unet", encoder=EncoderConfig(name=SWIN, weights=str(path)), options={"window": 7}
    )
    model = build(config, 2)
    own = model.encoder.get_submodule("body").state_dict()
    assert all(torch.equal(v, body.state_dict()[k]) for k, v in own.items())
    mirrored = model.get_submodule("stages.0.blocks").state_dict()
    assert all(torch.equal(v, body.layers[2].blocks.state_dict()[k]) for k, v in mirrored.items())
    eight = build(config.model_copy(update={"options": {}}), 2)
    name = "encoder.body.layers.2.blocks.1.attn.relative_position_bias_table"
    table = eight.get_parameter(name)
    assert table.shape == (15 * 15, 12)
    corners = table.reshape(15, 15, 12)[7, 7]  # the middle stays the middle
    torch.testing.assert_close(
        corners,
        body.layers[2].blocks[1].attn.relative_position_bias_table.reshape(13, 13, 12)[6, 6],
    )


def test_another_network_s_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), path)
    config = ModelConfig(name="swin-unet", encoder=EncoderConfig(name=SWIN, weights=str(path)))
    with pytest.raises(CheckpointError, match=r"weight 'patch_embed.proj.weight' is missing"):
        build(config, 2)


def test_swin_recomputes_to_the_same_gradients() -> None:
    x = torch.randn(1, 3, 64, 64)
    grads = []
    for again in (False, True):
        torch.manual_seed(0)
        encoder = EncoderConfig(name=SWIN, checkpointing=again)
        model = build(ModelConfig(name="swin-unet", encoder=encoder), 2).eval()
        model(x).logits.square().mean().backward()
        grads.append(model.encoder.get_parameter("body.patch_embed.proj.weight").grad)
    torch.testing.assert_close(*grads)


def test_connectivity_of_a_road() -> None:
    target = torch.zeros(1, 9, 9, dtype=torch.int64)
    target[0, 4] = 1  # a road across
    target[0, 0, 0] = 255
    truth, known = connectivity_targets(target, 2)
    assert truth.shape == known.shape == (1, 9, 9, 9)
    road = truth[0, :, 4].sum(1).tolist()  # neighbours up left, up, .. down right
    assert road == [0, 0, 0, 7, 9, 7, 0, 0, 0]
    assert truth[0, :, :4].sum() == truth[0, :, 5:].sum() == 0
    assert not known[0, :, 0, 0].any()
    assert known.sum() == 9 * 80  # what is no road is connected to nothing, even beside a 255


def test_connectivity_beside_what_is_ignored_is_not_known() -> None:
    target = torch.ones(1, 5, 5, dtype=torch.int64)
    target[0, 2, 2] = 255
    _, known = connectivity_targets(target, 2)
    assert not known[0, :, 2, 2].any()
    assert not known[0, 8, 0, 0]  # its neighbour down right is the ignored one
    assert known[0, 0, 0, 0]  # outside is no road
    assert known.sum() == 9 * 24 - 8


def test_connectivity_is_the_weighted_mean_of_two_bces() -> None:
    target = torch.randint(0, 2, (2, 8, 8))
    near, far = torch.randn(2, 9, 8, 8), torch.randn(2, 9, 8, 8)
    bce = F.binary_cross_entropy_with_logits
    wanted = 0.4 * bce(near, connectivity_targets(target, 2)[0])
    wanted += 0.6 * bce(far, connectivity_targets(target, 4)[0])
    torch.testing.assert_close(connectivity((near, far), target), wanted)
    nothing = connectivity((near, far), torch.full((2, 8, 8), 255))
    assert nothing == 0


@pytest.mark.parametrize("kind", [Supervised, Structure])
def test_objectives_train_seg_road_s_branches(kind: Any) -> None:
    model = make("seg-road", "mobilenetv3_small_100", embed=16).train()
    batch = {"image": torch.randn(2, 3, 64, 64), "mask": torch.randint(0, 2, (2, 64, 64))}
    loss, logs = kind(ObjectiveConfig())(model, batch)
    loss.backward()
    assert logs["connectivity"] > 0
    assert all(p.grad is not None for p in model.get_submodule("far").parameters())
    _, off = kind(ObjectiveConfig(connectivity=0.0))(model, batch)
    assert off["connectivity"] == 0
