"""``terradapt.load(path).predict(scene)``: the same map in memory and in a file."""

import numpy as np
import pytest
import rasterio
import torch

import terradapt
from export_files import small
from onnx_files import META
from scene_files import PlainPredictor, noise, write_scene
from terradapt import checkpoint
from terradapt.errors import ConfigError, SceneError
from terradapt.predictors.mapper import Mapper
from terradapt.predictors.tta import TtaPredictor
from terradapt.raster import write_raster
from terradapt.scene import Predictor
from terradapt.scene.resample import Resampled


@pytest.fixture
def scene(tmp_path):
    pixels = noise(600, 90)
    pixels[:, 20:60, 10:50] = 0
    return write_scene(tmp_path / "scene.tif", pixels, nodata=0)


def test_a_map_in_memory_is_that_in_the_file(scene, tmp_path):
    mapper = Mapper(PlainPredictor(), "plain")
    figures = mapper.predict(scene, tmp_path / "map.tif", confidence=True).figures
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(mapper.predict(scene), file.read(1))
    assert figures["model"] == "plain"
    assert (tmp_path / "map_confidence.tif").exists()
    assert (mapper.predict(str(scene)).classes[20:60, 10:50] == 255).all()


def test_an_area_of_interest_holds_in_memory_too(scene, tmp_path):
    with rasterio.open(scene) as file:
        inside = np.zeros((600, 90), np.uint8)
        inside[100:200] = 1
        write_raster(tmp_path / "aoi.tif", inside, crs=file.crs, transform=file.transform)
    mapper, options = Mapper(PlainPredictor()), {"aoi": tmp_path / "aoi.tif"}
    mapper.predict(scene, tmp_path / "map.tif", **options)
    found = mapper.predict(scene, **options).classes
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(found, file.read(1))
    assert (found[:100] == 255).all()
    assert (found[100:200] != 255).all()


def test_it_is_a_predictor_of_pixels(scene, tmp_path):
    plain = PlainPredictor()
    again = Mapper(Mapper(plain))
    windows = noise(32, 32)[None]
    np.testing.assert_array_equal(again.predict(windows), plain.predict(windows))
    np.testing.assert_array_equal(again.predict(scene), Mapper(plain).predict(scene))


def test_a_predictor_around_another_has_its_whole_face():
    inner = PlainPredictor()
    inner.scales, inner.device, inner.engine = (0.5, 2.0), "cpu:1", "onnxruntime"
    inner.precision, inner.streams, inner.parameters, inner.meta = "int8", 3, 12, META
    shares = []
    inner.share = shares.append
    wrapped = [Mapper(inner), TtaPredictor(inner), Resampled(inner, 48, 32)]
    for outer in [*wrapped, TtaPredictor(Mapper(inner))]:
        own = {"window", "multiple"} if isinstance(outer, Resampled) else set()
        for name in set(Predictor.__annotations__) - own:
            assert getattr(outer, name) == getattr(inner, name), name
        outer.share(2)
    assert (wrapped[2].window, wrapped[2].multiple) == (48, 1)
    assert shares == [2] * 4


def test_a_checkpoint_maps_a_scene(scene, tmp_path):
    model, meta = small()
    checkpoint.save(tmp_path / "model.safetensors", model, meta)
    classes = (
        terradapt.load(tmp_path / "model.safetensors").predict(scene, resolution="native").classes
    )
    assert classes.shape == (600, 90)
    assert set(np.unique(classes)) <= {*range(len(meta.classes)), 255}
    with pytest.raises(ConfigError):
        terradapt.load(tmp_path / "model.safetensors").predict(scene, overlap=0.95)


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (np.zeros((1, 3, 32, 32), np.float32), "not float32"),
        (np.zeros((1, 3, 32, 32), np.uint16), "not uint16"),
        (np.zeros((3, 32, 32), np.uint8), "not of shape (3, 32, 32)"),
        (np.zeros((0, 3, 32, 32), np.uint8), "not of shape (0, 3, 32, 32)"),
        (np.zeros((1, 32, 32, 3), np.uint8), "have 32"),
        (np.zeros((1, 4, 32, 32), np.uint8), "have 4"),
        (np.zeros((1, 3, 32, 33), np.uint8), "not 32 x 33"),
        (torch.zeros(1, 3, 32, 32), "not Tensor"),
    ],
)
def test_arrays_of_another_form_are_refused_in_words(tmp_path, images, named):
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, *small())
    mapper = terradapt.load(path)
    for predictor in (mapper, mapper.predictor):
        with pytest.raises(SceneError) as caught:
            predictor.predict(images)
        assert named in caught.value.message


def test_no_option_is_lost(scene, tmp_path):
    mapper = Mapper(PlainPredictor())
    pixels = noise(32, 32)[None]
    assert mapper.predict(pixels).shape[0] == 1
    for options in ({"out": tmp_path / "o.tif"}, {"overlap": 0.5}):
        with pytest.raises(ConfigError, match=f"without {next(iter(options))}"):
            mapper.predict(pixels, **options)
    with pytest.raises(ConfigError, match="no option 'windw'") as caught:
        mapper.predict(scene, windw=64)
    assert "overlap" in caught.value.fix
    for options in ({"window": "abc"}, {"classes": "a"}, {"overlap": None}, {"bands": 3}):
        with pytest.raises(ConfigError, match=f"option {next(iter(options))}"):
            mapper.predict(scene, **options)
    for odd in (7, None, [scene, 7], {"a": 1}):
        with pytest.raises(SceneError, match="is no scene"):
            mapper.predict(odd)
    with pytest.raises(ConfigError, match="no option 'devise'"):
        terradapt.load(tmp_path / "x.safetensors", devise="cpu")
    assert not list(tmp_path.glob("o.tif*"))
