"""The scale of a scene that does not say it, found by what the scores say there."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from scene_files import PLACE, UTM, PlainPredictor, write_scene
from terradapt.errors import SceneError
from terradapt.raster import open_scene
from terradapt.scene.job import open_job
from terradapt.scene.options import PredictOptions
from terradapt.scene.scale import STEPS, information, search_scale

SIZE = 6.0  # px of the blobs that the predictor knows


class Knowing(PlainPredictor):
    """Tells bright from dark where blobs have its size; is sure of dark where they are smaller."""

    def predict(self, images: np.ndarray, /) -> np.ndarray:
        grey = images.mean(1) / 255
        slope = np.abs(np.diff(grey, axis=2)).mean() / (grey.std() + 1e-6)
        off = np.log2(slope * SIZE / 1.13)  # octaves; above 0 the blobs are too small
        sure = 0.5 * np.exp(-(off**2) * 4)
        bright = 0.5 + np.where(grey > 0.5, sure, -sure)
        if off > 0.8:
            bright = np.full_like(bright, 0.01)
        scores = np.zeros((len(images), len(self.classes), *grey.shape[1:]), np.float32)
        scores[:, 0], scores[:, 1] = 1 - bright, bright
        return scores


def blobs(scale: float, side: int = 700) -> np.ndarray:
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=(side, side)), SIZE / 2 * scale)
    grey = 127 + 60 * field / field.std()
    return np.repeat(grey[None].clip(1, 255).astype(np.uint8), 3, 0)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_scale_is_found(tmp_path: Path, scale: float) -> None:
    path = write_scene(tmp_path / "s.tif", blobs(scale), crs=None, transform=None)
    predictor = Knowing(window=128)
    with open_scene(path, predictor.spec) as scene:
        found = search_scale(scene, predictor, 128)
    assert found in STEPS and scale / 1.5 < found < scale * 1.5


def test_a_job_uses_it_and_says_so_and_a_scene_that_knows_needs_it_not(tmp_path: Path) -> None:
    predictor = Knowing(window=128)
    options = PredictOptions(resolution="search")
    unknown = write_scene(tmp_path / "u.tif", blobs(2.0), crs=None, transform=None)
    known = write_scene(tmp_path / "k.tif", blobs(2.0), crs=UTM, transform=PLACE)
    with ExitStack() as stack:
        job = open_job(predictor, unknown, options, "m", stack)
        assert job.scale is not None and 1.3 < job.scale < 3
        assert job.predictor.window == round(128 * job.scale)
        assert any("was found by trying" in note for note in job.notes)
        assert open_job(predictor, known, options, "m", stack).scale is None


def test_too_small_a_scene_has_no_scale(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", blobs(1.0, 12), crs=None, transform=None)
    predictor = Knowing(window=128)
    with (
        open_scene(path, predictor.spec) as scene,
        pytest.raises(SceneError, match="find its scale"),
    ):
        search_scale(scene, predictor, 128)


def test_information_is_that_of_pixel_and_class() -> None:
    sure = np.zeros((2, 4, 4), np.float32)
    sure[0, :2], sure[1, 2:] = 1, 1
    assert information([sure]) == pytest.approx(np.log(2))
    assert information([np.full_like(sure, 0.5)]) == pytest.approx(0)
    one = np.stack([np.ones((4, 4)), np.zeros((4, 4))]).astype(np.float32)
    assert information([one]) == pytest.approx(0)
