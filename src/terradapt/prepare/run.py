"""Preparation of a benchmark: parallel, resumable, told before it starts.

Every image leaves a receipt when it is done. A second run finds the receipts and does nothing; a
source that has changed, or other settings, make its image run again. Files are written beside
their names and renamed, and the receipt comes last: nothing half-written is taken for done.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from terradapt.classes import ClassMap
from terradapt.data.dataset import INDEX_NAME, SPLITS_NAME, Dataset, Item, load_index
from terradapt.data.labels import IndexForm
from terradapt.data.splits import Splits, read_splits, write_splits
from terradapt.errors import DataError, OutputError
from terradapt.files import check_output, read_json, size_text, write_json
from terradapt.machine import cpu_cores
from terradapt.owner import owned
from terradapt.prepare.archives import check_room
from terradapt.prepare.jobs import (
    FOLDERS,
    RECEIPTS,
    PrepareJob,
    Receipt,
    Record,
    finished_jobs,
    read_receipt,
    run,
)
from terradapt.prepare.options import Benchmark, Prepared, PrepareOptions, Tell, tell_nothing
from terradapt.prepare.splits import check_split, splits_of
from terradapt.progress import Track, silent
from terradapt.raster import SceneReader

STATISTICS = "statistics.json"


def prepare_benchmark(
    benchmark: Benchmark,
    out: Path,
    options: PrepareOptions,
    track: Track = silent,
    tell: Tell = tell_nothing,
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
        OutputError: The disk has no room, or filled up; what is done stays done. Or another process
            prepares into this folder.
    """
    out = out.absolute()
    check_output(out, folder=True)
    with owned(out, folder=True):
        split = benchmark.default if options.split == "auto" else options.split
        if options.split != "auto" or not (out / SPLITS_NAME).is_file():
            check_split(benchmark, split)
        jobs = [_job(benchmark, record, out, options) for record in benchmark.records]
        _check_apart(jobs)
        before = _outputs(out)
        receipts = {job.record.id: found for job in jobs if (found := finished_jobs(job))}
        open_jobs = [job for job in jobs if job.record.id not in receipts]
        if open_jobs:
            needed = disk_use(open_jobs)
            tell(
                f"{benchmark.name}: {len(open_jobs)} of {len(jobs)} images to prepare, "
                f"about {size_text(needed)} on the disk"
            )
            check_room(out, needed, f"preparing {benchmark.name}")
            with track(len(open_jobs), f"prepare {benchmark.name}", "image") as advance:
                for job, receipt in _run_all(open_jobs, options.workers):
                    receipts[job.record.id] = receipt
                    advance(1)
        else:
            tell(f"{benchmark.name}: all {len(jobs)} images are prepared already")
        ordered = [receipts[job.record.id] for job in jobs]
        _sweep(out, before, receipts)
        statistics = _statistics(benchmark.classes, ordered)
        if _held_json(out / STATISTICS) != statistics:
            write_json(out / STATISTICS, statistics)
        dataset = _finish(benchmark, out, ordered, options, split)
        return Prepared(dataset, len(open_jobs), len(jobs) - len(open_jobs), statistics)


def _held_json(path: Path) -> Any:
    try:
        return read_json(path)
    except DataError:
        return None


def _check_apart(jobs: Sequence[PrepareJob]) -> None:
    """Refuse to write among the files that are read.

    Raises:
        OutputError: An image or a label lies in a folder of the result.
    """
    for job in jobs:
        out, record = job.out, job.record
        made = [out / name for name in FOLDERS if (out / name).is_dir()]
        for path in (record.image, record.label, record.extra, record.eroded):
            if path is not None and any(path.parent.samefile(folder) for folder in made):
                raise OutputError(
                    f"{path}: is read, and lies where the result is written ({out})",
                    "give another folder with -o",
                )


