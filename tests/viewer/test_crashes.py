"""Killed at every step that changes the disk: no stroke is lost, no model is half kept."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crashing import KILLED, run_and_die

from scene_files import PLACE, UTM
from terradapt.classes import ClassMap
from terradapt.files import replacing, writing
from terradapt.grid import Window
from terradapt.raster import Georef, read_layer
from terradapt.viewer import looking, models
from terradapt.viewer.corrections import CorrectionLog
from terradapt.viewer.models import Kept, Work
from terradapt.viewer.session import Session
from viewer_files import drawing, model, predicted, scene

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")
CLASSES = ClassMap(("a", "b", "c"))
GEOREF = Georef(PLACE, UTM, 900, 900)
Say = Callable[[str], None]


def correct(folder: Path, say: Say) -> None:
    """Draw, undo, name a class, say that the map is right; acknowledge each by a word."""
    with CorrectionLog(folder, CLASSES) as log:
        log.know("a.tif", GEOREF)
        for key in ("one", "two", "three"):
            log.add("a.tif", drawing(key=key.ljust(8, "0"), **{"class": "b"}), "b")
            say(f"+{key}")
        log.undo()
        say("-three")
        log.add_class("pond")
        say("pond")
        ids = np.full((20, 30), 255, np.uint8)
        ids[3:9, 4:8] = 2
        window = Window(10, 20, 20, 30)
        log.add("a.tif", drawing("right", key="right000"), "", window=window, ids=ids)
        say("+right")
        log.write(folder / "corrections.gpkg")
        say("gpkg")
        wide = [[100, 200], [160, 200], [160, 230], [100, 230]]
        moved = drawing(key="moved000", points=wide)
        log.add("a.tif", moved, "", replaces=2)  # the corners of "two"
        say("+moved")


def check_corrections(folder: Path, said: list[str], what: object) -> None:
    for _ in range(2):  # what the first opening mends stays mended
        with CorrectionLog(folder, CLASSES) as log:
            live = [s.key.rstrip("0") for s in log.strokes()]
            assert len(set(live)) == len(live), what
            for word in said:
                if word[0] == "+" and word not in ("+two", "+three"):
                    assert word[1:] in live, (what, word)
            if "+two" in said:
                assert len({"two", "moved"} & set(live)) == 1, (what, "one of them, never both")
            if "-three" in said:
                assert "three" not in live, what
            if "pond" in said:
                assert log.classes.names[-1] == "pond", what
            for stroke in log.strokes():
                wanted = 24 if stroke.kind == "right" else 40 * 30
                wanted = 60 * 30 if stroke.key.startswith("moved") else wanted
                assert sum(area.area for _, area in stroke.pieces()) == pytest.approx(wanted)
    if "gpkg" in said:
        assert len(read_layer(folder / "corrections.gpkg").geometries) == 3, what


@pytest.mark.parametrize("torn", [False, True])
def test_no_acknowledged_stroke_is_lost(tmp_path: Path, torn: bool) -> None:
    folder, point = tmp_path / "loop", 0
    while True:
        point += 1
        status, said = run_and_die(lambda say: correct(folder, say), folder, point, torn)
        assert status in (0, KILLED)
        if folder.exists():
            check_corrections(folder, said, (point, torn))
            # and the next session goes on
            with CorrectionLog(folder, CLASSES) as log:
                log.know("a.tif", GEOREF)
                log.add("a.tif", drawing(), "c")
        shutil.rmtree(folder, ignore_errors=True)
        if status == 0:
            break
    assert point > 30
    assert len(said) == 8
    print(f"correct, torn {torn}: {point - 1} kills")


def checkpoint_of(run: Path) -> dict[str, Any]:
    """Write a checkpoint as the package does: beside its place, synced, renamed."""
    with replacing(run / "checkpoint.safetensors") as part:
        part.write_text("new")
    return {"files": [str(run / "checkpoint.safetensors")]}


class Trained:
    """Stands for the process that trains: at once it leaves a run's files."""

    def __init__(self, arguments: list[str], tell: Any, ended: Any) -> None:
        run = Path(arguments[arguments.index("-o") + 1])
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("of the run")
        threading.Thread(target=ended, args=(checkpoint_of(run), None)).start()

    def stop(self) -> None:
        """It has ended."""


