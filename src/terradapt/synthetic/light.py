"""The photograph: sun, shadows and sky on the canvas, then the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terradapt.synthetic.canvas import TREE, Canvas, Plane


def photograph(canvas: Canvas, margin: int) -> NDArray[np.uint8]:
    """Light the canvas, blur, colour and expose it: (H, W, 3) uint8 without the margin."""
    style = canvas.city.style
    lit = 1 - _shadow(canvas)
    facing = canvas.facing
    crown = canvas.label == TREE
    facing[crown] = _crown_light(canvas)[crown]
    direct = (lit * facing / np.sin(style.sun_elevation))[..., None]
    sky = np.array((0.27, 0.31, 0.37), np.float32)
    sunlight = np.array((0.80, 0.76, 0.69), np.float32)
    light = canvas.albedo * (sky * _open_sky(canvas)[..., None] + sunlight * direct)
    scene = light * np.array(style.cast, np.float32) * 0.92
    scene = ndimage.gaussian_filter(scene, (style.blur, style.blur, 0), truncate=3.0)
    scene = scene * (1 + 0.03 * canvas.wide[..., None])
    scene = np.clip(scene, 0, None) ** np.float32(0.78)
    scene = (scene - 0.45) * style.contrast + 0.47
    scene = scene * (1 - style.haze) + np.array((0.66, 0.70, 0.76), np.float32) * style.haze
    city = canvas.city
    date = [city.date] if city.date else []
    rng = np.random.default_rng([city.seed, 29, canvas.height, canvas.width, *date])
    grain = rng.standard_normal(scene.shape, np.float32) * np.float32(style.noise)
    scene += grain * (0.6 + scene)
    inner = scene[margin : canvas.height - margin, margin : canvas.width - margin]
    image: NDArray[np.uint8] = np.rint(np.clip(inner, 0, 1) * 255).astype(np.uint8)
    return image


def _shadow(canvas: Canvas) -> Plane:
    """Cast shadows, 0 lit to 1 dark: the highest sun-ward silhouette by doubling the reach."""
    sx, sy, sz = canvas.sun
    flat = np.hypot(sx, sy)
    sx, sy, drop = sx / flat, sy / flat, sz / flat * canvas.step
    reach = max(1.0, float(canvas.tall.max()) / drop)
    silhouette = _shifted(canvas.tall, sx, sy, 1) - np.float32(drop)
    steps = 1
    while steps < reach:
        further = _shifted(silhouette, sx, sy, steps) - np.float32(drop * steps)
        silhouette = np.maximum(silhouette, further)
        steps *= 2
    over = (silhouette - canvas.tall - 0.15) / 0.5
    dark: Plane = np.clip(over, 0, 1) * np.float32(0.93)
    return dark


def _shifted(plane: Plane, sx: float, sy: float, steps: int) -> Plane:
    """Look ``steps`` pixels towards the sun; beyond the border there is level ground."""
    dr, dc = round(sy * steps), round(sx * steps)
    out = np.full_like(plane, -1e3)
    h, w = plane.shape
    if abs(dr) < h and abs(dc) < w:
        out[max(-dr, 0) : h - max(dr, 0), max(-dc, 0) : w - max(dc, 0)] = plane[
            max(dr, 0) : h + min(dr, 0), max(dc, 0) : w + min(dc, 0)
        ]
    return out


def _crown_light(canvas: Canvas) -> Plane:
    """Cosine towards the sun on leaves, from the slope of the canopy."""
    sx, sy, sz = canvas.sun
    smooth = ndimage.uniform_filter(canvas.tall, 3)
    dy, dx = np.gradient(smooth, canvas.step)
    dx, dy = np.clip(dx, -1.6, 1.6), np.clip(dy, -1.6, 1.6)
    cosine = (sz - dx * sx - dy * sy) / np.sqrt(1 + dx * dx + dy * dy)
    light: Plane = np.clip(cosine, 0.05, None).astype(np.float32)
    return light


def _open_sky(canvas: Canvas) -> Plane:
    """Share of the sky that is seen: darker beside walls and between crowns."""
    wide = ndimage.uniform_filter(canvas.tall, 15)
    sky: Plane = np.clip(1 - 0.055 * np.maximum(wide - canvas.tall, 0), 0.55, 1.0)
    return sky
