"""A viewer's session on a small scene, and requests to its server without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scene_files import PlainPredictor, noise, write_scene
from terradapt.scene import Predictor
from terradapt.viewer.guard import Guard
from terradapt.viewer.mapping import Model
from terradapt.viewer.server import build_server
from terradapt.viewer.session import Session

PORT, TOKEN = 8765, "a-secret-of-this-test"
HOST = f"127.0.0.1:{PORT}"
HEIGHT, WIDTH = 1100, 1300


def model(folder: Path, predictor: Predictor | None = None, name: str = "one") -> Model:
    """Return a model without weights: a file that names it, and a NumPy predictor."""
    path = folder / f"{name}.safetensors"
    path.write_text(name)
    predictor = predictor or PlainPredictor(window=512)
    return Model(path, name.encode().hex().ljust(64, "0"), predictor)


def scene(folder: Path, name: str = "scene.tif", **options: Any) -> Path:
    """Write a scene of 3 x 3 blocks, the last ones cut."""
    pixels = noise(HEIGHT // 20, WIDTH // 20).repeat(20, 1).repeat(20, 2)
    return write_scene(folder / name, pixels, tiled=True, **options)


@contextmanager
def session(folder: Path, **options: Any) -> Iterator[Session]:
    """Open a session with a scene and a model."""
    place = scene(folder)
    with Session([place], model(folder), folder / "loop", **options) as opened:
        yield opened


def predicted(opened: Session, *blocks: tuple[int, int], number: int = 0) -> None:
    """Have the worker predict blocks, which alone reads a model's scene; all when none is named."""
    for shown in (opened.views[number].candidate, opened.views[number].map):
        for at in (blocks or shown.pyramid.all_blocks) if shown is not None else ():
            opened.worker.ask(partial(shown.predict, *at)).result()


@dataclass
class Answer:
    """What a server answers."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Asks a server as a browser does, with cookie, host and origin."""

    def __init__(self, app: Guard) -> None:
        self.app = app
        self.cookie: str | None = f"terradapt-{PORT}={TOKEN}"

    @classmethod
    def on(cls, opened: Session, work: Any = None) -> Browser:
        return cls(build_server(opened, work, PORT, TOKEN))

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, b"", headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        own = {"origin": f"http://{HOST}", "content-type": "application/json"}
        return self.ask("POST", path, raw, own | headers)

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        return asyncio.run(self.answer(method, path, body, headers))

    async def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        plain, _, query = path.partition("?")
        given = {"host": HOST, **({"cookie": self.cookie} if self.cookie else {}), **headers}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": plain, "raw_path": plain.encode("utf-8", "replace"),
            "root_path": "", "query_string": query.encode("latin-1", "replace"),
            "headers": [(k.encode(), v.encode("latin-1", "replace")) for k, v in given.items()],
            "client": ("127.0.0.1", 5), "server": ("127.0.0.1", PORT), "state": {},
        }  # fmt: skip
        answer = Answer()
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await self.app(scope, receive, send)
        return answer


def drawing(kind: str = "polygon", key: str = "", **more: Any) -> dict[str, Any]:
    """Return what a page sends: a rectangle of 40 x 30 px from (100, 200)."""
    corners = [[100, 200], [140, 200], [140, 230], [100, 230]]
    own = {"scene": 0, "kind": kind, "class": "class 1", "points": corners, "width": 0}
    return own | {"key": key or f"key{np.random.default_rng().integers(1 << 60)}x"} | more
