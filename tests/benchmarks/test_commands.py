"""The benchmarks' documented commands: every script is listed, every option is one that it has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
COMMAND = re.compile(r"python benchmarks/(\w+)\.py([^\n`]*)")
PROGRAMS = [p.stem for p in sorted(FOLDER.glob("*.py")) if "\ndef main(" in p.read_text("utf-8")]


@cache
def source(name: str) -> ast.Module:
    return ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))


@cache
def options(name: str) -> frozenset[str]:
    """Options that a script adds to its parser, or a script that it imports."""
    found = {"-h", "--help"}
    for node in ast.walk(source(name)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
        elif isinstance(node, ast.ImportFrom) and (FOLDER / f"{node.module}.py").is_file():
            found |= options(str(node.module))
    return frozenset(found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_documented_options_exist(name: str) -> None:
    text = (ast.get_docstring(source(name)) or "").replace("\\\n", " ")
    commands = COMMAND.findall(text)
    assert name in [script for script, _ in commands]
    for script, words in commands:
        asked = re.findall(r"(?<![\w-])--?[a-z][\w-]*", words.partition("#")[0])
        assert set(asked) <= options(script), (script, words)


def test_every_program_is_listed_and_every_one_listed_is_there() -> None:
    listed = re.findall(r"`(\w+)\.py\b", (FOLDER / "README.md").read_text("utf-8"))
    assert sorted(set(listed)) == PROGRAMS
