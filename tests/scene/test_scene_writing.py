"""Results on disk: cloud optimized, resumable after a kill, never half written."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rio_cogeo import cog_validate

from scene_files import PLACE, UTM, ConstantPredictor, PlainPredictor, noise, write_scene
from terradapt.classes import ClassMap
from terradapt.errors import OutputError, SceneError
from terradapt.raster import Layer, SceneReader, SceneWriter
from terradapt.raster.cog import halve_mean, halve_mode, pyramid_sizes
from terradapt.scene import PredictOptions, predict_scene

OPTIONS = PredictOptions(scores="uint8", confidence=True, batch=4)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    pixels = noise(1200, 1100)
    pixels[:, 100:300, 200:900] = 0
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    return write_scene(path, pixels, nodata=0, tiled=True)


@pytest.fixture(scope="module")
def result(scene, tmp_path_factory):
    """A finished prediction, for comparison."""
    out = tmp_path_factory.mktemp("result") / "map.tif"
    predict_scene(PlainPredictor(window=64), scene, out, OPTIONS)
    return out


def contents(out):
    names = [out.name, f"{out.stem}_scores.tif", f"{out.stem}_confidence.tif", f"{out.stem}.json"]
    return {name: (out.parent / name).read_bytes() for name in names}


def test_results_are_cloud_optimized(result):
    for path in sorted(result.parent.glob("*.tif")):
        valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
        assert valid, (path, errors, warnings)
        with rasterio.open(path) as file:
            assert file.overviews(1) == [2, 4]
            assert file.compression.name == "deflate"


def test_scratch_holds_the_same_pixels_stored_plainly_and_is_taken_over(scene, result, tmp_path):
    out, model = tmp_path / "map.tif", PlainPredictor(window=64)
    told = predict_scene(model, scene, out, OPTIONS, scratch=True)
    for name in ("map.tif", "map_scores.tif", "map_confidence.tif"):
        with (
            rasterio.open(out.with_name(name)) as mine,
            rasterio.open(result.with_name(name)) as other,
        ):
            np.testing.assert_array_equal(mine.read(), other.read())
            assert not mine.overviews(1) and other.overviews(1)
        assert told["files"][name] == {"bytes": out.with_name(name).stat().st_size}
    before = contents(out)
    again = PredictOptions(scores="uint8", confidence=True, batch=4, resume=True)
    assert predict_scene(model, scene, out, again, scratch=True) == told
    assert contents(out) == before


def test_classes_have_colours_names_and_nodata(result):
    classes = PlainPredictor().classes
    with rasterio.open(result) as file:
        assert file.nodata == 255
        assert [file.colormap(1)[i][:3] for i in range(3)] == list(classes.colours)
        assert ClassMap.from_dict(json.loads(file.tags()["TERRADAPT_CLASSES"])) == classes
    names = ElementTree.parse(f"{result}.aux.xml").findall(".//Category")
    assert [n.text for n in names] == list(classes.names)
    entries = ElementTree.parse(result.with_suffix(".qml")).findall(".//paletteEntry")
    assert [e.get("label") for e in entries] == list(classes.names)


def test_overviews_are_the_most_frequent_values(result):
    with rasterio.open(result) as file, rasterio.open(result, overview_level=0) as half:
        full, small = file.read(1), half.read(1)
    squares = full.reshape(600, 2, 550, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    for square, value in zip(squares[::97], small.ravel()[::97], strict=True):
        counts = np.bincount(square[square < 255], minlength=1)
        assert value == 255 if not counts.any() else counts[value] == counts.max()


def test_scores_and_confidence_agree_with_the_classes(scene, result):
    with SceneReader(scene) as reader:
        from terradapt.grid import Window

        _, valid = reader.read(Window(0, 0, 1200, 1100))
    classes = rasterio.open(result).read(1)
    with rasterio.open(result.with_name("map_scores.tif")) as file:
        scores = file.read(masked=True) * file.scales[0]
        assert file.descriptions == PlainPredictor().classes.names
    with rasterio.open(result.with_name("map_confidence.tif")) as file:
        sure = file.read(1, masked=True) * file.scales[0]
    np.testing.assert_array_equal(classes < 255, valid)
    np.testing.assert_array_equal(~sure.mask, valid)
    np.testing.assert_allclose(scores.sum(0)[valid], 1, atol=0.0061)
    np.testing.assert_array_equal(sure[valid], scores.max(0)[valid])


def test_float16_scores_are_probabilities(scene, tmp_path):
    predict_scene(ConstantPredictor(window=256), scene, tmp_path / "map.tif",
                  PredictOptions(scores="float16"))  # fmt: skip
    with rasterio.open(tmp_path / "map_scores.tif") as file:
        scores = file.read()
    found = ~np.isnan(scores[0])
    assert found.sum() == 1200 * 1100 - 200 * 700
    assert np.abs(scores[1][found] - 0.5).max() < 1e-3
    assert cog_validate(tmp_path / "map_scores.tif", strict=True, quiet=True)[0]


def test_hectares_follow_from_pixels(result):
    figures = json.loads(result.with_suffix(".json").read_text())
    classes = rasterio.open(result).read(1)
    for row in figures["classes"]:
        assert row["pixels"] == (classes == row["id"]).sum()
        assert row["hectares"] == pytest.approx(row["pixels"] * 0.09 / 0.9996**2 / 1e4, rel=1e-6)
    assert figures["nodata_pixels"] == 200 * 700


def test_repeated_runs_give_the_same_bytes(scene, result, tmp_path):
    predict_scene(PlainPredictor(window=64), scene, tmp_path / "map.tif", OPTIONS)
    assert contents(tmp_path / "map.tif") == contents(result)


class BreakingPredictor(PlainPredictor):
    """Stops with an error after some calls."""

    def __init__(self, calls, **options):
        super().__init__(**options)
        self.left = calls

    def predict(self, images):
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return super().predict(images)


def test_a_resumed_run_ends_with_the_same_bytes(scene, result, tmp_path):
    out = tmp_path / "map.tif"
    calls = 0
    for _ in range(3):
        calls += 25
        options = PredictOptions(**{**vars(OPTIONS), "resume": True})
        with pytest.raises(OSError, match="No space"):
            predict_scene(BreakingPredictor(calls, window=64), scene, out, options)
        assert not out.exists()
        assert (tmp_path / "map.tif.part").is_dir()
    done = PlainPredictor(window=64)
    predict_scene(done, scene, out, options)
    assert contents(out) == contents(result)
    assert not (tmp_path / "map.tif.part").exists()
    again = PlainPredictor(window=64)
    figures = predict_scene(again, scene, out, options)
    assert not again.seen
    assert figures == json.loads(out.with_suffix(".json").read_text())


def test_other_options_do_not_resume(scene, tmp_path):
    out = tmp_path / "map.tif"
    with pytest.raises(OSError, match="No space"):
        predict_scene(BreakingPredictor(60, window=64), scene, out, OPTIONS)
    with pytest.raises(OutputError, match=r"map\.tif\.part"):
        predict_scene(PlainPredictor(window=64), scene, out,
                      PredictOptions(overlap=0.5, batch=4, resume=True))  # fmt: skip
    predict_scene(PlainPredictor(window=64), scene, out)


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from scene_files import PlainPredictor
from terradapt.scene import PredictOptions, predict_scene

class Slow(PlainPredictor):
    def predict(self, images):
        time.sleep(0.002)
        return super().predict(images)

print("ready", flush=True)
options = PredictOptions(scores="uint8", confidence=True, batch=4, resume=True)
predict_scene(Slow(window=64), Path(sys.argv[2]), Path(sys.argv[3]), options)
print("done", flush=True)
"""


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow),
                                  pytest.param(2, marks=pytest.mark.slow)])  # fmt: skip
