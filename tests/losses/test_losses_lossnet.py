"""Lossnet: taps, forms, weight files."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from terradapt.config import LossNetConfig
from terradapt.errors import CheckpointError
from terradapt.losses.lossnet import LossNet

FORMS = [("resnet50", "paper"), ("resnet50", "release"), ("vgg16", "paper")]
SLOW = pytest.param(("vgg16", "release"), marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[*FORMS, SLOW], ids="-".join)
def net(request: pytest.FixtureRequest) -> LossNet:
    torch.manual_seed(0)
    name, form = request.param
    return LossNet(LossNetConfig(name=name, form=form, weights="random"))


def example(side: int = 64, batch: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = (torch.rand(batch, side, side, generator=generator) < 0.3).long()
    target[:, :4] = 255
    return torch.randn(batch, 2, side, side, generator=generator), target


def test_frozen_in_evaluation_and_gradient_reaches_the_prediction(net: LossNet) -> None:
    net.train()
    assert not any(m.training for m in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    logits, target = example()
    logits.requires_grad_(True)
    net(logits, target).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert float(logits.grad.abs().max()) > 0
    assert not logits.grad[:, :, :4].any()  # ignored rows
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_right_prediction_costs_nothing_and_a_worse_one_more(net: LossNet) -> None:
    _, target = example()
    right = 50.0 * F.one_hot(target.where(target != 255, 0), 2).permute(0, 3, 1, 2).float()
    losses = [float(net(scale * right, target)) for scale in (1, 0.04, 0.0)]
    assert losses[0] < 1e-4
    assert losses[0] < losses[1] < losses[2]


def test_taps(net: LossNet) -> None:
    x = torch.randn(1, 3, 64, 64)
    taps = net.net(x)
    shapes = [(t.shape[1], 64 // t.shape[2]) for t in taps]
    if len(taps) == 4:
        assert shapes == [(64, 1), (128, 2), (256, 4), (512, 8)]
        assert all(float(t.min()) >= 0 for t in taps)
    elif net.form == "paper":
        assert shapes == [(64, 2), (256, 4), (512, 8), (1024, 16), (2048, 32)]
        assert all(float(t.min()) >= 0 for t in taps)
    else:
        assert shapes == [(64, 2), (64, 2), (64, 4), (256, 4), (512, 8)]
        assert float(taps[0].min()) < 0
        assert float(taps[1].min()) < 0  # before the ReLU


def by_hand(net: LossNet, logits: Tensor, target: Tensor) -> Tensor:
    """The loss from timm's own modules, written out."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    truth = (target == 1).float()
    p = torch.where(target == 255, truth, (logits[:, 1] - logits[:, 0]).sigmoid())
    images = [m[:, None].repeat(1, 3, 1, 1) for m in (p, truth)]
    if net.form == "release":
        images = [F.interpolate(i, (224, 224), mode="bilinear") for i in images]
    found, wanted = (net.net((i - mean) / std) for i in images)
    total = torch.zeros(())
    for a, b in zip(found, wanted, strict=True):
        if net.form == "release":
            total = total + 0.1 * ((a - b) ** 2).mean()
        else:
            per_image = [(a[i] - b[i]).norm() / a[i].numel() ** 0.5 for i in range(len(a))]
            total = total + torch.stack(per_image).mean()
    return total


def test_loss_is_the_formula(net: LossNet) -> None:
    logits, target = example(batch=2)
    with torch.no_grad():
        torch.testing.assert_close(
            net(logits, target), by_hand(net, logits, target), rtol=1e-4, atol=1e-5
        )


def test_paper_form_does_not_grow_with_the_image() -> None:
    torch.manual_seed(0)
    net = LossNet(LossNetConfig(weights="random"))
    values = []
    for side in (64, 128):
        logits, target = example(side)
        values.append(float(net(logits, target)))
    assert values[1] == pytest.approx(values[0], rel=0.3)


def test_weight_option_scales() -> None:
    logits, target = example()
    values = []
    for weight in (None, 0.5):
        torch.manual_seed(0)
        net = LossNet(LossNetConfig(weights="random", weight=weight))
        values.append(float(net(logits, target)))
    assert values[1] == pytest.approx(0.5 * values[0], rel=1e-5)


def test_local_weights_load_or_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(4)
    source = timm.create_model("resnet50")
    path = tmp_path / "resnet50.safetensors"
    save_file(source.state_dict(), path)
    net = LossNet(LossNetConfig(weights=str(path)))
    own = net.net.state_dict()
    assert all(torch.equal(own[k], source.state_dict()[k]) for k in own)
    save_file(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(CheckpointError, match=r"resnet50\.safetensors"):
        LossNet(LossNetConfig(weights=str(path)))
