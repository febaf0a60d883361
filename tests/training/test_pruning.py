from __future__ import annotations

import pytest
import torch
from torch import nn

from export_files import small
from terradapt.errors import ConfigError
from terradapt.training.pruning import ATTENTIONS, LAYERS, channel_energy, narrow, strengths

IMAGE = (1, 3, 64, 64)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.rand(IMAGE, generator=torch.Generator().manual_seed(1))).logits


def test_the_same_width_is_the_same_model() -> None:
    model, _ = small(width=16)
    torch.testing.assert_close(logits(narrow(model, 16)), logits(model), rtol=0, atol=0)


def test_an_mlp_path_stays_whole() -> None:
    model, _ = small(width=16, mlp_width=8)
    torch.testing.assert_close(logits(narrow(model, 16)), logits(model), rtol=0, atol=0)
    assert narrow(model, 8).get_submodule("mlp.sides.0").out_channels == 8


def test_channels_without_a_part_are_the_ones_that_go() -> None:
    model, _ = small(width=32)
    silent = silence_half(model, seed=3)
    for group, values in strengths(model).items():
        assert values[silent].max() < 1e-9 * values.max(), group
    pruned = narrow(model, 16)
    assert pruned.config.options["width"] == 16
    torch.testing.assert_close(logits(pruned), logits(model), rtol=0, atol=2e-5)


def test_rescaled_channels_are_as_strong() -> None:
    model, _ = small(width=16)
    before = strengths(model)["head"]
    norm, last = model.get_submodule("head.1"), model.get_submodule("head.4")
    with torch.no_grad():
        norm.weight[3] *= 10
        norm.bias[3] *= 10
        last.weight[:, 3] /= 10
    torch.testing.assert_close(strengths(model)["head"], before)


def test_the_energy_of_a_rectified_channel() -> None:
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    for scale, shift in ((1.0, 0.0), (0.5, -1.0), (-2.0, 0.7), (0.0, 3.0)):
        measured = (scale * z + shift).relu().square().mean()
        expected = channel_energy(torch.tensor(scale), torch.tensor(shift))
        torch.testing.assert_close(expected, measured, rtol=0.02, atol=1e-6)


def test_an_auxiliary_head_and_a_weight_file_do_not_matter() -> None:
    model, _ = small(width=16, aux=True)
    model.config = model.config.model_copy(
        update={"encoder": model.config.encoder.model_copy(update={"weights": "gone.safetensors"})}
    )
    pruned = narrow(model, 8)
    assert not any(name.startswith("aux_head") for name in pruned.state_dict())
    assert pruned.config.encoder.weights == "gone.safetensors"
    assert logits(pruned).shape == logits(model).shape


@pytest.mark.parametrize("width", [7, 33])
def test_a_width_that_cannot_be(width: int) -> None:
    model, _ = small(width=32)
    with pytest.raises(ConfigError, match="32 channels cannot be pruned"):
        narrow(model, width)


@pytest.mark.parametrize(
    "options", [{"fusion": "add"}, {"resaspp": False}, {"low_path": False, "fusion": "bfm"}]
)
def test_another_decoder_is_refused(options: dict[str, object]) -> None:
    model, _ = small(width=16, **options)
    with pytest.raises(ConfigError, match="cannot be pruned"):
        narrow(model, 8)


def silence_half(model: nn.Module, seed: int) -> torch.Tensor:
    """Let a half of each group's channels, one half for all, give nothing; return which."""
    width = model.get_submodule("head.0").out_channels
    generator = torch.Generator().manual_seed(seed)
    silent = torch.randperm(width, generator=generator)[: width // 2]
    with torch.no_grad():
        for layer in LAYERS:
            if not layer.out:
                continue
            maker = model.get_submodule(layer.norm or layer.name)
            maker.weight[silent] = 0
            if maker.bias is not None:
                maker.bias[silent] = 0
        for name, _ in ATTENTIONS:
            mlp = model.get_submodule(name).channel.mlp
            mlp[0].weight[1:] = 0
    return silent
