"""Style: what makes one city unlike another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RGB = tuple[float, float, float]

BLOCK_KINDS = ("houses", "perimeter", "slabs", "commercial", "park", "field", "site")

ROOFS: dict[str, RGB] = {
    "red": (0.62, 0.31, 0.22),
    "orange": (0.70, 0.42, 0.29),
    "brown": (0.42, 0.29, 0.22),
    "slate": (0.30, 0.31, 0.34),
    "grey": (0.47, 0.46, 0.45),
}
FLAT_ROOFS: dict[str, RGB] = {
    "gravel": (0.55, 0.53, 0.50),
    "bitumen": (0.33, 0.33, 0.34),
    "white": (0.82, 0.82, 0.81),
    "zinc": (0.52, 0.56, 0.59),
    "sedum": (0.38, 0.42, 0.27),
}


@dataclass(frozen=True)
class Style:
    """What makes one city unlike another; every value is drawn from the seed.

    Lengths are metres, angles radians, colours and shares 0..1.
    """

    theta: float
    block: tuple[float, float]
    warp: Floats  # (waves, 6): amplitude x, amplitude y, wave vector u, v, phase x, phase y
    main_every: int
    main_offset: tuple[int, int]
    main_width: float
    side_width: float
    pavement: float
    drop: float
    arterial: float
    roundabouts: float
    kinds: Floats  # weights of BLOCK_KINDS
    roofs: Floats
    flat_roofs: Floats
    hipped: float
    trees: float
    cars: float
    sun_azimuth: float
    sun_elevation: float
    grass: RGB
    dry: float
    soil: RGB
    tree: RGB
    asphalt: RGB
    paving: RGB
    cast: RGB
    haze: float
    contrast: float
    blur: float
    noise: float

    @classmethod
    def of(cls, seed: int) -> Style:
        """Draw the style of a city."""
        rng = np.random.default_rng([7919, seed])

        def u(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        def tinted(rgb: RGB, by: float) -> RGB:
            r, g, b = np.clip(np.asarray(rgb) * u(0.88, 1.12) + rng.uniform(-by, by, 3), 0, 1)
            return float(r), float(g), float(b)

        waves = _waves(rng)
        lush, parched = np.array((0.27, 0.38, 0.17)), np.array((0.50, 0.46, 0.28))
        dry = u(0.0, 0.55)
        base = lush + dry * (parched - lush)
        return cls(
            theta=u(0, np.pi / 2),
            block=(u(72, 112), u(56, 86)),
            warp=waves,
            main_every=int(rng.integers(3, 5)),
            main_offset=(int(rng.integers(4)), int(rng.integers(4))),
            main_width=u(10.0, 13.5),
            side_width=u(5.6, 7.6),
            pavement=u(1.5, 3.0),
            drop=u(0.08, 0.22),
            arterial=u(0, 1),
            roundabouts=u(0.15, 0.6),
            kinds=(w := np.array((5, 3, 2.5, 2, 1.4, 1.0, 0.7)) * rng.uniform(0.5, 1.5, 7))
            / w.sum(),
            roofs=(w := rng.uniform(0.1, 1, len(ROOFS)) ** 2) / w.sum(),
            flat_roofs=(w := rng.uniform(0.2, 1, len(FLAT_ROOFS)) * (1, 1, 0.8, 0.8, 0.3))
            / w.sum(),
            hipped=u(0.15, 0.5),
            trees=u(0.6, 1.3),
            cars=u(0.7, 1.3),
            sun_azimuth=np.deg2rad(u(115, 245)),
            sun_elevation=np.deg2rad(u(36, 56)),
            grass=tinted((float(base[0]), float(base[1]), float(base[2])), 0.02),
            dry=dry,
            soil=tinted((0.50, 0.41, 0.31), 0.04),
            tree=tinted((0.19, 0.27, 0.13), 0.025),
            asphalt=tinted((0.37, 0.37, 0.38), 0.02),
            paving=tinted((0.55, 0.53, 0.50), 0.03),
            cast=(u(0.95, 1.05), u(0.97, 1.03), u(0.93, 1.07)),
            haze=u(0.0, 0.06),
            contrast=u(0.9, 1.15),
            blur=u(0.45, 0.75),
            noise=u(0.008, 0.018),
        )


def _waves(rng: np.random.Generator) -> Floats:
    """Three waves, gentle enough that the warp can be inverted by iteration."""
    waves = rng.uniform(0.6, 1.0, (3, 6))
    length = rng.uniform(240, 620, (3, 1))
    turn = rng.uniform(0, 2 * np.pi, 3)
    wave = 2 * np.pi / length[:, 0]
    waves[:, :2] = 0.13 / wave[:, None] * rng.uniform(-1, 1, (3, 2))
    waves[:, 2], waves[:, 3] = wave * np.cos(turn), wave * np.sin(turn)
    waves[:, 4:] = rng.uniform(0, 2 * np.pi, (3, 2))
    return waves
