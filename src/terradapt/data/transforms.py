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


def augment(image: Tensor, mask: Tensor, chosen: Draw, size: int) -> tuple[Tensor, Tensor]:
    """Bring a window to the crop's size and augment it.

    Args:
        image: (C, S, S) uint8, S about ``size * chosen.reach / chosen.scale`` px.
        mask: (S, S) uint8 class ids.
        chosen: The parameters.
        size: Side of the crop, px.

    Returns:
        (C, size, size) uint8 and (size, size) uint8; what lies outside the image is 255 in the
        mask.
    """
    pixels, ids = tv_tensors.Image(image), tv_tensors.Mask(mask[None])
    side = max(size, round(size * chosen.reach))
    if pixels.shape[-2:] != (side, side):
        pixels, ids = F.resize(pixels, [side, side], antialias=True), F.resize(ids, [side, side])
    if chosen.angle:
        turn = F.InterpolationMode.BILINEAR
        pixels = F.rotate(pixels, chosen.angle, interpolation=turn)
        ids = F.rotate(ids, chosen.angle, fill=float(IGNORE))
    if side != size:
        pixels, ids = F.center_crop(pixels, [size, size]), F.center_crop(ids, [size, size])
    pixels, ids = _turned(pixels, chosen), _turned(ids, chosen)
    return recolour(pixels.as_subclass(Tensor), chosen), ids.as_subclass(Tensor)[0].contiguous()


def _turned(image: Tensor, chosen: Draw) -> Tensor:
    if chosen.hflip:
        image = F.horizontal_flip(image)
    if chosen.vflip:
        image = F.vertical_flip(image)
    return torch.rot90(image, chosen.turns, (-2, -1)) if chosen.turns else image


def recolour(image: Tensor, chosen: Draw) -> Tensor:
    """Change brightness, contrast, saturation and sharpness of (C, H, W) uint8.

    Of other than three bands each is treated as an image of its own, and keeps its saturation.
    """
    bands = image if len(image) == 3 else image[:, None]
    if chosen.brightness != 1:
        bands = F.adjust_brightness(bands, chosen.brightness)
    if chosen.contrast != 1:
        bands = F.adjust_contrast(bands, chosen.contrast)
    if chosen.saturation != 1 and len(image) == 3:
        bands = F.adjust_saturation(bands, chosen.saturation)
    if chosen.sharpness != 1:
        bands = F.adjust_sharpness(bands, chosen.sharpness)
    return bands.reshape(image.shape).contiguous()


_SIGMA = (0.1, 2.0)  # px, of a strong view's blur
_BOX = (0.02, 0.4)  # share of a crop that a CutMix box covers
_RATIO = (0.3, 1 / 0.3)  # of its sides


def strengthen(image: Tensor, config: ConsistencyConfig, rng: np.random.Generator) -> Tensor:
    """Return a strong view of (C, H, W) uint8: other colours, perhaps blurred (UniMatch).

    Always takes the same number of numbers from ``rng``.
    """
    u = rng.random(5)
    chosen = Draw(
        brightness=_factor(config.colour, u[0]),
        contrast=_factor(config.colour, u[1]),
        saturation=_factor(config.colour / 2, u[2]),
    )
    image = recolour(image, chosen)
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
