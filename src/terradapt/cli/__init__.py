"""The command line: one file per verb, found by name; errors for people."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Annotated

import typer

from terradapt.errors import MissingExtraError, OutputError, TerradaptError
from terradapt.version import __version__

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
}
"""Modules that the base install lacks, with the extra that brings them."""


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
    """Run the command line; a user's mistake prints two lines and exits with status 2."""
    command = typer.main.get_command(build_app())
    try:
        sys.exit(command.main(sys.argv[1:] or ["--help"], "terradapt", standalone_mode=False))
    except TerradaptError as error:
        fail(error)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        fail(_as_user_error(error))


def _as_user_error(error: Exception) -> TerradaptError:
    """Say a usage mistake or a failure of the system in two lines; let a defect be seen."""
    if hasattr(error, "format_message"):
        where = getattr(getattr(error, "ctx", None), "command_path", "terradapt")
        return TerradaptError(error.format_message(), f"see: {where} --help")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRAS:
        return MissingExtraError("this command", EXTRAS[(error.name or "").split(".")[0]])
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        fix = "check the path, its permissions and the free space"
        return OutputError(f"{named}{error.strerror}", fix)
    raise error


def fail(error: TerradaptError) -> None:
    """Print a user's mistake on stderr and exit with status 2; with ``--debug``, raise it."""
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    print(f"error: {_one_line(error.message)}", file=sys.stderr)
    print(f"fix: {_one_line(error.fix)}", file=sys.stderr)
    sys.exit(2)


def _one_line(text: str) -> str:
    return " ".join(text.split())
