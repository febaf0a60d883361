"""Bands from a file of their own: prepared, trained, evaluated, predicted, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_files import write_levir_cd, write_potsdam
from terradapt.data import open_dataset, read_image
from terradapt.grid import Window
from terradapt.predictors import load
from terradapt.raster import SceneReader, read_label

SIDE = 96
TILES = ("2_10", "2_11", "2_13", "3_13")
FOUR = ("data.bands=[1,2,3,4]", "model.in_channels=4")
SMALL = (
    "encoder.name=mobilenetv3_small_100", "encoder.weights=null", "data.crop=64", "data.workers=0",
    "train.batch=2", "train.epochs=1", "train.steps_per_epoch=2",
)  # fmt: skip


def write_vrt(path: Path, bands: list[tuple[str, Path, int]], like: Path) -> Path:
    """Write what ``gdalbuildvrt -separate`` writes of (type, file, band) rows."""
    with SceneReader(like) as file:
        place = ", ".join(map(str, file.transform.to_gdal()))
        head = f'<VRTDataset rasterXSize="{file.width}" rasterYSize="{file.height}">'
        head += f"<SRS>{file.crs or ''}</SRS><GeoTransform>{place}</GeoTransform>"
    parts = [
        f'<VRTRasterBand dataType="{kind}" band="{number}"><ComplexSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></ComplexSource></VRTRasterBand>"
        for number, (kind, source, band) in enumerate(bands, 1)
    ]
    path.write_text(f"{head}{''.join(parts)}</VRTDataset>")
    return path


@pytest.fixture
def potsdam(tmp_path: Path) -> tuple[Path, Path]:
    """A small copy of Potsdam with surface models: (photo, VRT of photo and surface model)."""
    source = write_potsdam(tmp_path / "in", TILES, SIDE, bands=("RGB",))
    photo = source / "2_Ortho_RGB" / "top_potsdam_3_13_RGB.tif"
    dsm = source / "1_DSM" / "dsm_potsdam_03_13.tif"
    bands = [("Byte", photo, n) for n in (1, 2, 3)]
    return photo, write_vrt(tmp_path / "scene.vrt", [*bands, ("Float32", dsm, 1)], photo)


@pytest.mark.slow
def test_the_way_of_a_surface_model(
    tmp_path: Path, potsdam: tuple[Path, Path], terradapt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photo, scene = potsdam
    done = terradapt("data", "potsdam", "in", "-o", "d", "split=by_image", "dsm=true", "workers=1")
    assert done.status == 0, done.err
    assert "3 x uint8 and a surface model" in done.out
    done = terradapt("train", "landcover", "--data", "d", "-o", "run", "--no-report", *FOUR, *SMALL)
    assert done.status == 0, done.err
    done = terradapt("eval", "run/checkpoint.safetensors", "--data", "d", "--pictures", 1)
    assert done.status == 0, done.err
    assert json.loads(Path("report.json").read_text())["metrics"]["pixels"] > 0

    done = terradapt("predict", "run/checkpoint.safetensors", photo, "-o", "no.tif")
    assert done.status == 2 and "has 3 bands, bands 1, 2, 3, 4 are needed" in done.err
    assert f"gdalbuildvrt -separate scene.vrt {photo}" in done.err
    done = terradapt("predict", "run/checkpoint.safetensors", scene, "-o", "a.tif", "--scores")
    assert done.status == 0, done.err
    done = terradapt("export", "run/checkpoint.safetensors", "-o", "m.onnx")
    assert done.status == 0, done.err
    done = terradapt("predict", "m.onnx", scene, "-o", "b.tif", "--scores")
    assert done.status == 0, done.err
    with SceneReader("a_scores.tif") as a, SceneReader("b_scores.tif") as b:
        whole = Window(0, 0, SIDE, SIDE)
        assert np.abs(a.read(whole)[0] - b.read(whole)[0]).max() < 2e-3
    assert read_label(Path("a.tif")).shape == (SIDE, SIDE)

    predictor, dataset = load(Path("run/checkpoint.safetensors")), open_dataset(Path("d"))
    item = dataset.item("3_13")
    with SceneReader(scene, predictor.spec) as reader:
        pixels, valid = reader.read(Window(0, 0, SIDE, SIDE))
    assert valid.all() and len(np.unique(pixels[3])) == 6
    assert (pixels == read_image(dataset, item, spec=predictor.spec)).all()


@pytest.mark.slow
def test_the_way_of_a_second_date(
    tmp_path: Path, terradapt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_levir_cd(tmp_path / "in", side=SIDE)
    done = terradapt("data", "levir-cd", source, "-o", "d", "workers=1")
    assert done.status == 0, done.err
    both = ("data.bands=[1,2,3,4,5,6]", "model.in_channels=6")
    done = terradapt("train", "landcover", "--data", "d", "-o", "run", "--no-report", *both, *SMALL)
    assert done.status == 0, done.err
    done = terradapt("eval", "run/checkpoint.safetensors", "--data", "d", "--pictures", 1)
    assert done.status == 0, done.err
    assert json.loads(Path("report.json").read_text())["metrics"]["pixels"] == 2 * SIDE**2
    dates = [source / "test" / date / "test_1.png" for date in "AB"]
    bands = [("Byte", path, n) for path in dates for n in (1, 2, 3)]
    scene = write_vrt(Path("pair.vrt"), bands, dates[0])
    done = terradapt("predict", "run/checkpoint.safetensors", scene, "-o", "map.tif")
    assert done.status == 0, done.err
    assert read_label(Path("map.tif")).shape == (SIDE, SIDE)
    item, spec = (
        open_dataset(Path("d")).item("test_1"),
        load(Path("run/checkpoint.safetensors")).spec,
    )
    with SceneReader(scene, spec) as reader:
        pixels = reader.read(reader.window)[0]
    assert (pixels == read_image(open_dataset(Path("d")), item, spec=spec)).all()


def test_bands_of_two_types_are_read_as_the_wider_one(potsdam: tuple[Path, Path]) -> None:
    photo, scene = potsdam
    with SceneReader(scene) as both, SceneReader(photo) as alone:
        window = Window(-4, 0, 30, SIDE)
        pixels, valid = both.read(window)
        assert pixels.dtype == np.float32 and not valid[:4].any() and valid[4:].all()
        assert (pixels[:3] == alone.read(window)[0]).all()
        assert 40 <= pixels[3, 4:].min() < pixels[3].max() <= 45


def test_preparation_by_relative_paths_is_read_from_elsewhere(
    tmp_path: Path, terradapt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_potsdam(tmp_path / "here" / "in", TILES, 32, bands=("RGB",), dsm=False)
    monkeypatch.chdir(tmp_path / "here")
    call = ("data", "potsdam", "in", "-o", "out", "split=by_image", "workers=1")
    done = terradapt(*call)
    assert done.status == 0, done.err
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(Path("here/out"))
    assert read_image(dataset, dataset.items[0]).shape == (3, 32, 32)
    monkeypatch.chdir(tmp_path / "here")
    assert "all 4 images are prepared already" in terradapt(*call).err
