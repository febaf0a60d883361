"""``compare``: scenes, maps and vectors in any mix, from file to file."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.transform import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject

from scene_files import PLACE, UTM, PlainPredictor, write_scene
from terradapt.changes import raster
from terradapt.changes.raster import here, row_of
from terradapt.changes.run import compare
from terradapt.changes.sides import is_map, match_classes, name_key, open_map
from terradapt.classes import CHANGES, ClassMap
from terradapt.config import InputSpec
from terradapt.errors import ConfigError, DataError, OutputError, SceneError
from terradapt.raster import polygonize, read_label, write_raster

NAMES = ("ground", "building", "tree", "road")
SIZE = 560  # px: two rows of blocks
UTM_PLACE = Affine(1.0, 0.0, 500_000.0, 0.0, -1.0, 5_400_000.0)


def town() -> np.ndarray:
    """A map with many borders: buildings and trees on a lattice that is not even."""
    ids = np.zeros((SIZE, SIZE), np.uint8)
    rng = np.random.default_rng(3)
    for row in range(20, SIZE - 30, 40):
        for col in range(20, SIZE - 30, 40):
            r, c = (int(v) for v in rng.integers(-6, 7, 2))
            h, w = (int(v) for v in rng.integers(10, 20, 2))
            ids[row + r : row + r + h, col + c : col + c + w] = rng.integers(1, 3)
    return ids


def write_map(
    path: Path, ids: np.ndarray, names: tuple[str, ...] = NAMES, place: Affine = UTM_PLACE
) -> Path:
    tags = {"TERRADAPT_CLASSES": json.dumps(ClassMap(names).to_dict())}
    write_raster(path, ids, crs=UTM, transform=place, nodata=255, tags=tags)
    return path


def rows(path: Path, layer: str = "polygons") -> list[dict[str, object]]:
    meta, _, wkb, fields = pyogrio.raw.read(path, layer=layer)
    table = zip(*fields, shapely.from_wkb(wkb), strict=True)
    return [dict(zip([*meta["fields"], "shape"], row, strict=True)) for row in table]


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, Path]:
    """Two dates: a building new, one gone, one became trees, and ground that nobody saw."""
    old, new = town(), town()
    old[100:130, 102:112] = new[100:130, 102:112] = 0
    new[100:120, 100:112] = 1
    old[300:320, 300:316] = 1
    new[300:320, 300:316] = 0
    old[400:420, 400:412] = 2
    new[400:420, 400:412] = 0
    new[:40] = 255
    old[10:30, 200:240] = 1
    return write_map(tmp_path / "old.tif", old), write_map(tmp_path / "new.tif", new)


def test_a_new_a_gone_and_a_changed_area_with_metres_and_nothing_else(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "update.gpkg"
    figures = compare(*maps, out)
    found = {r["state"]: r for r in rows(out)}
    assert len(rows(out)) >= 3
    assert found["new"]["class_after"] == "building" and found["new"]["class_before"] == "ground"
    new = [r for r in rows(out) if r["state"] == "new"]
    assert sum(r["area_m2"] for r in new) == pytest.approx(240 / 0.9996**2, rel=0.2)
    truth = shapely.box(500_100, 5_399_880, 500_112, 5_399_900)
    assert shapely.area(shapely.union_all([r["shape"] for r in new]).difference(truth)) == 0
    assert figures["not_looked_at_km2"] == pytest.approx(40 * SIZE / 1e6, rel=1e-2)
    assert not any(r["shape"].bounds[3] > 5_399_960.1 for r in rows(out)), "nobody looked there"
    assert figures["per_class"]["building"]["gained_m2"] == pytest.approx(
        sum(r["area_m2"] for r in new), rel=1e-4
    )
    for path in (tmp_path / "update_change.tif", out.with_suffix(".html")):
        assert path.stat().st_size > 0
    assert json.loads(out.with_suffix(".json").read_text())["polygons"] == figures["polygons"]
    with sqlite3.connect(out) as database:
        styles = database.execute("SELECT f_table_name, styleQML FROM layer_styles").fetchall()
    assert {n for n, _ in styles} == {"polygons", "edges"}
    assert all('attr="state"' in qml for _, qml in styles)
    assert not list(tmp_path.glob("*.part"))


def test_a_map_against_itself_has_no_object(maps: tuple[Path, Path], tmp_path: Path) -> None:
    figures = compare(maps[0], maps[0], tmp_path / "self.gpkg")
    assert rows(tmp_path / "self.gpkg") == []
    assert sum(row["count"] for row in figures["polygons"].values()) == 0
    change = read_label(tmp_path / "self_change.tif")
    assert set(np.unique(change)) <= {0, 255}


def test_the_shift_of_the_dates_is_estimated_told_and_taken_out(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = np.roll(read_label(maps[0]), (4, -3), (0, 1))
    shifted = write_map(tmp_path / "shifted.tif", moved)
    straight = compare(*maps, tmp_path / "a.gpkg")
    figures = compare(shifted, maps[1], tmp_path / "b.gpkg")
    assert figures["shift_m"] == pytest.approx([-3, -4], abs=0.05)
    assert any("shift of the old side: -3.0" in n for n in figures["notes"])
    assert figures["polygons"]["new"] == straight["polygons"]["new"]
    naive = compare(shifted, maps[1], tmp_path / "c.gpkg", align=False, reach=1)
    count = [sum(r["count"] for r in f["polygons"].values()) for f in (figures, naive)]
    assert count[1] > 10 * count[0], "without it, every border is a change"


@pytest.mark.filterwarnings("ignore:.*matmul:PendingDeprecationWarning")  # of rasterio's warp
def test_another_resolution_another_crs_and_another_order_of_classes(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    ids = read_label(maps[0])
    table = np.full(256, 255, np.uint8)
    table[[0, 1, 2]] = 2, 0, 1
    fine = np.kron(table[ids], np.ones((2, 2), np.uint8))
    place = Affine(0.5, 0.0, 500_000.0, 0.0, -0.5, 5_400_000.0)
    other = write_map(tmp_path / "fine.tif", fine, ("Buildings", "Trees", "Ground"), place)
    straight = compare(*maps, tmp_path / "a.gpkg")
    figures = compare(other, maps[1], tmp_path / "b.gpkg")
    assert figures["polygons"] == straight["polygons"]
    assert figures["grid"]["resolution_m"] == pytest.approx(1.0)
    assert figures["classes"] == ["other", "ground", "building", "tree"], "road is left out"
    assert any("0.5 m per pixel, compared at 1" in n for n in figures["notes"])
    bounds = (500_000.0, 5_400_000.0 - SIZE, 500_000.0 + SIZE, 5_400_000.0)
    place, width, height = calculate_default_transform(UTM, "EPSG:3035", SIZE, SIZE, *bounds)
    turned = np.full((height, width), 255, np.uint8)
    reproject(
        read_label(maps[1]), turned, src_transform=UTM_PLACE, src_crs=UTM, src_nodata=255,
        dst_transform=place, dst_crs="EPSG:3035", dst_nodata=255, resampling=Resampling.nearest,
    )  # fmt: skip
    tags = {"TERRADAPT_CLASSES": json.dumps(ClassMap(NAMES).to_dict())}
    path = tmp_path / "laea.tif"
    write_raster(path, turned, crs="EPSG:3035", transform=place, nodata=255, tags=tags)
    figures = compare(maps[0], path, tmp_path / "c.gpkg", min_area=60)
    assert figures["polygons"]["new"]["count"] == 1
    assert figures["polygons"]["new"]["area_m2"] == pytest.approx(
        straight["polygons"]["new"]["area_m2"], rel=0.15
    )


def test_one_worker_many_workers_and_a_resumed_run_write_the_same_bytes(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    def one_by_one(function, tasks):  # type: ignore[no-untyped-def]
        yield from map(function, tasks)

    def cut_short(function, tasks):  # type: ignore[no-untyped-def]
        yield function(next(iter(tasks)))
        raise KeyboardInterrupt

    compare(*maps, tmp_path / "a.gpkg", rows=here)
    compare(*maps, tmp_path / "b.gpkg", rows=one_by_one)
    with pytest.raises(KeyboardInterrupt):
        compare(*maps, tmp_path / "c.gpkg", rows=cut_short)
    assert not (tmp_path / "c.gpkg").exists() and (tmp_path / "c.gpkg.part").is_dir()
    seen = []

    def counted(function, tasks):  # type: ignore[no-untyped-def]
        for task in tasks:
            seen.append(task.row)
            yield function(task)

    with pytest.raises(OutputError, match="other inputs or options"):
        compare(*maps, tmp_path / "c.gpkg", rows=counted, resume=True, min_area=5)
    shown = Path(f"{maps[0]}.aux.xml")  # as QGIS writes it when it shows the map
    assert not shown.exists()
    mean = '<MDI key="STATISTICS_MEAN">1</MDI>'
    shown.write_text(
        f'<PAMDataset><PAMRasterBand band="1"><Metadata>{mean}</Metadata></PAMRasterBand>'
        "</PAMDataset>"
    )
    compare(*maps, tmp_path / "c.gpkg", rows=counted, resume=True)
    shown.unlink()
    assert seen == [1], "the first row stood there"
    results = [(tmp_path / f"{n}_change.tif").read_bytes() for n in "abc"]
    assert results[0] == results[1] == results[2]
    tables = [[list(r.values()) for r in rows(tmp_path / f"{n}.gpkg")] for n in "abc"]
    assert tables[0] == tables[1] == tables[2]
    assert compare(*maps, tmp_path / "c.gpkg", resume=True)["edges"], "it is finished"


def test_a_row_is_a_pure_function_whatever_the_columns_it_is_cut_into(
    maps: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(*maps, tmp_path / "a.gpkg")
    monkeypatch.setattr(raster, "_COLUMNS", 100)
    compare(*maps, tmp_path / "b.gpkg")
    one, two = ((tmp_path / f"{n}_change.tif").read_bytes() for n in "ab")
    assert one == two
    assert row_of.__module__ == "terradapt.changes.raster", "workers find it by its name"


def test_footprints_of_a_cadastre_are_gone_or_new_as_they_stand_in_the_file(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    ids = read_label(maps[1])
    shapes = [g for g, v in polygonize((ids == 1).astype(np.uint8), transform=UTM_PLACE) if v == 1]
    fresh = next(i for i, g in enumerate(shapes) if shapely.geometry.shape(g).contains(
        shapely.Point(500_106, 5_399_890)))  # fmt: skip
    ghost = shapely.geometry.mapping(shapely.box(500_302, 5_399_682, 500_314, 5_399_698))
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    kept = [*shapes[:fresh], *shapes[fresh + 1 :], ghost]
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in kept]
    cadastre = tmp_path / "cadastre.geojson"
    cadastre.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    figures = compare(cadastre, maps[1], tmp_path / "u.gpkg")
    found = {r["state"]: r for r in rows(tmp_path / "u.gpkg")}
    assert figures["polygons"]["gone"]["count"] == figures["polygons"]["new"]["count"] == 1
    assert found["gone"]["feature"] == len(kept) and found["new"]["feature"] == 0
    assert found["gone"]["shape"].equals(shapely.MultiPolygon([shapely.geometry.shape(ghost)]))
    back = compare(maps[1], cadastre, tmp_path / "v.gpkg")
    assert back["polygons"]["gone"]["count"] == back["polygons"]["new"]["count"] == 1
    same = compare(cadastre, cadastre, tmp_path / "w.gpkg")
    assert sum(r["count"] for r in same["polygons"].values()) == 0


class Bright(PlainPredictor):
    """Sees buildings where it is bright."""

    def __init__(self) -> None:
        super().__init__(2, 64)
        self.classes = ClassMap(("ground", "building"))

    def score(self, x: np.ndarray) -> np.ndarray:
        bright = np.clip(x.mean(1), 0.02, 0.98)
        return np.stack([1 - bright, bright], 1).astype(np.float32)


def test_two_scenes_with_a_model_and_a_scene_against_itself(tmp_path: Path) -> None:
    pixels = np.repeat((town() == 1)[None], 3, 0).astype(np.uint8) * 200 + 10
    later = pixels.copy()
    later[:, 200:240, 200:240] = 230
    old = write_scene(tmp_path / "old.tif", pixels, transform=PLACE)
    new = write_scene(tmp_path / "new.tif", later, transform=PLACE)
    figures = compare(old, new, tmp_path / "u.gpkg", model=Bright())
    assert figures["polygons"]["new"]["count"] >= 1 and figures["polygons"]["gone"]["count"] == 0
    assert 0.5 < rows(tmp_path / "u.gpkg")[0]["probability"] < 1
    assert "not calibrated" in figures["calibration"]
    compare(old, old, tmp_path / "self.gpkg", model=Bright())
    assert rows(tmp_path / "self.gpkg") == []
    with pytest.raises(SceneError, match=r"old\.tif: is a scene"):
        compare(old, new, tmp_path / "no.gpkg")
    assert not list(tmp_path.glob("no.*"))


class Fickle(Bright):
    """Does not take roofs of one brightness for roofs."""

    def score(self, x: np.ndarray) -> np.ndarray:
        bright = x.mean(1)
        roof = np.where((bright > 0.35) & (np.abs(bright - 0.53) > 0.04), 0.95, 0.05)
        return np.stack([1 - roof, roof], 1).astype(np.float32)


@pytest.mark.parametrize("unlike", [0.0, 0.5])
def test_what_looks_as_it_did_in_other_light_is_no_change(tmp_path: Path, unlike: float) -> None:
    rng, ids = np.random.default_rng(2), town()
    ids[490:] = 0
    levels = np.array([20.0, 210.0, 170.0])[ids]
    noise = rng.normal(0, 2, (2, 3, SIZE, SIZE))
    levels_later = levels * 0.6 + 8  # 210 becomes 134: 0.53
    levels_later[500:520, 500:520] = 110
    old, new = (
        write_scene(tmp_path / f"{n}.tif", (p + e).clip(1, 255).astype(np.uint8), transform=PLACE)
        for n, p, e in zip(("old", "new"), (levels, levels_later), noise, strict=True)
    )
    out = tmp_path / "u.gpkg"
    figures = compare(old, new, out, model=Fickle(), unlike=unlike, min_area=1, reach=0)
    counts = {state: n["count"] for state, n in figures["polygons"].items()}
    assert counts["new"] == 1
    if unlike:
        assert counts["gone"] == 0 and figures["alike"] > 50
        assert any(f"{figures['alike']} areas look as they did" in n for n in figures["notes"])
    else:
        assert counts["gone"] > 50 and figures["alike"] == 0


def test_what_cannot_be_compared_is_said_and_nothing_is_left(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    away = write_map(tmp_path / "away.tif", town(), place=Affine(1, 0, 9e5, 0, -1, 5.4e6))
    other = write_map(tmp_path / "other.tif", town(), ("water", "rock", "snow"))
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    lines = tmp_path / "lines.geojson"
    line = {"type": "LineString", "coordinates": [[15, 48.7], [15.001, 48.7]]}
    feature = {"type": "Feature", "properties": {}, "geometry": line}
    lines.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    out = tmp_path / "out.gpkg"
    for new, error, words in (
        (away, SceneError, "do not overlap"),
        (other, DataError, "no class is on both sides"),
        (empty, DataError, "no polygons and no lines"),
        (lines, DataError, "do not overlap"),
        (tmp_path / "none.tif", SceneError, "none.tif"),
    ):
        with pytest.raises(error, match=words):
            compare(maps[0], new, out)
        assert not list(tmp_path.glob("out*")), new
    with pytest.raises(DataError, match="class 'roof' is not on both sides"):
        compare(*maps, out, classes=("roof",))
    with pytest.raises(ConfigError, match="no option 'treshold'"):
        compare(*maps, out, treshold=0.3)
    with pytest.raises(OutputError, match="would be written over"):
        compare(*maps, maps[0])
    assert not list(tmp_path.glob("out*"))


def test_names_join_without_capitals_and_plurals(tmp_path: Path) -> None:
    assert name_key("Buildings") == name_key("building") and name_key("grass") == name_key("Grass")
    one = open_map(write_map(tmp_path / "a.tif", town(), ("ground", "building", "tree")))
    two = open_map(write_map(tmp_path / "b.tif", town(), ("Trees", "water", "BUILDING")))
    joined = match_classes(one, two)
    assert joined.names == ("other", "Trees", "BUILDING")
    assert joined.old == (0, 2, 1) and joined.new == (1, 0, 2)
    assert joined.alone == (("ground",), ("water",))


def test_the_command_line_tells_what_it_found(
    maps: tuple[Path, Path], tmp_path: Path, terradapt
) -> None:  # type: ignore[no-untyped-def]
    done = terradapt("compare", *maps, "-o", tmp_path / "u.gpkg", "--min-area", "30")
    assert done.status == 0, done.err
    assert "not calibrated" in done.err and "shift of the old side" in done.err
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["new", "gone", "changed"]
    again = terradapt("compare", *maps, "-o", tmp_path / "u.gpkg")
    assert again.is_user_error("u.gpkg", "exists already")
    assert terradapt("compare", *maps, "-o", tmp_path / "u.shp").is_user_error("u.shp")
    far = terradapt("compare", *maps, "-o", tmp_path / "w.gpkg", "--reach", "99")
    assert far.is_user_error("reach of 99 px")
    assert not (tmp_path / "w.gpkg.part").exists()


class Differs(PlainPredictor):
    """Takes two dates at once; says where they differ."""

    def __init__(self) -> None:
        super().__init__(2, 64)
        self.classes = CHANGES
        self.spec = InputSpec(bands=(1, 2, 3, 4, 5, 6), mean=(0.5,) * 6, std=(0.2,) * 6)

    def score(self, x: np.ndarray) -> np.ndarray:
        apart = np.clip(np.abs(x[:, :3] - x[:, 3:]).mean(1) * 2, 0.0, 1.0)
        return np.stack([1 - apart, apart], 1).astype(np.float32)


def test_a_model_of_two_dates_takes_both_and_says_what_it_cannot_know(tmp_path: Path) -> None:
    pixels = np.repeat(np.where(town() == 1, 200, 10)[None], 3, 0).astype(np.uint8)
    later = pixels.copy()
    later[:, 180:220, 180:220] = 250
    there = (later[0].astype(int) - pixels[0] > 64).sum()
    old = write_scene(tmp_path / "old.tif", pixels, transform=PLACE)
    new = write_scene(tmp_path / "new.tif", later, transform=PLACE)
    figures = compare(old, new, tmp_path / "u.gpkg", model=Differs())
    assert figures["polygons"]["changed"]["count"] >= 1
    assert figures["polygons"]["new"]["count"] == figures["polygons"]["gone"]["count"] == 0
    assert {(r["class_before"], r["class_after"]) for r in rows(tmp_path / "u.gpkg")} == {
        ("not told", "changed")
    }
    assert any("it does not know" in n for n in figures["notes"])
    area = sum(r["shape"].area for r in rows(tmp_path / "u.gpkg")) / PLACE.a**2
    assert area == pytest.approx(there, rel=0.1)
    plain = read_label(tmp_path / "u_change.tif")
    moved = write_scene(tmp_path / "moved.tif", np.roll(pixels, (4, -3), (1, 2)), transform=PLACE)
    shifted = compare(moved, new, tmp_path / "s.gpkg", model=Differs())
    assert shifted["shift_px"] == pytest.approx([4, -3], abs=0.05)
    inner = np.s_[8:-8, 8:-8]
    assert (read_label(tmp_path / "s_change.tif") == plain)[inner].mean() > 0.999
    half = pixels[:, ::2, ::2]
    coarse = write_scene(tmp_path / "c.tif", half, transform=PLACE @ Affine.scale(2))
    figures = compare(coarse, new, tmp_path / "c.gpkg", model=Differs())
    assert figures["grid"]["height"] == SIZE // 2
    compare(old, old, tmp_path / "self.gpkg", model=Differs())
    assert rows(tmp_path / "self.gpkg") == []
    with pytest.raises(SceneError, match="takes two scenes at once"):
        compare(old, write_map(tmp_path / "map.tif", town()), tmp_path / "n.gpkg", model=Differs())
    with pytest.raises(ConfigError, match="no classes of the ground"):
        compare(old, new, tmp_path / "n.gpkg", model=Differs(), classes=("building",))
    assert not list(tmp_path.glob("n.*"))


def test_a_panchromatic_scene_is_no_class_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for dtype, most in ((np.uint8, 250), (np.uint16, 3000), (np.int16, 3000)):
        grey = rng.integers(1, most, (1, 300, 300)).astype(dtype)
        path = write_scene(tmp_path / f"{np.dtype(dtype)}.tif", grey, transform=PLACE)
        assert not is_map(path)
        with pytest.raises(SceneError, match="is a scene"):
            compare(path, path, tmp_path / "u.gpkg")
    for values in ([0, 1], [0, 255], [3, 1000], list(range(60))):
        few = rng.choice(values, (1, 300, 300)).astype(np.uint16)
        assert is_map(write_scene(tmp_path / "few.tif", few, transform=PLACE))


def test_a_resume_with_a_changed_input_is_refused_and_begins_no_mixture(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    def cut_short(function, tasks):  # type: ignore[no-untyped-def]
        yield function(next(iter(tasks)))
        raise KeyboardInterrupt

    out = tmp_path / "u.gpkg"
    ids = read_label(maps[0])
    shares = np.stack([(ids == k) * 200 for k in range(len(NAMES))]).astype(np.uint8)
    place = {"crs": UTM, "transform": UTM_PLACE}
    scores = tmp_path / "old_scores.tif"
    for change in (scores, maps[1]):
        write_raster(scores, shares, **place)
        with pytest.raises(KeyboardInterrupt):
            compare(*maps, out, rows=cut_short, overwrite=True)
        if change == scores:
            write_raster(scores, shares // 2, **place)
        else:
            write_map(maps[1], town())
        stat = change.stat()
        os.utime(change, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
        with pytest.raises(OutputError, match="other inputs or options"):
            compare(*maps, out, resume=True)
        assert not out.exists()
    compare(*maps, out, overwrite=True)
    before = out.read_bytes()
    write_map(maps[1], read_label(maps[0]))
    os.utime(maps[1], ns=(0, 10**9))
    with pytest.raises(OutputError, match="exists already"):
        compare(*maps, out, resume=True)
    assert out.read_bytes() == before
