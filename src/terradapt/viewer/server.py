"""The server: routes of the page, for one browser on this machine."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from terradapt.errors import DataError, OutputError, TerradaptError
from terradapt.files import parse_json
from terradapt.grid import Window
from terradapt.viewer.conflict import ConflictError
from terradapt.viewer.guard import Guard
from terradapt.viewer.models import Work
from terradapt.viewer.opening import Opening
from terradapt.viewer.session import Session
from terradapt.viewer.strokes import EDITED

HOST = "127.0.0.1"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".md": "text/plain; charset=utf-8",
}
_FOREVER = "private, max-age=31536000, immutable"  # a tile's address names what it is made from
_LARGEST = 1 << 31  # of an integer in an address


def page_files() -> dict[str, tuple[bytes, str]]:
    """Return the page's files with their types, by path: read once, nothing else is served."""
    found: dict[str, tuple[bytes, str]] = {}
    root = resources.files("terradapt.viewer") / "static"
    for folder, prefix in ((root, ""), (root / "ol", "ol/")):
        for file in folder.iterdir():
            kind = _TYPES.get(f".{file.name.rpartition('.')[2]}")
            if file.is_file() and kind is not None:
                found[f"{prefix}{file.name}"] = (file.read_bytes(), kind)
    return found


def build_server(session: Session, work: Work | None, port: int, token: str = "") -> Guard:
    """Return the whole server as an ASGI app.

    Args:
        session: What is shown.
        work: What trains and writes; None to look only.
        port: That it will listen on.
        token: The secret of the first address; made when empty.
    """
    files = page_files()
    routes = _Routes(session, work)

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise HTTPException(404)
        content, kind = files[name]
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=60"})

    async def icon(_: Request) -> Response:
        return Response(files["icon.svg"][0], media_type="image/svg+xml")

    def read(path: str, function: Callable[[Request], Any]) -> Route:
        return Route(path, _answering(function), methods=["GET"])

    def write(path: str, function: Callable[[dict[str, Any]], Any]) -> Route:
        return Route(path, _taking(function), methods=["POST"])

    app = Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            Route("/static/{name:path}", page, methods=["GET"]),
            Route("/favicon.ico", icon, methods=["GET"]),
            Route("/events", routes.events, methods=["GET"]),
            Route(
                "/tiles/{scene:int}/{layer}/{z:int}/{x:int}/{y:int}.png",
                routes.tile,
                methods=["GET"],
            ),
            read("/session", routes.session),
            read("/pixel/{scene:int}/{row:int}/{col:int}", routes.pixel),
            read(
                "/features/{scene:int}/{row:int}/{col:int}/{height:int}/{width:int}",
                routes.features,
            ),
            read("/hectares/{scene:int}", routes.hectares),
            read("/queue/{scene:int}", routes.queue),
            read("/figures", routes.figures),
            write("/shown", routes.shown),
            write("/look", routes.look),
            write("/strokes", routes.stroke),
            write("/undo", routes.undo),
            write("/classes", routes.add_class),
            write("/retrain", routes.retrain),
            write("/look-again", routes.look_again),
            write("/stop", routes.stop),
            write("/keep", routes.keep),
            write("/throw-away", routes.throw_away),
            write("/write-map", routes.write_map),
        ],
        exception_handlers={HTTPException: _http, TerradaptError: _refused},
    )
    return Guard(app, port, token)


