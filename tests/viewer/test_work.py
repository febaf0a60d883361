"""Retraining, keeping, throwing away, writing the map: their states, and the real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from scene_files import PlainPredictor, noise, write_scene
from terradapt.config import load_config
from terradapt.viewer import child, models
from terradapt.viewer.child import Child
from terradapt.viewer.models import Kept, Work
from terradapt.viewer.retraining import retrain_arguments
from terradapt.viewer.session import Session
from viewer_files import Browser, drawing, model, predicted, scene


class Slow:
    """Stands for a process: it ends when the test says so, or when it is stopped."""

    last: Slow

    def __init__(self, arguments: list[str], tell: Callable, ended: Callable) -> None:
        self.arguments, self.tell, self.ended = arguments, tell, ended
        Slow.last = self

    @property
    def run(self) -> Path:
        return Path(self.arguments[self.arguments.index("-o") + 1])

    def value(self, key: str) -> Path:
        """Return what an override of the recipe says."""
        (found,) = (a for a in self.arguments if a.startswith(f"{key}="))
        return Path(json.loads(found.partition("=")[2]))

    def finish(self) -> None:
        self.run.mkdir(parents=True)
        (self.run / "checkpoint.safetensors").write_text("two")
        self.ended({"files": [str(self.run / "checkpoint.safetensors")], "metrics": {}}, None)

    def stop(self) -> None:
        self.ended(None, ("stopped", "start it again"))


@pytest.fixture
def looping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Session, Browser]]:
    monkeypatch.setattr(models, "Child", Slow)

    def opened(path: Path, **_: Any) -> models.Model:
        made = model(tmp_path, PlainPredictor(4, 512), "two")
        return models.Model(path, made.sha256, made.predictor)

    monkeypatch.setattr(models.Model, "open", staticmethod(opened))
    with (
        Session([scene(tmp_path)], model(tmp_path), tmp_path / "loop") as session,
        Work(session, Kept(tmp_path / "loop", "given")) as work,
    ):
        yield session, Browser.on(session, work)


def layers(browser: Browser) -> list[str]:
    return [la["id"] for la in browser.get("/session").json["scenes"][0]["layers"]]


def test_a_new_model_is_shown_beside_the_old_one_and_kept(looping, tmp_path: Path) -> None:
    session, browser = looping
    nothing = browser.post("/retrain")
    assert nothing.status == 400
    assert "nothing to learn" in nothing.json["error"]
    browser.post("/strokes", drawing())
    held = session.views[0].held[0]
    row, col = held[0] * 512, held[1] * 512
    spot = [[col + 5, row + 5], [col + 9, row + 5], [col + 9, row + 9]]
    browser.post("/strokes", drawing(points=spot))
    assert browser.post("/retrain").status == 200
    assert Slow.last.arguments[:2] == ["train", "retrain"]
    assert Slow.last.value("train.start") == tmp_path / "one.safetensors"
    trained = Slow.last.value("data.corrections")
    from terradapt.raster import read_layer

    assert len(read_layer(trained).geometries) == 1, "not what lies in a held-out place"
    for path in ("/retrain", "/write-map", "/keep"):
        assert browser.post(path).status == 409, path
    assert browser.post("/strokes", drawing()).status == 200, "painting goes on"
    Slow.last.tell({"phase": "train", "done": 3, "total": 9, "unit": "steps"})
    assert browser.get("/session").json["work"]["done"] == 3
    Slow.last.finish()
    assert layers(browser)[-2:] == ["new", "new-confidence"]
    assert browser.get("/session").json["candidate"]["hash"].startswith("74776f")
    assert browser.post("/retrain").status == 409, "a decision is waited for"
    assert browser.post("/keep").status == 200
    assert layers(browser) == ["scene", "map", "confidence"]
    assert len(browser.get("/session").json["classes"]) == 4
    assert Kept(tmp_path / "loop", "given").kept == "0001"
    assert Kept(tmp_path / "loop", "another").kept is None, "another model begins anew"
    assert browser.post("/keep").status == 409
    browser.post("/retrain")
    assert Slow.last.value("train.start").parent.name == "0001"
    assert Slow.last.run.name == "0002"


def test_a_new_model_is_thrown_away_even_while_it_trains(looping, tmp_path: Path) -> None:
    session, browser = looping
    assert browser.post("/throw-away").status == 409
    browser.post("/strokes", drawing())
    browser.post("/retrain")
    (tmp_path / "loop" / "models" / "0001").mkdir(parents=True)
    assert browser.post("/throw-away").status == 200
    assert browser.get("/session").json["work"]["error"] == "stopped"
    assert not (tmp_path / "loop" / "models" / "0001").exists()
    browser.post("/retrain")
    Slow.last.finish()
    assert (tmp_path / "loop" / "models" / "0001").exists()
    assert browser.post("/throw-away").status == 200
    assert not (tmp_path / "loop" / "models" / "0001").exists()
    assert session.candidate is None
    assert len(session.pen().log.strokes()) == 1


def test_before_and_after_are_compared_on_places_drawn_by_chance(looping) -> None:
    session, browser = looping
    place = session.views[0].held[0]
    predicted(session)
    row, col = place[0] * 512, place[1] * 512
    area = session.views[0].map.pyramid.block(*place)
    ring = [[col, row], [area.right, row], [area.right, area.bottom], [col, area.bottom]]
    block = session.views[0].map.store.get(*place).classes
    wrong = [[col, row], [col + 40, row], [col + 40, row + 50], [col, row + 50]]
    other = "class 2" if (block[:50, :40] == 2).sum() == 0 else "class 0"
    share = (block[:50, :40] != int(other[-1])).sum() / block.size
    browser.post("/strokes", drawing(points=wrong, **{"class": other}))
    assert browser.post("/strokes", drawing("right", points=ring, place=list(place))).status == 200
    found = browser.get("/figures").json
    assert found["places"] == 1
    assert found["map"]["oa"] == pytest.approx(1 - share)
    assert found["map"]["weak"]
    assert "new" not in found
    away = [[0, 0], [9, 0], [9, 9]] if place != (0, 0) else [[600, 600], [609, 600], [609, 609]]
    browser.post("/strokes", drawing(points=away))
    browser.post("/retrain")
    Slow.last.finish()
    end = time.monotonic() + 30
    while (found := browser.get("/figures").json)["new"]["waiting"] and time.monotonic() < end:
        time.sleep(0.05)
    assert found["new"]["places"] == 1
    assert found["new"]["oa"] != found["map"]["oa"]
    queue = browser.get("/queue/0").json
    assert list(place) not in [entry["place"] for entry in queue]


@pytest.mark.slow
def test_a_map_is_written_as_predict_writes_it(tmp_path: Path) -> None:
    from export_files import small
    from terradapt import checkpoint, predictors
    from terradapt.scene import predict_scene

    path = tmp_path / "checkpoint.safetensors"
    net, meta = small()
    checkpoint.save(path, net, meta)
    given = [write_scene(tmp_path / f"{n}.tif", noise(90, 130, seed=n)) for n in (0, 1)]
    folder = tmp_path / "loop"
    model = models.Model.open(path)
    with Session(given, model, folder) as session, Work(session, Kept(folder, "g")) as work:
        browser = Browser.on(session, work)
        assert browser.post("/write-map").status == 200
        end = time.monotonic() + 60
        while work.state["doing"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        maps = [folder / "maps" / f"{n}.tif" for n in (0, 1)]
        assert work.state["files"] == [str(m) for m in maps], work.state
    for scene_file, written in zip(given, maps, strict=True):
        own = predict_scene(predictors.load(path), scene_file, tmp_path / "own.tif")
        with rasterio.open(written) as a, rasterio.open(tmp_path / "own.tif") as b:
            assert np.array_equal(a.read(), b.read()), own
        (tmp_path / "own.tif").unlink()


VERB = """
import os, sys, time
from terradapt.cli import _events, main
from terradapt.errors import DataError
do = sys.argv.pop(1)
class Verb:
    def main(self, *_, **__):
        if do == "fail":
            raise DataError("a.tif: no", "mend it")
        if do == "fault":
            raise ZeroDivisionError("of ours")
        if do == "die":
            os._exit(9)
        with _events.events().phase(1000, "train", "steps") as advance:
            for _ in range(1000):
                advance(1)
                time.sleep(0.05 if do == "long" else 0)
        print("done")
        return {"ok": do}
