"""Whether the ground of an object looks as it did: what the imagery of two dates says by itself.

A model that takes one roof for clutter at one date tells a change. The imagery does not: light,
season and camera taken out, the roof has the colour that it had. Light is what ground without a
change shows around the object: each band of the earlier date gets the mean and the spread of the
later one there. What then still differs is measured in what unchanged ground differs by.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.changes.dates import DatePair, TwoScenes
from terradapt.changes.raster import Pair
from terradapt.changes.sides import MapSide
from terradapt.grid import Window

_EVERY = 7  # pixels, of which one is looked at for the light
_LEAST = 1000  # of them; fewer tell no light


class Looks:
    """Mean differences of the imagery over objects, light taken out.

    Args:
        scenes: Both dates on one grid.
        count: Objects.
    """

    def __init__(self, scenes: TwoScenes, count: int) -> None:
        self.scenes = scenes
        self._sums: NDArray[np.float64] = np.zeros((count, 0))
        self._seen = np.zeros(count, np.int64)

    def add(
        self,
        window: Window,
        ground: NDArray[np.bool_],
        objects: NDArray[np.int64],
        at: NDArray[np.int64],
    ) -> None:
        """Look at a block.

        Args:
            window: The block.
            ground: (H * W,) its pixels without a change.
            objects: (M,) objects of some of its pixels.
            at: (M,) these pixels.
        """
        old, new, valid = self.scenes.dates(window)
        bands = min(len(old), len(new))
        quiet = np.flatnonzero((ground & valid.ravel())[::_EVERY]) * _EVERY
        inside = valid.ravel()[at]
        if len(quiet) < _LEAST or not inside.any():
            return
        objects, at = objects[inside], at[inside]
        if self._sums.shape[1] < bands:
            self._sums = np.zeros((len(self._seen), bands))
        self._seen += np.bincount(objects, minlength=len(self._seen))
        for k in range(self._sums.shape[1]):
            one, two = old[k].ravel(), new[k].ravel()
            before, after = one[quiet].astype(np.float32), two[quiet].astype(np.float32)
            gain = after.std() / before.std() if before.std() > 0 else np.float32(1)
            lit = after.mean() - gain * before.mean()
            usual = np.abs(gain * before + lit - after).mean()
            differs = (gain * one[at].astype(np.float32) + lit - two[at]) / max(float(usual), 1e-6)
            self._sums[:, k] += np.bincount(objects, differs, minlength=len(self._seen))

    @property
    def unlike(self) -> NDArray[np.float64]:
        """(P,) by how much an object differs in its band that differs most; 1 is usual.

        Infinite where nothing could be seen.
        """
        if not self._sums.shape[1]:
            return np.full(len(self._seen), np.inf)
        means = np.abs(self._sums).max(axis=1) / np.maximum(self._seen, 1)
        return np.where(self._seen > 0, means, np.inf)


def both_scenes(pair: Pair, stack: ExitStack) -> Any:
    """Open the imagery of both sides on the grid; None where a side has none."""
    old, new = pair.old, pair.new
    if pair.direct or not isinstance(old, MapSide) or not isinstance(new, MapSide):
        return None
    if old.scene is None or new.scene is None:
        return None
    dates = DatePair(old.scene, new.scene, pair.georef, pair.shift)
    return stack.enter_context(TwoScenes(dates))
