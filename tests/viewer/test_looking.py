"""Look again: a planted mistake is mended in one look, and other ground stays as it was."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from export_files import small
from scene_files import write_scene
from terradapt import checkpoint
from terradapt.predictors.torch import TorchPredictor
from terradapt.training.refitting import HeadView, save_refitted
from terradapt.viewer.mapping import Model
from terradapt.viewer.models import Kept, Work
from terradapt.viewer.session import Session
from viewer_files import Browser, drawing, model, predicted, scene

COLOURS = np.array([[200, 60, 60], [60, 180, 70], [70, 80, 200], [210, 210, 200]], np.uint8)
SIDE = 480


def grounds() -> np.ndarray:
    """(SIDE, SIDE) four grounds in squares of 120 px."""
    squares = np.arange(SIDE) // 120
    return (squares[:, None] * 3 + squares) % 4


def planted(folder: Path) -> tuple[Path, Path]:
    """Write a scene, and a model that knows its grounds but calls ground 3 class 0."""
    ground = grounds()
    noise = np.random.default_rng(0).normal(0, 8, (3, SIDE, SIDE))
    pixels = np.clip(COLOURS[ground].transpose(2, 0, 1) + noise, 1, 255).astype(np.uint8)
    path = write_scene(folder / "scene.tif", pixels, tiled=True)
    net, meta = small("kd-arafnet")
    meta = replace(meta, window=256)
    first = folder / "first.safetensors"
    checkpoint.save(first, net, meta)
    view = HeadView(TorchPredictor(net, meta.classes, meta.spec, 256, meta=meta))
    rows, cols = np.random.default_rng(1).integers(0, 256, (2, 3000))
    features = view.features(view.see(pixels[:, :256, :256], 256), 256, rows, cols)
    taught = ground[rows, cols].astype(np.uint8)
    start = folder / "checkpoint.safetensors"
    save_refitted(view, first, start, features, np.where(taught == 3, 0, taught).astype(np.uint8))
    return path, start


def ended(work: Work) -> dict:
    end = time.monotonic() + 120
    while work.state["doing"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    return work.state


def test_one_look_mends_a_planted_mistake_and_leaves_the_rest(tmp_path: Path) -> None:
    path, start = planted(tmp_path)
    folder, ground = tmp_path / "loop", grounds()
    begun = Model.open(start)
    with Session([path], begun, folder) as session, Work(session, Kept(folder, "g")) as work:
        browser = Browser.on(session, work)
        assert browser.post("/look-again").status == 200
        assert "nothing to look at" in ended(work)["error"], "nothing is corrected yet"
        assert not (folder / "models" / "0001").exists()
        predicted(session)
        before = session.views[0].map.store.window(session.views[0].any.scene.window)
        assert (before[ground == 3] == 0).mean() > 0.9, "the mistake is there"
        name = begun.predictor.classes.names[3]
        squares = [(r, c) for r in range(4) for c in range(4) if (r * 3 + c) % 4 == 3]
        for r, c in squares[:2]:
            inside = ((10, 10), (110, 10), (110, 110), (10, 110))
            corners = [[c * 120 + x, r * 120 + y] for x, y in inside]
            browser.post("/strokes", drawing(points=corners, **{"class": name}))
        assert browser.post("/look-again").status == 200
        said = ended(work)
        assert said["ended"] == "look" and "error" not in said, said
        assert said["metrics"]["corrected_pixels"] > 0
        candidate = session.views[0].candidate
        assert candidate.store.key != session.views[0].map.store.key, "other tiles"
        for block in candidate.pyramid.all_blocks:
            candidate.predict(*block)
        after = candidate.store.window(session.views[0].any.scene.window)
        assert (before[ground == 3] == 3).mean() < 0.1
        # the encoder was never trained and has a stride of 8 px: borders of squares stay vague
        assert (after[ground == 3] == 3).mean() > 0.8
        assert (after == before)[ground != 3].mean() > 0.95
        told = browser.get("/session").json
        assert told["candidate"]["look"] and Kept(folder, "g").trial == "0001"
        browser.post("/strokes", drawing(points=[[0, 0], [9, 0], [9, 9]]))
        assert browser.post("/look-again").status == 200, "the next look replaces it"
        assert ended(work)["ended"] == "look"
        assert Kept(folder, "g").trial == "0002" or not (folder / "models" / "0002").exists()
        assert browser.post("/keep").status == 200
        assert session.model.path.parent.name in ("0001", "0002")


def test_what_cannot_be_looked_at_again_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    with (
        Session([scene(tmp_path)], model(tmp_path), folder) as session,
        Work(session, Kept(folder, "g")) as work,
    ):
        browser = Browser.on(session, work)
        browser.post("/strokes", drawing())
        assert browser.post("/look-again").status == 200
        assert "exported" in ended(work)["error"]
        assert session.candidate is None and not list((folder / "models").glob("*"))
