"""The model opens while the page shows the scene; what cannot be opened ends the verb in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import Call
from export_files import small
from scene_files import noise, write_scene
from terradapt import checkpoint
from terradapt.meta import KEY
from terradapt.viewer import opening
from terradapt.viewer.mapping import Model
from terradapt.viewer.models import Kept, Work
from terradapt.viewer.opening import Opening
from terradapt.viewer.session import Session
from viewer_files import Browser, drawing


def begun(folder: Path) -> tuple[Path, Path]:
    """Write a scene and a checkpoint."""
    net, meta = small()
    checkpoint.save(folder / "net.safetensors", net, meta)
    return write_scene(folder / "scene.tif", noise(200, 300)), folder / "net.safetensors"


def mistaken(path: Path) -> None:
    """Take a tensor out of a checkpoint: its words still say that it is whole."""
    tensors = load_file(path)
    words = {KEY: checkpoint.read_meta(path).to_json()}
    save_file({k: v for k, v in tensors.items() if k != min(tensors)}, path, words)


FIRST = """
import sys
from pathlib import Path
from terradapt.viewer.models import Work, first_model
from terradapt.viewer.server import build_server
from terradapt.viewer.session import Session
model, kept = first_model(Path("net.safetensors"), Path("loop"))
with Session(["scene.tif"], model, Path("loop")) as session, Work(session, kept) as work:
    build_server(session, work, 8000)
    assert session.views[0].tile("scene", 0, 0, 0)[0].startswith(b"\\x89PNG")
    assert session.describe()["opening"]
    print(*(m for m in ("torch", "timm", "scipy") if m in sys.modules))
"""


def test_the_first_picture_needs_neither_torch_nor_scipy(tmp_path: Path) -> None:
    begun(tmp_path)
    words = [sys.executable, "-c", FIRST]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_scene_is_shown_and_corrected_before_the_model_is_open(tmp_path: Path) -> None:
    scene, path = begun(tmp_path)
    with (
        Session([scene], Model.announce(path), tmp_path / "loop") as session,
        Work(session, Kept(tmp_path / "loop", "given")) as work,
        Opening(session, work) as opener,
    ):
        browser = Browser.on(session, work)
        about = browser.get("/session").json
        assert about["opening"]
        assert [layer["id"] for layer in about["scenes"][0]["layers"]] == ["scene"]
        assert [c["name"] for c in about["classes"]] == list(small()[1].classes.names)
        name = about["classes"][1]["name"]
        spot = [[10, 10], [30, 10], [30, 30]]
        assert browser.post("/strokes", drawing(points=spot, **{"class": name})).status == 200
        right = browser.post("/strokes", drawing("right", points=spot))
        assert (right.status, right.json["error"]) == (409, "the map there is not ready yet")
        assert browser.get("/hectares/0").json["share"] == 0
        assert browser.get("/queue/0").json == []
        opener.start(lambda: None)
        assert not session.opened.wait(0.05), "it waits for the first picture"
        assert browser.post("/shown").status == 200
        assert session.opened.wait(60)
        about = browser.get("/session").json
        assert not about["opening"]
        ids = [layer["id"] for layer in about["scenes"][0]["layers"]]
        assert ids == ["scene", "map", "confidence"]
        scores = browser.get("/pixel/0/5/7").json["maps"][0]["scores"]
        assert np.isclose(sum(scores.values()), 1)
    assert opener.error is None


def test_a_click_waits_for_the_model_and_hears_when_it_cannot_be_opened(tmp_path: Path) -> None:
    scene, path = begun(tmp_path)
    mistaken(path)
    failed = []
    with (
        Session([scene], Model.announce(path), tmp_path / "loop") as session,
        Work(session, Kept(tmp_path / "loop", "given")) as work,
        Opening(session, work) as opener,
    ):
        browser = Browser.on(session, work)
        opener.start(lambda: failed.append(True))
        answer = browser.get("/pixel/0/5/7")
        assert (answer.status, answer.json["error"]) == (409, "the model cannot be opened")
        assert browser.post("/look-again").status == 409
        assert browser.get("/tiles/0/scene/0/0/0.png").status == 200
    assert "lacks" in str(opener.error)
    assert failed == [True]


def test_weights_of_another_model_end_the_verb_in_two_lines(
    terradapt: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, path = begun(tmp_path)
    mistaken(path)
    monkeypatch.setattr(opening, "_PATIENCE", 0.0)
    done = terradapt("view", str(path), str(scene), "-o", str(tmp_path / "loop"), "--no-browser")
    assert "open http://127.0.0.1:" in done.out
    assert done.is_user_error()
    assert "its weights are not those of its model" in done.err