import typer
typer.main.get_command = lambda app: Verb()
main()
"""


@pytest.mark.parametrize(
    ("do", "result", "error"),
    [
        ("work", {"ok": "work"}, ""),
        ("fail", None, "a.tif: no"),
        ("fault", None, "ZeroDivisionError"),
        ("die", None, "status 9"),
        ("long", None, "stopped"),
    ],
)
def test_a_process_tells_its_end_whatever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do: str, result: Any, error: str
) -> None:
    (tmp_path / "verb_of_a_test.py").write_text(VERB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(child, "__name__", "verb_of_a_test")
    said: list[dict[str, Any]] = []
    ended: list[Any] = []
    process = Child([do], said.append, lambda *words: ended.append(words))
    if do == "long":
        while not said:
            time.sleep(0.02)
        process.stop()
    process.wait()
    assert len(ended) == 1
    assert ended[0][0] == result
    assert error in (ended[0][1][0] if ended[0][1] else "")
    if do == "work":
        assert (said[-2]["done"], said[-2]["total"], said[-2]["unit"]) == (1000, 1000, "steps")
        assert said[-1] == {"log": "done"}


def test_a_process_does_not_outlive_the_server(tmp_path: Path) -> None:
    words = ["data", "synthetic", "1-500", "-o", str(tmp_path / "cities"), "--progress", "json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "terradapt.viewer.child", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert b"phase" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(60) == 1
    process.stdout.close()


def test_names_that_are_no_plain_yaml_reach_the_training(tmp_path: Path) -> None:
    start, drawn = tmp_path / "a: b #1" / "old.safetensors", tmp_path / "\U0001f33b 'x' \".gpkg"
    words = retrain_arguments(start, drawn, tmp_path, tmp_path / "run", ["train.epochs=1"])
    config = load_config("retrain").with_overrides([w for w in words[2:] if "=" in w])
    assert (config.train.start, config.data.corrections) == (str(start), str(drawn))
    assert config.train.epochs == 1
