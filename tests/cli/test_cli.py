from __future__ import annotations

import subprocess
import sys

import pytest

from terradapt.cli import build_app

VERBS = sorted(c.name or c.callback.__name__ for c in build_app().registered_commands if c.callback)


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_the_result_is(terradapt, verb: str) -> None:
    shown = terradapt(verb, "--help")
    assert shown.status == 0
    assert f"The result of `terradapt {verb}" in " ".join(shown.out.split())


def test_help_without_arguments_and_version(terradapt) -> None:
    assert "Commands" in terradapt().out
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
