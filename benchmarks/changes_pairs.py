"""Labelled pairs of two dates, by a model of land cover and by a model of two dates.

`terradapt compare` maps both dates by a model of land cover that saw no pairs (``--cover``: the
untrained way, what changes to or from buildings), or takes both at once by a siamese model
(``--siamese``: trained on synthetic pairs). The pairs lie in LEVIR-CD's form: A/, B/, label/.

    python benchmarks/changes_pairs.py FOLDER... --cover CHECKPOINT --siamese CHECKPOINT

Pixels: what `compare` tells as polygons against the label. Objects: connected regions of the label
of the least area and more; one is found where half of it is covered, and a polygon is right where
half of it lies on the label. Shifts are not taken out: the pairs are registered.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from terradapt import predictors
from terradapt.changes.run import compare
from terradapt.machine import hardware
from terradapt.raster import rasterize, read_label
from terradapt.report.markdown import markdown_table

HALF = 0.5


def objects_of(model: Any, pair: tuple[Path, Path], shape: tuple[int, int], **options: Any) -> Any:
    """Return (H, W) numbers of the polygons that compare finds, 0 elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "u.gpkg"
        compare(*pair, out, model=model, align=False, **options)
        shapes = shapely.from_wkb(pyogrio.raw.read(out, layer="polygons", columns=[])[2])
    places = ((s, i + 1) for i, s in enumerate(shapes))
    place = Affine.identity()  # the pairs have no georeference
    return rasterize(places, height=shape[0], width=shape[1], transform=place, dtype="int32")


def covered(ids: NDArray[Any], by: NDArray[np.bool_], least: int) -> tuple[int, int]:
    """Return how many regions there are, and of how many half is covered."""
    sizes = np.bincount(ids.ravel())
    met = np.bincount(ids[by], minlength=len(sizes))
    told = np.flatnonzero(sizes >= least)
    told = told[told > 0]
    return len(told), int((met[told] >= HALF * sizes[told]).sum())


def f1(right: float, found: float, met: float, true: float) -> list[float]:
    """Return precision, recall and F1."""
    precision, recall = right / max(found, 1e-9), met / max(true, 1e-9)
    return [precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cover", type=Path, help="model of land cover with the class building")
    parser.add_argument("--siamese", type=Path, help="model of two dates")
    parser.add_argument("--least", type=int, default=100, help="smallest object, px")
    parser.add_argument("--calibration", type=Path, help="table of the model of land cover")
    parser.add_argument("--siamese-calibration", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for A, B, label and what was found")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    ways: dict[str, tuple[Path, dict[str, Any]]] = {}
    if args.cover:
        options = {"classes": ("building",), "calibration": args.calibration}
        ways["land cover, no pairs seen"] = args.cover, options
    if args.siamese:
        ways["siamese, synthetic pairs"] = args.siamese, {"calibration": args.siamese_calibration}
    rows: list[list[str]] = []
    values: dict[str, Any] = {}
    for folder in args.folders:
        for way, (path, options) in ways.items():
            model = predictors.load(path)
            pixels, objects = np.zeros(3), np.zeros(4)
            for first in sorted((folder / "A").iterdir()):
                second, label = folder / "B" / first.name, folder / "label" / first.name
                truth = read_label(label) > 0
                ids = objects_of(
                    model, (first, second), truth.shape, min_area=float(args.least), **options
                )
                found = ids > 0
                pixels += (found & truth).sum(), found.sum(), truth.sum()
                regions = ndimage.label(truth)[0]
                mine, right = covered(ids, truth, 1)
                true, met = covered(regions, found, args.least)
                objects += right, mine, met, true
                if args.pictures:
                    show(args.pictures / f"{folder.name}_{way[:4]}_{first.stem}.jpg", first, second,
                         truth, found)  # fmt: skip
            told: dict[str, Any] = {
                "pixels": f1(pixels[0], pixels[1], pixels[0], pixels[2]),
                "objects": f1(*objects),
                "regions": int(objects[3]),
            }
            values[f"{folder.name}: {way}"] = told
            scores = [f"{v:.3f}" for v in (*told["pixels"], *told["objects"])]
            rows.append([folder.name, way, str(told["regions"]), *scores])
            print(rows[-1], flush=True)
    day = date.today().isoformat()
    setting = f"{hardware()}; Python {platform.python_version()}; {day}"
    head = ["pairs", "way", "objects", "pixel P", "R", "F1", "object P", "R", "F1"]
    text = f"# Labelled pairs of two dates\n\n{setting}; objects from {args.least} px\n\n"
    text += markdown_table(head, rows) + "\n"
    args.output.mkdir(parents=True, exist_ok=True)
    stem = args.output / f"changes_pairs_2cpu_{day}"
    stem.with_suffix(".md").write_text(text)
    values["setting"] = setting
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    print(text)


def show(path: Path, first: Path, second: Path, truth: Any, found: Any) -> None:
    """Write both dates, and truth and finding beside them: green both, red false, blue lost."""
    told = np.zeros((*truth.shape, 3), np.uint8)
    told[truth & found], told[found & ~truth], told[truth & ~found] = (
        (0, 200, 0), (230, 0, 0), (40, 90, 255),
    )  # fmt: skip
    parts = [np.asarray(Image.open(p).convert("RGB")) for p in (first, second)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([*parts, told], axis=1)).save(path)


if __name__ == "__main__":
    main()
