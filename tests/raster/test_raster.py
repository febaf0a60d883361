"""Reading rasters of every kind, refusing the rest, and writing small ones."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from scene_files import PLACE, UTM, noise, write_scene
from terradapt.config import InputSpec
from terradapt.errors import DataError, OutputError, SceneError
from terradapt.grid import Window
from terradapt.raster import (
    Clipped,
    SceneReader,
    open_scene,
    polygonize,
    rasterize,
    read_label,
    write_raster,
)

RGB = InputSpec()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", noise(60, 70))


@given(
    st.integers(-30, 80), st.integers(-30, 80), st.integers(1, 90), st.integers(1, 90)
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_windows_are_cut_from_a_scene_padded_with_nothing(scene, row, col, height, width):
    padded = np.zeros((3, 60 + 240, 70 + 240), np.uint8)
    padded[:, 120:180, 120:190] = noise(60, 70)
    with SceneReader(scene, RGB) as reader:
        pixels, valid = reader.read(Window(row, col, height, width))
    expected = padded[(slice(None), *Window(row + 120, col + 120, height, width).slices)]
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(valid, expected[0] > 0)


def read_all(path, spec=None, **options):
    with SceneReader(path, spec, **options) as reader:
        return reader.read(Window(0, 0, reader.height, reader.width))


HOLE = (slice(10, 20), slice(5, 25))


def hole_mask(shape=(60, 70)):
    mask = np.ones(shape, bool)
    mask[HOLE] = False
    return mask


def test_nodata_counts_only_where_all_bands_have_it(tmp_path):
    pixels = noise(60, 70)
    pixels[(slice(None), *HOLE)] = 0
    pixels[0, 40:50] = 0  # a black roof in one band
    path = write_scene(tmp_path / "scene.tif", pixels, nodata=0)
    found, valid = read_all(path, RGB)
    np.testing.assert_array_equal(valid, hole_mask())
    np.testing.assert_array_equal(found, pixels)


def test_internal_mask_and_alpha_decide(tmp_path):
    masked = write_scene(tmp_path / "mask.tif", noise(60, 70), mask=hole_mask())
    rgba = np.concatenate([noise(60, 70), hole_mask()[None].astype(np.uint8) * 255])
    alpha = write_scene(tmp_path / "alpha.tif", rgba, alpha=True)
    for path in (masked, alpha):
        pixels, valid = read_all(path, RGB)
        np.testing.assert_array_equal(valid, hole_mask())
        assert not pixels[:, ~valid].any()


@pytest.mark.parametrize("nodata", [None, float("nan"), -9999.0])
def test_float_scenes_hide_nan_and_nodata(tmp_path, nodata):
    pixels = noise(60, 70).astype(np.float32) / 255
    pixels[(slice(None), *HOLE)] = np.nan if nodata is None else nodata
    path = write_scene(tmp_path / "scene.tif", pixels, nodata=nodata)
    spec = InputSpec(dtype="float32", stretch=((0.0, 1.0),) * 3)
    found, valid = read_all(path, spec)
    np.testing.assert_array_equal(valid, hole_mask())
    np.testing.assert_array_equal(found[:, valid], noise(60, 70)[:, valid])


def test_fixed_stretch_is_linear_and_clips(tmp_path):
    ramp = np.arange(60 * 70, dtype=np.uint16).reshape(1, 60, 70)
    path = write_scene(tmp_path / "scene.tif", ramp)
    spec = InputSpec(bands=(1,), dtype="uint16", stretch=((1000.0, 3000.0),))
    found, _ = read_all(path, spec)
    expected = np.clip(np.rint((ramp.astype(float) - 1000) / 2000 * 255), 0, 255)
    assert np.abs(found - expected).max() <= 1


def test_percentiles_are_those_of_the_valid_pixels(tmp_path):
    pixels = np.random.default_rng(0).normal(500, 100, (1, 300, 300)).clip(1).astype(np.uint16)
    pixels[:, :100] = 0
    path = write_scene(tmp_path / "scene.tif", pixels, nodata=0)
    spec = InputSpec(bands=(1,), dtype="uint16", stretch=(2.0, 98.0))
    found, valid = read_all(path, spec)
    assert (found[:, valid] == 0).mean() == pytest.approx(0.02, abs=0.005)
    assert (found[:, valid] == 255).mean() == pytest.approx(0.02, abs=0.005)
    with SceneReader(path, spec) as reader:
        part, _ = reader.read(Window(150, 20, 40, 30))
    np.testing.assert_array_equal(part, found[:, 150:190, 20:50])


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_sparse_file_reads_as_nodata_where_blocks_are_missing(tmp_path, interleave):
    path, pixels = tmp_path / "scene.tif", np.zeros((3, 900, 900), np.uint8)
    pixels[:, 300:400, 600:700] = noise(100, 100)
    profile = {"driver": "GTiff", "count": 3, "height": 900, "width": 900, "dtype": "uint8",
               "nodata": 0, "crs": UTM, "transform": PLACE, "tiled": True, "blockxsize": 256,
               "blockysize": 256, "sparse_ok": True, "interleave": interleave}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels[:, 256:512, 512:768], window=rasterio.windows.Window(512, 256, 256, 256))
    with SceneReader(path, RGB) as reader:
        for window in (Window(0, 0, 900, 900), Window(250, 500, 80, 300), Window(700, 0, 99, 99)):
            found, valid = reader.read(window)
            np.testing.assert_array_equal(found, pixels[(slice(None), *window.slices)])
            np.testing.assert_array_equal(valid, found.any(0))


def test_an_all_nodata_scene_reads_as_nothing(tmp_path):
    pixels = np.zeros((3, 60, 70), np.uint16)
    path = write_scene(tmp_path / "scene.tif", pixels, nodata=0)
    found, valid = read_all(path, InputSpec(dtype="uint16", stretch=(2.0, 98.0)))
    assert not valid.any()
    assert not found.any()


def test_bands_by_index_by_name_and_by_the_models_names(tmp_path):
    pixels = noise(60, 70, 4)
    path = write_scene(tmp_path / "scene.tif", pixels, names=("blue", "green", "red", "nir"))
    found, _ = read_all(path, RGB, bands=(4, "red", "Green"))
    np.testing.assert_array_equal(found, pixels[[3, 2, 1]])
    found, _ = read_all(path, InputSpec(band_names=("nir", "red", "green")))
    np.testing.assert_array_equal(found, pixels[[3, 2, 1]])


def test_without_a_spec_pixels_stay_as_they_are(tmp_path):
    pixels = noise(60, 70, 5).astype(np.int16) - 100
    found, valid = read_all(write_scene(tmp_path / "scene.tif", pixels))
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype == np.int16
    assert valid.all()


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        (UTM, PLACE, 0.3),
        ("EPSG:2263", Affine(1, 0, 987_000, 0, -1, 210_000), 0.3048006),  # US survey feet
        ("EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 60.0), 0.7882),  # sqrt(1.1141 cos 60)
        ("EPSG:3857", Affine(1, 0, 1_100_000, 0, -1, 8_399_738), 0.50084),  # sqrt(M N) cos 60 / a
        (UTM, Affine(0.24, 0.18, 500_000, 0.18, -0.24, 5_400_000), 0.3),
        (None, PLACE, None),
    ],
)
def test_resolution_is_metres_on_the_ground(tmp_path, crs, transform, metres):
    path = write_scene(tmp_path / "scene.tif", noise(8, 8), crs=crs, transform=transform)
    with SceneReader(path) as reader:
        assert reader.resolution == (metres and pytest.approx(metres, rel=1e-3))


def test_reading_at_another_resolution(tmp_path):
    smooth = np.kron(noise(20, 30, 1), np.ones((1, 4, 4), np.uint8))
    path = write_scene(tmp_path / "scene.tif", smooth)
    with SceneReader(path, InputSpec(bands=(1,)), resolution=1.2) as reader:
        assert (reader.height, reader.width) == (20, 30)
        assert reader.resolution == pytest.approx(1.2)
        assert reader.transform == Affine(1.2, 0, PLACE.c, 0, -1.2, PLACE.f)
        pixels, valid = reader.read(Window(0, 0, 20, 30))
        part, _ = reader.read(Window(5, 7, 8, 9))
    np.testing.assert_array_equal(pixels, noise(20, 30, 1))
    np.testing.assert_array_equal(part, pixels[:, 5:13, 7:16])
    assert valid.all()


def garbage(path, content):
    path.write_bytes(content)
    return path


def test_files_that_are_no_rasters_are_refused_by_name(tmp_path, scene):
    whole = scene.read_bytes()
    cases = [
        (tmp_path / "missing.tif", "no such file"),
        (garbage(tmp_path / "empty.tif", b""), "empty"),
        (garbage(tmp_path / "head.tif", whole[:60]), "cannot be read"),
        (garbage(tmp_path / "text.tif", b"not a raster at all"), "no raster"),
        (garbage(tmp_path / "data.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)), "no raster"),
        (tmp_path, "is a folder"),
        ("/vsicurl/https://example.org/a.tif", "is no local file"),
        ("https://example.org/a.tif", "is no local file"),
    ]
    for path, words in cases:
        with pytest.raises(SceneError, match=words) as caught:
            SceneReader(path)
        assert str(path) in caught.value.message


def test_a_file_cut_short_names_the_place(tmp_path):
    path = write_scene(tmp_path / "scene.tif", noise(600, 700), tiled=True,
                       blockxsize=256, blockysize=256)  # fmt: skip
    os.truncate(path, path.stat().st_size // 2)
    lost = pytest.raises(SceneError, match="rows 512 to 599")
    with SceneReader(path, RGB) as reader, lost as caught:
        reader.read(Window(512, 0, 88, 700))
    assert "scene.tif" in caught.value.message


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (noise(9, 9, 1), "has 1 bands, bands 1, 2, 3 are needed"),
        (noise(9, 9).astype(np.uint16), "uint16, the model was trained on 8 bit"),
        (noise(9, 9).astype(np.float32), "float32, the model was trained on 8 bit"),
    ],
)
def test_scenes_that_do_not_fit_the_model(tmp_path, pixels, words):
    path = write_scene(tmp_path / "scene.tif", pixels)
    with pytest.raises(SceneError, match=words):
        SceneReader(path, RGB)


def test_raw_units_of_another_type_do_not_fit(tmp_path):
    spec = InputSpec(dtype="uint16", stretch=((0.0, 3000.0),) * 3)
    path = write_scene(tmp_path / "scene.tif", noise(9, 9).astype(np.float32))
    with pytest.raises(SceneError, match="trained on uint16"):
        SceneReader(path, spec)
    near = write_scene(tmp_path / "near.tif", noise(9, 9).astype(np.int16))
    SceneReader(near, spec).close()


def test_unknown_band_names_are_told_with_the_known_ones(tmp_path):
    path = write_scene(tmp_path / "scene.tif", noise(9, 9), names=("r", "g", "b"))
    with pytest.raises(SceneError, match="no band named 'nir'") as caught:
        SceneReader(path, RGB, bands=("nir", "r", "g"))
    assert "r, g, b" in caught.value.fix


def test_ground_control_points_alone_are_refused(tmp_path):
    path = tmp_path / "scene.tif"
    points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r in (0, 8) for c in (0, 8)]
    profile = {"driver": "GTiff", "count": 3, "height": 9, "width": 9, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, gcps=points, crs="EPSG:4326") as file:
        file.write(noise(9, 9))
    with pytest.raises(SceneError, match="4 ground control points only") as caught:
        SceneReader(path)
    assert "gdalwarp" in caught.value.fix


VRT = """<VRTDataset rasterXSize="70" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1">
{inside}</VRTRasterBand></VRTDataset>"""
SOURCE = '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename></SimpleSource>'


@pytest.mark.parametrize(
    "inside",
    [
        SOURCE.format("/vsicurl/https://example.org/a.tif"),
        SOURCE.format("missing.tif"),
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage><VRTDerivedRasterBand/>",
        '<!DOCTYPE x [<!ENTITY y "z">]>',
    ],
)
def test_vrts_that_reach_out_are_refused(tmp_path, inside):
    path = tmp_path / "scene.vrt"
    path.write_text(VRT.format(inside=inside))
    with pytest.raises(SceneError, match=r"scene\.vrt"):
        SceneReader(path)


def test_a_local_vrt_is_read(tmp_path):
    write_scene(tmp_path / "a.tif", noise(60, 70))
    path = tmp_path / "scene.vrt"
    path.write_text(VRT.format(inside=SOURCE.format("a.tif")))
    pixels, _ = read_all(path)
    np.testing.assert_array_equal(pixels, noise(60, 70)[:1])


def quarters(tmp_path, overlap=5):
    """A scene cut into four overlapping files, and the whole."""
    pixels = noise(60, 70)
    for name, row, col in (("a", 0, 0), ("b", 0, 30), ("c", 25, 0), ("d", 25, 30)):
        part = pixels[:, row : row + 30 + overlap, col : col + 35 + overlap]
        place = Affine(0.3, 0, PLACE.c + 0.3 * col, 0, -0.3, PLACE.f - 0.3 * row)
        write_scene(tmp_path / f"{name}.tif", part, transform=place)
    return pixels


def test_a_folder_is_one_mosaic(tmp_path):
    pixels = quarters(tmp_path)
    with open_scene(tmp_path, RGB) as mosaic:
        assert (mosaic.height, mosaic.width) == (60, 70)
        assert mosaic.transform == PLACE
        found, valid = mosaic.read(Window(-3, -3, 80, 90))
    np.testing.assert_array_equal(found[:, 3:63, 3:73], pixels)
    assert valid.sum() == 60 * 70


def test_where_files_overlap_the_first_valid_one_counts(tmp_path):
    first, second = noise(20, 20, seed=1), noise(20, 20, seed=2)
    first[:, :10] = 0
    write_scene(tmp_path / "a.tif", first, nodata=0)
    write_scene(tmp_path / "b.tif", second, nodata=0)
    with open_scene(tmp_path, RGB) as mosaic:
        found, valid = mosaic.read(Window(0, 0, 20, 20))
    np.testing.assert_array_equal(found[:, :10], second[:, :10])
    np.testing.assert_array_equal(found[:, 10:], first[:, 10:])
    assert valid.all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crs": "EPSG:32634"}, "CRS"),
        ({"transform": Affine(0.3, 0, PLACE.c + 0.1, 0, -0.3, PLACE.f)}, "grid"),
        ({"transform": Affine(0.4, 0, PLACE.c, 0, -0.4, PLACE.f)}, "grid"),
    ],
)
def test_files_that_do_not_fit_a_mosaic_are_named(tmp_path, change, words):
    write_scene(tmp_path / "a.tif", noise(20, 20))
    write_scene(tmp_path / "b.tif", noise(20, 20), **change)
    with pytest.raises(SceneError, match=rf"b\.tif.*{words}"):
        open_scene(tmp_path, RGB)


def test_files_of_one_place_under_two_names_are_a_mosaic(tmp_path):
    write_scene(tmp_path / "a.tif", noise(20, 20, seed=1))
    right = PLACE @ Affine.translation(20, 0)
    write_scene(tmp_path / "b.tif", noise(20, 20, seed=2), crs=f"{UTM}+5773", transform=right)
    with open_scene(tmp_path, RGB) as mosaic:
        found, valid = mosaic.read(mosaic.window)
    assert valid.all() and found.shape == (3, 20, 40)
    np.testing.assert_array_equal(found[:, :, 20:], noise(20, 20, seed=2))


def test_a_remedy_can_be_run_where_a_crs_has_no_code(tmp_path):
    own = "+proj=tmerc +lat_0=0 +lon_0=12.3 +k=0.9999 +x_0=500000 +ellps=GRS80 +units=m"
    write_scene(tmp_path / "a.tif", noise(20, 20), crs=own)
    write_scene(tmp_path / "b.tif", noise(20, 20))
    with pytest.raises(SceneError) as caught:
        open_scene(tmp_path, RGB)
    assert f"gdalsrsinfo -o wkt {tmp_path / 'a.tif'} > crs.wkt" in caught.value.fix
    assert f"its CRS is {UTM}" in caught.value.message and "PROJCS" not in str(caught.value)


def test_a_clipped_scene_closes_its_files(tmp_path, scene):
    mask = write_scene(tmp_path / "mask.tif", np.ones((1, 60, 70), np.uint8))
    with Clipped(SceneReader(scene, RGB), mask) as clipped:
        assert clipped.read(clipped.window)[1].any()
    for _ in range(2):
        clipped.close()
    with pytest.raises(SceneError):
        clipped.inside(clipped.window)
    with pytest.raises(SceneError, match="60 x 50"):
        Clipped(SceneReader(scene, RGB), write_scene(mask, np.ones((1, 50, 60), np.uint8)))


def test_area_of_interest_by_polygon_and_by_mask(tmp_path, scene):
    from shapely.geometry import box

    inside = Window(10, 20, 30, 25)
    shape = box(PLACE.c + 6, PLACE.f - 12, PLACE.c + 13.5, PLACE.f - 3)
    import pyogrio.raw
    import shapely

    polygons = tmp_path / "area.gpkg"
    pyogrio.raw.write(polygons, shapely.to_wkb(np.array([shape])), [], [],
                      geometry_type="Polygon", crs=UTM)  # fmt: skip
    mask = np.zeros((1, 60, 70), np.uint8)
    mask[(0, *inside.slices)] = 1
    raster = write_scene(tmp_path / "mask.tif", mask)
    for path in (polygons, raster):
        with SceneReader(scene, RGB) as reader:
            area = Clipped(reader, path)
            pixels, valid = area.read(Window(5, 5, 50, 50))
        np.testing.assert_array_equal(valid, mask[0, 5:55, 5:55] > 0)
        np.testing.assert_array_equal(pixels, noise(60, 70)[:, 5:55, 5:55])


def test_labels_as_they_stand(tmp_path):
    ids = np.random.default_rng(0).integers(0, 6, (1, 40, 50), dtype=np.uint8)
    path = write_scene(tmp_path / "label.tif", ids)
    np.testing.assert_array_equal(read_label(path), ids[0])
    padded = read_label(path, Window(-2, 45, 10, 10))
    np.testing.assert_array_equal(padded[2:, :5], ids[0, :8, 45:])
    assert (padded[:2] == 255).all()
    colour = write_scene(tmp_path / "colour.tif", noise(40, 50))
    np.testing.assert_array_equal(read_label(colour), noise(40, 50))
    wide = write_scene(tmp_path / "wide.tif", ids.astype(np.int16) - 1, nodata=-1)
    expected = np.where(ids[0] == 0, 255, ids[0] - 1)
    np.testing.assert_array_equal(read_label(wide), expected)


def test_labels_that_are_no_ids_are_refused(tmp_path):
    path = write_scene(tmp_path / "label.tif", np.full((1, 9, 9), 300, np.int16))
    with pytest.raises(DataError, match=r"label\.tif"):
        read_label(path)


def test_small_rasters_come_back(tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, (40, 50), dtype=np.uint8)
    path = tmp_path / "deep" / "ids.tif"
    colours = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    write_raster(path, ids, crs=UTM, transform=PLACE, nodata=255, colours=colours,
                 band_names=("class",), tags={"A": "b"})  # fmt: skip
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), ids)
        assert file.crs == UTM
        assert file.transform == PLACE
        assert file.colormap(1)[2] == (7, 8, 9, 255)
        assert file.descriptions == ("class",)
        assert file.tags()["A"] == "b"
    assert [p.name for p in path.parent.iterdir()] == ["ids.tif"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"out\.tif"):
        write_raster(tmp_path / "file" / "out.tif", noise(9, 9))
    with pytest.raises(OutputError, match=r"\.xyz"):
        write_raster(tmp_path / "out.xyz", noise(9, 9))


def test_rasterize_and_polygonize_are_inverse():
    values = np.kron(np.array([[0, 1, 2], [2, 0, 1]], np.uint8), np.ones((7, 9), np.uint8))
    shapes = list(polygonize(values, transform=PLACE))
    back = rasterize(shapes, height=14, width=27, transform=PLACE, fill=9)
    np.testing.assert_array_equal(back, values)
    assert (rasterize([], height=3, width=4, transform=PLACE, fill=7) == 7).all()


@contextmanager
def served(scene):
    """Serve a file at every address of a local port; gives the port."""
    command = [sys.executable, str(Path(__file__).parents[1] / "range_server.py"), str(scene)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.terminate()


def test_addresses_are_read_when_allowed(scene):
    with served(scene) as port:
        address = f"http://127.0.0.1:{port}/scene.tif"
        with pytest.raises(SceneError, match="no local file") as caught:
            SceneReader(address)
        pixels, _ = read_all(address, RGB, allow_remote=True)
    assert "--allow-remote" in caught.value.fix
    np.testing.assert_array_equal(pixels, noise(60, 70))


@pytest.mark.parametrize("signed", [True, False])
def test_s3_addresses_are_read_with_the_users_own_keys(scene, monkeypatch, signed):
    with served(scene) as port:
        monkeypatch.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{port}")
        monkeypatch.setenv("AWS_HTTPS", "NO")
        monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
        if signed:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        else:
            monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        pixels, _ = read_all("s3://bucket/scene.tif", RGB, allow_remote=True)
    np.testing.assert_array_equal(pixels, noise(60, 70))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_png_that_is_cut_short_is_no_picture(tmp_path: Path, share: float) -> None:
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    write_raster(whole, np.random.default_rng(0).integers(0, 255, (3, 90, 80), dtype=np.uint8))
    data = whole.read_bytes()
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SceneError, match="cut short"):
        SceneReader(cut)
    whole.write_bytes(data + b"what a camera adds")
    with SceneReader(whole) as reader:
        assert reader.read(reader.window)[1].all()
