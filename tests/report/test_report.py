from __future__ import annotations

import base64
import builtins
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from terradapt.classes import ISPRS, ROADS, ClassMap
from terradapt.errors import DataError, MissingExtraError
from terradapt.metrics import Confusion
from terradapt.report import Picture, Reference, Report, read_report, write_report
from terradapt.report.figures import INK, draw_curves, draw_scatter
from terradapt.report.pictures import FALSE_ALARM, HIT, MISSED, UNLABELLED, WRONG, draw_errors

EVENTS = [
    *(
        {"event": "step", "step": s, "epoch": s / 9, "lr": 1e-3, "loss": 1 / s}
        for s in range(1, 60)
    ),
    {"event": "val", "step": 60, "epoch": 1, "miou": 0.5, "mf1": 0.6, "oa": 0.7},
]


def _picture(classes: ClassMap, name: str = "s1") -> Picture:
    rng = np.random.default_rng(0)
    label = rng.integers(0, len(classes), (40, 50)).astype(np.uint8)
    label[:3] = 255
    image = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    return Picture(name, image, label, rng.permuted(label % len(classes)), "worst")


def _report(classes: ClassMap = ISPRS, **changes: Any) -> Report:
    picture = _picture(classes)
    kept = np.where(picture.label == 255, 255, picture.label).astype(np.uint8)
    confusion = Confusion(len(classes)).update(kept, picture.prediction)
    values: dict[str, Any] = {
        "metrics": confusion.metrics(classes),
        "classes": classes,
        "protocol": {"split": "test", "labels": "full"},
        "data": {"name": "city", "split": "test", "images": 1},
        "checkpoint": "run/checkpoint.safetensors",
        "commit": "abc",
        "title": "A city",
        "model": {"name": "kd-arafnet", "encoder": {"name": "resnet18"}},
        "confusion": confusion.matrix,
        "images": [{"id": "s1", "miou": 0.25, "oa": 0.5, "pixels": 1850}],
        "facts": {"command": "terradapt eval x"},
        "notes": ["A note."],
        "events": EVENTS,
        "pictures": [picture],
        "references": [Reference("SAM2MS", {"f1": 0.8031}, "Table 1")],
    }
    return Report(**{**values, **changes})


