"""The pages people read: narrow lines, links that lead somewhere, a log with one form."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from inspect import Parameter, signature
from pathlib import Path

import pytest
import typer

import terradapt
from terradapt.cli import build_app
from terradapt.config import config_keys

ROOT = Path(__file__).parents[1]
LOG = ROOT / "docs" / "log"
PAGES = sorted(
    [
        *(p for p in (ROOT / "docs").rglob("*.md")),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)
WIDTH = 120
LINK = re.compile(r"\]\(([^)\s]+)\)")
ADDRESS = re.compile(r"[ *-]*\S*https?://\S+")
BLOCK = re.compile(r"(?ms)^```(\w*)\n(.*?)^```")
COMMAND = re.compile(r"(?m)(?:^|-m )terradapt (?!\.\.\.)(.+)$")
HEAD = ("Question", "Answer", "Command", "Data", "Figures")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_lines_are_narrow(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    # An address cannot be broken: it may stand on a longer line of its own.
    wide = [n for n, x in enumerate(lines, 1) if len(x) > WIDTH and not ADDRESS.fullmatch(x)]
    assert not wide, f"lines {wide} have more than {WIDTH} characters"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_named_pages_lead_to_files(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = [page.parent / t.split("#")[0] for t in LINK.findall(text) if "://" not in t]
    targets += [ROOT / t for t in re.findall(r"`(docs/[a-z/0-9-]+\.md)`", text)]
    lost = [str(t) for t in targets if not t.is_file()]
    assert not lost, f"no such file: {lost}"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield language and text of a page's blocks, lines that go on joined."""
    for language, text in BLOCK.findall(page.read_text("utf-8")):
        yield language, re.sub(r"\\\n\s*", "", text)


def test_every_command_of_the_pages_parses() -> None:
    app = typer.main.get_command(build_app())
    lost, seen = [], 0
    for page in (p for p in PAGES if p.parent != LOG):
        for line in (c for _, text in blocks(page) for c in COMMAND.findall(text)):
            words = shlex.split(line.rstrip('"').split(" > ")[0], comments=True)
            at, seen = app, seen + 1
            try:
                while hasattr(at, "commands") and words:
                    at = at.commands[name := words.pop(0)]
                at.make_context(name, words)  # refuses what is no option
            except Exception as error:
                lost.append(f"{named(page)}: terradapt {line}: {error!r}")
    assert seen > 50
    assert not lost, "\n".join(lost)


def test_every_call_from_python_on_the_pages_has_its_names() -> None:
    seen = 0
    for page in (p for p in PAGES if p.parent != LOG):
        code = "\n".join(text for language, text in blocks(page) if language == "python")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and isinstance(called := node.func, ast.Attribute):
                if not isinstance(called.value, ast.Name) or called.value.id != "terradapt":
                    continue
                known = signature(getattr(terradapt, called.attr)).parameters
                free = any(p.kind is Parameter.VAR_KEYWORD for p in known.values())
                given = {keyword.arg for keyword in node.keywords}
                assert free or given <= known.keys(), f"{named(page)}: {ast.unparse(node)}"
                seen += 1
    assert seen > 8


def test_the_notebooks_are_whole_small_and_of_this_package() -> None:
    books = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [p.stem for p in books] == ["own_data", "roads"]
    for path in books:
        assert path.stat().st_size < 300_000
        cells = json.loads(path.read_text("utf-8"))["cells"]
        for cell in (c for c in cells if c["cell_type"] == "code"):
            ast.parse("".join(cell["source"]))
            assert not any(o["output_type"] == "error" for o in cell["outputs"])
            assert not any(
                "/" + "home/" in str(o) or "/" + "work/" in str(o) for o in cell["outputs"]
            )


def test_every_page_of_the_docs_is_in_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8").splitlines()
    pages = {p.stem for p in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages == {line for line in index if (ROOT / "docs" / f"{line}.md").is_file()}


def test_the_log_has_one_page_a_question_and_an_index() -> None:
    pages = sorted(LOG.iterdir())
    numbers = [int(p.name.split("-")[0]) for p in pages]
    assert numbers == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text("utf-8")
        assert re.match(r"# \d{4}-\d\d-\d\d \S", text), page.name
        assert re.findall(r"(?m)^- \*\*(\w+):\*\* \S", text)[:5] == list(HEAD), page.name
    listed = LINK.findall((ROOT / "docs" / "log.md").read_text("utf-8"))
    assert listed == [f"log/{p.name}" for p in pages]


def test_the_config_page_is_that_of_the_config() -> None:
    spec = spec_from_file_location("config_page", ROOT / "checks" / "config_page.py")
    assert spec is not None
    assert spec.loader is not None
    maker = module_from_spec(spec)
    spec.loader.exec_module(maker)
    text = maker.PAGE.read_text("utf-8")
    assert text == maker.page(), "run: make config"
    rows = dict(re.findall(r"\* - `([\w.]+)`\n((?:  -.*\n){3})", text))
    assert list(rows) == list(config_keys())
    assert rows["data.crop"].splitlines() == [
        "  - `512`",
        "  - px",
        "  - side of the square that a step sees (at least 32)",
    ]
