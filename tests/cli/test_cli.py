from __future__ import annotations

import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from terradapt.cli import build_app
from terradapt.cli._help import OTHER, PANELS

COMMAND = typer.main.get_command(build_app())
VERBS = sorted(COMMAND.commands)
DOES = {
    "Check", "Compare", "Fit", "List", "Look", "Map", "Print", "Publish", "Run", "Score", "Time",
    "Train", "Turn",
}  # fmt: skip


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


@pytest.mark.parametrize("verb", VERBS)
def test_help_begins_with_a_verb_and_ends_with_two_examples_that_parse(
    terradapt, narrow, verb: str
) -> None:
    shown = terradapt(verb, "--help")
    assert shown.status == 0
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split()[0] in DOES
    examples = lines[lines.index("  Examples:") + 1 :]
    calls = [line.strip() for line in examples if not line.lstrip().startswith("#")]
    assert len(calls) >= 2
    assert len(examples) == 2 * len(calls), "a comment above each"
    for call in calls:
        name, given, *arguments = shlex.split(call.split(" > ")[0])
        assert (name, given) == ("terradapt", verb)
        COMMAND.commands[verb].make_context(verb, arguments)  # refuses what is no option


def test_the_list_of_verbs_is_whole_and_in_the_order_of_work(terradapt, narrow) -> None:
    shown = terradapt("--help").out
    assert "..." not in shown.split("Look around:")[1]
    places = [shown.index(f"\n{panel}:\n") for panel in PANELS]
    assert places == sorted(places)
    assert f"\n{OTHER}:" not in shown
    summaries = {v: (COMMAND.commands[v].help or "").splitlines()[0] for v in VERBS}
    rows = [line for line in shown.splitlines() if line.split()[:1] and line.split()[0] in VERBS]
    assert sorted(" ".join(r.split()) for r in rows) == [f"{v} {summaries[v]}" for v in VERBS]
    order = [row.split()[0] for row in rows]
    for first, then in pairwise(["recipes", "data", "train", "eval", "predict", "export", "bench"]):
        assert order.index(first) < order.index(then)


def test_help_without_arguments_and_version(terradapt) -> None:
    assert "Look around" in terradapt().out
    assert terradapt("--version").out.startswith("terradapt ")


@pytest.mark.parametrize("args", [["nosuch"], ["recipes", "--nosuch"], ["train"]])
def test_a_usage_mistake_is_two_lines(terradapt, args: list[str]) -> None:
    assert terradapt(*args).is_user_error()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from terradapt.cli import build_app; import typer.main;"
        "typer.main.get_command(build_app());"
        "heavy = {'torch', 'rasterio', 'timm', 'skimage', 'scipy', 'onnxruntime', 'dask',"
        " 'networkx', 'matplotlib', 'numpy'} & set(sys.modules); sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("terradapt train land", ["landcover", "landcover-few"]),
        ("terradapt train mi", ["mine.yaml"]),
        ("terradapt recipes sam2ms-s", ["sam2ms-spacenet"]),
        ("terradapt data check x --recipe ro", ["roads", "roads-few"]),
        ("terradapt train landcover epo", ["epochs="]),
        ("terradapt train landcover epochs=3 data.cr", ["data.crop="]),
        ("terradapt demo optim.lr", ["optim.lr=", "optim.lr_backbone="]),
        ("terradapt trials arafnet-6 encoder.w", ["encoder.weights="]),
        ("terradapt models --model kd", ["kd-arafnet"]),
        ("terradapt data pot", ["potsdam"]),
        ("terradapt vec", ["vectorize"]),
    ],
)
def test_a_shell_completes(tmp_path: Path, line: str, wanted: list[str]) -> None:
    (tmp_path / "mine.yaml").touch()
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    code = "from terradapt.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, **words, "_TERRADAPT_COMPLETE": "complete_bash"},
    )  # fmt: skip
    assert done.stdout.split() == wanted, done.stderr
