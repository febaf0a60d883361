"""Prediction and vectorizing need the base install alone."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from onnx_files import write_tiny
from scene_files import noise, write_scene
from terradapt import errors
from terradapt.errors import install_line

ROOT = Path(__file__).parents[1]
LIMIT = 500  # MB
MODULES = {
    "PyYAML": "yaml",
    "scikit-image": "skimage",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}

BARE = """
import importlib.util, json, sys
blocked, calls = json.loads(sys.argv[1]), json.loads(sys.argv[2])

class Filter:
    def __init__(self, finders):
        self.finders = finders
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            return None
        specs = (f.find_spec(name, path, target) for f in self.finders)
        return next((s for s in specs if s is not None), None)

sys.meta_path[:] = [Filter(list(sys.meta_path))]
assert importlib.util.find_spec("torch") is None
from terradapt import cli
results = []
for call in calls:
    sys.argv = ["terradapt", *call]
    try:
        cli.main()
    except SystemExit as stop:
        results.append(stop.code or 0)
loaded = sorted(set(blocked) & {m.split(".")[0] for m in sys.modules})
print("RESULT", json.dumps([results, loaded]))
"""


def extras() -> set[str]:
    """Modules of the optional extras, which the base install does not bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {
        re.split(r"[\\[>=<]", line)[0]
        for key, lines in project["optional-dependencies"].items()
        if key not in {"all", "dev"}
        for line in lines
    }
    return {MODULES.get(n, n.replace("-", "_")) for n in named - {"terradapt"}}


def run_bare(tmp_path: Path, *calls: list[str]) -> tuple[list[int], list[str], str]:
    """Run verbs in a process that cannot see what the extras bring."""
    arguments = [json.dumps(sorted(extras())), json.dumps(calls)]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT"))
    statuses, loaded = json.loads(line.removeprefix("RESULT "))
    return statuses, loaded, done.stderr


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = noise(96, 96)
    pixels[:] = np.array([220, 20, 20])[:, None, None]
    pixels[:, 40:, 50:] = np.array([20, 20, 220])[:, None, None]
    write_tiny(tmp_path / "model.onnx")
    return write_scene(tmp_path / "scene.tif", pixels)


PREDICT = ["predict", "model.onnx", "scene.tif", "-o", "out.tif"]
VECTORIZE = ["vectorize", "out.tif", "-o", "out.gpkg"]
ROADS = ["vectorize", "out.tif", "-o", "roads.gpkg", "--roads", "blue"]


def test_predict_and_vectorize_need_the_base_install_alone(tmp_path: Path, scene: Path) -> None:
    assert {"torch", "timm", "onnx", "pyogrio", "skimage", "openvino", "networkx"} <= extras()
    statuses, loaded, err = run_bare(tmp_path, PREDICT, VECTORIZE, ROADS, ["recipes"], ["--help"])
    assert statuses == [0] * 5, err
    assert loaded == []
    import pyogrio
    import rasterio

    with rasterio.open(tmp_path / "out.tif") as file:
        ids = file.read(1)
    assert (ids[:30, :40] == 0).all()
    assert (ids[60:, 60:] == 2).all()
    assert pyogrio.read_info(tmp_path / "out.gpkg", layer="polygons")["features"] == 2


BENCH = ["bench", "model.onnx", "--seconds", "0", "--size", "64", "-o", "speed"]
EVAL = ["eval", "model.onnx", "scene.tif", "labels.tif", "-o", "own.json"]
EVAL_FOLDER = ["eval", "model.onnx", "data", "--split", "all", "-o", "all.json"]


