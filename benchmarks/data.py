"""Random crops per second: ours against plain rasterio windows and PIL, on the same places.

    python benchmarks/data.py [--seconds 5]

Writes benchmarks/results/data_<hardware>_<date>.{json,md}. One process, one thread. All three read
the same windows of the same generated files and turn them into the same tensors. ``ours`` holds
decoded images within 1 GB, which these fit; ``nothing held`` reads every window from the file;
``augmented`` is ``ours`` with the default augmentations.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import rasterio
import torch
from PIL import Image
from rasterio.windows import Window as RasterWindow

from terradapt.config import RunConfig
from terradapt.data import input_spec, open_dataset
from terradapt.data.reading import ReaderCache
from terradapt.data.sampling import CropDataset
from terradapt.data.transforms import Draw
from terradapt.grid import Window
from terradapt.machine import hardware
from terradapt.raster import write_raster

RESULTS = Path(__file__).parent / "results"
STILL = ["augment.hflip=0", "augment.vflip=0", "augment.rot90=false", "augment.scale=[1,1]"]
STILL += [f"augment.{k}=0" for k in ("brightness", "contrast", "saturation", "sharpness")]
KINDS = {  # suffix, compression
    "GeoTIFF, JPEG tiles": (".tif", "jpeg"),
    "GeoTIFF, deflate tiles": (".tif", "deflate"),
    "PNG": (".png", None),
    "JPEG": (".jpg", None),
}


def write(root: Path, suffix: str, compress: str | None, count: int, side: int) -> None:
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for n in range(count):
        coarse = rng.integers(0, 255, (3, side // 16, side // 16), dtype=np.uint8)
        pixels = np.kron(coarse, np.ones((1, 16, 16), np.uint8))
        pixels = pixels // 2 + rng.integers(0, 60, pixels.shape, dtype=np.uint8)
        ids = (np.kron(coarse[0], np.ones((16, 16), np.uint8)) // 43).astype(np.uint8)
        write_raster(root / "images" / f"s{n}{suffix}", pixels, compress=compress or "deflate")
        label = ".tif" if suffix == ".tif" else ".png"
        write_raster(root / "labels" / f"s{n}{label}", ids)


def rate(read: Callable[[int], object], seconds: float, warm: int) -> float:
    """Crops per second after ``warm`` crops."""
    for i in range(warm):
        read(i)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        read(warm + count)
        count += 1
    return count / (time.perf_counter() - start)


def measure(root: Path, crop: int, seconds: float) -> dict[str, float]:
    dataset = open_dataset(root)
    base = RunConfig().with_overrides(
        [f"data.crop={crop}", "data.workers=0", "train.steps_per_epoch=100000"]
    )
    spec = input_spec(dataset, base.data)
    still = CropDataset(dataset, "train", base.with_overrides(STILL), spec)
    full = CropDataset(dataset, "train", base, spec)
    direct = CropDataset(dataset, "train", base.with_overrides(STILL), spec)
    direct._cache = ReaderCache(dataset, spec, 0, direct.items)

    def place(i: int) -> tuple[Path, Path, Window]:
        from terradapt.data.sampling import generator

        item, window = still._place(i, 0, Draw(), generator(42, 0, i))
        assert item.label is not None  # write() gives every image one
        return item.image, item.label, window

    def tensors(image: np.ndarray, ids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(ids).long()

    def by_rasterio(i: int) -> object:
        picture, ids, w = place(i)
        area = RasterWindow(w.col, w.row, w.width, w.height)
        with rasterio.open(picture) as image, rasterio.open(ids) as label:
            return tensors(image.read(window=area), label.read(1, window=area))

    def by_pil(i: int) -> object:
        picture, ids, w = place(i)
        image, label = np.asarray(Image.open(picture)), np.array(Image.open(ids))
        rows, cols = w.slices
        return tensors(image[rows, cols].transpose(2, 0, 1), label[rows, cols])

    warm = 4 * len(dataset.items)
    return {
        "ours": rate(still.__getitem__, seconds, warm),
        "ours, nothing held": rate(direct.__getitem__, seconds, warm),
        "ours, augmented": rate(full.__getitem__, seconds, warm),
        "rasterio windows": rate(by_rasterio, seconds, 4),
        "PIL": rate(by_pil, seconds, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--crop", type=int, default=512)
    args = parser.parse_args()
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = {}
    for name, (suffix, compress) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), suffix, compress, args.count, args.side)
            rows[name] = measure(Path(folder), args.crop, args.seconds)
            print(name, {k: round(v, 1) for k, v in rows[name].items()}, flush=True)
    save(rows, args)


def save(rows: dict[str, dict[str, float]], args: argparse.Namespace) -> None:
    machine, date = f"{os.cpu_count()}cpu", datetime.date.today().isoformat()
    values = {
        "crops_per_second": rows,
        "settings": vars(args),
        "hardware": hardware(),
        "date": date,
    }
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"data_{machine}_{date}"
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    columns = list(next(iter(rows.values())))
    lines = [
        f"# Random {args.crop} px crops per second, one thread, {machine}, {date}",
        "",
        f"{args.count} files of {args.side} px square with labels; the same windows for all.",
        "`ours` holds decoded images within 1 GB; `nothing held` reads every window.",
        "",
        "| files | " + " | ".join(columns) + " | ours / rasterio |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, row in rows.items():
        cells = " | ".join(f"{row[c]:.1f}" for c in columns)
        lines.append(f"| {name} | {cells} | {row['ours'] / row['rasterio windows']:.1f} |")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
