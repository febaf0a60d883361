"""Side-by-side pictures as data URIs: image, label, prediction, errors."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap, Colour
from terradapt.report.model import Picture

WRONG: Colour = (230, 0, 110)
HIT: Colour = (245, 245, 245)
FALSE_ALARM: Colour = WRONG
MISSED: Colour = (60, 140, 255)
UNLABELLED: Colour = (96, 96, 96)
MAX_SIDE = 512  # px; larger pictures are thinned, not blurred, so that labels keep their colours


@dataclass(frozen=True)
class Panels:
    """One row of pictures for the page; each panel is (title, data URI)."""

    name: str
    caption: str
    panels: tuple[tuple[str, str], ...]


def draw_panels(picture: Picture, classes: ClassMap) -> Panels:
    """Return the four panels of a picture."""
    step = -(-max(picture.label.shape) // MAX_SIDE)
    image = picture.image[::step, ::step]
    label, prediction = picture.label[::step, ::step], picture.prediction[::step, ::step]
    colour = _palette(classes)
    return Panels(
        picture.name,
        picture.caption,
        (
            ("image", photo_uri(image)),
            ("label", _map_uri(label, colour)),
            ("prediction", _map_uri(prediction, colour)),
            ("errors", photo_uri(draw_errors(image, label, prediction))),
        ),
    )


def draw_errors(
    image: NDArray[np.uint8], label: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return (H, W, 3): the image in dim grey with errors in colour.

    Two classes: found, false and missed pixels of class 1 apart. More classes: wrong pixels.
    """
    grey = (image.astype(np.float32).mean(axis=2, keepdims=True) * 0.45).astype(np.uint8)
    drawn = np.repeat(grey, 3, axis=2)
    kept = label != IGNORE
    present = np.union1d(np.unique(label[kept]), np.unique(prediction[kept]))
    if present.size and present.max() <= 1:
        drawn[kept & (label == 1) & (prediction == 1)] = HIT
        drawn[kept & (label == 0) & (prediction == 1)] = FALSE_ALARM
        drawn[kept & (label == 1) & (prediction == 0)] = MISSED
    else:
        drawn[kept & (label != prediction)] = WRONG
    drawn[~kept] = UNLABELLED
    return drawn


def legend(classes: ClassMap) -> list[tuple[str, str]]:
    """Return (name, CSS colour) of everything that the panels show."""
    colours = _palette(classes)
    rows = [(n, css(tuple(colours[i].tolist()))) for i, n in enumerate(classes.names)]
    rows.append(("not evaluated", css(UNLABELLED)))
    if len(classes) > 2:
        return [*rows, ("wrong", css(WRONG))]
    name = classes.names[1]
    return [
        *rows,
        (f"{name} found", css(HIT)),
        (f"{name}, false", css(FALSE_ALARM)),
        (f"{name}, missed", css(MISSED)),
    ]


def css(colour: Colour | tuple[int, ...]) -> str:
    """Return an RGB triple as a CSS colour."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _palette(classes: ClassMap) -> NDArray[np.uint8]:
    palette = classes.palette.copy()
    palette[len(classes) :] = UNLABELLED
    return palette


def photo_uri(rgb: NDArray[np.uint8]) -> str:
    """Return (H, W, 3) as a JPEG in a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, "JPEG", quality=85)
    return _data_uri("jpeg", buffer)


def _map_uri(ids: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(ids))
    picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return _data_uri("png", buffer)


def _data_uri(form: str, buffer: io.BytesIO) -> str:
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