def looked(session: Session, eyes: Any, run: Path, advance: Any) -> dict[str, Any]:
    """Stands for what a look computes; it leaves what a look leaves."""
    advance(0, 1)
    with writing(run):
        run.mkdir(parents=True)
    return checkpoint_of(run)


def retrain(folder: Path, say: Say) -> None:
    """Draw a stroke, retrain, keep; retrain, throw away."""
    opened = begin(folder)
    with opened as session, Work(session, Kept(folder / "loop", "given")) as work:
        predicted(session, (0, 0))
        say("open")
        pen = session.pen()
        pen.stroke(session.views[0], drawing(key="one00000"), "")
        say("one")
        work.retrain()
        ended(work)
        say("trial")
        work.keep()
        say("kept")
        pen.stroke(session.views[0], drawing(key="two00000"), "")
        say("two")
        work.retrain()
        ended(work)
        say("trial2")
        work.throw_away()
        say("thrown")


def look(folder: Path, say: Say) -> None:
    """Draw a stroke, look again; look again, which takes its place; keep; look, throw away."""
    opened = begin(folder)
    with opened as session, Work(session, Kept(folder / "loop", "given")) as work:
        say("open")
        session.pen().stroke(session.views[0], drawing(key="one00000"), "")
        say("one")
        for word in ("trial", "trial2"):
            work.look_again()
            ended(work)
            say(word)
        work.keep()
        say("kept")
        work.look_again()
        ended(work)
        say("trial3")
        work.throw_away()
        say("thrown")


def ended(work: Work) -> None:
    while work.state["doing"]:
        time.sleep(0.001)


def begin(folder: Path) -> Session:
    kept = Kept(folder / "loop", "given")
    kept.tidy()
    path = kept.checkpoint(kept.kept)
    first = models.Model.open(path) if path else model(folder)
    return Session([folder / "scene.tif"], first, folder / "loop")


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize(("work_of", "shown"), [(retrain, "trial"), (look, "trial2")])
def test_a_model_is_kept_or_not_and_never_half(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    work_of: Callable[..., None],
    shown: str,
    torn: bool,
) -> None:
    monkeypatch.setattr(models, "Child", Trained)
    monkeypatch.setattr(looking, "look_again", looked)

    def fake(path: Path, **_: Any) -> Any:
        assert path.read_text() == "new", "whole, or not there"
        made = model(tmp_path, name="two")
        return models.Model(path, made.sha256, made.predictor)

    monkeypatch.setattr(models.Model, "open", staticmethod(fake))
    scene(tmp_path)
    model(tmp_path)
    folder, point = tmp_path / "loop", 0
    while True:
        point += 1
        status, said = run_and_die(lambda say: work_of(tmp_path, say), folder, point, torn)
        assert status in (0, KILLED), point
        if folder.exists():
            kept = Kept(folder, "given")
            kept.tidy()
            if "kept" in said:
                assert kept.kept == "0001", point
            for name in (kept.kept, kept.trial):
                assert name is None or kept.checkpoint(name), point
            if shown in said and "kept" not in said:
                assert "0001" in (kept.trial, kept.kept), point
            if "thrown" in said:
                assert kept.trial is None, point
            with begin(tmp_path) as session, Work(session, Kept(folder, "given")):
                live = {s.key[:3] for s in session.pen().log.strokes()}
                assert {w for w in said if w in ("one", "two")} <= live, point
                assert (session.candidate is None) == (kept.trial is None), point
            left = {p.name for p in (folder / "models").glob("*")}
            assert left <= {kept.kept, kept.trial, "0001"}, point
        shutil.rmtree(folder, ignore_errors=True)
        if status == 0:
            break
    assert point > 60
    assert said[-1] == "thrown"
    print(f"{work_of.__name__}, torn {torn}: {point - 1} kills")
