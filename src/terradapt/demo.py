"""The whole way on synthetic scenes: data, training, a mapped scene, roads, polygons, a report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terradapt import evaluation, predictors, training
from terradapt.config import load_config
from terradapt.data import Dataset
from terradapt.errors import OutputError
from terradapt.files import check_output
from terradapt.progress import Track
from terradapt.report import Report, write_report
from terradapt.scene import PredictOptions, predict_scene
from terradapt.synthetic import road_labels, write_dataset
from terradapt.vector import vectorize_roads

CITIES = {"train": tuple(range(1, 13)), "val": (41,), "test": (90,)}
SIZE = 768  # px
WRITES = (
    *("data", "road_data", "road_run", "scene.tif", "labels.tif"),
    *("landcover.tif", "roads.tif", "roads.gpkg"),
)
"""What a demo writes beside ``run``."""
ROAD_RUN = ("name=demo-roads", "train.epochs=2")


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        folder: Where everything lies.
        report: Land cover on the city that training never saw.
        roads: The road model on the same city.
        network: Figures of the road network: edges, nodes, length in metres.
    """

    folder: Path
    report: Report
    roads: Report
    network: dict[str, Any]


def run_demo(
    folder: str | Path, bar: Track, *, overrides: Sequence[str] = (), resume: bool = False
) -> Demo:
    """Make cities, train on some, map one that was never seen, and measure.

    Writes ``data/``, ``run/``, ``road_run/``, ``scene.tif``, ``labels.tif``, ``landcover.tif``,
    ``roads.tif``, ``roads.gpkg`` and ``report.html`` (with ``.json`` and ``.md``).

    Args:
        folder: Where to; made when missing.
        bar: ``bar(total, label, unit)``: a context manager that yields ``advance(n)``.
        overrides: Overrides of the recipe ``demo``, for both models.
        resume: Go on where a stopped demo was.

    Raises:
        OutputError: The folder holds another demo, or cannot be written.
    """
    folder = check_output(folder, folder=True)
    if (folder / "run").exists() and not resume:
        raise OutputError(f"{folder}: holds a demo already", "add --resume, or give another -o")
    held = next((folder / n for n in WRITES if (folder / n).exists()), None)
    if held is not None and not resume:
        raise OutputError(f"{held}: is there already", "give another folder with -o")
    count = sum(map(len, CITIES.values()))
    with bar(count, "make cities", "scenes") as advance:
        dataset = write_dataset(folder / "data", CITIES, size=SIZE, advance=advance)
    roads = road_labels(dataset, folder / "road_data")
    shutil.copyfile(dataset.split("test")[0].image, folder / "scene.tif")
    shutil.copyfile(str(dataset.split("test")[0].label), folder / "labels.tif")
    report = _map(dataset, folder / "run", folder / "landcover.tif", overrides, resume, bar)
    road_overrides = [*ROAD_RUN, *overrides]
    road_report = _map(
        roads, folder / "road_run", folder / "roads.tif", road_overrides, resume, bar
    )
    scores = folder / "roads_scores.tif"
    network = vectorize_roads(
        folder / "roads.tif", folder / "roads.gpkg", "road", scores=scores, overwrite=resume
    )
    write_report(report, folder / "report.json")
    return Demo(folder, report, road_report, network)


def _map(
    dataset: Dataset, run: Path, out: Path, overrides: Sequence[str], resume: bool, bar: Track
) -> Report:
    """Train on a dataset, map the demo's scene with the result, and measure it."""
    config = load_config("demo").with_overrides(overrides)
    training.train(config, dataset.root, run, resume=resume, bar=bar)
    predictor = predictors.load(run / "checkpoint.safetensors")
    options = PredictOptions(
        scores="uint8" if len(dataset.classes) == 2 else None, overwrite=resume
    )
    predict_scene(predictor, out.with_name("scene.tif"), out, options, bar=bar)
    return evaluation.report_run(run, dataset.root, split="test", command="terradapt demo", bar=bar)
