"""The pre-flight: what it finds, how it says so, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_files import picture, place, regions, write_features, write_folder
from terradapt.data import Dataset, open_dataset
from terradapt.data.leaks import find_leaks, footprint_leaks, pixel_leaks, same_pixels
from terradapt.data.reading import ItemReader
from terradapt.grid import Window
from terradapt.preflight.alignment import Surfaces, explained, image_surfaces
from terradapt.preflight.check import check_dataset
from terradapt.preflight.likelihood import learn_colours, likely
from terradapt.raster import write_raster


def messages(root: Path, level: str) -> str:
    return "\n".join(p.message for p in check_dataset(root).of(level))


def test_a_sound_folder_has_nothing_to_mend(tmp_path: Path) -> None:
    report = check_dataset(write_folder(tmp_path, 4, size=(200, 240)), pictures=True)
    assert [p for p in report.problems if p.level != "note"] == []
    assert report.facts[0].crs == "EPSG:32633" and report.facts[0].resolution == pytest.approx(0.5)
    assert report.facts[0].valid == 1.0
    assert sum(report.facts[0].pixels) == 200 * 240
    assert set(report.thumbs) == {"s0", "s1", "s2", "s3"}
    assert report.leaks == []


def gap(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("no raster")


@pytest.mark.parametrize("spoil", [gap, empty, text])
@pytest.mark.parametrize("where", ["images", "labels"])
def test_unreadable_files_are_all_named(tmp_path: Path, spoil: Any, where: str) -> None:
    root = write_folder(tmp_path, 5)
    for name in ("s1.tif", "s3.tif"):
        spoil(root / where / name)
    report = check_dataset(root)
    named = {Path(p.file).name for p in report.of("error")}
    assert named == {"s1.tif", "s3.tif"}
    assert report.dataset is not None and len(report.dataset.items) == 3
    assert not (root / "splits.json").exists()


def test_wrong_sizes_crs_and_grids_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 5)
    label = regions(96, 128, 3, 0)
    at = {"crs": "EPSG:32633", "transform": place()}
    write_raster(root / "labels" / "s0.tif", label[:90], **at)
    write_raster(root / "labels" / "s1.tif", label, crs="EPSG:32632", transform=place(0, 256))
    write_raster(root / "labels" / "s2.tif", label, crs="EPSG:32633", transform=place(3, 515))
    told = messages(root, "error")
    assert "s0.tif: 128 x 90 px, its image s0.tif has 128 x 96" in told
    assert "s1.tif: its CRS is EPSG:32632, its image's is EPSG:32633" in told
    assert "s2.tif: its georeference lies 3.0 rows and 3.0 columns off" in told


def test_a_label_of_the_same_place_under_another_name_is_taken(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 4, crs="EPSG:32633+5773")
    for n in range(4):
        label = regions(96, 128, 3, n)
        write_raster(
            root / "labels" / f"s{n}.tif", label, crs="EPSG:32633", transform=place(0, n * 256)
        )
    assert not messages(root, "error")


def test_unknown_values_of_every_label_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 4)
    (root / "classes.yaml").write_text("names: [a, b]\n")
    told = messages(root, "error")
    for n in range(4):
        count = int((regions(96, 128, 3, n) == 2).sum())
        assert f"s{n}.tif: label value 2 is no class ({count} pixels" in told


def test_unknown_values_in_a_prepared_dataset_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 4)
    open_dataset(root).save()
    wrong = regions(96, 128, 3, 2)
    wrong[:5, :5] = 77
    write_raster(root / "labels" / "s2.tif", wrong, crs="EPSG:32633", transform=place(0, 512))
    assert "s2.tif: label value 77 is no class (25 pixels)" in messages(root, "error")


def test_lone_files_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 4)
    (root / "images" / "s1.tif").unlink()
    (root / "labels" / "s2.tif").unlink()
    assert "no image for s1.tif" in messages(root, "error")
    assert "1 image (s2) without a label" in messages(root, "note")


def test_duplicates_other_scales_and_rare_classes_are_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 5)
    shutil.copy(root / "images" / "s0.tif", root / "images" / "s4.tif")
    shutil.copy(root / "labels" / "s0.tif", root / "labels" / "s4.tif")
    for folder in ("images", "labels"):
        array = picture(regions(96, 128, 3, 3), 3) if folder == "images" else regions(96, 128, 3, 3)
        write_raster(root / folder / "s3.tif", array, crs="EPSG:32633",
                     transform=place(9000, 0, 2.0))  # fmt: skip
    told = messages(root, "warning")
    assert "same file: s0.tif, s4.tif" in told
    assert "resolutions from 0.5 to 2 m/px" in told


def test_a_class_that_train_lacks_is_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 3)
    at = {"crs": "EPSG:32633"}
    for n in (0, 1):
        write_raster(root / "labels" / f"s{n}.tif", regions(96, 128, 2, n), **at,
                     transform=place(0, n * 256))  # fmt: skip
    (root / "splits.json").write_text('{"train": ["s0", "s1"], "val": ["s2"]}')
    assert "class 'class 2' does not occur in train" in messages(root, "warning")


# Alignment


def pair(seed: int = 0, side: int = 420, cells: int = 3) -> tuple[np.ndarray, np.ndarray]:
    ids = regions(side, side, 12, seed) % cells
    return picture(ids, seed), ids.astype(np.uint8)


@pytest.mark.parametrize("move", [(0, 0), (2, -1), (-5, 7), (11, 13)])
def test_a_known_shift_is_found(move: tuple[int, int]) -> None:
    image, ids = pair()

    def cut(array: np.ndarray, w: Window) -> np.ndarray:
        return np.pad(array, [(0, 0)] * (array.ndim - 2) + [(64, 64)] * 2, mode="edge")[
            ..., w.row + 64 : w.bottom + 64, w.col + 64 : w.right + 64
        ]

    surfaces = image_surfaces(
        lambda w: cut(image, w), lambda w: cut(ids, w.shift(-move[0], -move[1])), 420, 420
    )
    shift = surfaces.shift()
    assert shift is not None
    assert (shift.rows, shift.cols) == pytest.approx(move, abs=0.3)
    assert shift.is_clear
    assert shift.is_off == (np.hypot(*move) >= 2)


def test_half_a_pixel_is_half_a_pixel() -> None:
    """The image drawn twice as fine and thinned: the label lies half a pixel to the right."""
    fine, ids = pair(side=840)
    moved = np.roll(ids, 1, axis=1)[1::2, 1::2]
    image = fine[:, 1::2, 1::2]
    surfaces = image_surfaces(
        lambda w: image[:, w.row : w.bottom, w.col : w.right],
        lambda w: moved[w.row : w.bottom, w.col : w.right], 420, 420,
    )  # fmt: skip
    shift = surfaces.shift()
    assert shift is not None
    assert shift.cols == pytest.approx(0.5, abs=0.25) and abs(shift.rows) < 0.2


def test_labels_that_have_nothing_to_do_with_the_image_are_not_clear() -> None:
    image, _ = pair(1)
    ids = pair(2)[1]
    surfaces = image_surfaces(
        lambda w: image[:, w.row : w.bottom, w.col : w.right],
        lambda w: ids[w.row : w.bottom, w.col : w.right], 420, 420,
    )  # fmt: skip
    shift = surfaces.shift()
    assert shift is not None and not shift.is_off


def test_the_explained_share_is_r_squared() -> None:
    """At every shift, against the plain formula on the moved window."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (2, 24 * 2 + 40, 24 * 2 + 50), dtype=np.uint8)
    ids = regions(40, 50, 2, 5)
    surface = explained(pixels, ids)
    bands = (pixels - pixels.mean((1, 2), keepdims=True)) / pixels.std((1, 2), keepdims=True)
    for rows, cols in ((0, 0), (5, -7), (-24, 24)):
        window = bands[:, 24 - rows : 64 - rows, 24 - cols : 74 - cols]
        rest = sum(
            ((window[:, ids == k] - window[:, ids == k].mean(1, keepdims=True)) ** 2).sum()
            for k in np.unique(ids)
        )
        total = ((window - window.mean((1, 2), keepdims=True)) ** 2).sum()
        assert surface[24 + rows, 24 + cols] == pytest.approx(1 - rest / total, abs=2e-3)


