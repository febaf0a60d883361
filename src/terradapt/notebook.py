"""What results look like in a notebook: a picture and a table, in HTML that needs nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], colours: Sequence[str] = ()
) -> str:
    """Return a table; the first column is text, the others are numbers.

    Args:
        head: Titles of the columns.
        rows: Text of the cells.
        colours: CSS colour of a square before each row, or none.
    """
    box = "display:inline-block;width:.8em;height:.8em;border:1px solid #888;background:"
    titles = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = []
    for i, (name, *cells) in enumerate(rows):
        square = f'<span style="{box}{colours[i]}"></span> ' if colours else ""
        numbers = "".join(f"<td>{escape(text)}</td>" for text in cells)
        lines.append(f'<tr><td style="text-align:left">{square}{escape(name)}</td>{numbers}</tr>')
    return f"<table><tr>{titles}</tr>{''.join(lines)}</table>"


def html_image(png: bytes, what: str) -> str:
    """Return a picture that is part of the page.

    Args:
        png: The file's bytes.
        what: What it shows, for those who cannot see it.
    """
    source = b64encode(png).decode("ascii")
    return (
        f'<img alt="{escape(what)}" style="image-rendering:pixelated;max-width:100%" '
        f'src="data:image/png;base64,{source}">'
    )
