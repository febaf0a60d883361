from __future__ import annotations

import json
from pathlib import Path

import pytest

from terradapt import demo
from terradapt.raster import SceneReader

QUICK = ["train.epochs=1", "train.steps_per_epoch=2", "train.batch=2", "data.crop=64"]


def test_the_demo_makes_everything_that_it_names(
    terradapt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "SIZE", 192)
    monkeypatch.setattr(demo, "CITIES", {"train": (1, 2), "val": (3,), "test": (4,)})
    folder = tmp_path / "demo"
    done = terradapt("demo", "-o", folder, *QUICK, "data.workers=0")
    assert done.status == 0, done.err
    names = ("scene.tif", "labels.tif", "landcover.tif", "roads.gpkg", "report.html", "run")
    for name in names:
        assert (folder / name).exists(), name
        assert name in done.out or name in {"labels.tif", "run"}
    metrics = json.loads((folder / "report.json").read_text())["metrics"]
    assert f"mIoU {metrics['miou']:.3f}" in done.out
    with SceneReader(folder / "scene.tif") as a, SceneReader(folder / "landcover.tif") as b:
        assert (a.crs, a.transform, a.width, a.height) == (b.crs, b.transform, b.width, b.height)
    assert terradapt("demo", "-o", folder).is_user_error("demo")
    assert terradapt("demo", "-o", folder, *QUICK, "data.workers=0", "--resume").status == 0