def test_a_killed_run_resumes_to_the_same_bytes(scene, result, tmp_path, seed):
    draw, out = random.Random(seed), tmp_path / "map.tif"
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), str(scene), str(out)]
    kills = 0
    for _ in range(12):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        if kills < 3:
            time.sleep(draw.uniform(0.2, 1.5))
            child.send_signal(signal.SIGKILL)
            kills += 1
        said = child.stdout.read()
        child.wait()
        child.stdout.close()
        if said == "done\n":
            break
        assert not out.with_suffix(".json").exists()
    assert contents(out) == contents(result)


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_a_journal_cut_anywhere_is_mended(scene, result, tmp_path_factory, data):
    """Whatever a kill leaves of the part folder, a resume gives the same bytes."""
    out = tmp_path_factory.mktemp("cut") / "map.tif"
    calls = data.draw(st.integers(0, 140))
    options = PredictOptions(**{**vars(OPTIONS), "resume": True})
    with pytest.raises(OSError, match="No space"):
        predict_scene(BreakingPredictor(calls, window=64), scene, out, options)
    parts = sorted((out.parent / "map.tif.part").iterdir())
    victim = data.draw(st.sampled_from(parts))
    size = victim.stat().st_size
    if data.draw(st.booleans()):
        os.truncate(victim, data.draw(st.integers(0, size)))
    else:
        with victim.open("ab") as file:
            file.write(b"half a line")
    predict_scene(PlainPredictor(window=64), scene, out, options)
    assert contents(out) == contents(result)


