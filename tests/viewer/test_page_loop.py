"""The loop in a real browser: a planted mistake is mended by a look, and by a retraining."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from browsing import NEEDS_CHROMIUM, page_of
from test_looking import SIDE, grounds, planted

from terradapt.classes import ISPRS
from terradapt.config import load_config
from terradapt.grid import Window
from terradapt.raster import polygonize, write_raster
from terradapt.synthetic import make_scene, transform_at
from terradapt.viewer.mapping import Model
from terradapt.viewer.models import Kept, Work
from terradapt.viewer.session import Session
from viewer_files import drawing, predicted

pytestmark = [pytest.mark.browser, *NEEDS_CHROMIUM]
BUILDING, IMPERVIOUS = ISPRS.names.index("building"), ISPRS.names.index("impervious")
HEIGHT, WIDTH = 1536, 2048  # 12 blocks, of which two are drawn by chance


def test_a_look_mends_a_planted_mistake_in_the_view(tmp_path: Path) -> None:
    path, start = planted(tmp_path)
    folder, ground = tmp_path / "loop", grounds()
    begun = Model.open(start)
    with (
        Session([path], begun, folder) as session,
        Work(session, Kept(folder, "g")) as work,
        page_of(session, tmp_path, work) as page,
    ):
        names, colours = session.classes.names, session.classes.colours
        page.show(SIDE / 2, SIDE / 2)
        page.until(lambda: len(session.views[0].map.store) == 1)
        page.page.locator("[data-layer=map] input[type=range]").fill("100")
        squares = [(r, c) for r in range(4) for c in range(4) if (r * 3 + c) % 4 == 3]
        *shown, other = squares
        middle = other[1] * 120 + 60, other[0] * 120 + 60
        assert ground[middle[1], middle[0]] == 3
        page.until_colour(*middle, colours[0])
        page.page.keyboard.press(str(names.index(names[3]) + 1))
        page.page.keyboard.press("b")
        for _ in range(12):
            page.page.keyboard.press("]")
        for row, col in shown:
            page.page.mouse.move(*page.at(col * 120 + 30, row * 120 + 60))
            page.page.mouse.down()
            page.page.mouse.move(*page.at(col * 120 + 90, row * 120 + 60), steps=5)
            page.page.mouse.up()
        page.strokes(len(shown))
        page.page.keyboard.press("g")
        page.page.locator("#decide").wait_for(timeout=60_000)
        page.page.locator("#keep").click()
        page.page.locator("#decide").wait_for(state="hidden")
        page.page.keyboard.press("h")
        page.show(SIDE / 2, SIDE / 2)
        page.until_colour(*middle, colours[3])
        assert Kept(folder, "g").kept == "0001"


@pytest.mark.slow
def test_retraining_on_a_city_mends_a_planted_mistake_and_keeps_the_held_out_figure(
    tmp_path: Path,
) -> None:
    from terradapt import training

    city = make_scene(5, HEIGHT, WIDTH)
    truth, place = city.labels, transform_at(5, 0, 0)
    known = np.where(truth == BUILDING, IMPERVIOUS, truth)  # the mistake: buildings are no class
    data = tmp_path / "data"
    image = np.moveaxis(city.image, -1, 0)
    for part, pixels in (("images", image), ("labels", known[None])):
        write_raster(data / part / "city.tif", pixels, crs="EPSG:32633", transform=place)
    said = {"names": list(ISPRS.names), "values": list(range(len(ISPRS)))}
    (data / "classes.yaml").write_text(json.dumps(said))
    few = ["epochs=1", "steps_per_epoch=80", "data.workers=0", "train.calibrate=none"]
    run, folder = tmp_path / "run", tmp_path / "loop"
    training.train(load_config("demo").with_overrides(few), data, run)
    begun = Model.open(run / "checkpoint.safetensors")
    changes = ["train.epochs=1", "train.steps_per_epoch=60", "data.crop=256", "data.workers=0"]
    changes += ["optim.lr=3e-3", "optim.lr_backbone=1e-3"]  # a model of a minute learns anew
    with (
        Session([data / "images" / "city.tif"], begun, folder) as session,
        Work(session, Kept(folder, "g"), overrides=changes) as work,
        page_of(session, tmp_path, work) as page,
    ):
        predicted(session)
        view, log = session.views[0], session.pen().log
        before = view.map.store.window(Window(0, 0, HEIGHT, WIDTH))
        for at in view.held:
            block = view.map.pyramid.block(*at)
            ring = [[block.col, block.row], [block.right, block.row], [block.right, block.bottom]]
            told = {"kind": "right", "points": ring, "key": f"truth{at[0]}{at[1]}00"}
            ids = truth[block.slices]
            log.add(view.name, told, "", place=at, window=block, ids=ids)
        free = [b for b in view.map.pyramid.all_blocks if b not in view.held]
        taught, others = free[:3], free[3:]
        for at in taught:  # what a hand would draw: the outlines of buildings
            block = view.map.pyramid.block(*at)
            mask = (truth[block.slices] == BUILDING).astype(np.uint8)
            for shape, _ in polygonize(mask, mask=mask > 0):
                outline = shapely.geometry.shape(shape).exterior
                points = np.add(outline.coords[:-1], [block.col, block.row])
                drawn = drawing(points=points.tolist(), **{"class": "building"})
                session.pen().stroke(view, drawn, "")
        page.page.reload()
        page.page.locator("#retrain").click()
        page.page.locator("#decide").wait_for(timeout=1_200_000)  # minutes, if others work too
        predicted(session)
        after = view.candidate.store.window(Window(0, 0, HEIGHT, WIDTH))
        there = np.zeros(truth.shape, bool)
        for at in others:
            there[view.map.pyramid.block(*at).slices] = True
        there &= truth == BUILDING
        found = session.pen().figures()
        print(f"buildings {(after[there] == BUILDING).mean():.3f}, held-out places {found}")
        assert (before[there] == BUILDING).mean() < 0.1, "the mistake is there"
        assert (after[there] == BUILDING).mean() > 0.4, "mended where nobody corrected"
        assert found["map"]["iou"][BUILDING] < 0.05
        assert found["new"]["iou"][BUILDING] > 0.2, "on places that it never learnt from"
        assert found["new"]["oa"] > found["map"]["oa"] - 0.03, "and forgets nothing"
        page.page.locator("#figures", has_text="New model").wait_for()
        page.page.locator("#keep").click()
        page.page.locator("#decide").wait_for(state="hidden")
        assert session.model.path.parent.name == "0001"
