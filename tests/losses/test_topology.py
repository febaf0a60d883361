"""Skeleton recall and clDice: the formulas by hand, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from terradapt.losses.topology import cldice, skeleton_recall, soft_skeleton
from terradapt.training.loading import tube

CROSS = ndimage.generate_binary_structure(2, 1)
SQUARE = np.ones((3, 3), bool)


def roads(seed: int = 0, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((side, side), bool)
    for _ in range(3):
        at, wide = int(rng.integers(4, side - 12)), int(rng.integers(3, 8))
        line = (slice(None), slice(at, at + wide))
        mask[line if rng.random() < 0.5 else line[::-1]] = True
    return mask


def logits_of(p: np.ndarray) -> torch.Tensor:
    z = torch.from_numpy(np.log(p / (1 - p))).float()
    return torch.stack([torch.zeros_like(z), z], 1)


def skeleton_by_hand(p: np.ndarray, iterations: int) -> np.ndarray:
    def erode(x: np.ndarray) -> np.ndarray:
        return ndimage.minimum_filter(x, footprint=CROSS, mode="constant", cval=np.inf)

    def rest(x: np.ndarray) -> np.ndarray:
        opened = ndimage.maximum_filter(erode(x), footprint=SQUARE, mode="constant", cval=-np.inf)
        return np.maximum(x - opened, 0)

    skeleton = rest(p)
    for _ in range(iterations):
        p = erode(p)
        delta = rest(p)
        skeleton = skeleton + np.maximum(delta - skeleton * delta, 0)
    return skeleton


@pytest.mark.parametrize("iterations", [1, 4])
def test_cldice_is_the_formula(iterations: int) -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, (2, 24, 24))
    g = np.stack([roads(i, 24) for i in range(2)]).astype(float)
    wanted = []
    for a, b in zip(p, g, strict=True):
        found, truth = skeleton_by_hand(a, iterations), skeleton_by_hand(b, iterations)
        precision = ((found * b).sum() + 1) / (found.sum() + 1)
        sensitivity = ((truth * a).sum() + 1) / (truth.sum() + 1)
        wanted.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
    loss = cldice(logits_of(p), torch.from_numpy(g).long(), iterations)
    assert float(loss) == pytest.approx(np.mean(wanted), abs=1e-5)


def test_a_gap_costs_more_than_a_thinner_road_of_equal_pixels() -> None:
    truth = np.zeros((64, 64), bool)
    truth[28:35] = True
    gap, thinner = truth.copy(), truth.copy()
    gap[:, 20:29] = False  # 63 px
    thinner[28] = False  # 64 px
    target = torch.from_numpy(truth).long()[None]
    band = tube(target[0])[None]

    def losses(mask: np.ndarray) -> tuple[float, float]:
        z = logits_of(np.where(mask, 0.999, 0.001)[None])
        return float(skeleton_recall(z, band)), float(cldice(z, target))

    for broken, narrow in zip(losses(gap), losses(thinner), strict=True):
        assert broken > narrow + 0.05


def test_the_tube_is_the_middle_of_the_road_and_stays_inside_it() -> None:
    mask = roads(1)
    target = torch.from_numpy(np.where(mask, 1, 0))
    target[:8] = 255
    band = tube(target).numpy() > 0
    known = mask & (target.numpy() != 255)
    assert band.any() and not (band & ~known).any()
    inner = ndimage.distance_transform_edt(np.pad(known, 1, mode="edge"))[1:-1, 1:-1]
    middle = known & (inner == ndimage.maximum_filter(inner, footprint=SQUARE)) & (inner > 2)
    assert band[middle].mean() > 0.95
    assert not tube(torch.zeros(16, 16, dtype=torch.long)).any()


def test_the_tube_reaches_the_edge_of_the_crop() -> None:
    target = torch.zeros(32, 32, dtype=torch.long)
    target[:, 12:17] = 1
    assert (tube(target).sum(1) == 5).all()


def test_a_soft_skeleton_of_a_mask_is_thin_and_whole() -> None:
    target = torch.zeros(1, 40, 40)
    target[0, :, 15:22] = 1
    skeleton = soft_skeleton(target, 5)[0]
    assert skeleton[4:-4].sum(1).tolist() == [1] * 32


@pytest.mark.parametrize("name", ["recall", "cldice"])
def test_gradients_are_finite_and_images_without_the_class_cost_nothing(name: str) -> None:
    z = torch.randn(2, 2, 32, 32, requires_grad=True)
    target = torch.zeros(2, 32, 32, dtype=torch.long)
    target[0, 10:15] = 1
    bands = torch.stack([tube(t) for t in target])
    loss = skeleton_recall(z, bands) if name == "recall" else cldice(z, target, 4)
    loss.backward()
    assert z.grad is not None and z.grad.isfinite().all()
    assert z.grad[0].abs().sum() > 0 and z.grad[1].abs().sum() == 0