def test_an_unreadable_block_leaves_a_resumable_state(tmp_path):
    path = write_scene(tmp_path / "scene.tif", noise(2000, 300), tiled=True, interleave="pixel",
                       blockxsize=256, blockysize=256)  # fmt: skip
    whole, out = path.read_bytes(), tmp_path / "map.tif"
    os.truncate(path, len(whole) * 3 // 4)
    with pytest.raises(SceneError, match=r"scene\.tif: rows"):
        predict_scene(PlainPredictor(window=64), path, out)
    assert not out.exists()
    path.write_bytes(whole)
    mended = PlainPredictor(window=64)
    predict_scene(mended, path, out, PredictOptions(resume=True))
    fresh = PlainPredictor(window=64)
    predict_scene(fresh, path, tmp_path / "whole" / "map.tif")
    assert out.read_bytes() == (tmp_path / "whole" / "map.tif").read_bytes()
    assert 0 < len(mended.seen) < len(fresh.seen)


def test_a_changed_scene_does_not_resume(tmp_path):
    path, out = write_scene(tmp_path / "scene.tif", noise(1100, 200)), tmp_path / "map.tif"
    with pytest.raises(OSError, match="No space"):
        predict_scene(BreakingPredictor(20, window=64), path, out)
    write_scene(path, noise(1100, 200, seed=1))
    with pytest.raises(OutputError, match="another version"):
        predict_scene(PlainPredictor(window=64), path, out, PredictOptions(resume=True))


def test_statistics_beside_a_scene_keep_what_is_done(tmp_path):
    """QGIS writes them at the first look, between a stop and its resume."""
    path, out = write_scene(tmp_path / "scene.tif", noise(96, 96)), tmp_path / "map.tif"
    beside, options = tmp_path / "scene.tif.aux.xml", PredictOptions(resume=True)
    shown = '<MDI key="STATISTICS_MEAN">{}</MDI><MDI key="STATISTICS_VALID_PERCENT">100</MDI>'
    text = '<PAMDataset>\n <PAMRasterBand band="1"><Metadata>{}</Metadata>{}</PAMRasterBand>'
    text += "</PAMDataset>\n"
    done = predict_scene(PlainPredictor(window=64), path, out, options)
    bins = "<Histograms><HistItem><HistCounts>1|2</HistCounts></HistItem></Histograms>"
    for inside in ((shown.format(1), ""), (shown.format(2), bins)):
        beside.write_text(text.format(*inside))
        never = BreakingPredictor(0, window=64)
        assert predict_scene(never, path, out, options) == done
    beside.write_text(text.format(shown.format(1), "<NoDataValue>0</NoDataValue>"))
    with pytest.raises(OutputError, match="exists already"):
        predict_scene(PlainPredictor(window=64), path, out, options)


def test_a_full_disk_names_the_place(tmp_path, scene, monkeypatch):
    out = tmp_path / "map.tif"
    real = os.fsync

    def full(handle):
        if sum(f.stat().st_size for f in (tmp_path / "map.tif.part").iterdir()) > 100_000:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"map\.tif: block row \d of 3 .*No space") as caught:
        predict_scene(PlainPredictor(window=64), scene, out)
    assert "--resume" in caught.value.fix
    monkeypatch.setattr(os, "fsync", real)
    predict_scene(PlainPredictor(window=64), scene, out, PredictOptions(resume=True))
    assert cog_validate(out, quiet=True)[0]


