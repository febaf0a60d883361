"""Look again: a model's last convolution refitted on what it already sees, in seconds.

The logits of a pixel are a linear function of the features below the last convolution, also where
they are stretched afterwards. So the features are computed once a place, and corrections need a
convex fit alone: corrected pixels teach their class, all others keep the answers that they had.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from terradapt import checkpoint
from terradapt.classes import IGNORE
from terradapt.errors import ConfigError
from terradapt.files import digest
from terradapt.meta import read_meta
from terradapt.models.contract import SegmentationModel, class_logits
from terradapt.predictors.torch import TorchPredictor, normalize_tensor
from terradapt.scene.predictor import Predictor, Wrapped
from terradapt.scene.resample import resize_matrix

MOST_NUMBERS = 8_000_000
"""Features times pixels that a fit takes: about a second of one core."""
_CHECKED = 512  # pixels at which a convolution must give the model's own logits
_CLOSE = 1e-3  # of the largest logit
_TIE = 1e-3  # how much a step costs, in deviations of a feature: a lone pixel moves little
KEEP = (0.25, 16.0)
"""Least and most that old answers weigh against corrections."""
_STEPS, _TRIES = 60, 75


@dataclass(frozen=True)
class Head:
    """The convolution that makes a model's logits.

    Attributes:
        name: Within the model.
        conv: The module.
        corners: Whether its answer is stretched from corner to corner.
    """

    name: str
    conv: nn.Conv2d
    corners: bool

    @property
    def length(self) -> int:
        """D, the number of features of a pixel."""
        return self.conv.weight[0].numel()

    def features(
        self, below: Tensor, side: int, rows: NDArray[np.intp], cols: NDArray[np.intp]
    ) -> Tensor:
        """Return (N, D) features of pixels.

        Args:
            below: What the convolution takes, (C, h, w).
            side: Of the model's window, px.
            rows: (N,) of pixels of the window.
            cols: (N,) of the same.
        """
        (kh, kw), (sh, sw) = self.conv.kernel_size, self.conv.stride
        (dh, dw), pad = self.conv.dilation, self.conv.padding
        assert not isinstance(pad, str)
        padded = F.pad(below, (pad[1], pad[1], pad[0], pad[0]))
        high = (padded.shape[1] - dh * (kh - 1) - 1) // sh + 1
        wide = (padded.shape[2] - dw * (kw - 1) - 1) // sw + 1
        found = [
            _at(
                padded[:, i * dh :: sh, j * dw :: sw][:, :high, :wide],
                side,
                rows,
                cols,
                self.corners,
            )
            for i in range(kh)
            for j in range(kw)
        ]
        return torch.stack(found, 2).flatten(1)  # as conv.weight[0].flatten(): C, then kh and kw


class HeadView:
    """What a model's last convolution sees.

    Args:
        predictor: With a torch model inside.

    Raises:
        ConfigError: The model runs without torch.
    """

    def __init__(self, predictor: Predictor) -> None:
        inner = predictor
        while isinstance(inner, Wrapped):
            inner = inner.predictor
        if not isinstance(inner, TorchPredictor):
            raise ConfigError("an exported model cannot be refitted", "open its checkpoint")
        self.predictor = inner
        self._head: Head | None = None

    @property
    def head(self) -> Head:
        """The convolution; known once a window was seen."""
        assert self._head is not None
        return self._head

    @torch.no_grad()
    def see(self, image: NDArray[np.uint8], side: int) -> Tensor:
        """Return what the convolution takes, (C, h, w) in main memory.

        Args:
            image: (C, S, S) pixels of a window, as the scene has them.
            side: Of the window that the model takes, px; the image is brought to it.

        Raises:
            ConfigError: The model's logits do not come from one convolution.
        """
        model = self.predictor.model
        if image.shape[1] != side:
            fit = resize_matrix(image.shape[1], side)
            image = np.clip(np.rint(fit @ image.astype(np.float32) @ fit.T), 0, 255).astype(
                np.uint8
            )
        x = torch.from_numpy(np.ascontiguousarray(image[None])).to(self.predictor.device)
        x = normalize_tensor(x, self.predictor.spec)
        with _listening(model, self._head) as heard:
            before = model.training
            try:
                logits = model.eval()(x.contiguous(memory_format=torch.channels_last)).logits
            finally:
                model.train(before)
        if self._head is None:
            self._head = _find(model, heard, logits)
        below = next(taken for conv, taken, _ in reversed(heard) if conv is self._head.conv)
        return below[0].float().cpu().contiguous()

    @torch.no_grad()
    def features(
        self, below: Tensor, side: int, rows: NDArray[np.intp], cols: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return (N, D) features of pixels of a window; see :meth:`Head.features`."""
        found: NDArray[np.float32] = self.head.features(below, side, rows, cols).numpy()
        return found


