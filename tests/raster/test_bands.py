"""Types, names and values of bands; palettes; EXIF orientation."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from scene_files import PLACE, UTM, noise, write_scene
from terradapt.config import InputSpec
from terradapt.errors import SceneError
from terradapt.raster import Mosaic, SceneReader, scene_files
from terradapt.raster.orientation import exif_orientation

RGB = InputSpec(band_names=("Red", "Green", "Blue"))
C = ColorInterp


@pytest.mark.parametrize(
    ("names", "colours", "found"),
    [
        (("blue", "GREEN", "Red", "NIR"), None, (3, 2, 1)),
        ((), (C.blue, C.green, C.red, C.undefined), (3, 2, 1)),
        (("", "", "", "Red"), (C.undefined, C.green, C.blue, C.undefined), (4, 2, 3)),
        (("Red", "Red", "Green", "Blue"), None, None),
        (("B1", "B2", "B3", "B4"), (C.gray,) + 3 * (C.undefined,), None),
    ],
)
def test_bands_are_found_by_name_or_told(
    tmp_path: Path,
    names: tuple[str, ...],
    colours: tuple[ColorInterp, ...] | None,
    found: tuple[int, ...] | None,
) -> None:
    path = write_scene(
        tmp_path / "a.tif", noise(200, 200, 4), names=names, photometric="MINISBLACK"
    )
    if colours:
        with rasterio.open(path, "r+") as file:
            file.colorinterp = colours
    with SceneReader(path, RGB) as reader:
        assert reader.indexes == (found or (1, 2, 3))
        told = " ".join(reader.remarks())
        assert ("was trained on Red, Green, Blue" in told) == (found is None)
    with SceneReader(path, RGB, bands=(1, 2, 3)) as reader:
        assert reader.indexes == (1, 2, 3) and not reader.remarks()


def test_values_outside_the_training_are_told_with_both_ranges(tmp_path: Path) -> None:
    spec = InputSpec(dtype="float32", stretch=3 * ((0.1, 0.9),))
    unit = noise(300, 300).astype(np.float32) / 255
    with SceneReader(write_scene(tmp_path / "a.tif", unit), spec) as reader:
        assert reader.remarks() == []
    for factor in (10_000, 1e-3):
        with SceneReader(write_scene(tmp_path / "b.tif", unit * factor), spec) as reader:
            told = reader.remarks()
        assert len(told) == 3 and "0.1 to 0.9" in told[0]
        low, high = np.percentile(unit[0] * factor, (2, 98))
        values = told[0].split("values from ")[1].split(",")[0].split(" to ")
        assert [float(v) for v in values] == pytest.approx([low, high], rel=0.05)
    faint = write_scene(tmp_path / "c.tif", noise(300, 300) % 2)
    with SceneReader(faint, InputSpec()) as reader:
        assert "0 to 255" in reader.remarks()[0]
    members = [write_scene(tmp_path / "d.tif", unit), tmp_path / "b.tif"]
    with Mosaic(members, tmp_path, spec) as mosaic:
        ranges = [t.split(":")[0] for t in mosaic.remarks() if "values from" in t]
    assert ranges == 3 * [str(tmp_path / "b.tif")]


def test_a_palette_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.moveaxis(noise(50, 40), 0, -1)).quantize(64).save(path)
    for spec in (InputSpec(), InputSpec(bands=(1,), mean=(0.5,), std=(0.2,))):
        with pytest.raises(SceneError, match="palette") as caught:
            SceneReader(path, spec)
        assert "gdal_translate -expand rgb" in caught.value.fix
    with SceneReader(path) as reader:  # as a label it may be what it is
        assert reader.dtype == "uint8"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_the_orientation_of_any_file_is_known(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(np.moveaxis(noise(300, 200), 0, -1))
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        path = tmp_path / f"{turn}{suffix}"
        kept = {"tiffinfo": {274: turn}} if suffix == ".tif" else {"exif": exif}
        image.save(path, **kept)
        assert exif_orientation(path) == turn
        with SceneReader(path, InputSpec()) as reader:
            told = " ".join(reader.remarks())
        assert (f"EXIF orientation {turn}" in told) == (turn > 1)
        path.write_bytes(path.read_bytes()[:40])
        assert exif_orientation(path) in (1, turn)
    assert exif_orientation(tmp_path / "none.jpg") == 1


def test_a_scene_knows_all_its_files(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "a.tif", noise(20, 30))
    source_box = '<SrcRect xOff="0" yOff="0" xSize="30" ySize="20"/>'

    def vrt(name: str, of: str) -> Path:
        (tmp_path / name).write_text(
            f'<VRTDataset rasterXSize="30" rasterYSize="20"><SRS>{UTM}</SRS>'
            f"<GeoTransform>{','.join(map(str, PLACE.to_gdal()))}</GeoTransform>"
            '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{of}</SourceFilename><SourceBand>1</SourceBand>'
            f"{source_box}{source_box.replace('Src', 'Dst')}</SimpleSource></VRTRasterBand>"
            "</VRTDataset>"
        )
        return tmp_path / name

    vrt("in.vrt", "a.tif")
    outer = vrt("out.vrt", "in.vrt")
    with SceneReader(outer) as reader:
        names = {Path(p).name for p in reader.files}
    assert {"out.vrt", "in.vrt", "a.tif"} <= names
    assert {Path(p).name for p in scene_files(outer)} == names
    assert set(scene_files(tmp_path)) >= {source, outer}
