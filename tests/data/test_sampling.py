"""CropDataset: every sample a function of seed, epoch and index, in any number of workers."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_files import picture, place, regions, write_folder
from terradapt.config import RunConfig
from terradapt.data import Dataset, input_spec, open_dataset, read_mask, read_sample
from terradapt.data.sampling import CropDataset
from terradapt.data.transforms import Draw
from terradapt.errors import TerradaptError
from terradapt.raster import write_raster

PLAIN = [
    "augment.hflip=0", "augment.vflip=0", "augment.rot90=false", "augment.scale=[1,1]",
    "augment.brightness=0", "augment.contrast=0", "augment.saturation=0", "augment.sharpness=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = write_folder(tmp_path_factory.mktemp("crops"), 5, size=(150, 200))
    (root / "splits.json").write_text('{"train": ["s0", "s1", "s2", "s3"], "val": ["s4"]}')
    return open_dataset(root)


def crops(dataset: Dataset, *overrides: str, length: int | None = None) -> CropDataset:
    config = RunConfig().with_overrides(["data.crop=64", *overrides])
    spec = input_spec(dataset, config.data)
    return CropDataset(dataset, "train", config, spec, length=length)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])


def test_samples_have_the_form_that_training_reads(dataset: Dataset) -> None:
    data = crops(dataset)
    assert len(data) == 4 * 3 * 4
    sample = data[7]
    assert sample["image"].shape == (3, 64, 64) and sample["image"].dtype == torch.uint8
    assert sample["mask"].shape == (64, 64) and sample["mask"].dtype == torch.int64
    assert sample["index"] == 7
    assert set(sample["mask"].unique().tolist()) <= {0, 1, 2, 255}
    with pytest.raises(IndexError):
        data[len(data)]


def test_a_sample_depends_on_seed_epoch_and_index_alone(dataset: Dataset) -> None:
    one, two = crops(dataset, "augment.rotate=20"), crops(dataset, "augment.rotate=20")
    for i in reversed(range(12)):
        torch.manual_seed(i)
        np.random.seed(i)  # noqa: NPY002
        two[i]
    assert all(same(one[i], two[i]) for i in range(12))
    before = [one[i] for i in range(12)]
    one.set_epoch(1)
    assert not any(same(one[i], before[i]) for i in range(12))
    one.set_epoch(0)
    assert all(same(one[i], before[i]) for i in range(12))
    other = crops(dataset, "augment.rotate=20", "train.seed=7")
    assert not any(same(other[i], before[i]) for i in range(12))


def test_drawing_leaves_the_global_generators_alone(dataset: Dataset) -> None:
    data = crops(dataset, "augment.rotate=20", "data.balance=0.5")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    data[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_draw_what_one_process_draws(dataset: Dataset, kind: str) -> None:
    """Also after the parent has read, and for a new epoch of workers that live on."""
    data = crops(dataset, length=12)
    expected = {(e, i): data.sample(e, i) for e in (0, 3) for i in range(12)}
    loader = DataLoader(
        data, None, num_workers=2, multiprocessing_context=kind, persistent_workers=True
    )
    for epoch in (0, 3):
        data.set_epoch(epoch)
        for sample in loader:
            assert same(sample, expected[epoch, sample["index"]])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named_from_any_process(tmp_path: Path, workers: int) -> None:
    root = write_folder(tmp_path, 4)
    data = crops(open_dataset(root))
    for item in data.items:
        item.image.write_bytes(item.image.read_bytes()[:-3000])
    with pytest.raises(TerradaptError) as caught:
        list(DataLoader(data, None, num_workers=workers))
    assert ".tif: rows 0 to" in caught.value.message and "\n" not in caught.value.message
    assert "copy it again" in caught.value.fix


def test_open_readers_can_be_sent_to_a_worker(dataset: Dataset) -> None:
    data = crops(dataset)
    expected = data[3]
    read_mask(dataset, dataset.items[0])
    data._dataset = pickle.loads(pickle.dumps(dataset))
    data._cache = pickle.loads(pickle.dumps(data._cache))
    assert same(data[3], expected)


def test_every_image_is_drawn_as_often_as_crops_cover_it(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 3, size=(64, 64))
    large = regions(128, 192, 3, 9)
    where = {"crs": "EPSG:32633", "transform": place(0, 9000)}
    write_raster(root / "images" / "big.tif", picture(large, 9), **where)
    write_raster(root / "labels" / "big.tif", large, **where)
    (root / "splits.json").write_text('{"train": ["s0", "s1", "big"], "val": ["s2"]}')
    data = crops(open_dataset(root))
    assert len(data) == 2 + 6
    for epoch in range(3):
        drawn = Counter(data.items[data._drawn(i, epoch)].id for i in range(8))
        assert drawn == {"s0": 1, "s1": 1, "big": 6}


def test_crops_are_windows_of_the_file(dataset: Dataset) -> None:
    """Without augmentation the crop occurs in the image, with the label at the same place."""
    data = crops(dataset, *PLAIN)
    places = set()
    for i in range(8):
        item = data.items[data._drawn(i, 0)]
        image, ids = read_sample(dataset, item)
        sample = data[i]
        lines = np.lib.stride_tricks.sliding_window_view(image[:, : 150 - 63], 64, axis=2)
        hits = (lines == sample["image"][:, 0].numpy()[:, None, None]).all((0, 3))
        ((row, col),) = np.argwhere(hits)
        places.add((row, col))
        assert np.array_equal(ids[row : row + 64, col : col + 64], sample["mask"])
    assert len(places) > 4


def test_a_crop_larger_than_the_image_is_filled_with_ignore(dataset: Dataset) -> None:
    data = crops(dataset, *PLAIN, "data.crop=224")
    sample = data[0]
    known = (sample["mask"] != 255).sum()
    assert known == 150 * 200
    assert (sample["image"][:, sample["mask"] == 255] == 0).all()


def test_scale_shows_more_or_less_ground(dataset: Dataset) -> None:
    """Twice the scale: each file pixel covers 2 x 2 pixels of the crop."""
    rest = [p for p in PLAIN if "scale" not in p]
    sample = crops(dataset, *rest, "augment.scale=[2,2]")[0]["mask"].numpy()
    assert np.array_equal(sample[::2, ::2], sample[1::2, 1::2])


def test_a_stated_resolution_is_resampled_to(dataset: Dataset) -> None:
    coarse = crops(dataset, *PLAIN, "data.resolution=1.0")
    assert len(coarse) == 4 * 2 * 2
    _, window = coarse._place(0, 0, Draw(), np.random.default_rng(0))
    assert window.height == 128
    assert coarse[0]["mask"].shape == (64, 64)


def test_balance_brings_a_rare_class_into_the_crops(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 3, size=(256, 256), classes=2)
    for n in range(3):
        ids = np.zeros((256, 256), np.uint8)
        ids[40 + n, 200 - n] = 1
        where = {"crs": "EPSG:32633", "transform": place(0, n * 512)}
        write_raster(root / "labels" / f"s{n}.tif", ids, **where)
    dataset = open_dataset(root)

    def share(balance: float) -> float:
        data = crops(dataset, *PLAIN, f"data.balance={balance}", length=80)
        return float(np.mean([bool((data[i]["mask"] == 1).any()) for i in range(80)]))

    assert share(0.0) < 0.25
    assert share(1.0) > 0.4


def test_crops_without_any_label_are_drawn_again(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 3, size=(64, 640))
    for n in range(3):
        ids = regions(64, 640, 3, n)
        ids[:, 320:] = 255
        where = {"crs": "EPSG:32633", "transform": place(0, n * 1280)}
        write_raster(root / "labels" / f"s{n}.tif", ids, **where)
    data = crops(open_dataset(root), *PLAIN, length=60)
    empty = sum(bool((data[i]["mask"] == 255).all()) for i in range(60))
    assert empty <= 9
