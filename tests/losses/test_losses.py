"""Losses against plain formulas written out pixel by pixel, and their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import pearsonr
from torch import Tensor
from torch.nn import functional as F

from terradapt.losses.distill import dist, pearson
from terradapt.losses.pixel import balanced_weights, cross_entropy, dice, structure

IGNORE = 255


def batch(
    seed: int, classes: int, shape: tuple[int, int, int] = (2, 3, 4)
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    b, h, w = shape
    logits = torch.randn(b, classes, h, w, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.3] = IGNORE
    return logits, target


def valid_pixels(logits: Tensor, target: Tensor) -> list[tuple[np.ndarray, int]]:
    b, h, w = target.shape
    where = [(i, y, x) for i in range(b) for y in range(h) for x in range(w)]
    return [
        (logits[i, :, y, x].numpy(), int(target[i, y, x]))
        for i, y, x in where
        if int(target[i, y, x]) != IGNORE
    ]


seeds = st.integers(0, 10_000)
counts = st.integers(2, 6)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, classes=counts, weighted=st.booleans())
def test_cross_entropy_is_the_loop(seed: int, classes: int, weighted: bool) -> None:
    logits, target = batch(seed, classes)
    weights = torch.arange(1, classes + 1).float() if weighted else None
    top = bottom = 0.0
    for z, k in valid_pixels(logits, target):
        weight = float(weights[k]) if weights is not None else 1.0
        top -= weight * math.log(softmax(z)[k])
        bottom += weight
    expected = top / bottom if bottom else 0.0
    assert float(cross_entropy(logits, target, weights)) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, classes=counts, smooth=st.sampled_from([0.05, 1.0]))
def test_dice_is_the_loop(seed: int, classes: int, smooth: float) -> None:
    logits, target = batch(seed, classes)
    inter, size, truth = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for z, k in valid_pixels(logits, target):
        p = softmax(z)
        inter[k] += p[k]
        size += p
        size[k] += 1
        truth[k] += 1
    terms = [1 - (2 * inter[k] + smooth) / (size[k] + smooth) for k in range(classes) if truth[k]]
    expected = float(np.mean(terms)) if terms else 0.0
    assert float(dice(logits, target, smooth)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=seeds,
    classes=counts,
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    beta=st.floats(0, 2),
    gamma=st.floats(0, 2),
    t_squared=st.booleans(),
)
def test_dist_is_scipy_s_pearson(
    seed: int, classes: int, temperature: float, beta: float, gamma: float, t_squared: bool
) -> None:
    student, target = batch(seed, classes)
    teacher, _ = batch(seed + 1, classes)
    found = dist(
        student,
        teacher,
        target,
        temperature=temperature,
        beta=beta,
        gamma=gamma,
        t_squared=t_squared,
    )
    p = np.array([softmax(z / temperature) for z, _ in valid_pixels(student, target)])
    q = np.array([softmax(z / temperature) for z, _ in valid_pixels(teacher, target)])
    inter = 1 - np.mean([pearsonr(a, b)[0] for a, b in zip(p, q, strict=True)])
    intra = 1 - np.mean([pearsonr(a, b)[0] for a, b in zip(p.T, q.T, strict=True)])
    expected = (beta * inter + gamma * intra) * (temperature**2 if t_squared else 1)
    assert float(found) == pytest.approx(expected, abs=2e-3)


@given(seed=seeds, classes=counts)
@settings(max_examples=20, deadline=None)
def test_dist_of_the_teacher_itself_is_zero_and_the_teacher_gets_no_gradient(
    seed: int, classes: int
) -> None:
    teacher, target = batch(seed, classes, (2, 5, 6))
    teacher.requires_grad_(True)
    student = teacher.detach().clone().requires_grad_(True)
    loss = dist(student, teacher, target)
    assert loss.item() == pytest.approx(0, abs=1e-4)
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_dist_lies_between_0_and_4_and_falls_as_the_student_nears_the_teacher() -> None:
    teacher, target = batch(3, 4, (2, 8, 8))
    noise = torch.randn_like(teacher)
    losses = [float(dist(teacher + s * noise, teacher, target)) for s in (0.0, 0.3, 1.0, 3.0)]
    assert losses == sorted(losses)
    assert 0 <= losses[0] < losses[-1] <= 4
    assert float(dist(-teacher, teacher, target)) > 2


def test_dist_of_a_road_student_learns_from_intra_alone() -> None:
    student, target = batch(1, 2, (1, 6, 6))
    teacher, _ = batch(2, 2, (1, 6, 6))
    student.requires_grad_(True)
    (inter,) = torch.autograd.grad(dist(student, teacher, target, gamma=0), student)
    (intra,) = torch.autograd.grad(dist(student, teacher, target, beta=0), student)
    assert float(inter.abs().max()) < 1e-5
    assert float(intra.abs().max()) > 1e-4


def test_pearson_of_a_constant_row_is_zero_with_finite_gradient() -> None:
    x = torch.ones(1, 5, requires_grad=True)
    value = pearson(x, torch.arange(5.0)[None])
    value.sum().backward()
    assert value.item() == 0
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def structure_by_hand(z: np.ndarray, g: np.ndarray, release: bool) -> float:
    """The loss of one image, with a window of 31 px and zeros outside."""
    height, width = g.shape
    padded = np.pad(g, 15)
    near = np.array(
        [[padded[y : y + 31, x : x + 31].mean() for x in range(width)] for y in range(height)]
    )
    weight = 1 + 5 * np.abs(near - g)
    p = 1 / (1 + np.exp(-z))
    bce = -(g * np.log(p) + (1 - g) * np.log(1 - p))
    weighted = bce.mean() if release else (weight * bce).sum() / weight.sum()
    inter, union = (p * g * weight).sum(), ((p + g) * weight).sum()
    return float(weighted + 1 - (inter + 1) / (union - inter + 1))


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_structure_loss_is_the_formula(seed: int, release: bool) -> None:
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(2, 9, 12))
    g = (generator.random((2, 9, 12)) < 0.4).astype(float)
    logits = torch.stack([torch.zeros(2, 9, 12), torch.tensor(z)], 1)
    found = structure(logits, torch.tensor(g).long(), reproduce_release=release)
    wanted = np.mean([structure_by_hand(a, b, release) for a, b in zip(z, g, strict=True)])
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_structure_weighs_the_border_of_a_road_up() -> None:
    """The same mistake costs more beside the road than far from it; not so in the release's BCE."""
    target = torch.zeros(1, 80, 80, dtype=torch.long)
    target[:, 38:42] = 1
    far, near = (torch.zeros(1, 2, 80, 80) for _ in range(2))
    for logits, row in ((far, 2), (near, 37)):
        logits[:, 1] = torch.where(target == 1, 4.0, -4.0)
        logits[:, 1, row] = 4.0
    assert float(structure(near, target)) > float(structure(far, target))


