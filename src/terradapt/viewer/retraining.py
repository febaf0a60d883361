"""Retrain: the recipe ``retrain`` on the corrections, as the command line does it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from terradapt.errors import DataError
from terradapt.files import check_name, writing

RECIPE = "retrain"
_SCENE_FOLDER = "scenes"


def retrain_arguments(
    start: Path,
    corrections: Path,
    data: Path,
    run: Path,
    overrides: Sequence[str],
    scenes: Path | None = None,
) -> list[str]:
    """Return the command line that retrains.

    Args:
        start: The old model's checkpoint; the new one is its pupil.
        corrections: The vector file.
        data: Folder of images, with labels or without.
        run: Folder of the new run.
        overrides: ``key=value`` for the recipe.
        scenes: Folder of what was corrected, where ``data`` is another one.
    """
    given = {"train.start": start, "data.corrections": corrections}
    given |= {} if scenes is None else {"data.unlabelled": scenes}
    # quoted: any name may stand in YAML so
    own = [f"{k}={json.dumps(str(v.absolute()), ensure_ascii=False)}" for k, v in given.items()]
    folders = ["--data", str(data.absolute()), "-o", str(run.absolute())]
    return ["train", RECIPE, *overrides, *own, *folders, "--no-report"]


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
