"""Preparation of a benchmark: parallel, resumable, told before it starts.

Every image leaves a receipt when it is done. A second run finds the receipts and does nothing; a
source that has changed, or other settings, make its image run again. Files are written beside
their names and renamed, and the receipt comes last: nothing half-written is taken for done.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from terradapt.classes import ClassMap
from terradapt.config import DataConfig
from terradapt.data.archives import check_room, size_text
from terradapt.data.dataset import INDEX_NAME, Dataset, Item, load_index, read_json, write_json
from terradapt.data.labels import LabelForm
from terradapt.data.prepare_jobs import RECEIPTS, Job, Receipt, Record, finished, run
from terradapt.data.splits import SPLITS_NAME, Splits, make_splits, read_splits, write_splits
from terradapt.data.tracking import Track, silent
from terradapt.errors import DataError, OutputError
from terradapt.raster import SceneReader

GROUP = 100  # crops that are shuffled together (SAM2MS section IV-A)
TEST_SHARE = 0.3
STATISTICS = "statistics.json"

PAPER_CROP = 1024  # px, of SAM2MS

Tell = Callable[[str], None]
SplitName = Literal["auto", "paper", "by_image", "official"]


def quiet(line: str) -> None:
    """Tell nothing."""


@dataclass(frozen=True)
class PrepareOptions:
    """How a benchmark is prepared.

    Args:
        split: ``paper``: the paper's; ``by_image``: drawn by image; ``official``: the
            benchmark's folders; ``auto``: the dataset's default, or what is there already.
        seed: Of drawn splits.
        bands: Which imagery: ``RGB``, ``IRRG`` or ``RGBIR`` (ISPRS Potsdam), or an imagery
            folder's name (SpaceNet). None: the first that is there.
        dsm: Add the surface model as one more band (ISPRS).
        crop: Cut crops of this side, px; None: whole images stay where they are.
        overlap: Least pixels that neighbouring crops share.
        line_width: Width of a road from its centreline, m (SpaceNet).
        snap: Take label colours that are off by this much per channel for a class's colour.
        workers: Processes; 0: one per core.
    """

    split: SplitName = "auto"
    seed: int = 0
    bands: str | None = None
    dsm: bool = False
    crop: Annotated[int, Field(ge=32)] | None = None
    overlap: int = 0
    line_width: Annotated[float, Field(gt=0)] = 4.0
    snap: Annotated[int, Field(ge=0, le=32)] = 0
    workers: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Benchmark:
    """What a reader found in a benchmark's files.

    Args:
        name: Name of the dataset.
        records: Its labelled images.
        classes: Its class map.
        label: How its label files are read.
        resolution: Metres per pixel, where the files do not say.
        paper: Record ids by split, or None when the paper shuffles crops.
        official: Record ids by split as the benchmark's folders state, or None.
        default: The split of ``auto``.
    """

    name: str
    records: tuple[Record, ...]
    classes: ClassMap
    label: LabelForm
    resolution: float | None = None
    paper: Mapping[str, Sequence[str]] | None = None
    official: Mapping[str, Sequence[str]] | None = None
    default: SplitName = "by_image"


@dataclass(frozen=True)
class Prepared:
    """What a preparation did.

    Args:
        dataset: The result.
        done: Images that were prepared now.
        kept: Images that were prepared before and have not changed.
        statistics: Pixels by class, mean and deviation of the bands.
    """

    dataset: Dataset
    done: int
    kept: int
    statistics: Mapping[str, Any] = field(default_factory=dict)


def with_paper_crops(options: PrepareOptions) -> PrepareOptions:
    """Return options that cut SAM2MS's crops where its split is asked for."""
    if options.split == "paper" and options.crop is None:
        return replace(options, crop=PAPER_CROP)
    return options


def prepare_benchmark(
    benchmark: Benchmark,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = quiet,
) -> Prepared:
    """Bring a benchmark to the normal form: labels as ids, ``dataset.json``, ``splits.json``.

    Args:
        benchmark: What a reader found.
        out: Folder of the result.
        options: How.
        track: How progress is told.
        tell: Takes a line about disk use before the work starts.

    Raises:
        DataError: A label that does not fit its image, an unknown colour, a damaged file.
        OutputError: The disk has no room, or filled up; what is done stays done.
    """
    split = benchmark.default if options.split == "auto" else options.split
    if options.split != "auto" or not (out / SPLITS_NAME).is_file():
        _check_split(benchmark, split)
    jobs = [_job(benchmark, record, out, options) for record in benchmark.records]
    before = _outputs(out)
    receipts = {job.record.id: found for job in jobs if (found := finished(job))}
    open_jobs = [job for job in jobs if job.record.id not in receipts]
    if open_jobs:
        needed = disk_use(open_jobs)
        tell(
            f"{benchmark.name}: {len(open_jobs)} of {len(jobs)} images to prepare, "
            f"about {size_text(needed)} on the disk"
        )
        check_room(out, needed, f"preparing {benchmark.name}")
        out.mkdir(parents=True, exist_ok=True)
        with track(len(open_jobs), f"prepare {benchmark.name}", "image") as advance:
            for job, receipt in _run_all(open_jobs, options.workers):
                receipts[job.record.id] = receipt
                advance(1)
    else:
        tell(f"{benchmark.name}: all {len(jobs)} images are prepared already")
    ordered = [receipts[job.record.id] for job in jobs]
    _sweep(out, before, jobs)
    statistics = _statistics(benchmark.classes, ordered)
    if open_jobs or not (out / STATISTICS).is_file():
        write_json(out / STATISTICS, statistics)
    dataset = _finish(benchmark, out, ordered, options, split)
    return Prepared(dataset, len(open_jobs), len(jobs) - len(open_jobs), statistics)


