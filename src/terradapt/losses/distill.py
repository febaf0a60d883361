"""Losses against a teacher: DIST (ARAFNet Eqs 6-8), Hinton's KL divergence, and channel by channel.

Huang et al. 2022, "Knowledge distillation from a stronger teacher"; Hinton et al. 2015,
"Distilling the knowledge in a neural network"; Shu et al. 2021, "Channel-wise knowledge
distillation for dense prediction". Shapes: N valid pixels, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from terradapt.classes import IGNORE

EPS = 1e-8
NOWHERE = -1e9  # a logit of no weight in a softmax; finite, so that an image may be all ignored


def dist(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 0.5,
    beta: float = 1.0,
    gamma: float = 1.0,
    t_squared: bool = False,
) -> Tensor:
    """Return beta * inter + gamma * intra, 0 for a student that orders all as its teacher.

    p = softmax(z / T). inter = 1 - mean over pixels of Pearson(p_s, p_t) over the classes; intra =
    the same of the transpose: each class over all pixels of the batch. T = 0.5 sharpens, whatever
    the paper's text says. With K = 2, inter is 1 - the sign of agreement and has no gradient: a
    road student learns from intra alone.

    Args:
        student: Logits (B, K, H, W).
        teacher: Logits (B, K, H, W), taken as constant.
        target: (B, H, W); pixels of 255 take no part. None: all take part.
        temperature: T.
        beta: Weight of inter.
        gamma: Weight of intra.
        t_squared: Multiply by T^2, as usual in distillation; the paper does not.
    """
    valid = None if target is None else target != IGNORE
    p_NK = _probabilities(student, temperature, valid)
    q_NK = _probabilities(teacher.detach(), temperature, valid)
    if len(p_NK) == 0:
        return student.sum() * 0.0
    inter = 1 - pearson(p_NK, q_NK).mean()
    intra = 1 - pearson(p_NK.T, q_NK.T).mean()
    return (beta * inter + gamma * intra) * (temperature**2 if t_squared else 1.0)


def kl(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    t_squared: bool = False,
) -> Tensor:
    """Return the mean over pixels of KL(teacher || student), 0 where both say the same.

    With K = 2 its gradient is that of BCE against the teacher's probability as a soft label.

    Args:
        student: Logits (B, K, H, W).
        teacher: Logits (B, K, H, W), taken as constant.
        target: (B, H, W); pixels of 255 take no part. None: all take part.
        temperature: T of both softmaxes.
        t_squared: Multiply by T^2, so that the gradient's size does not depend on T.
    """
    valid = None if target is None else target != IGNORE
    log_p_NK = _pixels((student.float() / temperature).log_softmax(1), valid)
    log_q_NK = _pixels((teacher.detach().float() / temperature).log_softmax(1), valid)
    if len(log_p_NK) == 0:
        return student.sum() * 0.0
    divergence = F.kl_div(log_p_NK, log_q_NK, reduction="batchmean", log_target=True)
    return divergence * (temperature**2 if t_squared else 1.0)


def cwd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 4.0,
    t_squared: bool = False,
) -> Tensor:
    """Return the mean over images and classes of KL(teacher || student), each spread over space.

    q = softmax over an image's pixels of z / T: where a class is, not how surely. With K = 2 z is
    the one logit z_1 - z_0, so that (0, z) and any other two logits of the same softmax are alike.
    A logit's level over a whole image has no gradient: the labels' loss sets it.

    Args:
        student: Logits (B, K, H, W).
        teacher: Logits (B, K, H, W), taken as constant.
        target: (B, H, W); pixels of 255 take no part. None: all take part.
        temperature: T of both softmaxes.
        t_squared: Multiply by T^2, as the paper does.
    """
    log_p_BCN, log_q_BCN = (
        _over_space(x, temperature, target) for x in (student, teacher.detach())
    )
    divergence = F.kl_div(log_p_BCN, log_q_BCN, reduction="sum", log_target=True)
    return divergence / log_p_BCN[..., 0].numel() * (temperature**2 if t_squared else 1.0)


def _over_space(logits: Tensor, temperature: float, target: Tensor | None) -> Tensor:
    z = logits.float() / temperature
    z = z[:, 1:] - z[:, :1] if z.shape[1] == 2 else z
    if target is not None:
        z = z.masked_fill((target == IGNORE)[:, None], NOWHERE)
    return z.flatten(2).log_softmax(2)


def pearson(x_RC: Tensor, y_RC: Tensor) -> Tensor:
    """Return the correlation of each row of x with that row of y (R,); 0 for a constant row."""
    x = x_RC - x_RC.mean(1, keepdim=True)
    y = y_RC - y_RC.mean(1, keepdim=True)
    return torch.cosine_similarity(x, y, dim=1, eps=EPS)


def _probabilities(logits: Tensor, temperature: float, valid: Tensor | None) -> Tensor:
    return _pixels((logits.float() / temperature).softmax(1), valid)


def _pixels(x_BKHW: Tensor, valid: Tensor | None) -> Tensor:
    x_BHWK = x_BKHW.permute(0, 2, 3, 1)
    return x_BHWK[valid] if valid is not None else x_BHWK.flatten(0, 2)