def test_the_likelihood_is_that_of_the_moved_label() -> None:
    """At every shift, against the plain sum over the moved window."""
    image, ids = pair(3, side=140)
    inner = ids[24:116, 24:116]
    colours = learn_colours([(image, inner)], 24)
    assert colours is not None and colours.classes.tolist() == [0, 1, 2]
    scores = colours.likelihood(image)
    np.testing.assert_allclose(np.exp(scores).sum(0), 1, atol=0.01)
    surface = likely(image, inner, colours, 24)
    for rows, cols in ((0, 0), (5, -7), (-24, 24)):
        window = scores[:, 24 - rows : 116 - rows, 24 - cols : 116 - cols]
        expected = np.take_along_axis(window, inner[None].astype(np.int64), 0).mean()
        assert surface[24 + rows, 24 + cols] == pytest.approx(expected, abs=2e-3)
    assert surface[24, 24] == surface.max()


def test_one_class_teaches_no_colours() -> None:
    image, ids = pair(3, side=140)
    assert learn_colours([(image, np.zeros_like(ids[24:116, 24:116]))], 24) is None


def test_the_surer_of_two_surfaces_counts() -> None:
    """Regions of one grey tell nothing by variance within a patch, but the classes' colours do."""
    rng = np.random.default_rng(0)
    at = np.indices((49, 49)).astype(float)

    def bump(rows: float, cols: float) -> np.ndarray:
        return np.exp(-((at[0] - 24 - rows) ** 2 + (at[1] - 24 - cols) ** 2) / 50)

    sharp = [bump(3, 1) + 0.001 * rng.normal(size=(49, 49)) for _ in range(9)]
    vague = [bump(*rng.normal(0, 6, 2)) for _ in range(9)]
    for found in (Surfaces(vague, sharp), Surfaces(sharp, vague), Surfaces(sharp, [])):
        shift = found.shift()
        assert shift is not None
        assert (shift.rows, shift.cols) == pytest.approx((3, 1), abs=0.2)
    assert Surfaces().shift() is None


