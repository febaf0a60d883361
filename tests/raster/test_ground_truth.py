"""Areas and lengths on the ground: pyproj is the oracle, and all verbs say the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from rasterio.transform import Affine

from road_files import drawn, random_labels
from terradapt import checkpoint, models
from terradapt.classes import ClassMap
from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
from terradapt.grid import Window
from terradapt.raster import Georef, write_raster
from terradapt.raster.georef import parse_crs
from terradapt.vector import roads_from_array
from terradapt.vector.polygons.extract import ArrayLabels, PolygonOptions, polygonize_labels

GLOBE = Geod(ellps="WGS84")
SINUSOIDAL = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m"
PLACES = {
    "utm": ("EPSG:32633", Affine(10, 0, 250_000, 0, -10, 5.4e6), 300, 320),
    "utm, its whole zone": ("EPSG:32633", Affine(300, 0, 1e5, 0, -300, 7e6), 1000, 2000),
    "degrees": ("EPSG:4326", Affine(5e-5, 0, 14.0, 0, -5e-5, 60.0), 256, 256),
    "5 x 5 degrees": ("EPSG:4326", Affine(0.02, 0, 177.0, 0, -0.02, 62.5), 250, 250),
    "mercator": ("EPSG:3857", Affine(13_000, 0, 0, 0, -13_000, 8.3e6), 256, 256),
    "US survey feet": ("EPSG:2264", Affine(20, 0, 2e6, 0, -20, 6e5), 260, 250),
    "sheared": (SINUSOIDAL, Affine(463, 0, 3.3e6, 0, -463, 5.5e6), 300, 280),
    "turned": ("EPSG:3035", Affine(200, 90, 4e6, 90, -200, 3e6), 300, 260),
    "over the pole": ("EPSG:3995", Affine(20_000, 0, -3e6, 0, -20_000, 3e6), 300, 300),
}


def place(name: str) -> Georef:
    crs, transform, height, width = PLACES[name]
    return Georef(transform, parse_crs(crs, name), height, width)


def on_the_globe(xy: NDArray[np.float64], crs: object) -> NDArray[np.float64]:
    """Return (N, 2) degrees of a line that is straight, and divided finely, in its own CRS."""
    line = shapely.LineString(xy)
    fine = shapely.get_coordinates(shapely.segmentize(line, line.length / 20_000))
    move = Transformer.from_crs(parse_crs(crs, "test").to_wkt(), 4326, always_xy=True)
    return np.column_stack(move.transform(fine[:, 0], fine[:, 1]))


@pytest.mark.parametrize("name", PLACES)
def test_rings_and_lines_measure_what_the_globe_says(name: str) -> None:
    georef = place(name)
    turn = np.linspace(0, 2 * np.pi, 8)[:-1]
    for share, middle in ((0.48, (0.5, 0.5)), (0.1, (0.2, 0.85)), (0.1, (0.85, 0.2))):
        unit = np.stack([np.sin(turn), np.cos(turn)], axis=1) * [1, 0.7] * share + middle
        ring = (unit * [georef.height, georef.width])[[*range(7), 0]]
        lonlat = on_the_globe(georef.xy(ring), georef.crs)
        area, length = GLOBE.polygon_area_perimeter(*lonlat.T)
        size = np.array([8])
        assert georef.ring_areas(ring, size)[0] == pytest.approx(abs(area), rel=1e-6)
        assert georef.ring_areas(ring[::-1], size)[0] == pytest.approx(abs(area), rel=1e-6)
        assert georef.line_lengths(ring, size)[0] == pytest.approx(length, rel=1e-7)


@pytest.mark.parametrize("name", PLACES)
def test_pixels_add_up_to_the_raster(name: str) -> None:
    georef = place(name)
    edge = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * [georef.height, georef.width] - 0.5
    whole = Window(0, 0, georef.height, georef.width)
    pixels = georef.pixel_areas(whole)
    assert pixels.sum() == pytest.approx(georef.ring_areas(edge, np.array([5]))[0], rel=1e-6)
    one = georef.pixel_area(np.array([7, 200]), np.array([100, 3]))
    np.testing.assert_allclose(one, pixels[[7, 200], [100, 3]], rtol=1e-9)
    part = Window(11, 17, 40, 30)
    np.testing.assert_allclose(georef.pixel_areas(part), pixels[part.slices], rtol=1e-12)
    np.testing.assert_allclose(
        georef.crop(part).pixel_areas(Window(0, 0, 40, 30)), pixels[part.slices], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(0.36, 0, -180, 0, -0.18, 90)),
        ("EPSG:6933", Affine(34_734.06, 0, -17_367_030, 0, -14_629.08, 7_314_540)),
        ("+proj=moll", Affine(36_080.0, 0, -18_040_000, 0, -18_040.0, 9_020_000)),
    ],
)
def test_the_whole_globe(crs: str, transform: Affine) -> None:
    """Degrees, a cylinder, and an oval with corners that lie nowhere; an L as in one region."""
    georef = Georef(transform, parse_crs(crs, "test"), 1000, 1000)
    labels = np.zeros((1000, 1000), np.uint8)
    labels[:, :50] = labels[-50:] = 1
    pixels = georef.pixel_areas(Window(0, 0, 1000, 1000))
    found = polygonize_labels(ArrayLabels(labels, georef))
    for value in (0, 1):
        area = found.area[found.value == value].sum()
        assert area == pytest.approx(pixels[labels == value].sum(), rel=1e-4)
    if crs == "EPSG:6933":  # an equal-area map, that ends at 85 degrees
        np.testing.assert_allclose(pixels, abs(transform.determinant), rtol=3e-6)
    else:
        row, col = (np.mgrid[:1000, :1000] - 499.5) / 500
        somewhere = row**2 + col**2 < 1 if crs == "+proj=moll" else np.ones((1000, 1000), bool)
        area = 510_065_621_724_088.4  # m2 of the WGS 84 ellipsoid, as GeographicLib has it
        assert pixels[somewhere].sum() == pytest.approx(area, rel=1e-3)


@pytest.mark.parametrize("name", ["utm", "5 x 5 degrees", "mercator", "US survey feet", "sheared"])
def test_polygons_measure_the_geometry_that_is_written(name: str) -> None:
    georef = place(name)
    labels = random_labels(3, (georef.height, georef.width), 3, 8.0)
    pixels = georef.pixel_areas(Window(0, 0, *labels.shape))
    plain = polygonize_labels(ArrayLabels(labels, georef))
    for value in range(3):
        area = plain.area[plain.value == value].sum()
        assert area == pytest.approx(pixels[labels == value].sum(), rel=1e-6)
    simple = polygonize_labels(
        ArrayLabels(labels, georef), PolygonOptions(simplify=2 * georef.resolution)
    )
    for i in np.argsort(simple.area)[-3:]:
        rings = [simple.shapes[i].exterior, *simple.shapes[i].interiors]
        areas = [
            abs(GLOBE.polygon_area_perimeter(*on_the_globe(np.array(r.coords), georef.crs).T)[0])
            for r in rings
        ]
        assert simple.area[i] == pytest.approx(areas[0] - sum(areas[1:]), rel=1e-5)


def test_small_regions_are_measured_where_they_lie() -> None:
    """In Mercator a pixel at 60 degrees is a quarter as large as one at the equator."""
    georef = Georef(Affine(10_000, 0, 0, 0, -10_000, 8.5e6), parse_crs("EPSG:3857", "test"), 850, 9)
    labels = np.zeros((850, 9), np.uint8)
    labels[10, 4] = labels[840, 4] = 1
    found = polygonize_labels(ArrayLabels(labels, georef), PolygonOptions(min_area=60e6))
    assert found.area[found.value == 1] == pytest.approx([1e8], rel=0.01)


@pytest.mark.parametrize("name", ["utm", "degrees", "mercator", "US survey feet", "sheared"])
def test_roads_are_as_long_as_the_geodesic(name: str) -> None:
    crs, transform, *_ = PLACES[name]
    if name != "degrees":
        transform = transform @ Affine.scale(1.0 / transform.a * (2 if "feet" in name else 0.5))
    mask = drawn([[(20, 200), (380, 200)], [(200, 20), (200, 380)], [(20, 20), (380, 380)]],
                 (400, 400), 8)  # fmt: skip
    roads = roads_from_array(mask, transform=transform, crs=crs)
    assert len(roads) >= 4
    for line, length in zip(roads.lines, roads.length, strict=True):
        true = GLOBE.line_length(*on_the_globe(np.array(line.coords), crs).T)
        assert length == pytest.approx(true, rel=1e-6)


def test_units_where_there_is_no_way_to_the_globe() -> None:
    local = 'LOCAL_CS["building site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    for crs in (None, parse_crs(local, "test")):
        georef = Georef(Affine(0.5, 0, 0, 0, -0.5, 0), crs, 60, 50)
        assert georef.pixel_areas(Window(0, 0, 60, 50)) == pytest.approx(0.25, rel=1e-12)
        square = np.array([[0, 0], [0, 10], [10, 10], [10, 0], [0, 0.0]])
        assert georef.ring_areas(square, np.array([5])) == pytest.approx([25])
        assert georef.line_lengths(square, np.array([5])) == pytest.approx([20])


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("EPSG:32633", True),
        ("EPSG:32633+5773", True),
        ("+proj=utm +zone=33 +datum=WGS84", True),
        ("EPSG:32632", False),
        ("EPSG:4326", False),
        (None, False),
    ],
)
def test_one_place_by_many_names(other: str | None, same: bool) -> None:
    assert place("utm").same_place(other and parse_crs(other, "test")) is same


def test_degrees_are_one_place_whatever_the_order_of_their_axes() -> None:
    assert place("degrees").same_place(parse_crs("OGC:CRS84", "test"))


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Bands of shade that a model can tell apart, noise at the right, no data in a corner."""
    shade = np.linspace(20, 235, height)[:, None] * np.ones(width)
    image = np.stack([shade, shade[::-1], np.full_like(shade, 90)]).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (3, height, width - width // 2))
    image[:, :, width // 2 :] = noise
    image[:, :30, :40] = 0
    return image


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights whose last layer is centred, so that each class occurs."""
    import torch

    torch.manual_seed(0)
    config = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name="mobilenetv3_small_050"))
    spec, model = InputSpec(), models.build(config, 3).eval()
    pixels = torch.from_numpy(picture(256, 256)).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    with torch.no_grad():
        logits = model(((pixels - mean) / std)[None]).logits
        last = [m for m in model.modules() if getattr(m, "out_channels", 0) == 3][-1]
        last.bias -= logits.mean((0, 2, 3))
    classes = ClassMap(("ground", "roof", "tree"))
    path = tmp_path_factory.mktemp("run") / "checkpoint.safetensors"
    checkpoint.save(path, model, checkpoint.Meta(RunConfig(model=config), classes, spec, 64))
    return path


@pytest.mark.parametrize("name", ["utm", "degrees", "5 x 5 degrees", "mercator", "US survey feet"])
def test_predict_and_vectorize_agree_on_every_class(  # type: ignore[no-untyped-def]
    terradapt, trained: Path, tmp_path: Path, name: str
) -> None:
    crs, transform, height, width = PLACES[name]
    scene, out = tmp_path / "scene.tif", tmp_path / "map.tif"
    write_raster(scene, picture(height, width), crs=crs, transform=transform, nodata=0)
    assert terradapt("predict", trained, scene, "-o", out, "--resolution", "native").status == 0
    classes = json.loads((tmp_path / "map.json").read_text())["classes"]
    hectares = {row["name"]: row["hectares"] for row in classes if row["pixels"]}
    assert terradapt("vectorize", out, "-o", tmp_path / "map.gpkg").status == 0
    meta, _, _, columns = pyogrio.raw.read(tmp_path / "map.gpkg", layer="polygons")
    fields = dict(zip(meta["fields"], columns, strict=True))
    area = {k: fields["area_m2"][fields["class"] == k].sum() / 1e4 for k in set(fields["class"])}
    assert len(area) > 1 and area == pytest.approx(hectares, rel=1e-3)
    pixels = place(name).pixel_areas(Window(0, 0, height, width))
    pixels[:30, :40] = 0.0
    assert sum(hectares.values()) == pytest.approx(pixels.sum() / 1e4, rel=1e-6)