def _job(benchmark: Benchmark, record: Record, out: Path, options: PrepareOptions) -> PrepareJob:
    return PrepareJob(
        record.absolute(),
        out,
        benchmark.classes,
        benchmark.label,
        options.crop,
        options.overlap,
        options.snap,
        benchmark.resolution,
    )


def disk_use(jobs: Sequence[PrepareJob]) -> int:
    """Estimate the bytes that jobs will write, from the size of the first one's image.

    Labels compress to a seventh or less; crops are counted at the images' uncompressed size.
    """
    first = jobs[0]
    with SceneReader(first.record.image) as image:
        pixels = image.height * image.width
        bands = image.count * np.dtype(image.dtype).itemsize
        cover = 1.0
        if first.crop is not None:
            from terradapt.prepare.jobs import windows

            crops = windows(image.height, image.width, first.crop, first.overlap)
            cover = sum(w.height * w.width for w in crops) / pixels
    labels = (2 if first.record.eroded else 1) * 0.15
    images = bands + (4 if first.record.extra else 0) if first.crop is not None else 0
    return int(len(jobs) * (pixels * cover * (labels + images) + 65536))


def _run_all(jobs: Sequence[PrepareJob], workers: int) -> Iterator[tuple[PrepareJob, Receipt]]:
    """Run jobs in processes, a bounded number ahead; the first error stops all."""
    count = min(workers or cpu_cores(), len(jobs))
    if count <= 1:
        for job in jobs:
            yield job, run(job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_die_with_parent)
    try:
        yield from _drain(pool, jobs, 2 * count)
    except BrokenProcessPool as error:
        raise OutputError(
            f"{jobs[0].out}: a process of the preparation was killed, perhaps for want of memory",
            "run the same command again with workers=1: it goes on where this one stopped",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _die_with_parent() -> None:
    """End this process when its parent does, which then owns the result no more."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _drain(
    pool: ProcessPoolExecutor, jobs: Sequence[PrepareJob], ahead: int
) -> Iterator[tuple[PrepareJob, Receipt]]:
    waiting: dict[Future[Receipt], PrepareJob] = {}
    queue = iter(jobs)
    for job in queue:
        waiting[pool.submit(run, job)] = job
        if len(waiting) < ahead:
            continue
        yield from _collect(waiting)
    while waiting:
        yield from _collect(waiting)


def _collect(waiting: dict[Future[Receipt], PrepareJob]) -> Iterator[tuple[PrepareJob, Receipt]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        yield waiting.pop(future), future.result()


def _outputs(out: Path) -> dict[str, set[str]]:
    """Files that the receipts and lists in a folder vouch for, by image."""
    found: dict[str, set[str]] = {}
    for path in (out / RECEIPTS).glob("*.*"):
        receipt = read_receipt(path) if path.suffix in (".json", ".begun") else None
        if receipt is not None:
            found.setdefault(path.stem, set()).update(receipt.outputs)
    return found


def _sweep(out: Path, before: Mapping[str, set[str]], receipts: Mapping[str, Receipt]) -> None:
    """Remove what an earlier preparation wrote and this one does not: nothing else."""
    keep = {name for receipt in receipts.values() for name in receipt.outputs}
    for key, names in before.items():
        for name in names - keep:
            (out / name).unlink(missing_ok=True)
        if key not in receipts:
            (out / RECEIPTS / f"{key}.json").unlink(missing_ok=True)
    for path in (out / RECEIPTS).glob("*.begun"):
        path.unlink()
    for folder in FOLDERS:
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
    form = IndexForm.identity(len(benchmark.classes))
    dataset = Dataset(benchmark.name, out, items, benchmark.classes, form)
    if not _is_written(out, dataset):
        dataset.save()
    path = out / SPLITS_NAME
    if path.is_file() and options.split == "auto":
        with suppress(DataError):
            splits, protocol = read_splits(path, items)
            return replace(dataset, splits=splits, protocol=protocol)
        check_split(benchmark, split)
    splits, seed = splits_of(benchmark, items, split, options.seed)
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
