"""How well labels that were moved are moved back, without any training.

Labels of ``train`` and ``val`` are moved by some pixels in each of three directions, and
``data.align=auto`` moves them back. A label's IoU is that with the label as it was, over the pixels
that both know; the band that a training ignores along borders is kept here, so that it cannot
flatter. Of the IoU that moving took, the share that comes back is what is asked. Labels may lie
beside their images as they are given: the last column compares with those that the same estimate
moved from there.

    python benchmarks/shift.py --data SHARED -o OUT
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from draws import FINE, SETS, Kept, Row, base, read_ids, splits_of, variant, with_spread
from few import WAYS, moved
from terradapt.classes import IGNORE
from terradapt.data import Dataset, open_dataset
from terradapt.data.reading import ItemReader
from terradapt.metrics.confusion import Confusion, class_scores
from terradapt.training.aligning import ALIGNED, align_labels


def labels_of(dataset: Dataset) -> dict[str, NDArray[np.uint8]]:
    """Return (H, W) ids of every label of the splits that are aligned, borders included."""
    found = {}
    for name in (n for split in ALIGNED for n in dataset.splits[split]):
        item = replace(dataset.item(name), unsure=0)
        with ItemReader(dataset, item) as reader:
            found[name] = reader.mask(reader.window)
    return found


def iou(
    labels: dict[str, NDArray[np.uint8]], right: dict[str, NDArray[np.uint8]], classes: int
) -> float:
    """Return the mIoU of labels with the right ones, of two classes the second one's IoU."""
    counts = Confusion(classes)
    for name, ids in labels.items():
        counts.update(np.where(ids == IGNORE, IGNORE, right[name]), ids)
    values = class_scores(counts.matrix)["iou"]
    return float(values[1] if classes == 2 else values.mean())


def measure(args: argparse.Namespace, plan: Row) -> Row:
    name, classes = plan["data"], len(SETS[plan["data"]].names)
    full = base(args.data, args.home, name)
    splits = splits_of(args.data, name)
    rows, cols = (plan["px"] * n for n in WAYS[plan["way"]])
    files = {p.stem: p for p in (full / "labels").iterdir()}
    names = [n for split in ALIGNED for n in splits[split]]
    labels = {n: moved(read_ids(files[n]), rows, cols) for n in names}
    folder = variant(full, args.home / f"{name}_moved_{rows}_{cols}", splits, labels)
    given, beside = open_dataset(full), open_dataset(folder)
    back, told = align_labels(beside)
    row: Row = {"told": asdict(told) if told is not None else None}
    for against, dataset in (("given", given), ("aligned", align_labels(given)[0])):
        right = labels_of(dataset)
        lost, left = (1 - iou(labels_of(d), right, classes) for d in (beside, back))
        row[against] = {"lost": lost, "left": left, "back": 1 - left / lost}
    return row


def page(rows: list[Row]) -> str:
    """Return a table with a line for each data set and length of the move."""
    text = f"# Labels moved in {len(WAYS)} directions, and back; drone scenes at {FINE} m/px\n\n"
    heads = [
        "data",
        "moved by px",
        "IoU",
        "moved back",
        "of the lost, %",
        "of each",
        "to aligned, %",
    ]
    text += f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
    for name, px in dict.fromkeys((r["data"], r["px"]) for r in rows):
        mine = [r for r in rows if (r["data"], r["px"]) == (name, px)]
        kept = [1 - statistics.fmean(r["given"][k] for r in mine) for k in ("lost", "left")]
        shares, likewise = ([100 * r[k]["back"] for r in mine] for k in ("given", "aligned"))
        cells = [name, str(px), *(f"{100 * k:.1f}" for k in kept), with_spread(shares)]
        cells += [", ".join(f"{s:.1f}" for s in shares), with_spread(likewise)]
        text += f"| {' | '.join(cells)} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds the data sets and splits/")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--pixels", type=int, nargs="+", default=[3, 6])
    parser.add_argument("-o", "--output", type=Path, required=True, help="without a suffix")
    args = parser.parse_args()
    args.home = args.output.with_name(f"{args.output.name}_data")
    kept = Kept(args.output, {"ways": [list(w) for w in WAYS]}, page)
    for name in args.sets:
        for px in args.pixels:
            for way in range(len(WAYS)):
                plan: Row = {"data": name, "px": px, "way": way}
                if kept.find(plan) is None:
                    kept.add({**plan, **measure(args, plan)})
    print(page(kept.rows))


if __name__ == "__main__":
    main()
