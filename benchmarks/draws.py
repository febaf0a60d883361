"""What the accuracy benchmarks share: folders made from local data, runs, and rows that stay.

A data set is a folder of the given one, with splits beside it (``splits/NAME.json`` and three draws
of few labelled images, ``splits/NAME_few0.json``). Folders made of it link to its images; labels
are class ids, 255 where nothing is known. Every run and every row is kept, so that a command may be
stopped and called again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from terradapt import training
from terradapt.config import RunConfig, load_config
from terradapt.files import write_json, write_text
from terradapt.machine import hardware
from terradapt.raster import SceneReader, write_raster
from terradapt.raster.opening import quiet
from terradapt.training.run import BEST, LAST

BATCH = 8
FINE = 0.06  # m/px to which drone scenes are brought, unless native detail is the question
Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A data set as it lies on disk.

    Attributes:
        folder: Its name.
        labels: Folder of the labels within.
        names: Of the classes; two: the labels are masks of 0 and 255.
        scaled: Whether the images say their metres per pixel.
    """

    folder: str
    labels: str
    names: tuple[str, ...]
    scaled: bool = False

    @property
    def recipe(self) -> str:
        return "roads" if len(self.names) == 2 else "landcover"


ROADS = ("background", "road")
SETS = {
    "epfl": Source("roads_epfl", "masks", ROADS),
    "cil": Source("roads_cil", "masks", ROADS),
    "harvey": Source(
        "landcover_harvey",
        "labels",
        ("impervious", "building", "low vegetation", "tree", "car", "water"),
        scaled=True,
    ),
    "dubai": Source(
        "landcover_dubai", "labels", ("water", "land", "road", "building", "vegetation")
    ),
}


def read_ids(path: Path) -> NDArray[np.uint8]:
    with quiet(), rasterio.open(path) as file:
        ids: NDArray[np.uint8] = file.read(1)
    return ids


def base(shared: Path, home: Path, name: str, resolution: float | None = FINE) -> Path:
    """Make the folder of a data set with all its labels; return it.

    Args:
        shared: Holds the data sets and ``splits``.
        home: Of what is made.
        name: One of :data:`SETS`.
        resolution: m/px, where the images say theirs: pixels by their mean, labels by their mode;
            None: as they are.
    """
    source = SETS[name]
    coarser = resolution if source.scaled else None
    out = home / (f"{name}_{100 * coarser:g}cm" if coarser else name)
    if (out / "splits.json").is_file():
        return out
    shutil.rmtree(out, ignore_errors=True)
    for part in ("images", "labels"):
        (out / part).mkdir(parents=True)
    labels = {p.stem: p for p in (shared / source.folder / source.labels).iterdir()}
    for image in sorted((shared / source.folder / "images").iterdir()):
        label = labels[image.stem]
        if coarser:
            with SceneReader(image) as scene:
                factor = coarser / (scene.resolution or coarser)
            _coarsen(image, out / "images" / f"{image.stem}.tif", factor, Resampling.average)
            _coarsen(label, out / "labels" / f"{image.stem}.tif", factor, Resampling.mode)
            continue
        (out / "images" / image.name).symlink_to(image.absolute())
        if len(source.names) == 2:
            ids = (read_ids(label) > 127).astype(np.uint8)
            write_raster(out / "labels" / f"{image.stem}.png", ids)
        else:
            (out / "labels" / label.name).symlink_to(label.absolute())
    write_text(out / "classes.yaml", f"names: {json.dumps(list(source.names))}\n")
    write_json(out / "splits.json", splits_of(shared, name))
    return out


def splits_of(shared: Path, name: str, draw: int | None = None) -> dict[str, list[str]]:
    """Return the ids of each split; of a draw also those of ``unlabelled``.

    CIL's images have no file of splits: numbers in order, neighbours mostly together.
    """
    if name == "cil":
        ids = [p.stem for p in (shared / SETS[name].folder / "images").iterdir()]
        ids.sort(key=lambda i: int(i.rpartition("_")[2]))
        return {"train": ids[:30], "val": ids[30:40], "test": ids[40:]}
    file = name if draw is None else f"{name}_few{draw}"
    held: dict[str, list[str]] = json.loads((shared / "splits" / f"{file}.json").read_text("utf-8"))
    return held


def _coarsen(path: Path, out: Path, factor: float, how: Resampling) -> None:
    with quiet(), rasterio.open(path) as file:
        size = round(file.height / factor), round(file.width / factor)
        pixels = file.read(out_shape=(file.count, *size), resampling=how)
        scale = Affine.scale(file.width / size[1], file.height / size[0])
        write_raster(out, pixels, crs=file.crs, transform=file.transform @ scale)


