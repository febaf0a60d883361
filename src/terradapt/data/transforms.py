"""Augmentation: parameters drawn from one generator, kernels of torchvision v2."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from terradapt.classes import IGNORE
from terradapt.config import AugmentConfig, ConsistencyConfig
from terradapt.grid import Window

_FEW = 0.05  # share of labelled pixels below which none may be lost
SHARPEST = 2.0  # factor 1 is the image itself, 0 its blur


@dataclass(frozen=True)
class Draw:
    """The parameters of one sample's augmentation.

    Args:
        scale: Magnification; 2 shows half as many metres.
        angle: Rotation, degrees, counter-clockwise.
        hflip: Mirror left and right.
        vflip: Mirror top and bottom.
        turns: Quarter turns, 0..3.
        brightness: Factor.
        contrast: Factor.
        saturation: Factor; images of three bands only.
        sharpness: Factor, >= 1.
    """

    scale: float = 1.0
    angle: float = 0.0
    hflip: bool = False
    vflip: bool = False
    turns: int = 0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    sharpness: float = 1.0

    @property
    def reach(self) -> float:
        """Side of the square that a rotated crop needs, in sides of the crop: 1 to sqrt 2."""
        angle = math.radians(self.angle)
        return abs(math.cos(angle)) + abs(math.sin(angle))


def draw(config: AugmentConfig, rng: np.random.Generator) -> Draw:
    """Draw one sample's augmentation; always takes the same number of numbers from ``rng``."""
    u = rng.random(10)
    low, high = config.scale
    return Draw(
        scale=low + (high - low) * u[0],
        angle=config.rotate * (2 * u[1] - 1),
        hflip=bool(u[2] < config.hflip),
        vflip=bool(u[3] < config.vflip),
        turns=int(u[4] * 4) if config.rot90 else 0,
        brightness=_factor(config.brightness, u[5]),
        contrast=_factor(config.contrast, u[6]),
        saturation=_factor(config.saturation, u[7]),
        sharpness=1 + (SHARPEST - 1) * u[9] if u[8] < config.sharpness else 1.0,
    )


def _factor(strength: float, u: float) -> float:
    return max(0.0, 1 + strength * (2 * u - 1))


def augment(
    image: Tensor, mask: Tensor, chosen: Draw, size: int, bands: int | None = None
) -> tuple[Tensor, Tensor]:
    """Bring a window to the crop's size and augment it.

    Args:
        image: (C, S, S) uint8, S about ``size * chosen.reach / chosen.scale`` px.
        mask: (S, S) uint8 class ids, or (P, S, S) planes of which the first is the ids.
        chosen: The parameters.
        size: Side of the crop, px.
        bands: As of :func:`recolour`. The ground around a window is concentric to it, so that it
            is turned and mirrored as the window is.

    Returns:
        (C, size, size) uint8 and (size, size) or (P, size, size) uint8; what lies outside the image
        is 255 in the mask. Of a mask with few labelled pixels none is lost as it becomes smaller.
    """
    planes = mask.reshape(-1, *mask.shape[-2:])
    pixels, ids = tv_tensors.Image(image), tv_tensors.Mask(planes)
    side = max(size, round(size * chosen.reach))
    if pixels.shape[-2:] != (side, side):
        pixels, ids = F.resize(pixels, [side, side], antialias=True), F.resize(ids, [side, side])
        _keep_labels(planes, ids, side)
    if chosen.angle:
        turn = F.InterpolationMode.BILINEAR
        pixels = F.rotate(pixels, chosen.angle, interpolation=turn)
        ids = F.rotate(ids, chosen.angle, fill=float(IGNORE))
    if side != size:
        pixels, ids = F.center_crop(pixels, [size, size]), F.center_crop(ids, [size, size])
    pixels, ids = _turned(pixels, chosen), _turned(ids, chosen)
    coloured = recolour(pixels.as_subclass(Tensor), chosen, bands)
    return coloured, ids.as_subclass(Tensor).reshape(*mask.shape[:-2], size, size).contiguous()


def _keep_labels(planes: Tensor, smaller: Tensor, side: int) -> None:
    """Put back the labelled pixels that fell between those of a smaller mask (in place)."""
    before = planes.shape[-1]
    if side >= before or int((planes[0] != IGNORE).sum()) > _FEW * before**2:
        return
    rows, cols = torch.nonzero(planes[0] != IGNORE, as_tuple=True)
    at = (rows * side // before, cols * side // before)
    lost = smaller[0][at] == IGNORE
    smaller[:, at[0][lost], at[1][lost]] = planes[:, rows[lost], cols[lost]]


def _turned(image: Tensor, chosen: Draw) -> Tensor:
    if chosen.hflip:
        image = F.horizontal_flip(image)
    if chosen.vflip:
        image = F.vertical_flip(image)
    return torch.rot90(image, chosen.turns, (-2, -1)) if chosen.turns else image


def recolour(image: Tensor, chosen: Draw, bands: int | None = None) -> Tensor:
    """Change brightness, contrast, saturation and sharpness of (C, H, W) uint8.

    Of other than three bands each is treated as an image of its own, and keeps its saturation.

    Args:
        image: One image, or a window and the ground around it.
        chosen: The parameters.
        bands: Of either; None where there is one.
    """
    colours = (bands or len(image)) == 3
    parts = image.unflatten(0, (-1, 3)) if colours and len(image) > 3 else image
    parts = parts if colours else image[:, None]
    if chosen.brightness != 1:
        parts = F.adjust_brightness(parts, chosen.brightness)
    if chosen.contrast != 1:
        parts = F.adjust_contrast(parts, chosen.contrast)
    if chosen.saturation != 1 and colours:
        parts = F.adjust_saturation(parts, chosen.saturation)
    if chosen.sharpness != 1:
        parts = F.adjust_sharpness(parts, chosen.sharpness)
    return parts.reshape(image.shape).contiguous()


_SIGMA = (0.1, 2.0)  # px, of a strong view's blur
_BOX = (0.02, 0.4)  # share of a crop that a CutMix box covers
_RATIO = (0.3, 1 / 0.3)  # of its sides


def strengthen(
    image: Tensor, config: ConsistencyConfig, rng: np.random.Generator, bands: int | None = None
) -> Tensor:
    """Return a strong view of (C, H, W) uint8: other colours, perhaps blurred (UniMatch).

    Always takes the same number of numbers from ``rng``.
    """
    u = rng.random(5)
    chosen = Draw(
        brightness=_factor(config.colour, u[0]),
        contrast=_factor(config.colour, u[1]),
        saturation=_factor(config.colour / 2, u[2]),
    )
    image = recolour(image, chosen, bands)
    if u[3] < config.blur:
        sigma = _SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * u[4]
        image = F.gaussian_blur(image, 2 * math.ceil(2 * sigma) + 1, sigma)
    return image


def cutmix_box(side: int, config: ConsistencyConfig, rng: np.random.Generator) -> Window:
    """Return the box that shows another crop; of no size where none does."""
    u = rng.random(5)
    area = side * side * (_BOX[0] + (_BOX[1] - _BOX[0]) * u[1])
    ratio = math.exp(math.log(_RATIO[0]) + math.log(_RATIO[1] / _RATIO[0]) * u[2])
    height = min(side, round(math.sqrt(area * ratio)))
    width = min(side, round(math.sqrt(area / ratio)))
    row, col = int(u[3] * (side - height + 1)), int(u[4] * (side - width + 1))
    return Window(row, col, height, width) if u[0] < config.cutmix else Window(0, 0, 0, 0)