def test_a_model_is_timed_and_scored_with_the_base_install_alone(
    tmp_path: Path, scene: Path
) -> None:
    """The right answer but for the first ten rows, of which half is not labelled."""
    labels = np.zeros((96, 96), np.uint8)
    labels[40:, 50:] = 2
    labels[:10] = 1
    labels[:5] = 255
    write_scene(tmp_path / "labels.tif", labels[None])
    for folder, file in (("images", "scene"), ("labels", "labels")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        shutil.copy(tmp_path / f"{file}.tif", tmp_path / "data" / folder / "one.tif")
        shutil.copy(tmp_path / f"{file}.tif", tmp_path / "data" / folder / "two.tif")
    (tmp_path / "data" / "classes.yaml").write_text("names: [red, green, blue]\n")
    statuses, loaded, err = run_bare(tmp_path, BENCH, EVAL, EVAL_FOLDER)
    assert statuses == [0] * 3, err
    assert loaded == []
    for name, images in (("own", 1), ("all", 2)):
        assert not (tmp_path / f"{name}.html").exists()
        assert "| red |" in (tmp_path / f"{name}.md").read_text()
        report = json.loads((tmp_path / f"{name}.json").read_text())
        matrix = images * np.array([[96 * 86 - 56 * 46, 0, 0], [96 * 5, 0, 0], [0, 0, 56 * 46]])
        assert report["confusion"] == matrix.tolist()
    timed = json.loads((tmp_path / "speed" / "model.bench.json").read_text())
    assert [row["engine"] for row in timed["rows"]] == ["onnxruntime"]
    assert timed["rows"][0]["latency_ms"] > 0 and timed["rows"][0]["rate"] > 0
    assert "| onnxruntime |" in (tmp_path / "speed" / "model.bench.md").read_text()


NEEDS = {
    "train": ["train", "landcover"],
    "predict": ["predict", "checkpoint.safetensors", "scene.tif", "-o", "x.tif"],
    "export": ["export", "checkpoint.safetensors"],
    "models": ["models", "--encoder", "resnet18"],
    "demo": ["demo", "-o", "demo"],
    "bench": ["bench"],
    "study": ["eval", "model.onnx", "scene.tif", "scene.tif", "--study"],
    "openvino": ["predict", "model.onnx", "scene.tif", "-o", "x.tif", "--engine", "openvino"],
    "cluster": ["predict", "model.onnx", "scene.tif", "-o", "x.tif", "--cluster", "local"],
    "graph": ["vectorize", "scene.tif", "-o", "x.graphml", "--roads", "1"],
}


def test_a_verb_that_needs_more_names_the_extra(tmp_path: Path, scene: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    statuses, _, err = run_bare(tmp_path, *NEEDS.values())
    assert statuses == [2] * len(NEEDS), err
    fixes = [line for line in err.splitlines() if line.startswith("fix:")]
    assert all(line.startswith("fix: run: pip install ") for line in fixes), err
    for extra, fix in zip(("openvino", "cluster", "graph"), fixes[-3:], strict=True):
        assert f"[{extra}]'" in fix
    assert not list(tmp_path.glob("*x.*"))


class Installed:
    """A package with the note that its installer left."""

    def __init__(self, note: dict[str, object] | None) -> None:
        self.note = note

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.note is None else json.dumps(self.note)


WHEEL = "terradapt-1-py3-none-any.whl"
FROM = {
    "an index": (None, "'terradapt[train]'"),
    "a checkout": ({"url": "file:///s%20c/it", "dir_info": {}}, "'/s c/it[train]'"),
    "an editable checkout": (
        {"url": "file:///src/it", "dir_info": {"editable": True}},
        "-e '/src/it[train]'",
    ),
    "a wheel": ({"url": f"file:///w/{WHEEL}", "archive_info": {}}, f"'/w/{WHEEL}[train]'"),
    "an address": (
        {"url": f"https://example.org/{WHEEL}", "archive_info": {}},
        f"'terradapt[train] @ https://example.org/{WHEEL}'",
    ),
    "a repository": (
        {"url": "https://example.org/t.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}},
        "'terradapt[train] @ git+https://example.org/t.git@ab12'",
    ),
}


@pytest.mark.parametrize("origin", FROM)
def test_a_missing_extra_is_installed_from_where_terradapt_came(
    origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, wanted = FROM[origin]
    monkeypatch.setattr(errors, "distribution", lambda name: Installed(note))
    error = errors.MissingExtraError("terradapt train", "train")
    assert error.fix == f"run: pip install {wanted}"
    assert shlex.split(error.fix)[-1].count("[train]") == 1  # one word of the shell


def test_inside_the_checkout_the_fix_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = {"url": tmp_path.resolve().as_uri(), "dir_info": {}}
    monkeypatch.setattr(errors, "distribution", lambda name: Installed(note))
    monkeypatch.chdir(tmp_path)
    assert install_line("train") == "pip install '.[train]'"


def test_without_an_install_the_fix_names_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(errors, "distribution", absent)
    monkeypatch.chdir(ROOT)
    assert install_line("report") == "pip install '.[report]'"


@pytest.mark.slow
def test_a_fresh_environment_with_the_base_install(tmp_path: Path, scene: Path) -> None:
    home = tmp_path / "edge"
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True, timeout=1200)
    size = sum(f.lstat().st_blocks * 512 for f in home.rglob("*") if f.is_file()) / 1e6
    print(f"edge install: {size:.0f} MB")
    assert not list(home.glob("lib/python*/site-packages/torch"))
    assert size * 1e6 <= LIMIT * 2**20
    for call in (PREDICT, VECTORIZE, BENCH):
        subprocess.run([home / "bin" / "terradapt", *call], check=True, cwd=tmp_path)
    assert (tmp_path / "out.gpkg").stat().st_size > 0


PYTHON = """
import terradapt
result = terradapt.predict("model.onnx", "scene.tif", confidence=True, progress=False)
assert result._repr_html_() and result.confidence.shape == result.classes.shape
print("FOUND", terradapt.vectorize(result, "map.gpkg", progress=False).summary())
try:
    terradapt.train("demo", "data")
except terradapt.errors.MissingExtraError as error:
    print("FIX", error.fix)
"""


def test_python_maps_with_the_base_install(tmp_path: Path) -> None:
    write_tiny(tmp_path / "model.onnx")
    write_scene(tmp_path / "scene.tif", noise(64, 64))
    code = BARE.partition("from terradapt import cli")[0] + PYTHON
    arguments = [json.dumps(sorted(extras())), "[]"]
    call = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "area_m2" in done.stdout
    assert "[train]'" in done.stdout
    assert (tmp_path / "map.gpkg").is_file()
