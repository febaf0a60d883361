"""The last convolution, refitted: what is corrected changes, the rest stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export_files import small
from scene_files import PlainPredictor
from terradapt import checkpoint
from terradapt.errors import ConfigError
from terradapt.predictors.torch import TorchPredictor, normalize_tensor
from terradapt.training.refitting import HeadView, refit, save_refitted


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_corrected_pixels_learn_their_class_and_the_others_keep_their_answers(
    bias: bool, rows: int
) -> None:
    draw = torch.Generator().manual_seed(0)
    ground = torch.randint(0, 4, (4000,), generator=draw)
    features = torch.nn.functional.one_hot(ground, 4).float() * 3 + 5
    features += 0.3 * torch.randn(features.shape, generator=draw)
    weight = torch.tensor([[-2.0, -2, 2, 2]]) if rows == 1 else torch.eye(4)[[0, 1, 2]] * 3
    given = torch.zeros(rows) if bias else None
    before = _classes(features, weight, given)
    ids = torch.full((4000,), 255)
    wrong = ground == 3
    ids[torch.nonzero(wrong)[:40, 0]] = 0  # ground 3 was no class, or class 1
    new, shift = refit(features[:3000], ids[:3000], weight, given)
    after = _classes(features, new, shift)
    assert (shift is not None) == bias
    assert (before[wrong] == 0).float().mean() < 0.9
    # what else is of that ground keeps its answer as a wish: the corrected pixels outweigh it
    right = ground < 3
    assert (after[right] == before[right]).float().mean() > 0.99
    again, _ = refit(features[:3000], ids[:3000], weight, given)
    assert torch.equal(new, again)


def test_few_mistakes_on_ground_that_is_mostly_right_do_not_turn_the_rest() -> None:
    draw = torch.Generator().manual_seed(1)
    features = torch.randn((20_000, 8), generator=draw)
    weight = torch.zeros((2, 8))
    weight[1, 0] = 2.0
    before = _classes(features, weight, torch.zeros(2))
    ids = torch.full((20_000,), 255)
    ids[:40] = 1 - before[:40]  # mistakes that no feature tells from right ground
    light, shift = refit(features, ids, weight, torch.zeros(2))
    heavy, moved = refit(features, ids, weight, torch.zeros(2), keep=16.0)
    same = [
        (_classes(features, *w) == before).float().mean() for w in ((light, shift), (heavy, moved))
    ]
    assert same[0] < 0.8
    assert same[1] > 0.97


def _classes(
    features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    z = features @ weight.T + (0 if bias is None else bias)
    return (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)


@pytest.mark.parametrize("name", ["kd-arafnet", "sam2-unet", "smp-unet"])
def test_features_below_the_last_convolution_give_the_models_own_logits(
    tmp_path: Path, name: str
) -> None:
    net, meta = small(name)
    view = HeadView(TorchPredictor(net, meta.classes, meta.spec, 128, meta=meta))
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    below = view.see(image, 64)
    rows, cols = np.random.default_rng(1).integers(0, 64, (2, 200))
    features = view.features(below, 64, rows, cols)
    assert features.shape == (200, view.head.length)
    x = normalize_tensor(torch.from_numpy(image[None]), meta.spec)
    with torch.no_grad():
        own = net.eval()(x).logits[0][:, rows, cols].T
    start = tmp_path / "a.safetensors"
    checkpoint.save(start, net, meta)
    taught = np.where(np.arange(200) < 100, 1, 255).astype(np.uint8)
    save_refitted(view, start, tmp_path / "b.safetensors", features, taught)
    other, said = checkpoint.load(tmp_path / "b.safetensors")
    changed = {k for k, v in other.state_dict().items() if not torch.equal(v, net.state_dict()[k])}
    assert {k.rpartition(".")[0] for k in changed} == {view.head.name}
    assert said.start is not None and said.classes == meta.classes
    with torch.no_grad():
        after = other(x).logits[0][:, rows, cols].T
    cost = [
        torch.nn.functional.cross_entropy(z[:100], torch.ones(100).long()) for z in (own, after)
    ]
    assert cost[1] < cost[0]
    kept = [z[100:].softmax(1) for z in (own, after)]
    assert (kept[0] - kept[1]).abs().mean() < 0.5


def test_a_model_that_is_no_torch_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="exported"):
        HeadView(PlainPredictor())
