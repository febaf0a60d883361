"""Small jobs of every verb that writes, in processes of their own that die where they are told to.

A point is a step that changes the disk: a file opened for writing, an fsync, a rename, a removal, a
folder made. A process ends at its k-th point, before the step, as SIGKILL ends it: no handler, no
buffer flushed. A torn point is an fsync that never comes: half of what was not synced is lost.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

KILLED = 137
_STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}
_PRELOADED = ["scene_files", "training_files", "benchmark_files", "export_files"]
_PRELOADED += ["terradapt.training.trainer", "terradapt.export.run", "terradapt.vector"]
_PRELOADED += ["terradapt.prepare.isprs"]


@dataclass(frozen=True)
class Job:
    """A job of a verb.

    Attributes:
        prepare: Makes its inputs in a folder, once.
        run: (inputs, folder of the result, resume).
        ignored: Ends of names of files whose bytes hold the time.
    """

    prepare: Callable[[Path], None]
    run: Callable[[Path, Path, bool], None]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        code: 0, 2 for an error in words, 137 for a kill; anything else is a traceback.
        said: The error, or the traceback.
        points: Points that it passed, one letter each; f for an fsync.
        seconds: It ran.
    """

    code: int
    said: str = ""
    points: str = ""
    seconds: float = 0.0


