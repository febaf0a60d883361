"""Contracts over the registry: what every model keeps, whatever its paper."""

from __future__ import annotations

import io

import pytest
import torch

from terradapt.config import EncoderConfig, ModelConfig
from terradapt.errors import ConfigError
from terradapt.models import MODELS, OWN_ENCODER, build, build_on_meta, default_config, entry
from terradapt.models.contract import Prediction, SegmentationModel, two_classes

SMALL = "mobilenetv3_small_100"
SWIN = "swin_tiny_patch4_window7_224"
TAKEN = {"msnet": "resnet18", "m2snet": "resnet18", "swin-unet": SWIN}
"""Models that do not take every backbone, and one that they take."""
NARROW = {"unet": {"width": 8}, "unet++": {"width": 8}}
DEFAULTS = {
    name: OWN_ENCODER if line.encoder == OWN_ENCODER else TAKEN.get(name, SMALL)
    for name, line in MODELS.items()
}
CASES = [
    *DEFAULTS.items(),
    ("kd-arafnet", "mit_b0"),
    ("smp-unet", "mit_b0"),
    ("kd-arafnet", "resnet18"),
]
CASES += [(name, "sam2_hiera_tiny") for name in ("sam2-arafnet", "sam2ms", "sam2-unet", "siamese")]


def make(
    name: str, encoder: str, classes: int | None = None, **config: object
) -> SegmentationModel:
    torch.manual_seed(0)
    classes = classes or (2 if entry(name).binary else 5)
    values = {"name": name, "encoder": {"name": encoder}, "options": NARROW.get(name, {})}
    values |= {"in_channels": 3 * entry(name).dates, **config}
    return build(ModelConfig.model_validate(values), classes)


@pytest.fixture(params=CASES, ids="-".join, scope="module")
def model(request: pytest.FixtureRequest) -> SegmentationModel:
    return make(*request.param)


def test_registry_holds_the_issue_s_models() -> None:
    assert {"sam2-arafnet", "kd-arafnet", "sam2ms", "sam2-unet"} <= set(MODELS)


