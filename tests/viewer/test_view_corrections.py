"""Corrections: from the page to the pixels that training reads; undo, classes, held-out places."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image

from scene_files import PLACE, noise, write_scene
from terradapt.classes import ClassMap
from terradapt.config import DataConfig
from terradapt.data import open_dataset, read_mask
from terradapt.errors import DataError, OutputError, SceneError
from terradapt.grid import Window
from terradapt.raster import read_layer
from terradapt.viewer import journal
from terradapt.viewer.asking import accuracy, held_out, next_places
from terradapt.viewer.corrections import CorrectionLog
from terradapt.viewer.retraining import scene_folder
from terradapt.viewer.session import Session
from viewer_files import Browser, drawing, model, predicted, scene, session


def mask_of(opened: Session, folder: Path, **writing: Any) -> np.ndarray:
    """Return what a data set of the scene reads, corrections being the only labels."""
    file = folder / "training.gpkg"
    opened.pen().log.write(file, **writing)
    assert opened.model is not None
    config = DataConfig(corrections=str(file), val_fraction=0, test_fraction=0)
    data = scene_folder(folder / "set", [folder / "scene.tif"])
    dataset = open_dataset(data, config, known=opened.model.predictor.classes)
    return read_mask(dataset, dataset.items[0])


@pytest.mark.parametrize("place", [{}, {"crs": None, "transform": None}])
def test_a_drawing_becomes_exactly_its_pixels_in_the_dataset(tmp_path: Path, place: dict) -> None:
    path = scene(tmp_path, **place)
    with Session([path], model(tmp_path), tmp_path / "loop") as opened:
        browser = Browser.on(opened)
        first = browser.post("/strokes", drawing())
        assert (first.status, first.json["stroke"], first.json["before"]) == (200, 1, {})
        over = [[120, 190], [160, 190], [160, 210], [120, 210]]
        browser.post("/strokes", drawing(points=over, **{"class": "class 2"}))
        wanted = np.full((1100, 1300), 255, np.uint8)
        wanted[200:230, 100:140] = 1
        wanted[190:210, 120:160] = 2  # later ones lie above
        assert np.array_equal(mask_of(opened, tmp_path), wanted)
        assert np.array_equal(opened.pen().log.burnt("scene.tif", Window(0, 0, 1100, 1300)), wanted)
        at = browser.get("/pixel/0/195/125").json
        assert at["corrected"] == "class 2"
        assert sum(at["maps"][0]["scores"].values()) == pytest.approx(1, abs=1e-3)
        assert browser.post("/undo").json == {"stroke": 2}
        wanted[190:210, 120:160] = 255
        wanted[200:230, 100:140] = 1
        assert np.array_equal(mask_of(opened, tmp_path), wanted)
        assert browser.post("/undo", {"stroke": 2}).status == 400
        assert browser.post("/undo").json == {"stroke": 1}
        assert browser.post("/undo").json == {"stroke": None}


def test_a_brush_and_a_line_cover_what_lies_within_half_their_width(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        browser = Browser.on(opened)
        browser.post("/strokes", drawing("brush", points=[[300.5, 300.5]], width=21))
        browser.post("/strokes", drawing("line", points=[[500, 400], [600, 400]], width=8))
        rows, cols = np.mgrid[:1100, :1300] + 0.5
        found = mask_of(opened, tmp_path) == 1
        away = np.hypot(rows - 300.5, cols - 300.5)
        disc = found[:350, :400]
        assert disc[away[:350, :400] < 10.2].all()
        assert not disc[away[:350, :400] > 10.5].any()
        line = np.zeros_like(found)
        line[396:404, 500:600] = True
        assert np.array_equal(found[380:420], line[380:420])


def test_the_map_as_it_is_becomes_labels_where_nothing_was_corrected(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        browser = Browser.on(opened)
        ring = [[0, 0], [512, 0], [512, 512], [0, 512]]
        early = browser.post("/strokes", drawing("right", points=ring, place=[0, 0]))
        assert early.status == 409
        assert "not ready" in early.json["error"]
        predicted(opened, (0, 0))
        block = opened.views[0].map.store.get(0, 0).classes
        told = browser.post("/strokes", drawing(**{"class": "class 0"}))
        best = np.bincount(block[200:230, 100:140].ravel()).argmax()
        assert told.json["before"]["class"] == f"class {best}"
        assert 0 < told.json["before"]["confidence"] <= 1
        assert browser.post("/strokes", drawing("right", points=ring, place=[0, 0])).status == 200
        wanted = np.full((1100, 1300), 255, np.uint8)
        wanted[:512, :512] = block
        wanted[200:230, 100:140] = 0
        assert np.array_equal(mask_of(opened, tmp_path), wanted)
        far = [[700, 700], [720, 700], [720, 720], [700, 720]]
        browser.post("/strokes", drawing(points=far))
        held = mask_of(opened, tmp_path, held={"scene.tif": [(0, 0)]})
        assert (held != 255).sum() == 400, "a held-out place is not learnt from"
        browser.post("/undo")
    with Session([tmp_path / "scene.tif"], model(tmp_path), tmp_path / "loop") as opened:
        assert np.array_equal(mask_of(opened, tmp_path), wanted), "from the journal"
        assert opened.pen().log.answered("scene.tif") == {(0, 0)}


def test_a_new_class_is_named_in_the_page_and_learnt(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        browser = Browser.on(opened)
        browser.post("/classes", {"name": "  solar   panel "})
        known = browser.get("/session").json["classes"]
        assert [c["name"] for c in known][-1] == "solar panel"
        assert len({tuple(c["colour"]) for c in known}) == 4
        assert browser.post("/strokes", drawing(**{"class": "solar panel"})).status == 200
        mask = mask_of(opened, tmp_path)
        assert (mask[200:230, 100:140] == 3).all()
    with Session([tmp_path / "scene.tif"], model(tmp_path), tmp_path / "loop") as opened:
        assert opened.classes is not None
        assert opened.classes.names[-1] == "solar panel"
        more = ClassMap(("class 0", "class 1", "class 2", "Solar panel"))
        opened.pen().log.learnt(more)
        assert opened.classes.names == more.names


def test_the_same_stroke_sent_twice_counts_once(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        browser, body = Browser.on(opened), drawing(key="0123456789abcdef")
        assert browser.post("/strokes", body).json["stroke"] == 1
        assert browser.post("/strokes", body).json["stroke"] == 1
        assert len(opened.pen().log.strokes()) == 1
    with Session([tmp_path / "scene.tif"], model(tmp_path), tmp_path / "loop") as opened:
        assert Browser.on(opened).post("/strokes", body).json["stroke"] == 1


def test_corrections_drawn_elsewhere_lie_below_and_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "qgis.geojson"
    write_features(file, [(120, 205, "Class 2"), (400, 500, "pond")])
    with session(tmp_path, labels=file) as opened:
        browser = Browser.on(opened)
        browser.post("/strokes", drawing())
        wanted = np.full((1100, 1300), 255, np.uint8)
        wanted[205:225, 120:140] = 2
        wanted[500:520, 400:420] = 3
        wanted[200:230, 100:140] = 1
        assert np.array_equal(mask_of(opened, tmp_path, labels=file), wanted)
        shown = browser.get("/features/0/0/0/1100/1300?layer=qgis.geojson").json["features"]
        assert {f["properties"]["class"] for f in shown} == {"Class 2", "pond"}
        ring = np.array(shown[0]["geometry"]["coordinates"][0])
        assert np.allclose([ring.min(0), ring.max(0)], [[120, -225], [140, -205]], atol=1e-3)
        held = mask_of(opened, tmp_path, labels=file, held={"scene.tif": [(0, 0)]})
        assert (held == 255).sum() == 1100 * 1300 - (520 - 512) * 20
        write_features(file, [(0, 0, "pond")])
        os.utime(file, (1, 1))
        shown = browser.get("/features/0/0/0/1100/1300?layer=qgis.geojson").json["features"]
        assert len(shown) == 1


def write_features(path: Path, squares: list[tuple[int, int, str]]) -> None:
    """Write squares of 20 px at (column, row) with a class, in the scene's CRS."""
    rows = []
    for col, row, name in squares:
        left, top = PLACE.c + 0.3 * col, PLACE.f - 0.3 * row
        square = shapely.geometry.mapping(shapely.box(left, top - 6, left + 6, top))
        rows.append({"type": "Feature", "properties": {"class": name}, "geometry": square})
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": rows}))