def _check_split(benchmark: Benchmark, split: str) -> None:
    if split == "official" and benchmark.official is None:
        raise DataError(
            f"{benchmark.name}: its files state no split", "use split=by_image or split=paper"
        )
    if split == "paper" and benchmark.paper is not None:
        found = {record.id for record in benchmark.records}
        missing = [i for ids in benchmark.paper.values() for i in ids if i not in found]
        if missing:
            raise missing_tiles(benchmark.name, missing)


def missing_tiles(name: str, missing: Sequence[str]) -> DataError:
    """Return the error that names the tiles of the paper's split that are not there."""
    shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
    return DataError(
        f"{name}: {len(missing)} tiles of the paper's split are missing: {shown}",
        "add their image and label files, or use split=by_image for what is there",
    )


def _job(benchmark: Benchmark, record: Record, out: Path, options: PrepareOptions) -> Job:
    return Job(
        record,
        out,
        benchmark.classes,
        benchmark.label,
        options.crop,
        options.overlap,
        options.snap,
        benchmark.resolution,
    )


def disk_use(jobs: Sequence[Job]) -> int:
    """Estimate the bytes that jobs will write, from the size of the first one's image.

    Labels compress to a seventh or less; crops are counted at the images' uncompressed size.
    """
    first = jobs[0]
    with SceneReader(first.record.image) as image:
        pixels = image.height * image.width
        bands = image.count * np.dtype(image.dtype).itemsize
        cover = 1.0
        if first.crop is not None:
            from terradapt.data.prepare_jobs import windows

            crops = windows(image.height, image.width, first.crop, first.overlap)
            cover = sum(w.height * w.width for w in crops) / pixels
    labels = (2 if first.record.eroded else 1) * 0.15
    images = bands + (4 if first.record.extra else 0) if first.crop is not None else 0
    return int(len(jobs) * (pixels * cover * (labels + images) + 65536))