@given(st.integers(3, 1300), st.integers(3, 1300), st.booleans())
@settings(max_examples=12, deadline=None)
def test_any_size_is_written_as_it_is(tmp_path_factory, height, width, empty):
    path = tmp_path_factory.mktemp("size") / "map.tif"
    ids = np.random.default_rng(height).integers(0, 5, (height, width), dtype=np.uint8)
    if empty:
        ids[: height // 2] = 255
    layers = {"classes": Layer(path, colours=((1, 2, 3),) * 5)}
    with SceneWriter(layers, width=width, height=height, crs=UTM, transform=PLACE,
                     signature={}) as writer:  # fmt: skip
        for top in range(0, height, 512):
            writer.write_row({"classes": ids[None, top : top + 512]})
        writer.commit()
        writer.clean()
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), ids)
        assert len(file.overviews(1)) == len(pyramid_sizes(width, height))
    assert cog_validate(path, strict=True, quiet=True)[0]


def test_files_beyond_four_gigabytes_are_bigtiff(tmp_path, monkeypatch):
    ids = np.random.default_rng(0).integers(0, 5, (1, 512, 600), dtype=np.uint8)
    for limit, magic in ((4_000_000_000, b"II*\0"), (10_000, b"II+\0")):
        monkeypatch.setattr("terradapt.raster.cog._CLASSIC_LIMIT", limit)
        path = tmp_path / f"{limit}.tif"
        with SceneWriter({"c": Layer(path)}, width=600, height=512, crs=UTM, transform=PLACE,
                         signature={}) as writer:  # fmt: skip
            writer.write_row({"c": ids})
            writer.commit()
        assert path.read_bytes()[:4] == magic
        assert cog_validate(path, strict=True, quiet=True)[0]
        np.testing.assert_array_equal(rasterio.open(path).read(), ids)


def test_tiles_without_data_are_stored_once(tmp_path):
    path = tmp_path / "map.tif"
    with SceneWriter({"c": Layer(path)}, width=8192, height=1024, crs=UTM, transform=PLACE,
                     signature={}) as writer:  # fmt: skip
        for _ in range(2):
            writer.write_row({"c": np.full((1, 512, 8192), 255, np.uint8)})
        writer.commit()
    assert path.stat().st_size < 8000
    assert (rasterio.open(path).read(1) == 255).all()


def test_halving():
    tile = np.array([[1, 1, 255, 255], [2, 1, 255, 7], [5, 255, 255, 255], [255, 255, 255, 255]])
    np.testing.assert_array_equal(halve_mode(tile.astype(np.uint8)), [[1, 7], [5, 255]])
    floats = np.array([[1, 2, np.nan, np.nan], [3, np.nan, np.nan, np.nan]], np.float16)
    np.testing.assert_array_equal(halve_mean(floats, float("nan")), [[2, np.nan]])


def test_a_map_is_replaced_only_when_told(tmp_path, scene):
    out = tmp_path / "map.tif"
    predict_scene(PlainPredictor(window=64), scene, out, OPTIONS)
    out.write_bytes(out.read_bytes() + b"edited")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"map\.tif: exists") as caught:
        predict_scene(PlainPredictor(window=64), scene, out, OPTIONS)
    assert "--overwrite" in caught.value.fix
    other = PredictOptions(**{**vars(OPTIONS), "overlap": 0.5, "resume": True})
    with pytest.raises(OutputError, match=r"map\.tif: exists"):  # nothing of this job to go on with
        predict_scene(PlainPredictor(window=64), scene, out, other)
    out.unlink()
    with pytest.raises(OutputError, match=r"map_(scores|confidence)\.tif: exists"):
        predict_scene(PlainPredictor(window=64), scene, out, OPTIONS)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == {
        p: content for p, content in before.items() if p != out
    }
    again = PredictOptions(**{**vars(OPTIONS), "overwrite": True})
    predict_scene(PlainPredictor(window=64), scene, out, again)
    assert out.read_bytes() + b"edited" == before[out]


