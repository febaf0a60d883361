"""What the help of the command line looks like: verbs in the order of work, each with examples."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from inspect import cleandoc
from textwrap import indent
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from terradapt.errors import ConfigError

START, TRAIN, MAP, HAND_ON, COMPARE = PANELS = (
    "Look around",
    "Prepare and train",
    "Evaluate and map",
    "Hand on",
    "Compare methods",
)
"""The order of work; a verb names its place in it."""
OTHER = "Other"
MOVED = {"ablate": "trials"}
"""Verbs of earlier versions and what they are now."""


class Progress(StrEnum):
    """Whom a verb tells how far it is."""

    auto = "auto"
    json = "json"


class Verbs(TyperGroup):
    """The verbs under the headings of :data:`PANELS`, as plain text that any terminal shows."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Say of a verb that has moved where it went."""
        if args and args[0] in MOVED:
            now = shlex.join(["terradapt", MOVED[args[0]], *args[1:]])
            raise ConfigError(
                f"terradapt {args[0]} is terradapt {MOVED[args[0]]} now", f"run: {now}"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs with the first sentence of their help; none is cut at 80 columns."""
        verbs = [(name, c) for name, c in self.commands.items() if not c.hidden]
        width = max(len(name) for name, _ in verbs)
        limit = formatter.width - width - 4
        for panel in (*PANELS, OTHER):
            rows = [
                (f"{name:{width}}", verb.get_short_help_str(limit))
                for name, verb in verbs
                if (getattr(verb, "rich_help_panel", None) or OTHER) == panel
            ]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)


def add(app: typer.Typer, name: str, verb: Callable[..., Any], panel: str, examples: str) -> None:
    """Add a verb to the command line, with the option ``--progress``.

    What the verb returns, files and key figures, is the ``result`` of ``--progress json``.

    Args:
        app: The command line.
        name: The verb's name.
        verb: Its function; the docstring's first line is its line in the list of verbs.
        panel: The heading that it stands under, one of :data:`PANELS`.
        examples: Two calls or more, each below a comment that says what one gets.
    """
    lines = indent(cleandoc(examples), "  ")
    epilog = f"\b\nExamples:\n{lines}"  # \b: no line of it is broken anew
    app.command(name, rich_help_panel=panel, epilog=epilog)(_with_progress(verb))


def _with_progress(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Let a verb take ``--progress``, which :func:`terradapt.cli.main` has read before it."""

    @wraps(verb)
    def call(*args: Any, progress: Progress = Progress.auto, **options: Any) -> Any:
        return verb(*args, **options)

    told = typer.Option("--progress", help="json: a line each step, for programs.")
    signature = inspect.signature(verb, eval_str=True)
    taken = [*signature.parameters.values()]
    taken += [
        inspect.Parameter(
            "progress",
            inspect.Parameter.KEYWORD_ONLY,
            default=Progress.auto,
            annotation=Annotated[Progress, told],
        )
    ]
    call.__signature__ = signature.replace(parameters=taken)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in taken}
    return call
