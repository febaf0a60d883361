"""Sides on the grid of a comparison: stored steps as they are, wherever the grid lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from scene_files import UTM
from terradapt.changes.sampling import MapSampler, Onto
from terradapt.changes.sides import MapSide
from terradapt.grid import Window
from terradapt.raster import Georef, write_raster

PLACE = Affine(0.5, 0.0, 500_000.0, 0.0, -0.5, 5_400_000.0)
NAMES = ("ground", "building", "tree")


@pytest.fixture
def side(tmp_path: Path) -> MapSide:
    """Probabilities of three classes in steps of 0.004, with a corner without data."""
    shares = np.random.default_rng(5).dirichlet(np.full(3, 0.4), (90, 70)).transpose(2, 0, 1)
    steps = np.rint(shares * 250).astype(np.uint8)
    steps[:, :9, :7] = 255
    path = tmp_path / "scores.tif"
    write_raster(path, steps, crs=UTM, transform=PLACE, nodata=255)
    georef = Georef(PLACE, UTM, 90, 70)
    return MapSide(path, georef, NAMES, ((0, 0, 0),) * 3, scores=path)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.0, -3.0), (0.6, -1.4), (-0.49, 0.51)])
def test_a_shift_on_pixels_of_one_size_takes_the_nearest_as_places_do(
    side: MapSide, shift: tuple[float, float]
) -> None:
    with MapSampler(side, side.georef, (0, 1, 2), 3, shift) as sampler:
        window = Window(-4, -3, 60, 50)
        steps, ids, valid = sampler.steps(window)
        shares, seen = sampler.read(window)
        rows, cols = sampler.onto.pixels(window, 1)[0]
    stored = np.pad(_pixels(side), ((0, 0), (20, 20), (20, 20)), constant_values=255)
    here = stored[:, rows + 20, cols + 20]
    data = here[0] != 255
    np.testing.assert_array_equal(valid, data)
    np.testing.assert_array_equal(seen, data)
    np.testing.assert_array_equal(ids[data], here.argmax(axis=0)[data])
    np.testing.assert_array_equal(steps.sum(axis=0), 250 * data)
    assert np.abs(steps.astype(int) - here)[:, data].max() <= 2
    np.testing.assert_allclose(steps / 250, shares, atol=0.009)


def test_joined_classes_add_up_and_coarser_pixels_are_shares(side: MapSide) -> None:
    coarse = side.georef.zoom(45, 35)
    with MapSampler(side, coarse, (0, 1, 0), 2, (0.0, 0.0)) as sampler:
        steps, ids, valid = sampler.steps(Window(10, 10, 20, 20))
    assert Onto(side.georef, coarse).offset is None and valid.all()
    stored = _pixels(side)[:, 20:60, 20:60].astype(float)
    one = (stored[1] / stored.sum(axis=0)).reshape(20, 2, 20, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(steps[1] / 250, one, atol=0.007)
    np.testing.assert_array_equal(ids[abs(one - 0.5) > 0.01], (one > 0.5)[abs(one - 0.5) > 0.01])


def _pixels(side: MapSide) -> np.ndarray:
    import rasterio

    assert side.scores is not None
    with rasterio.open(side.scores) as file:
        return np.asarray(file.read())