def test_a_model_can_be_built_without_storage(model: SegmentationModel) -> None:
    """As a checkpoint's is, to compare its names before anything is allocated."""
    shell = build_on_meta(model.config, model.num_classes).state_dict()
    assert {k: v.shape for k, v in shell.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert {v.device.type for v in shell.values()} == {"meta"}


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 64), (3, 64, 32)])
def test_logits_have_the_input_s_size(
    model: SegmentationModel, batch: int, height: int, width: int
) -> None:
    model.eval()
    with torch.no_grad():
        out = model(torch.randn(batch, model.config.in_channels, height, width))
    assert isinstance(out, Prediction)
    assert out.logits.shape == (batch, model.num_classes, height, width)
    assert out.aux == ()
    shapes = [(f.shape[2], f.shape[3]) for f in out.features]
    dilated = {"pspnet": (4, 8, 8, 8), "smp-deeplabv3plus": (4, 8, 16, 16)}
    strides = dilated.get(model.config.name, (4, 8, 16, 32))
    own = model.config.name in ("unet", "unet++", "sgcnnet", "msmdffnet")
    assert shapes == ([] if own else [(height // s, width // s) for s in strides])
    assert out.connectivity == ()


def test_backward_reaches_every_trainable_parameter_and_no_frozen_one(
    model: SegmentationModel,
) -> None:
    model.train()
    model.zero_grad(set_to_none=True)
    out = model(torch.randn(2, model.config.in_channels, 64, 64))
    further = (*out.aux, *out.connectivity)
    loss = sum((m.square().mean() for m in further), out.logits.square().mean())
    loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_auxiliary_logits_in_training_only_and_at_full_size(model: SegmentationModel) -> None:
    model.train()
    out = model(torch.randn(2, model.config.in_channels, 64, 64))
    assert all(m.shape == out.logits.shape for m in out.aux)
    expected = {"sam2-arafnet": 1, "sam2-unet": 2, "pspnet": 1, "bisenet": 2}
    expected |= {"unetformer": 1, "sfanet": 1, "slcnet": 4}
    assert len(out.aux) == expected.get(model.config.name, 0)


def test_parameter_groups_partition_the_trainable_parameters(model: SegmentationModel) -> None:
    groups = model.parameter_groups()
    assert list(groups) == ["backbone", "decoder"]
    ids = [id(p) for group in groups.values() for p in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters() if p.requires_grad}
    inside = {id(p) for p in model.encoder.parameters()}
    assert {id(p) for p in groups["backbone"]} <= inside
    assert not {id(p) for p in groups["decoder"]} & inside


def test_state_dict_round_trip_gives_equal_logits(model: SegmentationModel) -> None:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    twin = build(model.config, model.num_classes)
    twin.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(1, model.config.in_channels, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x).logits, twin.eval()(x).logits)


def test_images_of_a_batch_do_not_meet(model: SegmentationModel) -> None:
    x = torch.randn(2, model.config.in_channels, 64, 64)
    with torch.no_grad():
        both, one = model.eval()(x).logits, model(x[1:]).logits
    torch.testing.assert_close(both[1:], one, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_four_bands(name: str) -> None:
    bands = 4 * entry(name).dates
    model = make(name, DEFAULTS[name], in_channels=bands).eval()
    with torch.no_grad():
        assert model(torch.randn(1, bands, 32, 32)).logits.shape[2:] == (32, 32)


@pytest.mark.parametrize("classes", [2, 3, 17])
def test_any_number_of_classes(classes: int) -> None:
    model = make("kd-arafnet", SMALL, classes).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 32)).logits.shape[1] == classes


def test_two_classes_is_the_sigmoid() -> None:
    z = torch.randn(2, 1, 3, 4)
    torch.testing.assert_close(two_classes(z).softmax(1)[:, 1:], z.sigmoid())


@pytest.mark.parametrize("name", MODELS)
def test_default_config_is_on_the_paper_s_encoder(name: str) -> None:
    config = default_config(name)
    assert config.name == name
    assert config.encoder.name == MODELS[name].encoder


@pytest.mark.parametrize(
    ("config", "classes", "told"),
    [
        ({"name": "segnet"}, 3, "segnet"),
        ({"name": "sam2ms"}, 3, "3 classes"),
        ({"name": "kd-arafnet"}, 1, "1 classes"),
        ({"options": {"colour": 1}}, 3, "colour"),
        ({"options": {"fusion": "none"}}, 3, "low_path"),
        ({"encoder": {"name": "resnet1"}}, 3, "resnet1"),
        ({"name": "pspnet", "encoder": {"name": "vit_tiny_patch16_224"}}, 3, "strides"),
        ({"name": "siamese", "in_channels": 3}, 2, "two dates"),
        ({"encoder": {"name": SMALL, "args": {"colour": 1}}}, 3, "colour"),
        ({"name": "smp-unet", "encoder": {"name": SMALL, "args": {"colour": 1}}}, 3, "colour"),
        ({"name": "smp-unet", "encoder": {"name": "sam2_hiera_tiny"}}, 3, "sam2_hiera_tiny"),
        ({"name": "smp-upernet", "options": {"decoder_channels": 0}}, 3, "decoder_channels"),
        ({"name": "smp-deeplabv3plus", "encoder": {"name": SWIN}}, 3, SWIN),
        ({"name": "smp-fpn", "options": {"decoder_segmentation_channels": 20}}, 3, "multiple"),
        ({"name": "stunet"}, 3, "efficientnet_b0"),
        ({"name": "stunet", "encoder": {"name": "own", "weights": "hub"}}, 3, "weights"),
        ({"name": "unetformer", "encoder": {"name": "own"}}, 3, "'own'"),
        ({"name": "unetformer", "options": {"width": 32}}, 3, "width"),
        ({"name": "slcnet", "encoder": {"name": "convnext_atto"}}, 3, "strides"),
        ({"name": "slcnet", "encoder": {"name": "mit_b0"}}, 3, "strides"),
        ({"name": "pspnet", "encoder": {"name": "sam2_hiera_tiny"}}, 3, "strides"),
        ({"name": "pspnet", "options": {"output_stride": 4}}, 3, "output_stride"),
    ],
)
def test_wrong_configs_are_told(config: dict[str, object], classes: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        build(ModelConfig.model_validate(config), classes)
    assert caught.value.fix


def test_model_knows_the_config_it_was_built_with() -> None:
    config = ModelConfig(encoder=EncoderConfig(name=SMALL))
    assert build(config, 3).config == config


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("smp-unet", "Unet"),
        ("smp-upernet", "UPerNet"),
        ("smp-deeplabv3plus", "DeepLabV3Plus"),
        ("smp-segformer", "Segformer"),
        ("smp-fpn", "FPN"),
    ],
)
def test_baselines_equal_smp_s_own(name: str, theirs: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    ours = make(name, SMALL, 4).eval()
    net = getattr(smp, theirs)(f"tu-{SMALL}", encoder_weights=None, classes=4).eval()
    net.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).logits, net(x))


@pytest.mark.parametrize("signed", [False, True])
def test_equal_dates_differ_in_nothing_and_turned_ones_as_the_option_says(signed: bool) -> None:
    model = make("siamese", SMALL, 2, options={"signed": signed}).eval()
    first, second = torch.randn(2, 1, 3, 64, 64).unbind(0)
    with torch.no_grad():
        same = model(torch.cat([first, first], 1)).logits
        other = model(torch.cat([second, second], 1)).logits
        there = model(torch.cat([first, second], 1)).logits
        back = model(torch.cat([second, first], 1)).logits
    torch.testing.assert_close(same, other)
    assert torch.allclose(there, back, atol=1e-5) is not signed
