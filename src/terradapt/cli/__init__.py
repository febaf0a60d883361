"""The command line: one file per verb, found by name; errors for people."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from terradapt.cli._events import INTERRUPTED, asked, events, how_stopped, speaking
from terradapt.cli._help import Verbs
from terradapt.errors import MissingExtraError, OutputError, TerradaptError, reason
from terradapt.files import check_name
from terradapt.version import __version__

STOPPED = 130
DEBUG_VARIABLE = "TERRADAPT_DEBUG"
EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "timm", "accelerate", "safetensors"), "train"),
    **dict.fromkeys(("segmentation_models_pytorch", "pyogrio", "skimage"), "train"),
    **dict.fromkeys(("jinja2", "matplotlib", "sklearn"), "report"),
    **dict.fromkeys(("dask", "distributed", "cryptography"), "cluster"),
    "onnx": "export",
    "openvino": "openvino",
    "networkx": "graph",
    "huggingface_hub": "hub",
    **dict.fromkeys(("starlette", "uvicorn"), "view"),
}
"""Modules that the base install lacks, with the extra that brings them."""
NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "bad allocation")
LOWER = {
    "predict": "--batch, then --window",
    "train": "train.batch, then data.crop; train.accumulate makes up for it",
    "vectorize": "--block",
    "data": "workers",
    "export": "--window",
    "bench": "--batch",
}
"""What takes less memory, by verb."""


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"terradapt {__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, distil, map whole scenes, get road networks and polygons."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def build_app() -> typer.Typer:
    """Return the command line with every verb of this package."""
    app = typer.Typer(
        name="terradapt",
        cls=Verbs,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        if not module.startswith("_"):
            importlib.import_module(f"{__name__}.{module}").register(app)
    return app


def main() -> None:
    """Run the command line.

    A user's mistake prints two lines and exits with status 2; a defect of terradapt says that it is
    one and exits with 70.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # any name can be printed
    command = typer.main.get_command(build_app())
    with speaking() if asked(sys.argv[1:]) else nullcontext():
        try:
            for argument in sys.argv[1:]:
                check_name(argument)
            done = command.main(sys.argv[1:] or ["--help"], "terradapt", standalone_mode=False)
        except TerradaptError as error:
            fail(error)
        except typer.Exit as stop:
            sys.exit(stop.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            end_stopped()
        except Exception as error:
            mistake = _as_user_error(error)
            if mistake is not None:
                fail(mistake)
            report_defect(error)
        _finish(done)


def _finish(done: object) -> NoReturn:
    """End with what a verb returned: its result, or the status of ``--help`` and the like."""
    program = events()
    if done == STOPPED:  # what typer makes of Ctrl-C
        end_stopped()
    if isinstance(done, int):
        sys.exit(done)
    if program:
        program.tell(result=done or {})
    sys.exit(0)


def end_stopped() -> NoReturn:
    """Exit as Ctrl-C does, with status 130."""
    program, how = events(), how_stopped()
    if program:
        program.tell(stopped=how)
    elif how == INTERRUPTED:  # else it was said
        print(f"\n{INTERRUPTED}", file=sys.stderr)
    sys.exit(STOPPED)


def _as_user_error(error: Exception) -> TerradaptError | None:
    """Say a usage mistake or a failure of the system in two lines; None for a defect."""
    if hasattr(error, "format_message"):
        where = getattr(getattr(error, "ctx", None), "command_path", "terradapt")
        return TerradaptError(error.format_message(), f"see: {where} --help")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRAS:
        return MissingExtraError("this command", EXTRAS[(error.name or "").split(".")[0]])
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
        verb = next((a for a in sys.argv[1:] if a in LOWER), "")
        what = f"the memory does not suffice ({reason(error)})"
        return TerradaptError(what, f"lower {LOWER.get(verb, 'the size of the input')}")
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        fix = "check the path, its permissions and the free space"
        return OutputError(f"{named}{error.strerror}", fix)
    return None


def fail(error: TerradaptError) -> NoReturn:
    """Print a user's mistake on stderr and exit with status 2; with ``--debug``, raise it."""
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    _complain(error.message, error.fix, 2)


def report_defect(error: Exception) -> NoReturn:
    """Own up to a defect on stderr and exit with status 70; with ``--debug``, raise it."""
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    what = f"a fault in terradapt, at {place}: {type(error).__name__}: {reason(error)}"
    _complain(what, "report it, with what `terradapt --debug ...` prints instead", 70)


def _complain(message: str, fix: str, status: int) -> NoReturn:
    message, fix = (" ".join(text.split()) for text in (message, fix))
    program = events()
    if program:
        program.tell(error=message, fix=fix)
    else:
        print(f"error: {message}\nfix: {fix}", file=sys.stderr)
    sys.exit(status)