def refit(
    features: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, keep: float = KEEP[0]
) -> tuple[Tensor, Tensor | None]:
    """Return a last convolution that knows corrections and forgets nothing else.

    Minimises the mean cross-entropy of the corrected pixels plus ``keep`` times the mean divergence
    of the others from the old answers. Corrected classes count alike, however large their strokes.
    Convex; the same input gives the same answer.

    Args:
        features: (N, D).
        ids: (N,) class ids of corrected pixels, 255 for those that keep their answer.
        weight: (R, D), R classes, or one row that tells two classes apart.
        bias: (R,), or None where there is none.
        keep: Least where much of the ground was corrected, as what is like it is wrong too; large
            where little was, as most of what looks like it is right.
    """
    with torch.no_grad():
        scale = features.std(0).clamp_min(1e-6)
        centre = features.mean(0) if bias is not None else torch.zeros_like(scale)
        x = (features - centre).div_(scale)
        start = features @ weight.T + (0.0 if bias is None else bias)
    fixed, kept = ids != IGNORE, ids == IGNORE
    target = ids[fixed].long()
    share = 1 / torch.bincount(target, minlength=2).clamp_min(1)[target].float()
    share = share / share.sum().clamp_min(1e-12)
    old = _logits(start[kept]).softmax(1)
    rows = len(weight)

    def loss(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The cost of a step, and how it changes with each of its numbers."""
        moved = torch.from_numpy(numbers).float().view(rows, -1).requires_grad_()
        step = moved[:, :-1]
        logits = _logits(start + x @ step.T + moved[:, -1])
        cost = _TIE * step.square().sum()
        if len(target):
            cost = cost + (F.cross_entropy(logits[fixed], target, reduction="none") * share).sum()
        if len(old):
            kept_cost = F.kl_div(logits[kept].log_softmax(1), old, reduction="batchmean")
            cost = cost + keep * kept_cost
        (slope,) = torch.autograd.grad(cost, moved)
        if bias is None:
            slope[:, -1] = 0
        return cost.item(), slope.double().numpy().ravel()

    # not torch.optim, which loads torch's compiler: two seconds and 150 MB of a viewer
    nothing = np.zeros(rows * (weight.shape[1] + 1))
    most = {"maxiter": _STEPS, "maxfun": _TRIES}
    found = minimize(loss, nothing, jac=True, method="L-BFGS-B", options=most)
    moved = torch.from_numpy(found.x).float().view(rows, -1)
    change = moved[:, :-1] / scale
    new = weight + change
    return new, None if bias is None else bias + moved[:, -1] - change @ centre


def save_refitted(
    view: HeadView,
    start: Path,
    out: Path,
    features: NDArray[np.float32],
    ids: NDArray[np.uint8],
    keep: float = KEEP[0],
) -> None:
    """Write a checkpoint that differs from another one in its last convolution alone.

    Args:
        view: Of the old model.
        start: The old model's checkpoint.
        out: The new file.
        features: As :func:`refit` takes them.
        ids: The same.
        keep: The same.

    Raises:
        OutputError: It cannot be written.
    """
    model, head = view.predictor.model, view.head
    conv = head.conv
    old = conv.bias
    weight, bias = refit(
        torch.from_numpy(features),
        torch.from_numpy(ids),
        conv.weight.detach().float().cpu().flatten(1),
        None if old is None else old.detach().float().cpu(),
        keep,
    )
    weights = dict(model.state_dict())
    weights[f"{head.name}.weight"] = weight.view_as(conv.weight).to(conv.weight)
    if bias is not None and old is not None:
        weights[f"{head.name}.bias"] = bias.to(old)
    meta = replace(read_meta(start), start=digest(start))
    if meta.trunk is not None and not meta.trunk.bundled:  # where it was found, not where it was
        meta = replace(meta, config=meta.config.model_copy(update={"model": model.config}))
    checkpoint.save(out, model, meta, weights=weights)


def _logits(z: Tensor) -> Tensor:
    """(N, K) of (N, R)."""
    return class_logits(z[..., None, None])[..., 0, 0]


Heard = list[tuple[nn.Conv2d, Tensor, Tensor]]
"""Convolutions as they were called: the module, what it took, what it gave."""


@contextmanager
def _listening(model: SegmentationModel, head: Head | None) -> Iterator[Heard]:
    """Hear the convolutions that may make logits."""
    heard: Heard = []
    rows = {model.num_classes, 1} if model.num_classes == 2 else {model.num_classes}

    def note(module: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        heard.append((module, taken[0], given))

    convs = [
        m
        for m in model.modules()
        if isinstance(m, nn.Conv2d) and m.groups == 1 and m.out_channels in rows
    ]
    hooks = [m.register_forward_hook(note) for m in (convs if head is None else [head.conv])]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _find(model: SegmentationModel, heard: Heard, logits: Tensor) -> Head:
    """Return the last convolution whose answer, stretched, is the logits."""
    side = logits.shape[2]
    draw = np.random.default_rng(0)
    rows, cols = draw.integers(0, side, (2, _CHECKED))
    wanted = logits[0, :, rows, cols].T
    near = _CLOSE * max(1.0, float(wanted.abs().max()))
    names = {module: name for name, module in model.named_modules()}
    for conv, _, given in reversed(heard):
        for corners in (False, True):
            found = _logits(_at(given[0], side, rows, cols, corners))
            if float((found - wanted).abs().max()) <= near:
                return Head(names[conv], conv, corners)
    raise ConfigError(
        f"{model.config.name}: its answers do not come from one last convolution",
        "use Retrain instead of Look again",
    )


def _at(
    plane: Tensor, side: int, rows: NDArray[np.intp], cols: NDArray[np.intp], corners: bool
) -> Tensor:
    """Return (N, C) values of (C, h, w) at pixels of the same picture with ``side`` px."""
    reach = side - 1 if corners else side
    first = 0.0 if corners else 0.5
    place = np.stack([cols, rows], 1).astype(np.float64)
    grid = torch.from_numpy((place + first) / max(reach, 1) * 2 - 1).to(plane)
    found: Tensor = F.grid_sample(
        plane[None], grid[None, None], "bilinear", "border", align_corners=corners
    )
    return found[0, :, 0].T
