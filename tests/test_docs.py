"""The pages people read: narrow lines, links that lead somewhere, a log with one form."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

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