LOSSES = {
    "ce": cross_entropy,
    "dice": dice,
    "structure": structure,
    "dist": lambda z, t: dist(z, torch.flip(z, (1,)).detach(), t),
}


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_take_no_part(name: str) -> None:
    logits, target = batch(5, 2, (2, 6, 6))
    target[0, 0, 0] = IGNORE
    changed = logits.clone()
    changed[:, :, :, :] = torch.where((target == IGNORE)[:, None], logits * -7 + 3, logits)
    loss = LOSSES[name]
    assert float(loss(changed, target)) == pytest.approx(float(loss(logits, target)), rel=1e-6)
    logits.requires_grad_(True)
    loss(logits, target).backward()
    assert logits.grad is not None
    gradient = logits.grad.permute(0, 2, 3, 1)
    assert not gradient[target == IGNORE].any()
    assert gradient[target != IGNORE].any()


@pytest.mark.parametrize("name", LOSSES)
def test_batch_without_a_valid_pixel_costs_nothing(name: str) -> None:
    logits = torch.randn(2, 2, 6, 6, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((2, 6, 6), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_summed_in_full(name: str) -> None:
    logits, target = batch(9, 2, (2, 32, 32))
    half = logits.bfloat16()
    found = LOSSES[name](half, target)
    assert found.dtype is torch.float32
    assert float(found) == pytest.approx(float(LOSSES[name](half.float(), target)), rel=1e-5)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_road_logit_s_ce_is_its_bce(seed: int) -> None:
    logits, target = batch(seed, 2)
    logits[:, 0] = 0
    seen = target != IGNORE
    if seen.any():
        wanted = F.binary_cross_entropy_with_logits(logits[:, 1][seen], target[seen].double())
        assert float(cross_entropy(logits, target)) == pytest.approx(float(wanted), rel=1e-5)


def test_perfect_scores_cost_nothing() -> None:
    _, target = batch(4, 3, (2, 20, 20))
    logits = 60.0 * F.one_hot(target.where(target != IGNORE, 0), 3).permute(0, 3, 1, 2).float()
    assert float(cross_entropy(logits, target)) < 1e-5
    assert float(dice(logits, target)) < 1e-3
    roads = target.where(target != 2, 0)
    road_logits = 60.0 * F.one_hot(roads.where(roads != IGNORE, 0), 2).permute(0, 3, 1, 2).float()
    assert float(structure(road_logits, roads)) < 1e-2


def test_balanced_weights_raise_rare_classes() -> None:
    weights = balanced_weights(torch.tensor([9_000, 900, 100, 0]))
    assert weights.mean() == pytest.approx(1)
    assert weights[0] < weights[1] < weights[2] == weights[3]
    assert float(weights[1] / weights[0]) == pytest.approx(math.sqrt(10), rel=1e-4)
    assert torch.equal(balanced_weights(torch.zeros(3)), torch.ones(3))