class _Routes:
    def __init__(self, session: Session, work: Work | None) -> None:
        self._session, self._work = session, work

    async def events(self, _: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            yield "retry: 1000\n\n"
            async for text in self._session.events.stream():
                yield text

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def tile(self, request: Request) -> Response:
        values = request.path_params
        numbers = [int(values[k]) for k in ("scene", "z", "x", "y")]
        if max(numbers) > _LARGEST:
            raise HTTPException(404)
        scene, z, x, y = numbers
        view = self._session.view(scene)
        found = await run_in_threadpool(view.tile, str(values["layer"]), z, x, y)
        if found is None:
            raise HTTPException(404)
        picture, final = found
        cached = {"cache-control": _FOREVER if final else "no-store", "x-ready": str(int(final))}
        return Response(picture, media_type="image/png", headers=cached)

    def session(self, _: Request) -> dict[str, Any]:
        state = self._work.state if self._work else {"doing": None}
        return {**self._session.describe(), "work": state, "pages": self._session.events.pages}

    def pixel(self, request: Request) -> dict[str, Any]:
        values = request.path_params
        return self._session.pixel(*(_small(values[k]) for k in ("scene", "row", "col")))

    def features(self, request: Request) -> dict[str, Any]:
        values = request.path_params
        window = Window(*(_small(values[k]) for k in ("row", "col", "height", "width")))
        title = request.query_params.get("layer", "strokes")
        found = self._session.features(_small(values["scene"]), title, window)
        return {"type": "FeatureCollection", "features": found}

    def hectares(self, request: Request) -> dict[str, Any]:
        return self._session.hectares(_small(request.path_params["scene"]))

    def queue(self, request: Request) -> list[dict[str, Any]]:
        view = self._session.view(_small(request.path_params["scene"]))
        return self._session.pen().queue(view)

    def figures(self, _: Request) -> dict[str, Any]:
        return self._session.pen().figures()

    def look(self, body: dict[str, Any]) -> dict[str, Any]:
        box = body.get("window")
        if not isinstance(box, list) or len(box) != 4:
            raise DataError("a window is four integers", "reload the page")
        window = Window(*(_whole(v) for v in box))
        layers = body.get("layers", [])
        if not isinstance(layers, list) or not all(isinstance(la, str) for la in layers):
            raise DataError("layers are names", "reload the page")
        return {"waiting": self._session.look(_whole(body.get("scene")), window, layers)}

    def shown(self, _: dict[str, Any]) -> dict[str, Any]:
        self._session.wanted.set()
        return {"ok": True}

    def stroke(self, body: dict[str, Any]) -> dict[str, Any]:
        view, model = self._session.view(_whole(body.get("scene"))), self._session.model
        stroke = self._session.pen(view).stroke(view, body, model.short if model else "")
        points = stroke.points.tolist() if stroke.kind in EDITED else None
        return {"stroke": stroke.number, "before": dict(stroke.before), "points": points}

    def undo(self, body: dict[str, Any]) -> dict[str, Any]:
        given = body.get("stroke")
        stroke = self._session.pen().undo(None if given is None else _whole(given))
        return {"stroke": None if stroke is None else stroke.number}

    def add_class(self, body: dict[str, Any]) -> dict[str, Any]:
        self._session.pen().log.add_class(str(body.get("name", "")))
        self._session.events.publish("session")
        return self._session.describe()

    def retrain(self, _: dict[str, Any]) -> dict[str, Any]:
        self._working().retrain()
        return {"ok": True}

    def look_again(self, _: dict[str, Any]) -> dict[str, Any]:
        self._working().look_again()
        return {"ok": True}

    def stop(self, _: dict[str, Any]) -> dict[str, Any]:
        self._working().stop()
        return {"ok": True}

    def keep(self, _: dict[str, Any]) -> dict[str, Any]:
        self._working().keep()
        return {"ok": True}

    def throw_away(self, _: dict[str, Any]) -> dict[str, Any]:
        self._working().throw_away()
        return {"ok": True}

    def write_map(self, _: dict[str, Any]) -> dict[str, Any]:
        self._working().write_maps()
        return {"ok": True}

    def _working(self) -> Work:
        if self._work is None:
            raise ConflictError("there is no model", "start with one: terradapt view MODEL SCENE")
        return self._work


def _answering(function: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(function, request))

    return answer


def _taking(function: Callable[[dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body = parse_json(await request.body(), "the request", DataError, "reload the page")
        return JSONResponse(await run_in_threadpool(function, body))

    return answer


async def _http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return Response(status_code=status)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, TerradaptError)
    status = 507 if isinstance(error, OutputError) else 400
    status = 409 if isinstance(error, ConflictError) else status
    return JSONResponse({"error": error.message, "fix": error.fix}, status)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST:
        raise DataError("a whole number is needed", "reload the page")
    return value


def _small(value: int) -> int:
    if value > _LARGEST:
        raise DataError("outside the scene", "reload the page")
    return value


def listening_socket(port: int) -> socket.socket:
    """Return a socket of this machine alone; port 0 takes a free one.

    Raises:
        OutputError: The port is taken.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.bind((HOST, port))
        found.listen(128)  # the address is printed now, and may be asked before the server is up
    except (OSError, OverflowError) as error:
        found.close()
        raise OutputError(
            f"port {port} cannot be listened on ({error.__class__.__name__})",
            "choose another with --port, or leave it out",
        ) from error
    return found


def run_server(
    guard: Guard, listening: socket.socket, session: Session, opening: Opening | None = None
) -> None:
    """Serve until Ctrl-C.

    Args:
        guard: The server.
        listening: Of :func:`listening_socket`.
        session: Its streams are ended first, so that the server can end.
        opening: What opens the session's models meanwhile.

    Raises:
        TerradaptError: A model cannot be opened.
    """
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            session.events.close()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        guard,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=3,
        timeout_keep_alive=30,
        ws="none",
    )
    server = Server(config)

    def give_up() -> None:
        session.events.close()
        server.should_exit = True

    if opening is not None:
        opening.start(give_up)
    server.run([listening])
    if opening is not None and opening.error is not None:
        raise opening.error
