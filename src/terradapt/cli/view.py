"""``terradapt view``: a scene and its map in a browser, to look, correct and retrain."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from terradapt.cli._help import MAP, add

if TYPE_CHECKING:
    from terradapt.viewer.models import Work
    from terradapt.viewer.session import Session

_RASTERS = {".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg"}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # correct a model's map, retrain, write the better one
        terradapt view run scene.tif -o loop
        # look at a map above its scene
        terradapt view map.tif --image scene.tif --vectors roads.gpkg
    """
    add(app, "view", view, MAP, examples)


def view(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|MAP", help="A run or checkpoint; or a map, to look.")
    ],
    scenes: Annotated[
        list[str] | None, typer.Argument(metavar="[SCENE]...", help="Rasters that MODEL maps.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of corrections, models and maps.")
    ] = Path("loop"),
    labels: Annotated[
        Path | None,
        typer.Option(help="Corrections drawn elsewhere (QGIS): any vector file with classes."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of labelled images to retrain on beside the scenes."),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="The scene below a MAP.")] = None,
    vectors: Annotated[
        list[Path] | None, typer.Option(help="A vector file to show; may be repeated.")
    ] = None,
    also: Annotated[
        list[Path] | None, typer.Option(help="Another map or date on the same grid.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A change of the recipe 'retrain'."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="For example cuda:0 or cpu.")] = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0: a free one.", min=0)] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Look at a map in the browser, correct it and retrain the model.

    The page is served to this machine alone. Strokes are on the disk when they are acknowledged, in
    OUTPUT/corrections.jsonl and, for QGIS, corrections.gpkg; maps go to OUTPUT/maps.
    """
    from terradapt.cli._require import require
    from terradapt.errors import ConfigError

    require("terradapt view", "view", "starlette", "uvicorn")
    from terradapt.viewer.session import Session

    given = scenes or []
    if Path(model).suffix.lower() in _RASTERS:
        if given or labels or data or change:
            raise ConfigError(
                f"{model}: is a map, and only looked at",
                "to correct, give a model first: terradapt view MODEL SCENE",
            )
        below = [image] if image else []
        with Session(
            list(below), maps=[Path(model)], vectors=vectors or [], also=also or []
        ) as session:
            _serve(session, None, port, browser)
        return
    if not given or image is not None:
        raise ConfigError(
            f"{model}: a model needs a scene to map",
            "give one: terradapt view MODEL SCENE; a map alone is looked at as MAP.tif",
        )
    _correct(model, given, output, labels, data, vectors, also, change, device, port, browser)


def _correct(
    model: str,
    scenes: list[str],
    folder: Path,
    labels: Path | None,
    data: Path | None,
    vectors: list[Path] | None,
    also: list[Path] | None,
    change: list[str] | None,
    device: str | None,
    port: int,
    browser: bool,
) -> None:
    from terradapt import hub
    from terradapt.config import load_config
    from terradapt.errors import DataError
    from terradapt.files import check_output
    from terradapt.owner import owned
    from terradapt.viewer.models import Work, first_model
    from terradapt.viewer.retraining import RECIPE
    from terradapt.viewer.session import Session

    load_config(RECIPE).with_overrides(change or [])
    if data is not None and not data.is_dir():
        raise DataError(f"{data}: is no folder", "give a folder of images with --data")
    check_output(folder, folder=True)
    with owned(folder, folder=True):
        begun, kept = first_model(hub.local(model), folder)
        if kept.kept is not None:
            typer.echo(f"goes on with the model that was kept: {begun.path}")
        with Session(
            list(scenes), begun, folder, labels=labels, vectors=vectors or [], also=also or []
        ) as session:
            log = session.pen().log
            if log.journal.torn:
                typer.echo(f"{log.journal.path}: a last line that was never acknowledged was cut")
            with Work(session, kept, data=data, overrides=change or [], device=device) as work:
                _serve(session, work, port, browser)
            count = len(log.strokes())
        typer.echo(f"{folder}: {count} corrections")


def _serve(session: Session, work: Work | None, port: int, browser: bool) -> None:
    import platform
    import webbrowser

    from terradapt.machine import share_one_heap
    from terradapt.viewer.opening import Opening
    from terradapt.viewer.server import build_server, listening_socket, run_server

    share_one_heap()
    with ExitStack() as stack:
        listening = stack.enter_context(listening_socket(port))
        opening = stack.enter_context(Opening(session, work)) if work else None
        port = listening.getsockname()[1]
        guard = build_server(session, work, port)
        address = f"http://127.0.0.1:{port}/?token={guard.token}"
        typer.echo(f"open {address}")
        here = platform.node() or "MACHINE"
        typer.echo(f"from another machine, first: ssh -L {port}:127.0.0.1:{port} {here}")
        typer.echo("end with Ctrl-C")
        if browser and _has_screen():
            webbrowser.open(address)
        run_server(guard, listening, session, opening)


def _has_screen() -> bool:
    """Tell whether a browser would get a window; one in the terminal would take it over."""
    import os
    import sys

    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
