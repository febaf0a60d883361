"""The wheel: one version everywhere, all files inside, and it runs where nothing else is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
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


def test_the_readme_reads_on_any_page() -> None:
    """An index shows it without the files around it: no link and no picture may be relative."""
    text = (ROOT / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(
        r"(?:src|href)=\"([^\"]+)", text
    )
    targets += re.findall(r"^\s*\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    assert not [t for t in targets if not t.startswith(("https://", "#"))]


def test_workflows_say_that_they_have_not_run() -> None:
    found = {p.name: p.read_text("utf-8") for p in (ROOT / ".github/workflows").iterdir()}
    assert set(found) == {"ci.yml", "release.yml"}
    for text in found.values():
        assert "HAS NOT RUN YET" in text
        assert "password" not in text and "secrets." not in text
        assert set(yaml.safe_load(text)) >= {"name", "permissions", "jobs"}
    jobs = yaml.safe_load(found["ci.yml"])["jobs"]
    systems = {name.partition("-")[0] for name in jobs["test"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "windows", "macos"}


@pytest.mark.slow
def test_both_distributions_are_ready_to_publish(tmp_path: Path) -> None:
    """Built from the checkout as it is, with whatever lies around in it."""
    python = [sys.executable, "-m"]
    subprocess.run([*python, "build", "-o", tmp_path, ROOT], check=True, stdout=subprocess.DEVNULL)
    files = sorted(tmp_path.iterdir())
    assert [f.suffix for f in files] == [".whl", ".gz"]
    subprocess.run([*python, "twine", "check", "--strict", *files], check=True)
    with tarfile.open(files[1]) as archive:
        names = [m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()]
        largest = max(archive.getmembers(), key=lambda m: m.size)
    own = set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines())
    assert set(names) - own <= {"PKG-INFO"}
    assert {"README.md", "LICENSE", "pyproject.toml", "examples/edge/map.cpp"} <= set(names)
    assert {n.split("/")[0] for n in names if "/" in n} == {"src", "docs", "examples"}
    assert largest.size < 1 << 19, largest.name
    assert files[1].stat().st_size < 1 << 21


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
