"""SAM2MS and SAM2-UNet: blocks, switches, one logit as two classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from terradapt.config import EncoderConfig, ModelConfig
from terradapt.errors import ConfigError
from terradapt.models import build, build_on_meta
from terradapt.models.contract import SegmentationModel
from terradapt.models.encoder import SAM2_TRUNKS
from terradapt.models.sam2ms import MSSM, PaperDRB, ReleaseDRB, Sub

SMALL = "mobilenetv3_small_100"


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def sam2ms(options: dict[str, Any], name: str = "sam2ms") -> SegmentationModel:
    torch.manual_seed(0)
    return build(ModelConfig(name=name, encoder=EncoderConfig(name=SMALL), options=options), 2)


def test_release_blocks_have_the_published_sizes_on_hiera_l() -> None:
    sizes = [count(ReleaseDRB(c)) for c in (144, 288, 576, 1152)]
    assert sizes == [428_928, 475_008, 567_168, 751_488]


@pytest.mark.parametrize("trunk", SAM2_TRUNKS)
@pytest.mark.parametrize("adapters", [True, False])
def test_table_4_of_the_paper_builds(trunk: str, adapters: bool) -> None:
    encoder = EncoderConfig(name=trunk, adapters=adapters, freeze=True)
    model = build_on_meta(ModelConfig(name="sam2ms", encoder=encoder), 2)
    training = [n for n, p in model.named_parameters() if p.requires_grad]
    assert any(n.startswith("encoder.adapters.") for n in training) == adapters
    assert not any(n.startswith("encoder.trunk.") for n in training)


@pytest.mark.parametrize(
    "options",
    [{}, {"drb": "release"}, {"drb": "none"}, {"mssm": False}, {"drb": "none", "mssm": False}],
)
def test_switches_train_every_parameter(options: dict[str, Any]) -> None:
    model = sam2ms(options).train()
    out = model(torch.randn(2, 3, 64, 96))
    assert out.logits.shape == (2, 2, 64, 96)
    out.logits.square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    has_mssm = any(isinstance(m, MSSM) for m in model.modules())
    assert has_mssm == options.get("mssm", True)
    blocks = {"paper": PaperDRB, "release": ReleaseDRB, "none": nn.Sequential}
    kind = blocks[options.get("drb", "paper")]
    assert all(isinstance(m, kind) for m in model.get_submodule("drb").children())


@pytest.mark.parametrize("name", ["sam2ms", "sam2-unet"])
def test_first_class_has_the_logit_0(name: str) -> None:
    model = sam2ms({}, name).train()
    out = model(torch.randn(2, 3, 64, 64))
    for logits in (out.logits, *out.aux):
        assert not logits[:, 0].any()
        assert logits[:, 1].any()


def test_sub_of_equal_maps_knows_the_map_no_more() -> None:
    sub = Sub().eval()
    x, y = torch.randn(1, 64, 8, 8), torch.randn(1, 64, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(sub(x, x), sub(y, y))
        torch.testing.assert_close(sub(x, y), sub(y, x))
        assert not torch.allclose(sub(x, y), sub(x, x))


def test_mssm_meets_every_pair_of_neighbours() -> None:
    """A change of the deepest map reaches all three levels, of the finest only level 1."""
    mssm = MSSM().eval()
    maps = [torch.randn(1, 64, 32 // 2**i, 32 // 2**i) for i in range(4)]
    with torch.no_grad():
        base = mssm(*maps)
        deep = mssm(*maps[:3], maps[3] + 1)
        fine = mssm(maps[0] + torch.randn_like(maps[0]), *maps[1:])
    assert [m.shape[2] for m in base] == [32, 16, 8]
    assert [not torch.equal(a, b) for a, b in zip(base, deep, strict=True)] == [True] * 3
    changed = [not torch.equal(a, b) for a, b in zip(base, fine, strict=True)]
    assert changed == [True, False, False]


def test_paper_block_is_the_written_formula() -> None:
    torch.manual_seed(1)
    block = PaperDRB(24).eval()
    x = torch.randn(1, 24, 9, 9)
    with torch.no_grad():
        reduced = block.reduce(x)
        base = block.base(reduced)
        weight = block.mix(base + sum(strip(base) for strip in block.strips))
        torch.testing.assert_close(block(x), block.norm(reduced + weight * reduced).relu())


def test_more_than_two_classes_are_refused() -> None:
    for name in ("sam2ms", "sam2-unet"):
        with pytest.raises(ConfigError, match="3 classes"):
            build(ModelConfig(name=name, encoder=EncoderConfig(name=SMALL)), 3)