def server() -> ForkServerContext:
    """Return a context whose processes start with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


class Run:
    """A job in a process of its own.

    Args:
        job: Name of the job.
        inputs: Its inputs.
        out: Folder of the result.
        resume: Go on with what is there.
        point: Die at this point; 0 never.
        torn: Lose half of what was not synced; the point is an fsync.
    """

    def __init__(
        self, job: str, inputs: Path, out: Path, resume: bool, point: int = 0, torn: bool = False
    ) -> None:
        self.told, said = multiprocessing.Pipe(duplex=False)
        self.started = time.monotonic()
        self.process = server().Process(
            target=_work, args=(said, job, inputs, out, resume, point, torn)
        )
        self.process.start()
        said.close()

    def end(self, after: float | None = None) -> End:
        """Wait for the end, or kill the process after some seconds."""
        self.process.join(after)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        try:
            code, said, points, seconds = self.told.recv()
        except EOFError:
            return End(KILLED)
        return End(code, said, points, seconds)


def _work(
    told: Connection, job: str, inputs: Path, out: Path, resume: bool, point: int, torn: bool
) -> None:
    from terradapt.errors import TerradaptError

    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    deaths = _Deaths(out, point, torn)
    started = time.monotonic()
    try:
        jobs()[job].run(inputs, out, resume)
        end = 0, ""
    except TerradaptError as error:
        end = 2, f"{error.message} / {error.fix}"
    except BaseException as error:
        import traceback

        end = 1, "".join(traceback.format_exception(error))
    deaths.over = True
    told.send((*end, deaths.passed, time.monotonic() - started))


class _Deaths:
    """Counts the points of this process and ends it at one of them."""

    def __init__(self, folder: Path, point: int, torn: bool) -> None:
        self.folder, self.point, self.torn = f"{folder}{os.sep}", point, torn
        self.passed, self.over = "", False
        self.synced: dict[tuple[int, int], int] = {}
        self.fsync = os.fsync
        os.fsync = self._fsync
        sys.addaudithook(self._hook)

    def _pass(self, kind: str) -> None:
        self.passed += kind
        if len(self.passed) == self.point:
            os._exit(KILLED)

    def _fsync(self, handle: int) -> None:
        status = os.fstat(handle)
        key = status.st_dev, status.st_ino
        dies = len(self.passed) + 1 == self.point
        if self.torn and dies and stat.S_ISREG(status.st_mode):
            before = self.synced.get(key, 0)
            self.over = True
            os.truncate(f"/dev/fd/{handle}", (before + status.st_size) // 2)
            self.over = False
        self._pass("f")
        self.fsync(handle)
        self.synced[key] = status.st_size

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.over or (event != "open" and event not in _STEPS):
            return
        if event == "open":
            _, mode, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else False
            if not writes and not (isinstance(mode, str) and set(mode) & set("wax+")):
                return
        place = args[0] if isinstance(args[0], int) else os.fsdecode(args[0])
        # A handle, or a name below a folder that is being removed, is taken for one of ours.
        if isinstance(place, int) or not place.startswith(os.sep) or place.startswith(self.folder):
            self._pass(event[-1])


def state(out: Path, ignored: tuple[str, ...] = ()) -> dict[str, str]:
    """Return a hash of every file of a result, without the times that some hold."""
    return {
        path.relative_to(out).as_posix(): _hash(path)
        for path in sorted(out.rglob("*"))
        if not path.is_dir() and not path.name.endswith(ignored)
    } | {f"{p.relative_to(out).as_posix()}/": "" for p in sorted(out.rglob("*")) if p.is_dir()}


def _hash(path: Path) -> str:
    if path.suffix == ".gpkg":
        with sqlite3.connect(path) as database:
            database.execute("UPDATE gpkg_contents SET last_change = ''")
            content = "\n".join(database.iterdump()).encode()
            database.rollback()
    elif path.suffix == ".jsonl":
        timed = {"seconds", "crops_per_second"}
        events = map(json.loads, path.read_text().splitlines())
        content = repr([{k: v for k, v in e.items() if k not in timed} for e in events]).encode()
    elif path.parent.name == ".prepared":
        receipt = json.loads(path.read_text())
        content = repr({**receipt, "signature": ""}).encode()  # holds when an archive was unpacked
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def jobs() -> dict[str, Job]:
    """Return the jobs by the verb that they are of."""
    return {
        "predict": Job(_scene, _predict),
        "train": Job(_dataset, _train),
        "vectorize": Job(_labels, _vectorize),
        "export": Job(_checkpoint, _export, (".stac.json",)),
        "prepare": Job(_benchmark, _prepare),
    }


def _scene(inputs: Path) -> None:
    from scene_files import noise, write_scene

    pixels = noise(1050, 130)
    pixels[:, 100:300, 20:90] = 0
    write_scene(inputs / "scene.tif", pixels, nodata=0, tiled=True)


def _predict(inputs: Path, out: Path, resume: bool) -> None:
    from scene_files import PlainPredictor
    from terradapt.scene import PredictOptions, predict_scene

    options = PredictOptions(scores="uint8", confidence=True, batch=4, resume=resume)
    predict_scene(PlainPredictor(window=128), inputs / "scene.tif", out / "map.tif", options)


def _dataset(inputs: Path) -> None:
    from training_files import write_folder

    write_folder(inputs)


def _train(inputs: Path, out: Path, resume: bool) -> None:
    from terradapt import training
    from terradapt.config import load_config
    from terradapt.training import trainer
    from training_files import SMALL

    trainer.code_commit = lambda: "of this test"  # a commit made meanwhile is no fault
    steps = ["train.steps_per_epoch=2", "train.save_every=1"]
    config = load_config("landcover").with_overrides([*SMALL, *steps])
    training.train(config, inputs, out / "run", resume=resume)


def _labels(inputs: Path) -> None:
    import numpy as np

    from scene_files import PLACE, UTM
    from terradapt.raster import write_raster

    labels = np.random.default_rng(3).integers(0, 3, (20, 30)).repeat(9, 0).repeat(9, 1)
    write_raster(inputs / "labels.tif", labels.astype(np.uint8), crs=UTM, transform=PLACE)


def _vectorize(inputs: Path, out: Path, resume: bool) -> None:
    from terradapt.vector import vectorize_polygons, vectorize_roads

    vectorize_polygons(inputs / "labels.tif", out / "areas.gpkg", overwrite=resume)
    vectorize_roads(inputs / "labels.tif", out / "roads.geojson", 1, overwrite=resume)


def _checkpoint(inputs: Path) -> None:
    from export_files import small
    from terradapt import checkpoint

    model, meta = small()
    checkpoint.save(inputs / "checkpoint.safetensors", model, meta)


def _export(inputs: Path, out: Path, resume: bool) -> None:
    from terradapt.export.run import export_with_proof

    export_with_proof(inputs / "checkpoint.safetensors", out / "model.onnx", window=64)


def _benchmark(inputs: Path) -> None:
    from benchmark_files import pack_zip, write_vaihingen

    files = inputs.with_name("files")
    pack_zip(write_vaihingen(files, ("1", "3", "30", "2"), 96, 64), inputs / "vaihingen.zip")


def _prepare(inputs: Path, out: Path, resume: bool) -> None:
    from terradapt.prepare.isprs import prepare_vaihingen
    from terradapt.prepare.options import PrepareOptions

    options = PrepareOptions(split="by_image", crop=64, workers=1)
    prepare_vaihingen(inputs, out / "data", options)
