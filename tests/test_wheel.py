"""The wheel: one version everywhere, all files inside, and it runs where nothing else is."""

from __future__ import annotations

import os
import subprocess
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import terradapt

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "terradapt"


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    place = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{terradapt.__version__}"' in place.read_text("utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == terradapt.__version__
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    newest = next(line for line in changes if line.startswith("## "))
    assert terradapt.__version__ in newest


@pytest.mark.slow
def test_a_wheel_has_every_file_and_runs_alone(tmp_path: Path) -> None:
    alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def call(*words: str | Path) -> str:
        done = subprocess.run(
            words, check=True, cwd=tmp_path, env=alone, text=True, stdout=subprocess.PIPE
        )
        return done.stdout

    venv.create(tmp_path / "env", with_pip=True)
    run = tmp_path / "env" / "bin"
    call(run / "pip", "wheel", "-q", ROOT, "--no-deps", "-w", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"terradapt-{terradapt.__version__}-py3-none-any.whl"
    own = {p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {p.suffix for p in own} >= {".py", ".yaml", ".j2"}
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if name.startswith("terradapt/")}
    assert inside == {f"terradapt/{p.relative_to(PACKAGE).as_posix()}" for p in own}
    assert "terradapt/py.typed" in inside

    call(run / "pip", "install", "-q", wheel)
    assert call(run / "terradapt", "--version") == f"terradapt {terradapt.__version__}\n"
    where = call(run / "python", "-c", "import terradapt; print(terradapt.__file__)")
    assert Path(where.strip()).is_relative_to(tmp_path / "env")
    assert "landcover" in call(run / "terradapt", "recipes")
    print("megabytes:", call("du", "-sm", tmp_path / "env").split()[0])