def variant(
    full: Path,
    out: Path,
    splits: Mapping[str, Sequence[str]],
    labels: Mapping[str, NDArray[np.uint8] | None] | None = None,
) -> Path:
    """Make a folder with the images of another, other splits, and some labels of its own.

    Args:
        full: Of :func:`base`.
        out: The new one; made anew where its splits were not written.
        splits: Ids of each split.
        labels: (H, W) class ids in place of the older ones, by id; None: the image has no label.
    """
    if (out / "splits.json").is_file():
        return out
    shutil.rmtree(out, ignore_errors=True)
    (out / "labels").mkdir(parents=True)
    (out / "images").symlink_to((full / "images").absolute())
    for path in sorted((full / "labels").iterdir()):
        if labels is None or path.stem not in labels:
            (out / "labels" / path.name).symlink_to(path.absolute())
            continue
        if (ids := labels[path.stem]) is None:
            continue
        with quiet(), rasterio.open(path) as file:
            frame = {"crs": file.crs, "transform": file.transform} if file.crs else {}
        write_raster(out / "labels" / f"{path.stem}.tif", ids, **frame)
    shutil.copy(full / "classes.yaml", out / "classes.yaml")
    write_json(out / "splits.json", {k: list(v) for k, v in splits.items()})
    return out


def settings_of(args: argparse.Namespace) -> list[str]:
    """Return the overrides that all runs of a command share."""
    return [
        "encoder.name=mobilenetv2_100",
        "encoder.args.pad_type=same",
        f"encoder.weights={args.weights}",
        f"data.crop={args.crop}",
        "data.workers=0",
        f"train.batch={BATCH}",
        f"train.precision={args.precision}",
        "train.epochs=1",
    ]


def config_of(recipe: str, steps: int, seed: int, *overrides: Iterable[str]) -> RunConfig:
    """Return a recipe with a length, a seed and overrides, the later ones above."""
    length = [f"train.steps_per_epoch={steps}", f"train.seed={seed}"]
    warm = [f"optim.warmup={max(1, steps // 10)}"]
    given = [o for part in overrides for o in part]
    return load_config(recipe).with_overrides([*length, *warm, *given])


@dataclass(frozen=True)
class Job:
    """A run whose figures are wanted.

    Attributes:
        plan: What tells it from others.
        make: Returns its config and its folder of data; called when its turn has come.
        measure: Returns its figures from the run's folder.
        seconds: Core seconds that it is expected to take.
        keep: Whether its checkpoint is needed afterwards.
    """

    plan: Row
    make: Callable[[], tuple[RunConfig, Path]]
    measure: Callable[[Path], Row]
    seconds: float
    keep: bool = False


class Kept:
    """Rows of a command, on disk as soon as they are known.

    Args:
        output: Path without a suffix: rows in ``.json``, the page in ``.md``.
        settings: What all rows have in common; rows of other settings are not mixed with them.
        page: Returns the Markdown of the rows.
    """

    def __init__(self, output: Path, settings: Row, page: Callable[[list[Row]], str]) -> None:
        self.json, self.md = (output.with_name(f"{output.name}.{s}") for s in ("json", "md"))
        self.runs = output.with_name(f"{output.name}_runs")
        self._settings, self._page = settings, page
        held = json.loads(self.json.read_text("utf-8")) if self.json.is_file() else {}
        if held and held["settings"] != settings:
            raise SystemExit(f"{self.json}: holds rows of other settings ({held['settings']})")
        self.rows: list[Row] = held.get("rows", [])

    def find(self, plan: Row) -> Row | None:
        return next((r for r in self.rows if matches(r, plan)), None)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        facts = {"hardware": hardware(), "torch": torch.__version__}
        write_json(self.json, {"settings": self._settings, **facts, "rows": self.rows})
        write_text(self.md, self._page(self.rows))
        print(json.dumps(row), flush=True)

    def folder(self, plan: Row) -> Path:
        """Return the folder of a run."""
        name = "_".join(str(v) for v in plan.values())
        return self.runs / "".join(c if c.isalnum() or c in "-_." else "-" for c in name)

    def do(self, job: Job) -> Row:
        """Train and measure, or go on with it, unless that is done."""
        row, run = self.find(job.plan), self.folder(job.plan)
        if row is not None and (not job.keep or (run / BEST).is_file()):
            return row
        is_new, began = not run.exists(), time.process_time()
        config, data = job.make()
        training.train(config, data, run, resume=True)
        trained = time.process_time()
        figures = job.measure(run)
        spent: Row = {"core_seconds": round(trained - began) if is_new else None}
        spent["measuring_seconds"] = round(time.process_time() - trained)
        (run / LAST).unlink(missing_ok=True)
        if not job.keep:
            shutil.rmtree(run)
        row = {**job.plan, **figures, **spent}
        self.rows = [r for r in self.rows if not matches(r, job.plan)]
        self.add(row)
        return row

    def told(self, jobs: Sequence[Job]) -> str:
        """Return what is expected of what is left, in words."""
        left = [j for j in jobs if self.find(j.plan) is None]
        minutes = sum(j.seconds for j in left) / 60
        return f"{len(left)} of {len(jobs)} runs are left: about {minutes:.0f} core minutes"


def matches(row: Row, wanted: Row) -> bool:
    return all(row.get(k) == v for k, v in wanted.items())


def with_spread(values: Sequence[float], sign: str = "") -> str:
    """Return the mean, and the spread of more than one."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):{sign}.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"
