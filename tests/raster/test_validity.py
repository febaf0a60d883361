"""What is data and what is not: alpha, masks and nodata, of any type and together."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from scene_files import noise, write_scene
from terradapt.config import InputSpec
from terradapt.grid import Window
from terradapt.raster import SceneReader, read_label
from terradapt.raster.validity import shrink

C = ColorInterp


def valid_of(path: Path, **options) -> np.ndarray:
    with SceneReader(path, **options) as reader:
        return reader.read(reader.window)[1]


def coloured(path: Path, *colours: ColorInterp) -> Path:
    with rasterio.open(path, "r+") as file:
        file.colorinterp = colours
    return path


@pytest.mark.parametrize("nodata", [None, 0, 7, 255])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_alpha_band_hides_wherever_it_stands_whatever_nodata_says(
    tmp_path: Path, nodata: int | None, dtype: str, place: int
) -> None:
    pixels = noise(40, 30).astype(dtype)
    alpha = np.full((40, 30), 3, dtype)  # as good as clear, and below 257 in 16 bit
    alpha[:, :10] = 0
    stack = np.insert(pixels, place, alpha, axis=0)
    colours = [C.gray, C.undefined, C.undefined]
    colours.insert(place, C.alpha)
    path = coloured(
        write_scene(tmp_path / "a.tif", stack, nodata=nodata, photometric="MINISBLACK"), *colours
    )
    bands = tuple(i for i in (1, 2, 3, 4) if i != place + 1)
    seen = (pixels == nodata).all(0) if nodata is not None else np.zeros((40, 30), bool)
    np.testing.assert_array_equal(valid_of(path, bands=bands), (alpha > 0) & ~seen)
    np.testing.assert_array_equal(valid_of(path)[:, :10].any(), False)


def test_a_band_that_is_read_is_never_its_mask(tmp_path: Path) -> None:
    pixels = noise(40, 30, 4)
    pixels[3, :, :10] = 0  # near infrared over water, tagged as alpha by GDAL
    path = write_scene(tmp_path / "a.tif", pixels, alpha=True)
    assert valid_of(path, bands=(1, 2, 3, 4)).all()
    assert valid_of(path, spec=InputSpec(bands=(4, 1, 2), band_names=())).all()
    assert not valid_of(path, bands=(1, 2, 3))[:, :10].any()


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_mask_and_nodata_both_hide(tmp_path: Path, sidecar: bool) -> None:
    pixels = noise(40, 30)
    pixels[:, :5] = 0
    mask = np.full((40, 30), 255, np.uint8)
    mask[:, :10] = 0
    path = write_scene(tmp_path / "a.tif", pixels, nodata=0, mask=None if sidecar else mask)
    if sidecar:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
        assert (tmp_path / "a.tif.msk").exists()
    expected = (mask > 0) & (pixels > 0).any(0)
    np.testing.assert_array_equal(valid_of(path), expected)
    np.testing.assert_array_equal(valid_of(path, bands=(2,)), (mask > 0) & (pixels[1] > 0))
    np.testing.assert_array_equal(valid_of(path, nodata=9)[5:, 10:], (pixels != 9).any(0)[5:, 10:])
    assert not valid_of(path, nodata=9)[:, :10].any()


def vrt(path: Path, source: Path, nodata: tuple[float | None, ...], kind: str) -> Path:
    with rasterio.open(source) as file:
        height, width = file.shape
    box = f'xOff="0" yOff="0" xSize="{width}" ySize="{height}"'
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}">'
        + ("" if value is None else f"<NoDataValue>{value}</NoDataValue>")
        + f'<SimpleSource><SourceFilename relativeToVRT="1">{source.name}</SourceFilename>'
        f"<SourceBand>{i}</SourceBand><SrcRect {box}/><DstRect {box}/></SimpleSource>"
        "</VRTRasterBand>"
        for i, value in enumerate(nodata, 1)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f"<SRS>EPSG:32633</SRS><GeoTransform>5e5,0.3,0,5e6,0,-0.3</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def test_each_band_has_its_own_nodata(tmp_path: Path) -> None:
    pixels = noise(40, 30)
    pixels[:, :10] = np.array([1, 2, 3])[:, None, None]
    pixels[:2, 10:20] = np.array([1, 2])[:, None, None]
    pixels[2, 10:20] = 99
    source = write_scene(tmp_path / "a.tif", pixels)
    path = vrt(tmp_path / "a.vrt", source, (1, 2, 3), "Byte")
    expected = (pixels != np.array([1, 2, 3])[:, None, None]).any(0)
    assert not expected[:10].any() and expected[10:20].all()
    np.testing.assert_array_equal(valid_of(path), expected)
    two = (pixels[:2] != np.array([1, 2])[:, None, None]).any(0)
    np.testing.assert_array_equal(valid_of(path, bands=(1, 2)), two)
    one_without = vrt(tmp_path / "b.vrt", source, (1, 2, None), "Byte")
    assert valid_of(one_without).all()


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("float32", -3.4028234663852886e38), ("float32", 0.1), ("float64", float("nan")),
     ("int16", -9999), ("uint16", 65535), ("int32", -2147483648), ("int8", -128)],
)  # fmt: skip
def test_nodata_of_any_type_hides(tmp_path: Path, dtype: str, nodata: float) -> None:
    pixels = np.ones((2, 20, 30), dtype)
    pixels[:, 5:] = np.arange(15)[:, None].astype(dtype) + np.ones(1, dtype)
    pixels[:, :3] = nodata
    path = write_scene(tmp_path / "a.tif", pixels, nodata=nodata)
    expected = np.ones((20, 30), bool)
    expected[:3] = False
    np.testing.assert_array_equal(valid_of(path), expected)


def test_nan_in_one_band_hides_the_pixel_and_nodata_in_one_does_not(tmp_path: Path) -> None:
    pixels = np.ones((2, 20, 30), np.float32)
    pixels[0, 0], pixels[1, 1], pixels[0, 2] = np.nan, np.inf, -1
    valid = valid_of(write_scene(tmp_path / "a.tif", pixels, nodata=-1))
    assert not valid[:2].any() and valid[2:].all()


def test_what_cannot_be_a_value_of_the_type_hides_nothing(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", noise(20, 30))
    for value in (-9999, 0.5, float("nan"), 1e40):
        assert valid_of(path, nodata=value).all()


def test_a_hidden_label_pixel_is_255(tmp_path: Path) -> None:
    label = np.zeros((1, 20, 30), np.uint8)
    label[:, 10:] = 1
    mask = np.full((20, 30), 255, np.uint8)
    mask[:, :5] = 0
    path = write_scene(tmp_path / "a.tif", label, mask=mask)
    expected = np.where(mask > 0, label[0], 255)
    np.testing.assert_array_equal(read_label(path), expected)
    seen = np.concatenate([label, mask[None]])
    both = coloured(write_scene(tmp_path / "b.tif", seen), C.gray, C.alpha)
    np.testing.assert_array_equal(read_label(both), expected)


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_void_grows_by_a_square(by: int, seed: int) -> None:
    valid = np.random.default_rng(seed).random((23, 31)) > 0.01
    expected = np.array(
        [
            [valid[max(0, r - by) : r + by + 1, max(0, c - by) : c + by + 1].all()
             for c in range(31)] for r in range(23)
        ]
    )  # fmt: skip
    np.testing.assert_array_equal(shrink(valid, by), expected)


def test_a_grown_void_is_the_same_by_any_windows(tmp_path: Path) -> None:
    pixels = noise(64, 64)
    pixels[:, :20] = 0
    pixels[:, 20:24] = 3  # what JPEG made of the collar's edge
    path = write_scene(tmp_path / "a.tif", pixels, nodata=0)
    assert valid_of(path, spec=InputSpec())[20:24].all()
    with SceneReader(path, InputSpec(), grow_void=4) as reader:
        whole, valid = reader.read(reader.window)
        assert not valid[:24].any() and valid[24:].all() and not whole[:, :24].any()
        for row in range(0, 64, 7):
            part, known = reader.read(Window(row, 3, 7, 50))
            size = min(7, 64 - row)
            np.testing.assert_array_equal(known[:size], valid[row : row + 7, 3:53])
            np.testing.assert_array_equal(part[:, :size], whole[:, row : row + 7, 3:53])
    np.testing.assert_array_equal(valid_of(path, spec=InputSpec(grow_void=4)), valid)
    assert valid_of(path, spec=InputSpec(grow_void=4), grow_void=0)[20:].all()