def test_a_killed_replacement_goes_on(tmp_path, scene, result):
    out = tmp_path / "map.tif"
    shutil.copy(result, out)
    again = PredictOptions(**{**vars(OPTIONS), "overwrite": True})
    with pytest.raises(OSError, match="No space"):
        predict_scene(BreakingPredictor(60, window=64), scene, out, again)
    options = PredictOptions(**{**vars(OPTIONS), "resume": True})
    predict_scene(PlainPredictor(window=64), scene, out, options)
    assert contents(out) == contents(result)


def part_lines(out):
    return (out.parent / f"{out.name}.part" / "journal.jsonl").read_bytes().splitlines(True)


def rewritten(out, lines):
    (out.parent / f"{out.name}.part" / "journal.jsonl").write_bytes(b"".join(lines))


def signed(entry):
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


DAMAGES = {
    "every row twice": lambda lines: [lines[0], *(row for row in lines[1:] for _ in range(2))],
    "rows swapped": lambda lines: [lines[0], *reversed(lines[1:])],
    "first row lost": lambda lines: [lines[0], *lines[2:]],
    "a figure changed": lambda lines: [lines[0], lines[1].replace(b'"row":0', b'"row":1')],
    "a count changed": lambda lines: [
        lines[0],
        re.sub(rb'("note":\{"\d+":\[)\d', rb"\g<1>7", lines[1]),
    ],
    "a row of another place": lambda lines: [
        lines[0],
        signed({**json.loads(lines[1][9:]), "row": 1}),
    ],
    "rows without end": lambda lines: [*lines, *[lines[-1]] * 9],
    "no layers": lambda lines: [lines[0], signed({"row": 0, "note": {}, "layers": {}})],
    "no sizes": lambda lines: [
        lines[0],
        signed(
            {"row": 0, "note": {}, "layers": {n: [0, [], 0, []] for n in OPTIONS_LAYERS}},
        ),
    ],
    "huge sizes": lambda lines: [
        lines[0],
        signed(
            {
                "row": 0,
                "note": {},
                "layers": {n: [0, [1 << 60] * 3, 0, [0] * 3] for n in OPTIONS_LAYERS},
            }
        ),
    ],
    "an empty tile that nothing stored": lambda lines: [
        lines[0],
        signed(
            {"row": 0, "note": {}, "layers": {n: [0, [], 0, [1, 1, 1]] for n in OPTIONS_LAYERS}},
        ),
    ],
    "no journal": lambda lines: [b"\0" * 4096],
    "another's lines": lambda lines: [lines[0], b'{"row":0}\n', b"[]\n", b"7\n", lines[1]],
}
OPTIONS_LAYERS = ("classes", "confidence", "scores")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_is_believed_line_by_line(scene, result, tmp_path, damage):
    out = tmp_path / "map.tif"
    with pytest.raises(OSError, match="No space"):
        predict_scene(BreakingPredictor(140, window=64), scene, out, OPTIONS)
    lines = part_lines(out)
    assert len(lines) == 3
    rewritten(out, DAMAGES[damage](lines))
    options = PredictOptions(**{**vars(OPTIONS), "resume": True})
    predict_scene(PlainPredictor(window=64), scene, out, options)
    assert contents(out) == contents(result)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_maps_and_their_sidecars_have_the_rights_of_the_umask(tmp_path, scene, umask):
    before = os.umask(umask)
    try:
        predict_scene(PlainPredictor(window=64), scene, tmp_path / "map.tif", OPTIONS)
    finally:
        os.umask(before)
    found = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert set(found.values()) == {0o666 & ~umask}, found


