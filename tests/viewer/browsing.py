"""A session's server on a thread, and a Chromium that looks at it."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from terradapt.viewer.models import Work
from terradapt.viewer.server import build_server, listening_socket
from terradapt.viewer.session import Session

CHROMIUM = next((p for n in ("chromium", "chromium-browser") if (p := shutil.which(n))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
NEEDS_CHROMIUM = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (make test-browser has one)"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Page:
    """A page of a session, with what the browser said meanwhile."""

    def __init__(self, page: Any, session: Session, port: int) -> None:
        self.page, self.session, self.port = page, session, port
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on(
            "console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text)
        )
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("request", lambda r: self.asked.append(r.url))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a place in the scene's pixels lies on the screen."""
        found = self.page.evaluate(
            "([x, y]) => { const m = terradapt.scene.map; const b = m.getTargetElement()"
            ".getBoundingClientRect(); const p = m.getPixelFromCoordinate([x, -y]);"
            " return [b.left + p[0], b.top + p[1]]; }",
            [x, y],
        )
        return found[0], found[1]

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))
        self.page.wait_for_timeout(40)

    def show(self, left: float, top: float, resolution: float = 1.0) -> None:
        """Put a place in the middle."""
        self.page.evaluate(
            "([x, y, r]) => { const v = terradapt.scene.map.getView(); v.setResolution(r);"
            " v.setCenter([x, -y]); terradapt.scene.map.renderSync(); }",
            [left, top, resolution],
        )
        self.page.wait_for_timeout(100)

    def shows(self, stroke: int) -> bool:
        """Tell whether the page has a stroke."""
        found = f"Boolean(terradapt.scene.strokes.getFeatureById({stroke}))"
        return bool(self.page.evaluate(found))

    def until(self, true: Callable[[], object], seconds: float = 20) -> None:
        """Wait for something on the server's side."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.complaints
            self.page.wait_for_timeout(30)

    def strokes(self, count: int) -> list[Any]:
        """Wait until the server has so many strokes."""
        log = self.session.pen().log
        self.until(lambda: len(log.strokes()) == count)
        return log.strokes()

    def colour(self, x: float, y: float) -> tuple[int, ...]:
        """Return the colour of the screen at a place of the scene."""
        picture = Image.open(io.BytesIO(self.page.screenshot()))
        return tuple(picture.convert("RGB").getpixel(tuple(round(v) for v in self.at(x, y))))

    def until_colour(self, x: float, y: float, wanted: tuple[int, ...]) -> None:
        end = time.monotonic() + 20
        while (found := self.colour(x, y)) != wanted:
            assert time.monotonic() < end, (found, wanted, self.complaints)
            self.page.wait_for_timeout(100)


@contextmanager
def serving(session: Session, work: Work | None = None) -> Iterator[tuple[str, int]]:
    """Serve a session on a free port: its first address, and the port."""
    import uvicorn

    with listening_socket(0) as listening:
        port = listening.getsockname()[1]
        guard = build_server(session, work, port)
        config = uvicorn.Config(guard, log_level="warning", lifespan="off", ws="none")  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/?token={guard.token}", port
        session.events.close()
        server.should_exit = True
        thread.join(20)


@contextmanager
def page_of(session: Session, folder: Path, work: Work | None = None) -> Iterator[Page]:
    """Open a session's page; it may neither complain nor ask another machine."""
    from playwright.sync_api import sync_playwright

    with serving(session, work) as (address, port), sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            str(folder / "profile"), executable_path=CHROMIUM, args=FLAGS, headless=True,
            viewport={"width": 1280, "height": 800},
        )  # fmt: skip
        found = Page(context.pages[0], session, port)
        found.page.goto(address)
        found.page.locator("#layers li").first.wait_for()
        yield found
        context.close()
    assert found.complaints == []
    beyond = [u for u in found.asked if not u.startswith(f"http://127.0.0.1:{port}/")]
    assert beyond == [], "no request leaves this machine"