def test_shifted_labels_are_warned_of(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 6, size=(300, 300), suffix=".png")
    for n in range(6):
        moved = np.roll(regions(300, 300, 3, n), (4, -3), (0, 1))
        write_raster(root / "labels" / f"s{n}.png", moved)
    report = check_dataset(root)
    assert report.shift is not None
    assert (report.shift.rows, report.shift.cols) == pytest.approx((4, -3), abs=0.5)
    assert "px below and 3.0 px left of the image" in messages(root, "warning")


@pytest.mark.data
def test_shifts_of_real_scenes_are_found(real_data: Path, tmp_path: Path) -> None:
    """Drone scenes with hand-drawn labels: no false alarm, and known shifts as differences."""
    dataset = linked(real_data / "landcover_harvey", tmp_path)
    for item in dataset.items[2:4]:
        reader = ItemReader(dataset, item)
        reader.load()

        def surfaces(rows: int, cols: int, reader: ItemReader = reader) -> Surfaces:
            return image_surfaces(
                lambda w: reader.read(w)[0],
                lambda w: reader.mask(w.shift(-rows, -cols)),
                reader.height, reader.width, 128,
            )  # fmt: skip

        still, moved = surfaces(0, 0).shift(), surfaces(9, -7).shift()
        assert still is not None and moved is not None
        assert not still.is_off and still.error < 3
        assert moved.is_off
        difference = (moved.rows - still.rows, moved.cols - still.cols)
        assert difference == pytest.approx((9, -7), abs=1.5)


@pytest.mark.data
def test_a_real_leak_is_found(real_data: Path, tmp_path: Path) -> None:
    """Two satellite images of one harbour, years apart in colour, overlap by a third."""
    dataset = linked(real_data / "landcover_dubai", tmp_path)
    names = [i.id for i in dataset.items]
    pairs = {frozenset((names[a], names[b])) for a, b, _ in same_pixels(dataset.items)}
    assert frozenset(("image_part_001t1", "image_part_009t3")) in pairs