def _run_all(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Receipt]]:
    """Run jobs in processes, a bounded number ahead; the first error stops all."""
    count = min(workers or _cores(), len(jobs))
    if count <= 1:
        for job in jobs:
            yield job, run(job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context)
    try:
        yield from _drain(pool, jobs, 2 * count)
    except BrokenProcessPool as error:
        raise OutputError(
            f"{jobs[0].out}: a process of the preparation was killed, perhaps for want of memory",
            "run the same command again with workers=1: it goes on where this one stopped",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _drain(
    pool: ProcessPoolExecutor, jobs: Sequence[Job], ahead: int
) -> Iterator[tuple[Job, Receipt]]:
    waiting: dict[Future[Receipt], Job] = {}
    queue = iter(jobs)
    for job in queue:
        waiting[pool.submit(run, job)] = job
        if len(waiting) < ahead:
            continue
        yield from _collect(waiting)
    while waiting:
        yield from _collect(waiting)


def _collect(waiting: dict[Future[Receipt], Job]) -> Iterator[tuple[Job, Receipt]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        yield waiting.pop(future), future.result()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _outputs(out: Path) -> dict[str, set[str]]:
    """Files that the receipts in a folder vouch for, by receipt."""
    found: dict[str, set[str]] = {}
    for path in (out / RECEIPTS).glob("*.json"):
        with suppress(DataError):
            found[path.stem] = set(read_json(path).get("outputs", {}))
    return found


def _sweep(out: Path, before: Mapping[str, set[str]], jobs: Sequence[Job]) -> None:
    """Remove what an earlier preparation wrote and this one does not: nothing else."""
    ids = {job.record.id for job in jobs}
    keep = {name for key, names in _outputs(out).items() if key in ids for name in names}
    for key, names in before.items():
        for name in names - keep:
            (out / name).unlink(missing_ok=True)
        if key not in ids:
            (out / RECEIPTS / f"{key}.json").unlink(missing_ok=True)
    for folder in ("images", "labels", "labels_eroded", "extra"):
        with suppress(OSError):
            (out / folder).rmdir()


def _statistics(classes: ClassMap, receipts: Sequence[Receipt]) -> dict[str, Any]:
    counts = np.array([r.counts for r in receipts], np.int64).sum(0)
    total = max(int(counts[:-1].sum()), 1)
    values: dict[str, Any] = {
        "images": len(receipts),
        "items": sum(len(r.items) for r in receipts),
        "classes": {
            name: {"pixels": int(n), "share": round(int(n) / total, 6)}
            for name, n in zip(classes.names, counts, strict=False)
        },
        "ignored": int(counts[-1]),
    }
    sums = [np.array(r.sums) for r in receipts if r.sums]
    if sums and len({s.shape for s in sums}) == 1:
        first, second, seen = np.sum(sums, axis=0).T
        mean = first / seen
        values["mean"] = [round(float(m), 3) for m in mean]
        values["std"] = [
            round(float(v), 3) for v in np.sqrt(np.maximum(second / seen - mean**2, 0))
        ]
    return values


def _finish(
    benchmark: Benchmark,
    out: Path,
    receipts: Sequence[Receipt],
    options: PrepareOptions,
    split: str,
) -> Dataset:
    """Write ``dataset.json`` and ``splits.json`` where they are not as they should be."""
    items = tuple(_as_item(values, out) for receipt in receipts for values in receipt.items)
    if split == "paper" and benchmark.paper is None:  # it shuffles the crops of all images
        items = tuple(replace(item, group=item.id) for item in items)
    form = LabelForm.identity(len(benchmark.classes))
    dataset = Dataset(benchmark.name, out, items, benchmark.classes, form)
    if not _is_written(out, dataset):
        dataset.save()
    path = out / SPLITS_NAME
    if path.is_file() and options.split == "auto":
        with suppress(DataError):
            splits, protocol = read_splits(path, items)
            return replace(dataset, splits=splits, protocol=protocol)
        _check_split(benchmark, split)
    splits, seed = _splits(benchmark, items, split, options.seed)
    if not path.is_file() or read_json(path) != _stated(splits, split, seed):
        write_splits(path, splits, split, seed)
    return replace(dataset, splits=splits, protocol=split)


def _stated(splits: Splits, protocol: str, seed: int | None) -> dict[str, Any]:
    return {"protocol": protocol, "seed": seed, **{k: list(v) for k, v in splits.items()}}


def _is_written(out: Path, dataset: Dataset) -> bool:
    if not (out / INDEX_NAME).is_file():
        return False
    try:
        there = load_index(out)
    except DataError:
        return False
    same = (there.name, there.classes, there.label) == (
        dataset.name,
        dataset.classes,
        dataset.label,
    )
    return same and there.items == dataset.items


def _as_item(values: Mapping[str, Any], out: Path) -> Item:
    def path(key: str) -> Path | None:
        return out / values[key] if values.get(key) else None

    image = path("image")
    assert image is not None
    return Item(
        values["id"],
        image,
        path("label"),
        values["group"],
        path("extra"),
        values["height"],
        values["width"],
        values["resolution"],
        path("eroded"),
    )


def _splits(
    benchmark: Benchmark, items: Sequence[Item], split: str, seed: int
) -> tuple[Splits, int | None]:
    if split == "official":
        assert benchmark.official is not None
        return _by_group(benchmark.official, items), None
    if split == "paper" and benchmark.paper is not None:
        return _by_group(benchmark.paper, items), None
    if split == "paper":
        return shuffled_groups([item.id for item in items], seed), seed
    config = DataConfig(val_fraction=0.1, test_fraction=TEST_SHARE, split_seed=seed)
    return make_splits(items, config), seed


def _by_group(stated: Mapping[str, Sequence[str]], items: Sequence[Item]) -> Splits:
    """Splits of record ids as splits of their items (their crops)."""
    home = {name: split for split, ids in stated.items() for name in ids}
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for item in items:
        if item.group in home:
            splits[home[item.group]].append(item.id)
    return {name: tuple(ids) for name, ids in splits.items()}


def shuffled_groups(ids: Sequence[str], seed: int) -> Splits:
    """Split shuffled crops as SAM2MS does: groups of 100, 7 : 3. Crops of one image leak.

    Whole groups go to either side, the test's share rounded up: this meets the printed counts of
    DeepGlobe (4326 / 1900) and SpaceNet (7096 / 3100); 70 : 30 inside each group does not.
    """
    rng = np.random.default_rng([seed, 0x5A32])
    shuffled = [ids[i] for i in rng.permutation(len(ids))]
    groups = [shuffled[i : i + GROUP] for i in range(0, len(shuffled), GROUP)]
    count = min(-(-len(groups) * 3 // 10), len(groups) - 1)
    full = [g for g in groups if len(g) == GROUP]
    test = {name for group in full[:count] for name in group}
    if not test:  # fewer than two groups: nothing but the share can be kept
        test = set(shuffled[: max(1, round(len(ids) * TEST_SHARE))])
    return {
        "train": tuple(sorted(set(ids) - test)),
        "val": (),
        "test": tuple(sorted(test)),
    }
