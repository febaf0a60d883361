"""The verb: what it refuses in words, and maps that are only looked at."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image

from conftest import Call
from scene_files import PLACE, UTM, PlainPredictor, noise, write_scene
from terradapt.raster import write_raster
from terradapt.scene import predict_scene
from terradapt.viewer.session import Session
from viewer_files import Browser


def a_map(folder: Path) -> tuple[Path, Path]:
    scene = write_scene(folder / "scene.tif", noise(300, 400))
    predict_scene(PlainPredictor(window=128), scene, folder / "map.tif")
    return scene, folder / "map.tif"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "needs a scene"),
        (["nosuch.tif"], "no such file"),
        (["nosuch", "scene.tif"], "nosuch"),
        (["map.tif", "scene.tif"], "only looked at"),
        (["map.tif", "--labels", "x.gpkg"], "only looked at"),
        (["map.tif", "--image", "small.tif"], "300"),
        (["map.tif", "--vectors", "nosuch.gpkg"], "nosuch.gpkg"),
        (["scene.tif"], "no class map"),
        (["map.tif", "--port", "99999"], "99999"),
        (["run", "scene.tif", "--set", "nosuch=3"], "nosuch"),
        (["run", "scene.tif", "--data", "nosuch"], "no folder"),
        (["run", "scene.tif", "-o", "scene.tif"], "in the way"),
        (["cut.safetensors", "scene.tif"], "no whole safetensors"),
        (["foreign.onnx", "scene.tif"], "no whole ONNX"),
    ],
)
def test_what_cannot_be_viewed_is_refused_in_two_lines(
    terradapt: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    a_map(tmp_path)
    write_scene(tmp_path / "small.tif", noise(30, 40))
    (tmp_path / "cut.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{}")
    (tmp_path / "foreign.onnx").write_bytes(b"no model")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = terradapt("view", *words, "--no-browser")
    assert done.is_user_error()
    assert said in done.err
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left"


def test_a_map_is_looked_at_with_its_scene_and_vectors(tmp_path: Path) -> None:
    scene, mapped = a_map(tmp_path)
    left, top = PLACE.c + 30, PLACE.f - 30
    line = shapely.geometry.mapping(shapely.LineString([(left, top), (left + 30, top)]))
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {"name": "way"}, "geometry": line}
    file = tmp_path / "roads.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    mask = np.where(noise(300, 400, 1) > 128, 255, 0).astype(np.uint8)
    write_raster(tmp_path / "mask.tif", mask, crs=UTM, transform=PLACE)
    also = [tmp_path / "mask.tif", scene]
    with Session([scene], maps=[mapped], vectors=[file], also=also) as opened:
        browser = Browser.on(opened)
        about = browser.get("/session").json
        assert [c["name"] for c in about["classes"]] == ["class 0", "class 1", "class 2"]
        assert not about["correcting"]
        kinds = [layer["kind"] for layer in about["scenes"][0]["layers"]]
        assert kinds == ["photo", "classes", "classes", "photo"]
        ids = [layer["id"] for layer in about["scenes"][0]["layers"]]
        from terradapt.raster import read_label

        shown = read_tile(browser.get(f"/tiles/0/{ids[1]}/0/0/0.png").body)
        assert np.array_equal(shown[:300, :400], read_label(mapped))
        assert (shown[300:] == 255).all()
        shown = read_tile(browser.get(f"/tiles/0/{ids[2]}/0/0/0.png").body)
        assert np.array_equal(shown[:300, :400], mask[0] // 255)
        told = browser.get("/pixel/0/5/7").json["maps"]
        assert told[0]["class"] == f"class {read_label(mapped)[5, 7]}"
        (way,) = browser.get("/features/0/0/0/300/400?layer=roads.geojson").json["features"]
        assert np.allclose(way["geometry"]["coordinates"], [[100, -100], [200, -100]])
        assert browser.post("/strokes", {"scene": 0}).status == 409
        assert browser.post("/retrain").status == 409


def read_tile(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_sixteen_bit_and_single_band_scenes_are_stretched_for_the_eye(tmp_path: Path) -> None:
    deep = (noise(200, 300, 1).astype(np.uint16) * 40) + 100
    path = write_scene(tmp_path / "deep.tif", deep)
    with Session([path]) as opened:
        shown = read_tile(Browser.on(opened).get("/tiles/0/scene/0/0/0.png").body)[:200, :300]
        assert (shown[..., 0] == shown[..., 2]).all()
        assert shown[..., :3].std() > 40
        assert opened.classes is None


def test_the_verb_serves_what_it_printed_and_ends_with_a_signal(tmp_path: Path) -> None:
    _, mapped = a_map(tmp_path)
    code = "from terradapt.cli import main; main()"
    process: Any = subprocess.Popen(
        [sys.executable, "-u", "-c", code, "view", str(mapped), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())
            assert address is not None
            assert "ssh -L" in process.stdout.readline()
            jar = urllib.request.HTTPCookieProcessor(CookieJar())
            direct = urllib.request.ProxyHandler({})
            with urllib.request.build_opener(direct, jar).open(address[0], timeout=20) as answer:
                assert "/static/main.js" in answer.read().decode()
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=30)[0]
            assert process.returncode in (0, 130), rest
            assert "Traceback" not in rest
        finally:
            process.kill()
