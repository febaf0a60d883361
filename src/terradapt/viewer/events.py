"""Events: what happens in threads reaches every open page."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

_LONGEST = 2000  # events that a slow page may be behind; then it reloads
_BEAT = 15.0  # s between signs of life


class PageEvents:
    """A hub: published from any thread, heard by pages."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[asyncio.Queue[str | None], asyncio.AbstractEventLoop] = {}
        self._closed = False

    @property
    def pages(self) -> int:
        """Number of pages that listen."""
        with self._lock:
            return len(self._pages)

    def publish(self, kind: str, **values: Any) -> None:
        """Tell all pages."""
        text = f"event: {kind}\ndata: {json.dumps(values)}\n\n"
        with self._lock:
            pages = list(self._pages.items())
        for page, loop in pages:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._put, page, text)

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            self._closed = True
            pages = list(self._pages.items())
        for page, loop in pages:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._put, page, None)

    async def stream(self) -> AsyncIterator[str]:
        """Yield server-sent events until the page goes."""
        page: asyncio.Queue[str | None] = asyncio.Queue()
        with self._lock:
            if self._closed:
                return
            self._pages[page] = asyncio.get_running_loop()
        self.publish("pages", count=self.pages)
        try:
            while True:
                try:
                    text = await asyncio.wait_for(page.get(), _BEAT)
                except TimeoutError:
                    text = ": here\n\n"
                if text is None:
                    return
                yield text
        finally:
            with self._lock:
                self._pages.pop(page, None)
            self.publish("pages", count=self.pages)

    @staticmethod
    def _put(page: asyncio.Queue[str | None], text: str | None) -> None:
        if page.qsize() < _LONGEST:
            page.put_nowait(text)
        elif text is None or page.qsize() == _LONGEST:
            page.put_nowait(None)