def test_the_geopackage_is_derived_and_says_what_was_there_before(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        predicted(opened, (0, 0))
        Browser.on(opened).post("/strokes", drawing())
        file = tmp_path / "loop" / "corrections.gpkg"
        end = time.monotonic() + 20
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.02)
        assert len(read_layer(file).geometries) == 1, "while the page is open"
    file.unlink()
    with Session([tmp_path / "scene.tif"], model(tmp_path), tmp_path / "loop"):
        pass
    layer = read_layer(file)
    assert layer.columns["class"].tolist() == ["class 1"]
    assert layer.columns["kind"].tolist() == ["polygon"]
    assert layer.columns["class_before"][0].startswith("class ")
    assert 0 < layer.columns["confidence_before"][0] <= 1
    assert layer.columns["model"][0]
    assert layer.crs.to_epsg() == 32633


def test_a_scene_that_moves_or_changes_under_the_page_is_told(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        browser = Browser.on(opened)
        assert browser.post("/strokes", drawing()).status == 200
        path = tmp_path / "scene.tif"
        scene(tmp_path, transform=PLACE.translation(9, 9) @ PLACE)
        for answer in (
            browser.post("/strokes", drawing()),
            browser.post("/look", {"scene": 0, "window": [0, 0, 9, 9], "layers": ["map"]}),
        ):
            assert answer.status == 409
            assert "has changed on disk" in answer.json["error"]
            assert str(tmp_path / "loop") in answer.json["error"]
        path.unlink()
        assert browser.post("/strokes", drawing()).status == 409
        assert browser.post("/undo").status == 200, "what was drawn can still be taken back"
        browser.post("/strokes", drawing())
    scene(tmp_path, transform=PLACE.translation(9, 9) @ PLACE)
    with Session([path], model(tmp_path), tmp_path / "loop") as opened:
        assert Browser.on(opened).post("/strokes", drawing()).status == 200
        opened.pen().log.write(tmp_path / "all.gpkg")


def test_strokes_of_a_scene_that_was_moved_keep_their_ground(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        Browser.on(opened).post("/strokes", drawing())
    before = shapely.bounds(read_layer(tmp_path / "loop" / "corrections.gpkg").geometries)[0]
    scene(tmp_path, transform=PLACE.translation(30, 0) @ PLACE)
    with Session([tmp_path / "scene.tif"], model(tmp_path), tmp_path / "loop") as opened:
        Browser.on(opened).post("/strokes", drawing())
    after = shapely.bounds(read_layer(tmp_path / "loop" / "corrections.gpkg").geometries)
    assert np.allclose(after[0], before)
    assert np.allclose(after[1] - before, [30, 0, 30, 0])


def test_a_full_disk_while_painting_loses_nothing_that_was_said_to_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(tmp_path) as opened:
        browser = Browser.on(opened)
        assert browser.post("/strokes", drawing()).status == 200
        size = (tmp_path / "loop" / "corrections.jsonl").stat().st_size
        write, left = os.write, [30]

        def full(handle: int, data: bytes) -> int:
            if not left[0]:
                raise OSError(28, "No space left on device")
            done, left[0] = left[0], 0
            return write(handle, data[:done])

        with monkeypatch.context() as patch:
            patch.setattr(journal.os, "write", full)
            answer = browser.post("/strokes", drawing())
        assert answer.status == 507
        assert "disk is full" in answer.json["error"]
        assert (tmp_path / "loop" / "corrections.jsonl").stat().st_size == size
        assert len(opened.pen().log.strokes()) == 1
        assert browser.post("/strokes", drawing()).json["stroke"] == 2
    with Session([tmp_path / "scene.tif"], model(tmp_path), tmp_path / "loop") as opened:
        assert len(opened.pen().log.strokes()) == 2


def test_a_journal_that_another_program_touches_is_not_written_into(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        browser, file = Browser.on(opened), tmp_path / "loop" / "corrections.jsonl"
        browser.post("/strokes", drawing())
        file.rename(file.with_suffix(".away"))
        assert browser.post("/strokes", drawing()).status == 507
        file.with_suffix(".away").rename(file)
        assert browser.post("/strokes", drawing()).status == 200
        with file.open("ab") as other:
            other.write(b"{}\n")
        assert browser.post("/strokes", drawing()).status == 507


def test_a_damaged_line_is_told_and_a_torn_end_is_cut(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        for _ in range(3):
            Browser.on(opened).post("/strokes", drawing())
    file, folder = tmp_path / "loop" / "corrections.jsonl", tmp_path / "loop"
    whole = file.read_bytes()
    classes = model(tmp_path).predictor.classes
    for torn in (b'{"op": "stro', b"\0" * 300, b'{"op": "stroke"}\n', b"\xff\xfe\n", b"[]\n"):
        file.write_bytes(whole + torn)
        with CorrectionLog(folder, classes) as found:
            assert len(found.strokes()) == 3
            assert found.journal.torn == len(torn)
        assert file.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    for odd in (b"{}\n", lines[2].replace(b'"points"', b'"paints"'), b"x" * 50 + b"\n"):
        file.write_bytes(b"".join([*lines[:2], odd, *lines[3:]]))
        with pytest.raises(DataError, match="line 3"):
            CorrectionLog(folder, classes)
    file.write_bytes(lines[1] + lines[0])
    with pytest.raises(DataError, match="line 1"):
        CorrectionLog(folder, classes)


def test_two_pages_hear_of_each_others_strokes(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        heard: list[tuple[str, dict[str, Any]]] = []
        opened.events.publish = lambda kind, **v: heard.append((kind, v))  # type: ignore[method-assign]
        one, other = Browser.on(opened), Browser.on(opened)
        number = one.post("/strokes", drawing()).json["stroke"]
        assert other.post("/undo", {"stroke": number}).status == 200
        answer = one.post("/undo", {"stroke": number})
        assert answer.status == 400
        assert "undone already" in answer.json["error"]
        assert [kind for kind, _ in heard][:2] == ["stroke", "undo"]
        assert heard[0][1]["stroke"]["geometry"]["type"] == "Polygon"


def test_scenes_without_a_place_keep_their_corrections_apart(tmp_path: Path) -> None:
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    paths = [images / f"{n}.png" for n in "ab"]
    for path in paths:
        Image.fromarray(np.moveaxis(noise(99, 120), 0, -1)).save(path)
    with Session(paths, model(tmp_path), tmp_path / "loop") as opened:
        browser = Browser.on(opened)
        for n, ring in enumerate(
            [[[5, 10], [25, 10], [25, 40], [5, 40]], [[60, 1], [99, 1], [99, 9]]]
        ):
            sent = drawing(points=ring, scene=n, **{"class": f"class {n + 1}"})
            assert browser.post("/strokes", sent).status == 200
        burnt = [opened.pen().log.burnt(v.name, Window(0, 0, 99, 120)) for v in opened.views]
    assert [len(np.unique(b)) for b in burnt] == [2, 2]
    layer = read_layer(tmp_path / "loop" / "corrections.gpkg")
    assert layer.crs is None
    assert layer.images == ["a.png", "b.png"]
    config = DataConfig(corrections=str(tmp_path / "loop" / "corrections.gpkg"))
    names = {"names": ["class 0", "class 1", "class 2"]}
    (tmp_path / "data" / "classes.yaml").write_text(json.dumps(names))
    dataset = open_dataset(tmp_path / "data", config)
    for item, drawn in zip(dataset.items, burnt, strict=True):
        assert np.array_equal(read_mask(dataset, item), drawn)
    mixed = [*paths, write_scene(tmp_path / "c.tif", noise(99, 99))]
    with pytest.raises(SceneError, match="has no CRS"):
        Session(mixed, model(tmp_path), tmp_path / "loop")
    with pytest.raises(SceneError, match="two scenes"):
        Session([paths[0], paths[0]], model(tmp_path), tmp_path / "loop")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop").write_text("")
    with pytest.raises(OutputError, match="loop"), session(tmp_path):
        pass


def test_every_fifth_place_is_drawn_by_chance_and_the_planted_worst_one_comes_first() -> None:
    blocks = [(r, c) for r in range(20) for c in range(20)]
    held = held_out("a.tif", blocks)
    assert len(held) == 60
    assert held == held_out("a.tif", blocks)
    assert held != held_out("b.tif", blocks)
    assert held_out("a.tif", blocks[:4]) == []
    free = [b for b in blocks if b not in held]
    doubts = dict.fromkeys(blocks, 0.2) | {free[77]: 0.9} | {held[0]: 1.0}
    asked: list[tuple[int, int]] = []
    chance = []
    for _ in range(25):
        place, random = next_places(doubts, asked, held, 1)[0]
        chance.append(random)
        assert (place in held) == random
        asked.append(place)
    assert asked[0] == free[77]
    assert chance == [False, False, False, False, True] * 5
    assert [p for p in asked if p in held] == held[:5]
    assert len(set(asked)) == 25
    spread = [p for p in asked if p not in held]
    apart = min(
        abs(a[0] - b[0]) + abs(a[1] - b[1]) for i, a in enumerate(spread) for b in spread[:i]
    )
    assert apart >= 2, "places keep their distance"


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    share = draw.beta(12, 3, 500)  # right pixels of each place: places differ
    truth = np.zeros(400, np.uint8)
    maps = [(draw.random(400) > s).astype(np.uint8) for s in share]
    mean = 1 - float(np.mean(maps))
    hits, count = 0, 300
    for _ in range(count):
        found = accuracy([(truth, maps[i]) for i in draw.choice(500, 30, replace=False)], 2)
        assert found.oa is not None
        assert found.reach is not None
        hits += abs(found.oa - mean) <= found.reach
    assert 0.92 <= hits / count <= 0.985
    assert not found.weak
    one = accuracy([(truth, truth)], 2)
    assert (one.oa, one.reach, one.weak, one.iou[0]) == (1.0, None, True, 1.0)
    assert accuracy([], 2).oa is None


def test_moved_corners_take_the_old_strokes_place_and_undo_gives_it_back(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        browser, pen = Browser.on(opened), opened.pen()
        low = browser.post("/strokes", drawing()).json["stroke"]
        browser.post("/strokes", drawing(**{"class": "class 2"}))  # above it
        lines = len((tmp_path / "loop" / journal.JOURNAL).read_bytes().splitlines())
        wide = [[100, 200], [160, 200], [160, 230], [100, 230]]
        moved = drawing(points=wide, key="moved000", replaces=low, **{"class": "class 0"})
        answer = browser.post("/strokes", moved)
        assert (answer.status, answer.json["points"]) == (200, wide)
        assert browser.post("/strokes", moved).json == answer.json, "sent twice counts once"
        written = (tmp_path / "loop" / journal.JOURNAL).read_bytes().splitlines()
        assert len(written) == lines + 1, "appended; nothing is rewritten"
        ids = pen.log.burnt("scene.tif", Window(210, 90, 1, 80))[0]
        assert np.flatnonzero(ids == 2).tolist() == list(range(10, 50)), "still the upper one"
        assert np.flatnonzero(ids == 1).tolist() == list(range(50, 70)), "its own class"
        told = browser.get("/features/0/0/0/1100/1300").json["features"]
        shown = {f["id"]: f["properties"] for f in told}
        assert shown[3]["points"] == wide
        assert shown[3]["rank"] == 1 < shown[2]["rank"]
        for wrong in (low, 99, "1", True, 1.0):
            assert browser.post("/strokes", drawing(replaces=wrong)).status == 400, wrong
        other = drawing("line", width=4, points=[[1, 1], [9, 9]], replaces=3)
        assert browser.post("/strokes", other).status == 400
        again = browser.post("/strokes", drawing(key="again000", replaces=3)).json["stroke"]
        assert sorted(s.number for s in pen.log.strokes()) == [2, again]
    with Session([tmp_path / "scene.tif"], model(tmp_path), tmp_path / "loop") as opened:
        log = opened.pen().log
        assert [s.number for s in log.strokes()] == [again, 2], "read from the journal"
        browser = Browser.on(opened)
        assert browser.post("/undo").json["stroke"] == again
        assert [s.number for s in log.strokes()] == [3, 2]
        assert browser.post("/undo", {"stroke": 3}).json["stroke"] == 3
        assert [s.number for s in log.strokes()] == [1, 2]
        assert browser.post("/undo").json["stroke"] == 2


@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_a_polygon_becomes_a_building_with_right_angles_on_wish(
    tmp_path: Path, turn: float
) -> None:
    cos, sin = np.cos(turn), np.sin(turn)
    corners = np.array([[0, 0], [81, 2], [79, 42], [40, 39], [41, 60], [-1, 61]])
    points = (corners @ [[cos, sin], [-sin, cos]] + [300, 300]).round(2).tolist()
    with session(tmp_path) as opened:
        browser = Browser.on(opened)
        plain = browser.post("/strokes", drawing(points=points)).json["points"]
        assert plain == points, "not without the wish"
        ring = np.array(
            browser.post("/strokes", drawing(points=points, square=True)).json["points"]
        )
        sides = np.diff(np.vstack([ring, ring[:1]]), axis=0)
        turned = np.abs((sides * np.roll(sides, 1, 0)).sum(1)) / np.hypot(*sides.T) ** 2
        assert len(ring) == 6
        assert turned.max() < 1e-3, "every corner is a right angle"
        (first, second) = (s.area() for s in opened.pen().log.strokes())
        assert first.intersection(second).area / first.union(second).area > 0.9
        three = [[300, 300], [340, 300], [300, 340]]
        bow = [[300, 300], [340, 340], [340, 300], [300, 340]]
        for kept in (three, bow):  # no building comes near
            assert (
                browser.post("/strokes", drawing(points=kept, square=True)).json["points"] == kept
            )
        line = drawing("line", points=points[:3], width=4, square=True)
        assert browser.post("/strokes", line).json["points"] == points[:3]
