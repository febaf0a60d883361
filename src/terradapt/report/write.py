"""A report's three files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from terradapt.files import check_output, write_together
from terradapt.report.html import render_html
from terradapt.report.markdown import render_markdown
from terradapt.report.model import Report

SUFFIXES = (".json", ".md", ".html")


def write_report(report: Report, path: str | Path, *, html: bool = True) -> list[Path]:
    """Write JSON, Markdown and HTML beside each other; all of them or none.

    Args:
        report: What was measured.
        path: The JSON file, or any of the three; the others differ in their suffix.
        html: Write the page too, which needs the extra ``report``.

    Returns:
        The paths: JSON, Markdown, HTML.

    Raises:
        OutputError: The folder cannot be written, or one of the three is a file that was read.
        MissingExtraError: jinja2, matplotlib or Pillow is not installed.
    """
    path = check_report(path, report.reads)
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
    texts = [text, render_markdown(report), *([render_html(report)] if html else [])]
    return write_together({path.with_suffix(s): t for s, t in zip(SUFFIXES, texts, strict=False)})


def check_report(path: str | Path, reads: Iterable[Path]) -> Path:
    """Check that a report can be written, and is none of the files that it is made from.

    Raises:
        OutputError: It cannot, or it is.
    """
    return check_output(path, reads=reads, beside=[Path(path).with_suffix(s) for s in SUFFIXES])
