"""Retrain: the recipe ``retrain`` on the corrections, in a process of its own (``python -m``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from terradapt.config import load_config
from terradapt.errors import DataError
from terradapt.files import check_name, writing
from terradapt.viewer.child import emit, emitting, serve

RECIPE = "retrain"
_SCENE_FOLDER = "scenes"


def request_for(
    start: Path,
    corrections: Path,
    data: Path,
    run: Path,
    overrides: Sequence[str],
) -> dict[str, Any]:
    """Return what the process takes.

    Args:
        start: The old model's checkpoint; the new one is its pupil.
        corrections: The vector file.
        data: Folder of images, with labels or without.
        run: Folder of the new run.
        overrides: ``key=value`` for the recipe.
    """
    return {
        "start": str(start.absolute()),
        "corrections": str(corrections.absolute()),
        "data": str(data.absolute()),
        "run": str(run.absolute()),
        "overrides": list(overrides),
    }


def retrain_run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Train; the command line's ``terradapt train retrain`` does the same.

    Returns:
        The checkpoint's path and the metrics that training measured.

    Raises:
        TerradaptError: As :func:`terradapt.training.train`.
    """
    emit({"phase": "starting", "done": 0, "total": None, "unit": "", "seconds_left": None})
    from terradapt import training

    config = load_config(RECIPE).with_overrides(request["overrides"])
    changes = {"train.start": request["start"], "data.corrections": request["corrections"]}
    best = training.train(
        config.with_values(changes),
        request["data"],
        request["run"],
        bar=emitting,
        say=lambda line: emit({"log": line}),
    )
    return {
        "checkpoint": str(Path(request["run"]) / "checkpoint.safetensors"),
        "metrics": {k: v for k, v in best.items() if isinstance(v, int | float | str)},
    }


def scene_folder(work: Path, scenes: Sequence[Path]) -> Path:
    """Return a folder whose images are the scenes: links, or copies where there are no links.

    Args:
        work: The viewer's folder.
        scenes: Their files.

    Raises:
        DataError: Two scenes of one name.
        OutputError: It cannot be made.
    """
    folder = work / _SCENE_FOLDER / "images"
    if len({s.name for s in scenes}) < len(scenes):
        raise DataError("two scenes have one name", "rename one of them")
    with writing(folder):
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        for scene in scenes:
            check_name(scene)
            beside = [
                p
                for p in scene.parent.glob(f"{_literal(scene.stem)}.*")
                if p != scene and p.suffix.lower() in _WITH
            ]
            beside += [
                p for p in scene.parent.glob(f"{_literal(scene.name)}.*") if p.suffix in _BEHIND
            ]
            for file in {scene, *beside}:
                _link(file.absolute(), folder / file.name)
    return folder.parent


_WITH = {".tfw", ".pgw", ".jgw", ".wld", ".prj", ".tifw"}
_BEHIND = {".msk", ".ovr", ".xml"}


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _link(source: Path, target: Path) -> None:
    with suppress(OSError, NotImplementedError):
        target.symlink_to(source)
        return
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)


if __name__ == "__main__":
    serve(retrain_run)