def test_confidence_has_a_style_from_dark_to_light(result):
    root = ElementTree.parse(result.with_name("map_confidence.qml")).getroot()
    renderer = root.find("pipe/rasterrenderer")
    assert renderer.get("type") == "singlebandpseudocolor" and renderer.get("band") == "1"
    items = list(root.iter("item"))
    assert [float(i.get("value")) for i in items] == [0, 0.25, 0.5, 0.75, 1]  # as the file's scale
    luma = [sum(bytes.fromhex(i.get("color")[1:])) for i in items]
    assert luma == sorted(luma)
    assert 'type="paletted"' in result.with_suffix(".qml").read_text()


def zero(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [zero, flip, os.remove, lambda p: os.truncate(p, 99)])
@pytest.mark.parametrize("name", ["map.tif", "map_scores.tif", "map_confidence.tif", "map.json"])
def test_a_finished_result_that_is_not_whole_is_made_again(scene, result, tmp_path, name, harm):
    out = Path(shutil.copytree(result.parent, tmp_path / "result")) / result.name
    harm(out.parent / name)
    options = PredictOptions(**{**vars(OPTIONS), "resume": True})
    done = PlainPredictor(window=64)
    figures = predict_scene(done, scene, out, options)
    assert done.seen
    assert contents(out) == contents(result)
    assert figures == json.loads(out.with_suffix(".json").read_text())


@pytest.mark.parametrize("harm", [zero, os.remove, lambda p: os.truncate(p, 99)])
@pytest.mark.parametrize("name", ["map.qml", "map.tif.aux.xml"])
def test_a_style_that_is_not_whole_is_made_again_without_the_model(
    scene, result, tmp_path, name, harm
):
    out = Path(shutil.copytree(result.parent, tmp_path / "result")) / result.name
    harm(out.parent / name)
    options = PredictOptions(**{**vars(OPTIONS), "resume": True})
    done = PlainPredictor(window=64)
    predict_scene(done, scene, out, options)
    assert not done.seen
    assert (out.parent / name).read_bytes() == (result.parent / name).read_bytes()


def test_a_style_that_its_user_changed_is_left(scene, result, tmp_path):
    out = Path(shutil.copytree(result.parent, tmp_path / "result")) / result.name
    style = out.with_suffix(".qml").read_text().replace("class 0", "my class")
    out.with_suffix(".qml").write_text(style)
    done = PlainPredictor(window=64)
    predict_scene(done, scene, out, PredictOptions(**{**vars(OPTIONS), "resume": True}))
    assert not done.seen
    assert out.with_suffix(".qml").read_text() == style


@pytest.mark.parametrize("changed", ["scene", "area"])
def test_a_result_of_a_changed_input_is_not_finished(tmp_path, changed):
    scene = write_scene(tmp_path / "scene.tif", noise(90, 80))
    area = write_scene(tmp_path / "area.tif", np.ones((1, 90, 80), np.uint8))
    out, options = tmp_path / "map.tif", PredictOptions(aoi=area, resume=True)
    predict_scene(PlainPredictor(), scene, out, options)
    if changed == "scene":
        write_scene(scene, noise(90, 80, seed=1))
    else:
        half = np.ones((1, 90, 80), np.uint8)
        half[:, :40] = 0
        write_scene(area, half)
    predict_scene(PlainPredictor(), scene, out, options)
    predict_scene(PlainPredictor(), scene, tmp_path / "fresh.tif", PredictOptions(aoi=area))
    assert out.read_bytes() == (tmp_path / "fresh.tif").read_bytes()


def test_a_second_run_on_one_output_is_refused(scene, tmp_path):
    out, said = tmp_path / "map.tif", []

    class Meanwhile(PlainPredictor):
        def predict(self, images):
            if not said:
                for path in (out, out.with_suffix(".tiff")):
                    other = threading.Thread(target=second, args=(path,))
                    other.start()
                    other.join()
            return super().predict(images)

    def second(path):
        try:
            predict_scene(PlainPredictor(window=64), scene, path, OPTIONS)
        except OutputError as error:
            said.append(error.message)

    predict_scene(Meanwhile(window=64), scene, out, OPTIONS)
    assert len(said) == 2
    assert all(f"is being written by process {os.getpid()}" in message for message in said)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
