"""What was resampled in an evaluation, and what could not be because nobody says its scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from terradapt.data import Item
from terradapt.errors import ConfigError
from terradapt.evaluation.options import Protocol
from terradapt.scene import PredictOptions, Predictor
from terradapt.scene.resample import fitted

_OFF = 0.1  # resolutions differing by more than this share are told
_STATE = "`terradapt data folder SRC -o DIR resolution=METRES` states them"


def check_resolution(items: Sequence[Item], protocol: Protocol) -> None:
    """Refuse a resolution that cannot be reached because no image says its own.

    Raises:
        ConfigError: A number of metres per pixel, and images without any.
    """
    if isinstance(protocol.resolution, float) and not any(i.resolution for i in items):
        raise ConfigError(
            f"--resolution {protocol.resolution:g}: no image says its own metres per pixel, so "
            "that nothing can be resampled",
            f"{_STATE}; or leave --resolution out",
        )


def resolution_notes(
    items: Sequence[Item], predictor: Predictor, protocol: Protocol, *, cross: bool = False
) -> list[str]:
    """Return what a reader of the figures should know of the scales of images and model.

    Args:
        items: The images.
        predictor: The model.
        protocol: What was asked for.
        cross: The images are of another dataset than those of the training.
    """
    trained = predictor.spec.resolution
    known = [i.resolution for i in items if i.resolution]
    if protocol.resolution == "native" and not (trained and known):
        return []
    if protocol.resolution == "auto" and not trained:
        return [_untold(bool(known))] if known or cross else []
    notes = []
    if len(known) < len(items):
        model = f", the checkpoint was trained at {trained:.3g}" if trained else ""
        notes.append(
            f"{len(items) - len(known)} of {len(items)} images do not say their metres per pixel "
            f"and were read as they are{model}; {_STATE}."
        )
    return notes + (_compared(float(np.median(known)), predictor, protocol) if known else [])


def _compared(here: float, predictor: Predictor, protocol: Protocol) -> list[str]:
    trained = predictor.spec.resolution
    told = trained if isinstance(protocol.resolution, str) else protocol.resolution
    if not told or abs(here / told - 1) <= _OFF:
        return []
    suited = fitted(predictor, PredictOptions(resolution=protocol.resolution), here)
    if suited is not predictor:
        done = f"windows were resampled to {told:.3g} (--resolution native does not)"
    elif protocol.resolution == "native":
        done = "nothing was resampled (--resolution auto does)"
    else:
        done = "nothing was resampled, for the random crops of its training were magnified as much"
    model = f"the checkpoint was trained at {trained:.3g}: " if trained else ""
    return [f"The images have {here:.3g} m/px, {model}{done}."]


def _untold(known: bool) -> str:
    who = (
        "the checkpoint does not say the metres per pixel of its training"
        if known
        else "neither checkpoint nor images say their metres per pixel"
    )
    return f"Nothing was resampled: {who}; where the scales differ, the figures suffer. {_STATE}."
