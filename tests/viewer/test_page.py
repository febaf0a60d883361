"""The page in a real browser: drawn with the mouse, read from the GeoPackage; seen in pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import shapely
from browsing import NEEDS_CHROMIUM, Page, page_of

from scene_files import ConstantPredictor
from terradapt.raster import read_layer
from terradapt.viewer.session import Session
from viewer_files import drawing, model, predicted, scene

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    one = model(tmp_path, ConstantPredictor(window=512))
    with (
        Session([scene(tmp_path)], one, tmp_path / "loop") as session,
        page_of(session, tmp_path) as found,
    ):
        yield found


def test_what_the_mouse_draws_stands_in_the_geopackage(page: Page, tmp_path: Path) -> None:
    assert page.page.url == f"http://127.0.0.1:{page.port}/", "the secret left the address"
    page.show(600, 300)
    page.page.keyboard.press("2")
    page.page.keyboard.press("p")
    for corner in ((500, 200), (560, 200), (560, 250)):
        page.click(*corner)
    page.click(500, 250)
    page.click(500, 200)  # the first again closes it
    (stroke,) = page.strokes(1)
    assert (stroke.kind, stroke.name) == ("polygon", "class 1")
    assert shapely.equals_exact(
        stroke.area().normalize(), shapely.box(500, 200, 560, 250).normalize(), 1
    )
    page.page.keyboard.press("b")
    page.page.keyboard.press("3")
    page.page.mouse.move(*page.at(620, 300))
    page.page.mouse.down()
    page.page.mouse.move(*page.at(680, 300), steps=6)
    page.page.mouse.up()
    brush = page.strokes(2)[1]
    assert (brush.kind, brush.name, brush.width) == ("brush", "class 2", 24)
    assert np.allclose(brush.area().bounds, (608, 288, 692, 312), atol=1)
    page.page.locator("#saved", has_text="2 corrections saved").wait_for()
    page.page.keyboard.press("u")
    page.strokes(1)
    page.session.pen().log.write(tmp_path / "now.gpkg")
    layer = read_layer(tmp_path / "now.gpkg")
    assert layer.columns["class"].tolist() == ["class 1"]
    assert layer.geometries[0].area == pytest.approx(60 * 50 * 0.09, rel=0.05)


@pytest.mark.browser
def test_corners_are_moved_by_the_mouse_and_by_the_keyboard(page: Page) -> None:
    page.show(120, 215)
    view = page.session.views[0]
    page.session.pen().stroke(view, drawing(), "")  # of another page
    page.page.locator("#saved", has_text="1 corrections").wait_for()
    page.page.keyboard.press("e")
    page.page.mouse.move(*page.at(140, 230))
    page.page.mouse.down()
    page.page.mouse.move(*page.at(160, 240), steps=4)
    page.page.mouse.up()
    page.until(lambda: page.session.pen().log.stroke(2))
    (moved,) = page.session.pen().log.strokes()
    assert np.allclose(moved.points, [[100, 200], [140, 200], [160, 240], [100, 230]], atol=1.01)
    page.until(lambda: page.shows(2))
    for key in (".", ".", "ArrowRight", "Shift+ArrowUp", "Enter"):
        page.page.keyboard.press(key)
    page.until(lambda: page.session.pen().log.stroke(3))
    (again,) = page.session.pen().log.strokes()
    assert np.allclose(again.points - moved.points, [[0, 0], [1, -10], [0, 0], [0, 0]])
    page.until(lambda: page.shows(3))
    assert page.page.evaluate("terradapt.scene.strokes.getFeatures().length") == 1
    page.page.keyboard.press("u")
    page.until(lambda: page.shows(2))
    assert [s.number for s in page.session.pen().log.strokes()] == [2]
    page.page.keyboard.press("p")
    page.page.keyboard.press("q")
    for corner in ((200, 100), (262, 103), (259, 148), (202, 151), (200, 100)):
        page.click(*corner)
    page.until(lambda: page.session.pen().log.stroke(4))
    ring = page.session.pen().log.strokes()[-1].points
    sides = np.diff(np.vstack([ring, ring[:1]]), axis=0)
    assert np.allclose((sides * np.roll(sides, 1, 0)).sum(1), 0, atol=0.2), "right angles"


@pytest.mark.browser
def test_the_view_predicts_and_a_click_tells_the_class(page: Page) -> None:
    page.show(300, 300)
    page.page.locator("#classes td", has_text="class 1").wait_for()
    page.page.locator("#blocks", has_text="").wait_for(state="attached")
    page.until(lambda: len(page.session.views[0].map.store), 30)
    page.page.locator("[data-layer=map] input[type=range]").fill("100")
    page.until_colour(200, 200, page.session.classes.colours[1])
    page.page.keyboard.press("h")
    page.click(200, 200)
    page.page.locator("#pixel .scores div", has_text="50 %").first.wait_for()
    assert "class 1" in page.page.locator("#pixel .scores div").first.inner_text()


@pytest.mark.browser
def test_swipe_shows_one_layer_on_each_side(page: Page) -> None:
    predicted(page.session)
    page.page.reload()
    page.page.locator("#layers li").first.wait_for()
    page.show(600, 400)
    page.page.locator("[data-layer=map] input[type=range]").fill("100")
    page.page.locator("[data-layer=scene] input[type=checkbox]").uncheck()
    page.page.keyboard.press("s")
    page.page.select_option("#swipe-left", "confidence")
    page.page.locator("[data-layer=confidence] input[type=range]").fill("100")
    mapped = page.session.classes.colours[1]
    middle = page.page.evaluate("terradapt.scene.map.getView().getCenter()[0]")
    page.until_colour(middle + 200, 400, mapped)
    sure = page.colour(middle - 200, 400)
    assert sure != mapped
    page.page.locator("#swipe-grip").press("ArrowLeft")
    for _ in range(30):
        page.page.locator("#swipe-grip").press("ArrowLeft")
    page.until_colour(middle - 200, 400, mapped)


@pytest.mark.browser
def test_a_place_of_the_queue_is_answered_by_the_keyboard(page: Page) -> None:
    predicted(page.session)
    page.page.reload()
    page.page.locator("#queue li").first.wait_for()
    page.page.keyboard.press("n")
    page.page.locator("#place-box").wait_for()
    page.page.keyboard.press("Enter")
    (stroke,) = page.strokes(1)
    assert (stroke.kind, stroke.ids is not None) == ("right", True)
    page.page.keyboard.press("u")
    page.strokes(0)


@pytest.mark.browser
def test_a_new_class_and_text_that_looks_like_code(page: Page) -> None:
    name = "<b onclick=alert(1)>pond</b>"
    page.page.fill("#class-name", name)
    page.page.click("#class-form button")
    page.page.locator("#classes .name", has_text=name).wait_for()
    assert page.page.locator("#classes b").count() == 0
    page.page.fill("#class-name", "Pond")
    page.page.click("#class-form button")
    page.page.fill("#class-name", "pond")
    page.page.click("#class-form button")
    page.page.locator("#notice", has_text="there is a class").wait_for()
    page.complaints.clear()  # Chromium itself reports the answer 400


@pytest.mark.browser
def test_all_is_reached_by_keyboard_readable_and_named(page: Page) -> None:
    seen = set()
    for _ in range(60):
        page.page.keyboard.press("Tab")
        seen.add(
            page.page.evaluate(
                "document.activeElement.id || document.activeElement.dataset.tool || ''"
            )
        )
    assert {"brush", "polygon", "edit", "right", "undo", "map", "retrain", "class-name"} <= seen
    nameless = page.page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter((e) => e.offsetParent && !("
        "e.textContent.trim() || e.ariaLabel || (e.labels && e.labels.length))).length"
    )
    assert nameless == 0
    small = page.page.evaluate(
        "[...document.querySelectorAll('body *')].filter((e) => e.offsetParent && [...e.childNodes]"
        ".some((n) => n.nodeType === 3 && n.textContent.trim()) && parseFloat("
        "getComputedStyle(e).fontSize) < 13).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert small == []


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_is_that_of_wcag_aa(page: Page, theme: str) -> None:
    page.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    names = ["text", "quiet", "accent", "new", "wrong", "on-accent", "panel", "raised", "chosen"]
    names += ["new-ground", "wrong-ground", "ground"]
    style = "getComputedStyle(document.documentElement).getPropertyValue"
    values = {
        n: page.page.evaluate(f"{style}.call(getComputedStyle(document.documentElement), '--{n}')")
        for n in names
    }
    pairs = [("text", "panel"), ("text", "chosen"), ("text", "raised"), ("quiet", "panel")]
    pairs += [
        ("quiet", "raised"),
        ("quiet", "chosen"),
        ("on-accent", "accent"),
        ("accent", "panel"),
    ]
    pairs += [
        ("new", "new-ground"),
        ("new", "panel"),
        ("wrong", "wrong-ground"),
        ("wrong", "panel"),
    ]
    for front, back in pairs:
        assert contrast(values[front].strip(), values[back].strip()) >= 4.5, (front, back)


def contrast(a: str, b: str) -> float:
    """Return the ratio of relative luminance that WCAG 2 defines."""
    found = []
    for text in (a, b):
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        lin = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        found.append(0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2])
    return (max(found) + 0.05) / (min(found) + 0.05)
