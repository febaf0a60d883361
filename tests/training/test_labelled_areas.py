"""A scene with few labelled places is validated there alone, to the same figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from terradapt.classes import ClassMap
from terradapt.config import RunConfig
from terradapt.data import open_dataset
from terradapt.data.labelled import apart, labelled_areas
from terradapt.data.reading import ItemReader
from terradapt.grid import Window
from terradapt.metrics.confusion import Confusion
from terradapt.raster import write_raster
from terradapt.scene import predict_blocks
from terradapt.training import trainer as trainers
from terradapt.training.calibrating import SAMPLED, sample_scores
from training_files import SMALL

SIDE = 1600


@pytest.mark.parametrize(
    ("cells", "boxes"),
    [
        (["...", "..."], []),
        (["#..", "..."], [(0, 0, 1, 1)]),
        (["##.", ".#."], [(0, 0, 2, 2)]),
        (["#..", ".#."], [(0, 0, 2, 2)]),
        (["#...", "#.#.", "#...", "####"], [(0, 0, 4, 4)]),
        (["#.#", "...", "#.#"], [(0, 0, 1, 1), (0, 2, 1, 3), (2, 0, 3, 1), (2, 2, 3, 3)]),
        # the long column's box takes in the cell, and then the row beside it
        (["#...#", "#.#..", "#....", "###.."], [(0, 0, 4, 3), (0, 4, 1, 5)]),
    ],
)
def test_boxes_hold_all_cells_and_stand_apart(
    cells: list[str], boxes: list[tuple[int, ...]]
) -> None:
    assert apart(np.array([[c == "#" for c in row] for row in cells])) == boxes


def test_boxes_of_random_cells_never_overlap() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        held = draw.random((9, 11)) < draw.random() * 0.4
        count = np.zeros(held.shape, int)
        for top, left, bottom, right in apart(held):
            count[top:bottom, left:right] += 1
        assert count.max(initial=0) <= 1
        assert (count[held] == 1).all()


@pytest.fixture
def trainer(tmp_path: Path) -> trainers.Trainer:
    """On a scene of which two corners are corrected; the rest has no label."""
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE), np.uint8)
    write_raster(tmp_path / "d" / "images" / "a.tif", pixels)
    shapes = [_feature("road", 1400, 20, 1500, 60), _feature("ground", 0, 1580, 40, 1600)]
    path = tmp_path / "c.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": shapes}))
    given = [*SMALL, f"data.corrections={path}"]
    config = RunConfig().with_overrides(given)
    known = ClassMap(("ground", "road"))
    torch.manual_seed(0)
    dataset = open_dataset(tmp_path / "d", config.data, known=known)
    return trainers.Trainer(config, dataset, tmp_path / "r")


def _feature(name: str, left: int, top: int, right: int, bottom: int) -> dict[str, object]:
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": shape, "properties": {"class": name, "image": "a"}}


def test_only_labelled_places_are_predicted_and_the_figures_are_the_same(
    trainer: trainers.Trainer,
) -> None:
    dataset, validator = trainer.dataset, trainer.validator
    (item,) = dataset.split("train")
    places = (Window(0, 1024, 512, 512), Window(1536, 0, 64, 512))
    assert labelled_areas(dataset, item) == places
    done = []
    found = validator.metrics("train", None, done.append, lambda: False)
    assert sum(done) == validator.windows("train") < 0.4 * (SIDE / 48) ** 2
    whole = Confusion(len(dataset.classes))
    with ItemReader(dataset, item, trainer.spec) as reader:
        for block in predict_blocks(reader, validator.predictor()):
            whole.update(reader.mask(block.window), block.classes)
    assert whole.matrix.sum() == 40 * 100 + 20 * 40
    assert found == whole.metrics(dataset.classes)


def test_a_calibration_draws_from_labelled_places_alone(trainer: trainers.Trainer) -> None:
    predictor, done = trainer.validator.predictor(), list[int]()
    drawn = sample_scores(predictor, trainer.dataset, "train", 0, trainer.accelerator, done.append)
    assert sum(done) == trainer.validator.windows("train", SAMPLED)
    assert np.bincount(drawn[1]).tolist() == [20 * 40, 40 * 100]
    assert drawn[0].shape == (2, 4800)