def linked(folder: Path, root: Path) -> Dataset:
    for path in folder.iterdir():
        (root / path.name).symlink_to(path)
    return open_dataset(root)


# Leaks


def ground(side: int = 900, seed: int = 0) -> np.ndarray:
    """(3, side, side) texture without repeats, like no other seed's."""
    rng = np.random.default_rng([seed, 3])
    total = np.zeros((side, side), np.float32)
    for grain in (6, 12, 40):
        cells = rng.normal(size=(side // grain + 2, side // grain + 2)).astype(np.float32)
        total += np.kron(cells, np.ones((grain, grain), np.float32))[:side, :side]
    scaled = (total - total.min()) / (total.max() - total.min()) * 220 + 15
    return np.stack([scaled] * 3).astype(np.uint8)


def write_ground(root: Path, crops: dict[str, tuple[int, int, int]], splits: dict[str, Any],
                 crs: str | None = None) -> Path:  # fmt: skip
    """Crops of 400 px: id to (seed of the ground, row, col)."""
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for name, (seed, row, col) in crops.items():
        at = {"crs": crs, "transform": place(row, col + seed * 5000)} if crs else {}
        cut = ground(seed=seed)[:, row : row + 400, col : col + 400]
        write_raster(root / "images" / f"{name}.tif", cut, **at)
        write_raster(root / "labels" / f"{name}.tif", regions(400, 400, 2, seed), **at)
    (root / "splits.json").write_text(json.dumps(splits))
    return root


SPLITS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def test_overlapping_footprints_leak_and_touching_ones_do_not(tmp_path: Path) -> None:
    crops = {"a": (0, 0, 0), "b": (1, 0, 0), "c": (0, 0, 400), "d": (0, 300, 100)}
    dataset = open_dataset(write_ground(tmp_path, crops, SPLITS, "EPSG:32633"))
    (leak,) = footprint_leaks(dataset)
    assert (leak.train, leak.other, leak.split) == ("a", "d", "test")
    assert leak.share == pytest.approx(100 * 300 / 400**2, abs=0.005)


def test_the_same_ground_is_found_by_pixels_at_any_offset(tmp_path: Path) -> None:
    crops = {"a": (0, 0, 0), "b": (1, 0, 0), "c": (2, 0, 0), "d": (0, 170, 90)}
    dataset = open_dataset(write_ground(tmp_path, crops, SPLITS))
    (leak,) = pixel_leaks(dataset)
    assert (leak.train, leak.other, leak.kind) == ("a", "d", "pixels")


def test_a_brighter_jpeg_copy_is_still_found(tmp_path: Path) -> None:
    crops = {"a": (0, 0, 0), "b": (1, 0, 0), "c": (2, 0, 0), "d": (3, 0, 0)}
    root = write_ground(tmp_path, crops, SPLITS)
    copy = np.clip(ground()[:, 60:460, 40:440] * 1.15 + 6, 0, 255).astype(np.uint8)
    (root / "images" / "c.tif").unlink()
    Image.fromarray(copy.transpose(1, 2, 0)).save(root / "images" / "c.jpg", quality=75)
    leaks = find_leaks(open_dataset(root))
    assert [(k.train, k.other, k.split) for k in leaks] == [("a", "c", "val")]
    assert "c.jpg" in messages(root, "warning")


def test_the_same_label_file_is_not_needed_for_leaks_of_vectors(tmp_path: Path) -> None:
    """Vector-labelled images are checked too: one label file is no leak."""
    crops = {"a": (0, 0, 0), "b": (1, 0, 0), "c": (2, 0, 0), "d": (3, 0, 0)}
    root = write_ground(tmp_path, crops, SPLITS, "EPSG:32633")
    shutil.rmtree(root / "labels")
    at = place(0, 0)
    line = {"type": "LineString", "coordinates": [[at.c, at.f - 50], [at.c + 9000, at.f - 50]]}
    write_features(root / "roads.geojson", [(line, {})], 32633)
    assert check_dataset(root).leaks == []
