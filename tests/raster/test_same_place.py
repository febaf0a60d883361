"""A CRS is the same place in whatever form it is written, for labels and mosaics alike."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.transform import Affine

from scene_files import noise, write_scene
from terradapt.data.reading import check_pair
from terradapt.errors import DataError, SceneError
from terradapt.raster import CRS, SceneReader, open_scene
from terradapt.raster.georef import warp_to

UTM = Affine(0.3, 0, 500_000, 0, -0.3, 5_480_000)
DEGREES = Affine(1e-5, 0, 15, 0, -1e-5, 49)
NAMED = CRS.from_epsg(32633).to_wkt().replace("WGS 84 / UTM zone 33N", "my grid")
BOUND = "+proj=utm +zone=33 +ellps=GRS80 +towgs84=0,0,0,0,0,0,0 +units=m"
TMERC = "+proj=tmerc +lat_0=0 +lon_0=15 +k=0.9996 +x_0=500000 +datum=WGS84 +units=m"
SAME = [
    ("EPSG:32633+5773", "EPSG:32633", UTM),
    ("EPSG:32633", NAMED, UTM),
    ("EPSG:32633", TMERC, UTM),
    ("EPSG:25833", BOUND, UTM),
    ("EPSG:3067", "EPSG:5048", UTM),  # east and north, north and east
    ("EPSG:4326", "OGC:CRS84", DEGREES),
    ("EPSG:4979", "EPSG:4326", DEGREES),
]


@pytest.mark.parametrize(("one", "other", "transform"), SAME)
@pytest.mark.parametrize("swapped", [False, True])
def test_labels_and_mosaics_take_any_form_of_a_crs(tmp_path, one, other, transform, swapped):
    one, other = (other, one) if swapped else (one, other)
    image = write_scene(tmp_path / "a.tif", noise(40, 50), crs=one, transform=transform)
    label = write_scene(tmp_path / "l.tif", noise(40, 50, 1), crs=other, transform=transform)
    with SceneReader(image) as a, SceneReader(label) as b:
        check_pair(a, b)
    t = transform
    right = Affine(t.a, 0, t.c + 50 * t.a, 0, t.e, t.f)
    beside = write_scene(tmp_path / "b.tif", noise(40, 50, seed=1), crs=other, transform=right)
    with open_scene([image, beside]) as scene, SceneReader(beside) as part:
        assert (scene.height, scene.width) == (40, 100)
        shown = scene.read(scene.window)[0]
        np.testing.assert_array_equal(shown[:, :, 50:], part.read(part.window)[0])


@pytest.mark.parametrize("other", ["EPSG:32634", "EPSG:3857", TMERC.replace("15", "16")])
def test_other_places_are_refused_with_a_command_that_runs(tmp_path, other):
    mine = CRS.from_user_input(TMERC)
    image = write_scene(tmp_path / "a.tif", noise(40, 50), crs=mine, transform=UTM)
    label = write_scene(tmp_path / "l.tif", noise(40, 50, 1), crs=other, transform=UTM)
    with SceneReader(image) as a, SceneReader(label) as b, pytest.raises(DataError) as caught:
        check_pair(a, b)
    with pytest.raises(SceneError) as refused:
        open_scene([image, label])
    for error in (caught.value, refused.value):
        assert warp_to(mine, image) in error.fix
        assert "[" not in error.fix  # no WKT, whole or cut