class _Page(HTMLParser):
    """Collects what a page shows and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "data", "poster")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_three_files_with_the_schema(tmp_path: Path) -> None:
    paths = write_report(_report(), tmp_path / "deep" / "report.json")
    assert [p.name for p in paths] == ["report.json", "report.md", "report.html"]
    assert sorted(p.name for p in paths[0].parent.iterdir()) == sorted(p.name for p in paths)
    values = read_report(paths[0])
    assert {"metrics", "protocol", "data", "checkpoint", "commit"} <= values.keys()
    assert values["metrics"]["per_class"].keys() == set(ISPRS.names)
    assert ClassMap.from_dict(values["classes"]) == ISPRS
    assert Confusion(6, np.array(values["confusion"])).metrics(ISPRS)["miou"] == pytest.approx(
        values["metrics"]["miou"]
    )


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = write_report(_report(), tmp_path / "r.json")[2].read_text("utf-8")
    page = _Page(html)
    assert "img" in page.tags and "svg" in page.tags
    assert "script" not in page.tags and "link" not in page.tags
    assert all(url.startswith(("data:image/", "#")) for url in page.loads), page.loads
    assert "@import" not in html and "url(http" not in html


def test_the_page_shows_the_figures(tmp_path: Path) -> None:
    report = _report()
    page = _Page(write_report(report, tmp_path / "r.json")[2].read_text("utf-8"))
    assert f"{100 * report.metrics['miou']:.2f} %" in page.text
    for text in ("A city", "A note.", "low vegetation", "clutter (not in the means)", "80.31 %"):
        assert text in page.text, text
    assert "nothing in this table was measured here" in page.text.lower()
    recall = report.metrics["per_class"]["tree"]["recall"]
    assert f"{100 * recall:.1f}" in page.text


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    classes = ClassMap((evil, "b"))
    report = _report(classes, title=evil, notes=[evil], facts={evil: evil})
    html = write_report(report, tmp_path / "r.json")[2].read_text("utf-8")
    assert "<script>" not in html
    assert evil in _Page(html).text


def test_markdown_has_every_table(tmp_path: Path) -> None:
    text = write_report(_report(), tmp_path / "r.json")[1].read_text("utf-8")
    assert "| mIoU |" in text and "| impervious |" in text and "## Confusion" in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    barred = write_report(_report(title="t", facts={"x": "A | b"}), tmp_path / "q")[1]
    assert widths and "A \\| b" in barred.read_text("utf-8")


def test_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    report = _report()
    report.metrics["miou"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        write_report(report, tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_missing_libraries_are_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("jinja2"):
            raise ImportError(name)
        return found(name, *args, **options)

    monkeypatch.setattr("terradapt.report.html.import_module", without)
    with pytest.raises(MissingExtraError, match="'report' extra"):
        write_report(_report(), tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"metrics": 3}'])
def test_a_file_that_is_no_report(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_report(path)


def test_panels_keep_the_class_colours(tmp_path: Path) -> None:
    report = _report(ROADS)
    html = write_report(report, tmp_path / "r.json")[2].read_text("utf-8")
    picture = report.pictures[0]
    _, label, prediction, _ = re.findall(r'src="data:image/[a-z]+;base64,([^"]+)"', html)
    for text, ids in ((label, picture.label), (prediction, picture.prediction)):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
        wanted = ROADS.palette.copy()
        wanted[2:] = UNLABELLED
        np.testing.assert_array_equal(shown, wanted[ids])


def test_errors_are_told_apart() -> None:
    image = np.full((1, 5, 3), 100, np.uint8)
    label = np.array([[1, 0, 1, 0, 255]], np.uint8)
    said = np.array([[1, 1, 0, 0, 1]], np.uint8)
    drawn = [tuple(pixel) for pixel in draw_errors(image, label, said)[0].tolist()]
    assert drawn == [HIT, FALSE_ALARM, MISSED, (45, 45, 45), UNLABELLED]
    land = draw_errors(image, np.array([[2, 2, 0, 1, 255]], np.uint8), said)[0]
    assert tuple(land[0].tolist()) == WRONG
    assert tuple(land[3].tolist()) == WRONG


def test_curves_are_valid_svg_in_the_page_s_colour() -> None:
    svg = draw_curves(EVENTS)
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and "width" not in root.attrib
    assert "currentColor" in svg and INK not in svg
    for text in ("loss", "learning rate", "validation", "mIoU"):
        assert text in svg
    assert draw_curves([]) == ""
    assert draw_curves(EVENTS) == svg  # nothing in it depends on the time or on chance
    assert "learning rate" not in draw_curves(EVENTS[-1:])


def test_scatter_names_every_group() -> None:
    points = np.random.default_rng(0).normal(size=(9, 2))
    svg = draw_scatter({"PCA": points, "t-SNE": points}, list("abc") * 3, "a note")
    ElementTree.fromstring(svg)
    assert all(f">{text}<" in svg for text in ("PCA", "t-SNE", "a", "b", "c", "a note"))


def test_a_report_of_figures_alone(tmp_path: Path) -> None:
    scores = Confusion(2).metrics(ROADS)
    paths = write_report(Report(metrics=scores, classes=ROADS), tmp_path / "r.json")
    page = _Page(paths[2].read_text("utf-8"))
    assert "0.00 %" in page.text and "img" not in page.tags
    assert json.loads(paths[0].read_text())["confusion"] is None


def test_a_class_that_is_nowhere_is_absent_and_not_zero(tmp_path: Path) -> None:
    classes = ClassMap(("field", "road", "quarry"), evaluated=(0, 1))
    label = np.array([0, 0, 1, 1], np.uint8)
    confusion = Confusion(3).update(label, np.array([1, 1, 0, 1], np.uint8))
    report = _report(classes, metrics=confusion.metrics(classes), confusion=confusion.matrix,
                     pictures=[])  # fmt: skip
    write_report(report, tmp_path / "r.json")
    text = (tmp_path / "r.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| quarry |"))
    assert row.count("absent") == 4 and "0.00" not in row
    field = next(line for line in text.splitlines() if line.startswith("| field |"))
    assert "0.00 %" in field and "absent" not in field  # seen, and always missed
    page = _Page((tmp_path / "r.html").read_text()).text
    assert page.count("absent") >= 4
