"""Sphinx: the pages of this folder, and the API reference from the package's docstrings.

The reference's pages are written at every build from the package as it is, so no list of modules
is kept by hand: one page a room, in ``docs/api``.
"""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import typer.main

import terradapt
from terradapt import cli, verbs

project = "terradapt"
author = "The terradapt developers"
version = release = terradapt.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"terradapt {release}"
html_copy_source = False
html_show_sourcelink = False
myst_heading_anchors = 3
toc_object_entries = False  # a quarter of the build for entries that the search finds too

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_use_ivar = True  # a property that "Attributes:" names is then described once
suppress_warnings = ["ref.python"]  # a bare type in a signature that two rooms define

FACES = {cli.__name__, verbs.__name__}  # shown as the command line's help, and as terradapt's own
API = Path(__file__).parent / "api"


def heading(text: str, line: str) -> str:
    """Return a heading, underlined."""
    return f"{text}\n{line * len(text)}\n\n"


def room_page(room: ModuleType) -> str:
    """Return a room's page: its face (``__all__``), then what only its modules define."""
    found = pkgutil.walk_packages(getattr(room, "__path__", ()), f"{room.__name__}.")
    modules = sorted(m.name for m in found if "._" not in m.name)
    # A name that a module of the room has too can only be told from it by its full address.
    both = {name.rpartition(".")[2] for name in modules}.intersection(getattr(room, "__all__", ()))
    face = set(getattr(room, "__all__", ())) - both
    text = heading(room.__name__, "=") + f".. automodule:: {room.__name__}\n"
    text += f"   :exclude-members: {', '.join(sorted(both))}\n" if both else ""
    for name in modules:
        seen = sorted(face.intersection(vars(importlib.import_module(name))))
        text += "\n" + heading(name, "-") + f".. automodule:: {name}\n"
        text += f"   :exclude-members: {', '.join(seen)}\n" if seen else ""
    return text


def helps(command: click.Command, name: str, above: click.Context | None) -> Iterator[str]:
    """Yield the help of a command and of those below it, each under its heading."""
    context = click.Context(command, parent=above, info_name=name, max_content_width=100)
    yield heading(context.command_path, "-") + "::\n\n"
    yield textwrap.indent(command.get_help(context), "   ") + "\n\n"
    for below, child in getattr(command, "commands", {}).items():
        yield from helps(child, below, context)


def api_pages() -> dict[str, str]:
    """Return the reference: page name to text."""
    found = pkgutil.iter_modules(terradapt.__path__, "terradapt.")
    rooms = sorted(m.name for m in found if "._" not in m.name and m.name not in FACES)
    pages = {name: room_page(importlib.import_module(name)) for name in rooms}
    command = typer.main.get_command(cli.build_app())
    pages["cli"] = heading("Command line", "=") + "".join(helps(command, "terradapt", None))
    pages["terradapt"] = heading("terradapt", "=") + ".. automodule:: terradapt\n"
    order = ["terradapt", "cli", *sorted(pages.keys() - {"terradapt", "cli"})]
    listed = "".join(f"   {name}\n" for name in order)
    pages["index"] = heading("API reference", "=") + ".. toctree::\n   :maxdepth: 1\n\n" + listed
    return pages


def write_api() -> None:
    """Write the pages that changed and remove those of rooms that are gone."""
    API.mkdir(exist_ok=True)
    pages = {API / f"{name}.rst": text for name, text in api_pages().items()}
    for old in set(API.glob("*.rst")) - pages.keys():
        old.unlink()
    for path, text in pages.items():
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


write_api()
