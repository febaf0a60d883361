"""Augmentation: image and mask move together, colours change the image alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from terradapt.config import AugmentConfig
from terradapt.data.sampling import generator
from terradapt.data.transforms import Draw, augment, draw, recolour

STILL = AugmentConfig(
    hflip=0, vflip=0, rot90=False, scale=(1, 1), brightness=0, contrast=0, saturation=0, sharpness=0
)


def sample(side: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask of quadrant-like parts and an image that is 40 times the mask in every band."""
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 5, (4, 4)), np.ones((side // 4, side // 4))).astype(np.uint8)
    return torch.from_numpy(np.stack([mask * 40] * 3)), torch.from_numpy(mask)


@given(st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 99))
def test_mask_and_image_move_together_exactly(h: bool, v: bool, turns: int, seed: int) -> None:
    image, mask = sample(seed=seed)
    moved, ids = augment(image, mask, Draw(hflip=h, vflip=v, turns=turns), 64)
    assert torch.equal(moved[0], ids * 40)
    assert torch.equal(torch.bincount(ids.flatten().long()), torch.bincount(mask.flatten().long()))


@given(st.floats(-45, 45), st.integers(0, 20))
def test_rotation_within_the_reach_shows_no_fill(angle: float, seed: int) -> None:
    """The window that ``reach`` asks for covers the rotated crop: no corner is lost.

    Rounding to whole pixels may leave a part of one border row.
    """
    chosen = Draw(angle=angle)
    image, mask = sample(128, seed)
    side = math.ceil(64 * chosen.reach)
    _, ids = augment(image[:, :side, :side], mask[:side, :side], chosen, 64)
    assert ids.shape == (64, 64)
    assert int((ids == 255).sum()) < 64


def test_rotation_fills_what_lies_outside_with_ignore() -> None:
    image, mask = sample()
    _, ids = augment(image, mask, Draw(angle=45.0, scale=math.sqrt(2)), 64)
    full = torch.full_like(mask, 255)
    _, outside = augment(image, full, Draw(angle=45.0), 64)
    assert (outside == 255).all()
    assert set(ids.unique().tolist()) <= {*mask.unique().tolist(), 255}


@given(st.integers(32, 128), st.integers(0, 9))
def test_any_window_comes_to_the_crop_with_the_classes_it_had(side: int, seed: int) -> None:
    image, mask = sample(128, seed)
    out, ids = augment(image[:, :side, :side], mask[:side, :side], Draw(), 64)
    assert out.shape == (3, 64, 64) and out.dtype == torch.uint8
    assert set(ids.unique().tolist()) <= set(mask[:side, :side].unique().tolist())


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_colours_change_for_any_number_of_bands(bands: int) -> None:
    image = torch.randint(60, 180, (bands, 32, 32), dtype=torch.uint8)
    brighter = recolour(image, Draw(brightness=1.2))
    assert brighter.shape == image.shape
    assert torch.allclose(brighter.float(), image.float() * 1.2, atol=1)
    flat = recolour(image, Draw(contrast=0.5))
    assert float(flat.float().std()) < float(image.float().std())
    sharp = recolour(image, Draw(sharpness=2.0))
    assert float(sharp.float().std()) > float(image.float().std())
    assert torch.equal(recolour(image, Draw()), image)


def test_saturation_zero_is_grey() -> None:
    image = torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8)
    grey = recolour(image, Draw(saturation=0.0))
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])


def test_a_window_and_the_ground_around_it_get_the_same_colours() -> None:
    image = torch.randint(0, 255, (6, 16, 16), dtype=torch.uint8)
    chosen = Draw(brightness=0.9, contrast=1.2, saturation=0.3, sharpness=1.5)
    both = recolour(image, chosen, bands=3)
    assert torch.equal(both[:3], recolour(image[:3], chosen))
    assert torch.equal(both[3:], recolour(image[3:], chosen))
    assert not torch.equal(both, recolour(image, chosen))  # six bands have no saturation


def test_draws_stay_in_their_ranges_and_reach_them() -> None:
    config = AugmentConfig(rotate=30.0, scale=(0.5, 1.5), hflip=0.5, sharpness=0.25)
    draws = [draw(config, generator(1, 0, i)) for i in range(400)]
    scales, angles = [d.scale for d in draws], [d.angle for d in draws]
    assert 0.5 <= min(scales) < 0.55 and 1.45 < max(scales) <= 1.5
    assert -30 <= min(angles) < -27 and 27 < max(angles) <= 30
    assert {d.turns for d in draws} == {0, 1, 2, 3}
    assert 0.4 < np.mean([d.hflip for d in draws]) < 0.6
    assert 0.15 < np.mean([d.sharpness > 1 for d in draws]) < 0.35
    assert all(0.8 <= d.brightness <= 1.2 for d in draws)


def test_strengths_of_zero_leave_the_sample_as_it_is() -> None:
    assert draw(STILL, generator(5)) == Draw()
    image, mask = sample()
    out, ids = augment(image, mask, Draw(), 64)
    assert torch.equal(out, image) and torch.equal(ids, mask)
