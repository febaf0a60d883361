"""A report's three files."""

from __future__ import annotations

import json
from pathlib import Path

from terradapt.files import write_together
from terradapt.report.html import render_html
from terradapt.report.markdown import render_markdown
from terradapt.report.model import Report


def write_report(report: Report, path: str | Path) -> list[Path]:
    """Write JSON, Markdown and HTML beside each other; all of them or none.

    Args:
        report: What was measured.
        path: The JSON file, or any of the three; the others differ in their suffix.

    Returns:
        The three paths: JSON, Markdown, HTML.

    Raises:
        OutputError: The folder cannot be written.
        MissingExtraError: jinja2, matplotlib or Pillow is not installed.
    """
    path = Path(path)
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
    texts = {".json": text, ".md": render_markdown(report), ".html": render_html(report)}
    return write_together({path.with_suffix(s): t for s, t in texts.items()})
