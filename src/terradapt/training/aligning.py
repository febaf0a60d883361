"""Labels that were drawn on another photo are moved onto their images, where that is sure."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from terradapt.data import Dataset, Item
from terradapt.meta import Alignment
from terradapt.preflight.alignment import PATCHES, WARN, Shift, Surfaces
from terradapt.preflight.inspection import label_surfaces
from terradapt.progress import Track, silent

ALIGNED = ("train", "val")
"""Splits whose labels are moved."""
_SURE = 3.0  # standard errors that a label must lie off to be moved
_APART = 4.0  # px between the estimates of two images that are told
_PATCHES = 4096  # of all images together


def align_labels(dataset: Dataset, track: Track = silent) -> tuple[Dataset, Alignment | None]:
    """Estimate how far labels lie beside their images, and move those that surely do.

    Each image of the splits ``train`` and ``val`` has an estimate of its own
    (:mod:`terradapt.preflight.alignment`). All images together know best where labels lie that were
    drawn on one photo, so that a label is moved by their estimate, to the whole pixel; by its own
    where that surely differs, or where together they are not sure. As the border of a moved label
    is known no better than the estimate's error, a band of that width is ignored along it. Labels
    of ``test`` and corrections stay where they are.

    Args:
        dataset: With its splits.
        track: Shows the images that are done.

    Returns:
        The dataset with moved labels, and what was moved; the same dataset and None where nothing
        was.
    """
    names = [name for part in ALIGNED for name in dataset.splits.get(part, ())]
    items = [i for i in map(dataset.item, dict.fromkeys(names)) if i.label is not None]
    patches = int(np.clip(_PATCHES // max(1, len(items)), 32, PATCHES))
    own: dict[str, Shift | None] = {}
    means = Surfaces()
    with track(len(items), "alignment", "images") as advance:
        for item in items:
            surfaces = label_surfaces(dataset, item, patches)
            own[item.id] = surfaces.shift()
            means.add_means(surfaces)
            advance(1)
    together = means.shift()
    sure = {n: s for n, s in own.items() if s is not None and s.is_clear and differs(s, together)}
    taken = {i.id: sure.get(i.id, together) for i in items}
    moved = {name: shift for name, shift in taken.items() if shift is not None and is_moved(shift)}
    if not moved:
        return dataset, None
    places = np.array([(s.rows, s.cols) for s in moved.values()])
    middle = np.median(places, axis=0)
    spread = np.hypot(*(places - middle).T)
    told = Alignment(
        images=len(items),
        moved=len(moved),
        alone=sum(name in sure for name in moved),
        rows=round(float(middle[0]), 2),
        cols=round(float(middle[1]), 2),
        error=round(max(s.error for s in moved.values()), 2),
        apart=round(float(spread.max()), 2),
        jumps=bool(spread.max() > _APART),
    )
    changed = tuple(on_its_image(i, moved[i.id]) if i.id in moved else i for i in dataset.items)
    return replace(dataset, items=changed), told


def is_moved(shift: Shift) -> bool:
    """Whether a label surely lies off, along an axis by a pixel or more."""
    along = max(abs(shift.rows), abs(shift.cols))
    return shift.is_clear and along >= 1 and shift.distance >= _SURE * shift.error


def differs(own: Shift, together: Shift | None) -> bool:
    """Whether an image's label surely lies elsewhere than those of all images together."""
    if together is None or not together.is_clear:
        return True
    apart = math.hypot(own.rows - together.rows, own.cols - together.cols)
    return apart >= max(WARN, _SURE * own.error)


def on_its_image(item: Item, shift: Shift) -> Item:
    """Return an item whose label is read where the image shows it, moved by a pixel or more."""
    rows, cols = (round(n) if abs(n) >= 1 else 0 for n in (shift.rows, shift.cols))
    return replace(item, shift=(rows, cols), unsure=math.ceil(shift.error))
