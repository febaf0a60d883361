"""The whole way on synthetic scenes: data, training, a mapped scene, roads, polygons, a report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terradapt import evaluation, predictors, training
from terradapt.config import load_config
from terradapt.data.synthetic import write_dataset
from terradapt.errors import OutputError
from terradapt.report import Report
from terradapt.scene import predict_scene
from terradapt.vector import vectorize_roads

CITIES = {"train": tuple(range(1, 13)), "val": (41,), "test": (90,)}
SIZE = 768  # px
ROAD = "impervious"

Bar = Callable[[int | None, str, str], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        folder: Where everything lies.
        report: Evaluation on the city that training never saw.
        roads: Figures of the road network: edges, nodes, length in metres.
    """

    folder: Path
    report: Report
    roads: dict[str, Any]


def run_demo(
    folder: str | Path, bar: Bar, *, overrides: Sequence[str] = (), resume: bool = False
) -> Demo:
    """Make cities, train on some, map one that was never seen, and measure.

    Writes ``data/``, ``run/``, ``scene.tif``, ``labels.tif``, ``landcover.tif``, ``roads.gpkg`` and
    ``report.html`` (with ``.json`` and ``.md``).

    Args:
        folder: Where to; made when missing.
        bar: ``bar(total, label, unit)``: a context manager that yields ``advance(n)``.
        overrides: Overrides of the recipe ``demo``.
        resume: Go on where a stopped demo was.

    Raises:
        OutputError: The folder holds another demo, or cannot be written.
    """
    folder = Path(folder)
    run, data = folder / "run", folder / "data"
    if run.exists() and not resume:
        raise OutputError(f"{folder}: holds a demo already", "add --resume, or give another -o")
    count = sum(map(len, CITIES.values()))
    with bar(count, "make cities", "scenes") as advance:
        dataset = write_dataset(data, CITIES, size=SIZE, advance=advance)
    training.train(load_config("demo").with_overrides(overrides), data, run, resume=resume, bar=bar)
    scene = dataset.split("test")[0]
    shutil.copyfile(scene.image, folder / "scene.tif")
    shutil.copyfile(str(scene.label), folder / "labels.tif")
    landcover = folder / "landcover.tif"
    predictor = predictors.load(run / "checkpoint.safetensors")
    predict_scene(predictor, folder / "scene.tif", landcover, bar=bar)
    roads = vectorize_roads(landcover, folder / "roads.gpkg", ROAD)
    report = evaluation.report_run(run, data, split="test", command="terradapt demo")
    report.write(folder / "report.json")
    return Demo(folder, report, roads)
