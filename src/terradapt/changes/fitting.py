"""Fit a table of calibration on pairs of dates whose changes are known.

Pixels of all pairs are counted by their score, 251 steps as in the raster of change, and how many
of each step have changed. Pool adjacent violators makes the shares a function that never falls
(Zadrozny and Elkan, KDD 2002). The error is that of pairs that the fit did not see.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from terradapt.changes.calibration import ChangeTable
from terradapt.changes.run import compare
from terradapt.changes.sampling import Onto
from terradapt.classes import CHANGES, IGNORE
from terradapt.data import Dataset, Item, open_dataset
from terradapt.data.reading import ItemReader
from terradapt.errors import DataError
from terradapt.files import check_new, check_output, write_json
from terradapt.progress import Track, silent
from terradapt.raster import SceneReader
from terradapt.scene.options import STEPS

BINS = 15
Counts = NDArray[np.float64]
_SCORES = np.arange(STEPS + 1) / STEPS
_LEAST = 100  # changed pixels to fit on


def calibrate_changes(
    pairs: str | Path,
    output: str | Path,
    *,
    model: Any,
    model_name: str = "",
    bar: Track = silent,
    say: Callable[[str], None] = lambda _: None,
    overwrite: bool = False,
    **options: Any,
) -> ChangeTable:
    """Write a table that makes scores of change probabilities, for ``compare``'s ``calibration``.

    It is fitted on the splits ``train`` and ``val``; its error is measured on ``test``.

    Args:
        pairs: A dataset of two dates, or its folder: ``A/``, ``B/``, ``label/``.
        output: The JSON file to write.
        model: What maps the scenes, as in :func:`terradapt.compare`.
        model_name: Of an opened model, for the table's source.
        bar: Progress.
        say: Takes what is told on the way.
        overwrite: Replace a table that is there.
        options: Further arguments of :func:`terradapt.compare`; as it will be used.

    Raises:
        DataError: No pairs, no test, or too few changed pixels to fit on.
        ConfigError: An option that is out of its range.
        OutputError: The table is there already, or cannot be written.
    """
    output = Path(output)
    check_output(output, (".json",))
    check_new([output], overwrite)
    dataset = open_dataset(pairs)
    if dataset.classes != CHANGES and len(dataset.classes) != len(CHANGES):
        raise DataError(
            f"{pairs}: has the classes {', '.join(dataset.classes.names)}",
            "give pairs whose labels are 0 (unchanged) and 1 (changed)",
        )
    items = {i.id: i for i in dataset.items}
    lone = next((i for i in dataset.items if i.extra is None), None)
    if lone is not None:
        raise DataError(
            f"{lone.image}: has no second date", "lay the pairs out as A/, B/ and label/"
        )
    parts = {
        "fit": [items[n] for s in ("train", "val") for n in dataset.splits.get(s, ())],
        "test": [items[n] for n in dataset.splits.get("test", ())],
    }
    counts = {name: np.zeros((2, STEPS + 1)) for name in parts}
    unchanged = 0
    total = sum(map(len, parts.values()))
    with bar(total, "compare pairs", "pair") as advance, TemporaryDirectory() as folder:
        for name, members in parts.items():
            for item in members:
                found = _counted(
                    dataset, item, Path(folder) / f"{item.id.replace('/', '_')}.gpkg",
                    model=model, model_name=model_name, **options,
                )  # fmt: skip
                counts[name] += found
                unchanged += not found[1].any()
                advance(1)
    if counts["fit"][1].sum() < _LEAST or not counts["test"][0].sum():
        raise DataError(
            f"{pairs}: {counts['fit'][1].sum():.0f} changed pixels to fit on, "
            f"{counts['test'][0].sum():.0f} pixels to test on",
            "give more pairs: some of them in the split test",
        )
    table = fitted_table(*counts["fit"])
    source = f"{len(parts['fit'])} pairs of {Path(pairs).name}"
    named = f", {model_name}" if model_name else ""
    pixels, changed = counts["test"]
    error, before = (expected_error(pixels, changed, t) for t in (table, ChangeTable()))
    table = table.model_copy(update={"source": source + named, "ece": round(error, 5)})
    told = _SCORES >= 0.1
    unsure = [expected_error(pixels * told, changed * told, t) for t in (ChangeTable(), table)]
    say(f"expected calibration error on {len(parts['test'])} other pairs: {before:.4f} before, "
        f"{error:.4f} after; of pixels with a score from 0.1 on {unsure[0]:.4f} and "
        f"{unsure[1]:.4f}")  # fmt: skip
    if not unchanged:
        say(
            "each of the pairs has changes: where hardly anything changes the probabilities will "
            "be too high, and false changes are told; add pairs without a change"
        )
    write_json(output, table.model_dump())
    return table


def _counted(dataset: Dataset, item: Item, out: Path, **options: Any) -> NDArray[np.float64]:
    """Compare a pair; count (2, 251) pixels and changed pixels by score."""
    assert item.extra is not None
    figures = compare(item.image, item.extra, out, calibration=None, **options)
    counts = np.zeros((2, STEPS + 1))
    change = out.with_name(f"{out.stem}_change.tif")
    with SceneReader(change) as scores, ItemReader(dataset, item) as own:
        shift = figures["shift_px"]
        onto = Onto(own.georef, scores.georef, (float(shift[0]), float(shift[1])))
        steps = scores.read(scores.window)[0][0]
        rows, cols = onto.pixels(scores.window, 1)[0]
        ids = own.mask(own.window)
        inside = (rows >= 0) & (cols >= 0) & (rows < own.height) & (cols < own.width)
        truth = np.where(inside, ids[np.where(inside, rows, 0), np.where(inside, cols, 0)], IGNORE)
        seen = (steps <= STEPS) & (truth != IGNORE)
        counts[0] = np.bincount(steps[seen], minlength=STEPS + 1)
        counts[1] = np.bincount(steps[seen & (truth == 1)], minlength=STEPS + 1)
    for path in out.parent.glob(f"{out.stem}*"):
        path.unlink()
    return counts


def fitted_table(pixels: Counts, changed: Counts) -> ChangeTable:
    """Return the monotone table of shares that have changed.

    Args:
        pixels: (251,) pixels of each step of the score, 0 to 1.
        changed: (251,) of them changed.
    """
    number, right = np.asarray(pixels, float), np.asarray(changed, float)
    known = np.flatnonzero(number)
    share = isotonic_regression(right[known] / number[known], weights=number[known]).x
    new = np.ones(len(known), bool)  # ends of runs of one value say it all
    same = np.diff(share) == 0
    new[1:-1] = ~(same[:-1] & same[1:])
    scores = _SCORES[known[new]].tolist()
    values = np.clip(share[new], 0, 1).tolist()
    if scores[0] > 0:
        scores, values = [0.0, *scores], [values[0], *values]
    if scores[-1] < 1:
        scores, values = [*scores, 1.0], [*values, values[-1]]
    return ChangeTable(scores=tuple(scores), probabilities=tuple(round(v, 6) for v in values))


def expected_error(pixels: Counts, changed: Counts, table: ChangeTable) -> float:
    """Return the expected calibration error, in 15 bins of probability (Guo et al., ICML 2017).

    Args:
        pixels: (251,) pixels of each step of the score.
        changed: (251,) of them changed.
        table: From scores to probabilities.
    """
    number, right = np.asarray(pixels, float), np.asarray(changed, float)
    chance = table(_SCORES.astype(np.float32)).astype(float)
    bins = np.minimum((chance * BINS).astype(int), BINS - 1)
    told, true = (np.bincount(bins, v, minlength=BINS) for v in (chance * number, right))
    return float(np.abs(told - true).sum() / max(number.sum(), 1.0))
