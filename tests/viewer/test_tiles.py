"""Tiles: level 0 is what predict writes, byte for byte; coarser ones show what is there."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from scene_files import PLACE, PlainPredictor, noise, write_scene
from terradapt.grid import Window
from terradapt.scene import predict_scene
from terradapt.viewer.mapping import REMEMBERED, Model, Remembering
from terradapt.viewer.png import grey_png, indexed_png, read_own
from terradapt.viewer.pyramid import Pyramid
from terradapt.viewer.recent import Recent
from terradapt.viewer.session import Session
from viewer_files import Browser, model, predicted, scene, session


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def mosaic(folder: Path) -> Any:
    home = folder / "tiles"
    home.mkdir()
    for n, col in enumerate((0, 600)):
        place = Affine(0.3, 0, PLACE.c + 0.3 * col, 0, -0.3, PLACE.f - 30 * n)
        write_scene(home / f"{n}.tif", noise(900, 640, seed=n), transform=place)
    return home


def coarse(folder: Path) -> Any:
    return scene(folder, transform=Affine(0.6, 0, PLACE.c, 0, -0.6, PLACE.f))


def plain(folder: Path) -> Model:
    own = PlainPredictor(window=512)
    own.spec = own.spec.model_copy(update={"resolution": 0.3})
    return model(folder, Remembering(own, Recent(20 << 20), "own"))


def trained(folder: Path) -> Model:
    from export_files import small
    from terradapt import checkpoint

    net, meta = small()
    spec = meta.spec.model_copy(update={"resolution": 0.3})
    checkpoint.save(folder / "net.safetensors", net, replace(meta, spec=spec))
    return Model.open(folder / "net.safetensors")


def seen(browser: Browser, window: Window) -> np.ndarray:
    """Return what a page that is at full zoom shows of a window, put together from tiles."""
    ids = np.full((window.height, window.width), 255, np.uint8)
    for y in range(window.row // 512, (window.bottom - 1) // 512 + 1):
        for x in range(window.col // 512, (window.right - 1) // 512 + 1):
            answer = browser.get(f"/tiles/0/map/0/{x}/{y}.png?v=x")
            assert (answer.status, answer.headers["x-ready"]) == (200, "1")
            tile = Window(y * 512, x * 512, 512, 512)
            common = tile.intersect(window)
            assert common is not None
            part = pixels(answer.body)[common.shift(-tile.row, -tile.col).slices]
            ids[common.shift(-window.row, -window.col).slices] = part
    return ids


def check_viewports(folder: Path, make: Any, opening: Any, count: int) -> None:
    """Compare random viewports of up to 1600 x 900 px with the file that predict writes."""
    given, own = make(folder), opening(folder)
    predict_scene(own.predictor, given, folder / "map.tif")
    with rasterio.open(folder / "map.tif") as file:
        whole = file.read(1)
    with Session([given], own, folder / "loop") as opened:
        shown = opened.views[0].map
        assert shown is not None
        draw = np.random.default_rng(count)
        blocks = shown.pyramid.all_blocks
        for row, col in [blocks[i] for i in draw.permutation(len(blocks))]:
            shown.predict(row, col)
        browser = Browser.on(opened)
        for _ in range(count):
            height, width = draw.integers(1, np.minimum([900, 1600], whole.shape) + 1)
            row, col = draw.integers(0, np.array(whole.shape) - [height, width] + 1)
            window = Window(*(int(v) for v in (row, col, height, width)))
            assert np.array_equal(seen(browser, window), whole[window.slices]), window


@pytest.mark.parametrize("make", [scene, mosaic, coarse])
def test_what_is_viewed_is_the_file_that_predict_writes(make: Any, tmp_path: Path) -> None:
    check_viewports(tmp_path, make, plain, 34)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "opening"), [(scene, plain), (mosaic, plain), (coarse, plain), (scene, trained)]
)
def test_a_thousand_viewports_are_the_file_that_predict_writes(
    make: Any, opening: Any, tmp_path: Path
) -> None:
    check_viewports(tmp_path, make, opening, 250)


def test_neighbours_share_their_windows(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        shown = opened.views[0].map
        assert shown is not None
        inner = shown.model.predictor
        remembering = Remembering(inner, Recent(REMEMBERED), "inner")
        images = noise(256, 256)[None]
        first = remembering.predict(images)
        calls = len(inner.seen)  # type: ignore[attr-defined]
        kept = first.copy()
        first *= 0  # the caller may
        assert np.array_equal(remembering.predict(images), kept)
        assert len(inner.seen) == calls  # type: ignore[attr-defined]


def test_coarse_tiles_show_what_is_ready_and_hatch_the_rest(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        shown, browser = opened.views[0].map, Browser.on(opened)
        assert shown is not None
        assert shown.pyramid.levels == 3
        predicted(opened, (0, 1))
        block = shown.store.get(0, 1)
        assert block is not None
        colours = np.array(shown.model.predictor.classes.colours)
        for level in (1, 2):
            answer = browser.get(f"/tiles/0/map/{level}/0/0.png?v=x")
            assert answer.headers["x-ready"] == "0"
            assert answer.headers["cache-control"] == "no-store"
            found, step = pixels(answer.body), 1 << level
            side = 512 // step
            there = found[:side, side : 2 * side]
            assert np.array_equal(there[..., :3], colours[block.classes[::step, ::step]])
            missing = found[:side, :side]
            assert set(np.unique(missing[..., 3])) == {0, 110, 150}
            edge = -(-1300 // step)
            assert (found[:, edge:, 3] == 0).all(), "nothing beyond the scene"
        assert len(shown.store) == 1, "zooming out predicts nothing"


def test_the_store_is_a_cache_that_can_be_removed_or_damaged(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        predicted(opened, (0, 0), (1, 1))
        store = opened.views[0].map.store
        first = store.tile(0, 0, 0, "classes")
        files = sorted(store.folder.iterdir())
    with Session([tmp_path / "scene.tif"], model(tmp_path), tmp_path / "loop") as opened:
        shown = opened.views[0].map
        assert shown is not None
        assert sorted(shown.store.facts) == [(0, 0), (1, 1)], "it is there again"
        data = bytearray(files[0].read_bytes())
        data[len(data) // 2] ^= 1
        files[0].write_bytes(bytes(data))
        assert shown.store.get(0, 0) is None
        assert (0, 0) not in shown.store
        files[1].unlink()
        assert shown.store.get(1, 1) is None
        shown.predict(0, 0)
        assert shown.store.tile(0, 0, 0, "classes") == first


def test_a_scene_is_thinned_to_one_pixel_in_four_to_the_level(tmp_path: Path) -> None:
    path = scene(tmp_path)
    with rasterio.open(path) as file:
        whole = file.read()
    with session(tmp_path) as opened:
        browser = Browser.on(opened)
        full = pixels(browser.get("/tiles/0/scene/0/1/0.png").body)
        assert np.array_equal(full.transpose(2, 0, 1), whole[:, :512, 512:1024])
        thin = pixels(browser.get("/tiles/0/scene/1/0/0.png").body)
        low, high = whole[:, :1024:2, :1024:2], whole[:, 1:1024:2, 1:1024:2]
        drawn = thin.transpose(2, 0, 1)
        assert np.array_equal(drawn, low) or np.array_equal(drawn, high)
        edge = pixels(browser.get("/tiles/0/scene/1/1/0.png").body)
        assert edge.shape == (512, 512, 4)
        assert (edge[..., 3] > 0).sum() == 512 * (1300 - 1024) // 2
        for path in ("3/0/0", "0/3/0", "0/0/3", "1/9/9"):
            assert browser.get(f"/tiles/0/scene/{path}.png").status == 404


def test_own_pictures_come_back_and_damaged_ones_do_not() -> None:
    ids = noise(70, 90, 1)[0]
    for data in (grey_png(ids), indexed_png(ids, np.zeros((256, 3), np.uint8))):
        assert np.array_equal(read_own(data), ids)
        assert np.array_equal(pixels(data), ids)
        for cut in (0, 7, 20, len(data) // 2, len(data) - 13):
            with pytest.raises(ValueError, match="PNG"):
                read_own(data[:cut])
    with pytest.raises(ValueError, match="another"):
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(buffer, "PNG")
        read_own(buffer.getvalue())


def test_no_tile_covers_more_than_is_read_at_once() -> None:
    large = Pyramid(90_000, 70_000)
    assert [large.span(n) for n in range(large.levels)][-1] == 4096
    assert large.side(large.levels - 1) >= 16
    for level in range(large.levels):
        assert large.side(level) << level == large.span(level)
        last = large.tile(level, 69_999 // large.span(level), 89_999 // large.span(level))
        assert last is not None
        assert last.bottom >= 90_000
        assert last.right >= 70_000
