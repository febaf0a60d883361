"""Guard: only the browser that was given the address, only this host, only our own pages' writes.

Other pages of the same browser can send requests to 127.0.0.1, and names that they control can lead
there (DNS rebinding). So a secret in the first address becomes a cookie that other sites' pages do
not send, the Host must be ours, and a write must come from a page of ours.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

BODY_LIMIT = 1 << 20
"""Bytes of the largest request body."""
HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
"""Of every answer."""


class Guard:
    """ASGI middleware: see the module.

    Args:
        app: What is guarded.
        port: That the server listens on.
        token: The secret; made when empty.

    Attributes:
        token: 256 bits, URL-safe.
    """

    def __init__(self, app: App, port: int, token: str = "") -> None:
        self.app, self.token = app, token or secrets.token_urlsafe(32)
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"terradapt-{port}"  # cookies do not know ports

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        sealed = _sealing(send)
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(sealed, *refusal)
            return
        if scope["path"] == "/" and b"token=" in scope.get("query_string", b""):
            cookie = f"{self._cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(sealed, 303, "", [("location", "/"), ("set-cookie", cookie)])
            return
        if scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, sealed)
            return
        body = await _body(receive)
        if body is None:
            await _answer(sealed, 413, "more than a request may hold")
            return
        await self.app(scope, _replay(body, receive), sealed)

    def _refusal(
        self, scope: MutableMapping[str, Any], headers: dict[str, list[str]]
    ) -> tuple[int, str] | None:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 400, "another host"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "no such method"
        if not self._knows(scope, headers):
            return 403, "open the address that terradapt view printed"
        if scope["method"] == "POST":
            if headers.get("origin", []) != [f"http://{hosts[0].lower()}"]:
                return 403, "another origin"
            if headers.get("content-type", [""])[0].split(";")[0].strip() != "application/json":
                return 415, "JSON is needed"
        return None

    def _knows(self, scope: MutableMapping[str, Any], headers: dict[str, list[str]]) -> bool:
        """Tell whether a request knows the secret: by the first address, then by the cookie."""
        given = []
        if scope["path"] == "/":
            query = scope.get("query_string", b"").decode("latin-1")
            try:
                given += parse_qs(query, max_num_fields=16).get("token", [])
            except ValueError:
                return False
        for line in headers.get("cookie", []):
            try:
                found = SimpleCookie(line).get(self._cookie)
            except CookieError:
                continue
            given += [found.value] if found else []
        known = self.token.encode()
        return any(hmac.compare_digest(g.encode("utf-8", "replace"), known) for g in given)


def _headers(scope: MutableMapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _sealing(send: Send) -> Send:
    async def sealed(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", [])}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            if b"cache-control" not in names:
                more.append((b"cache-control", b"no-store"))
            message["headers"] = [*message.get("headers", []), *more]
        await send(message)

    return sealed


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body, None when it is too long."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(
    send: Send, status: int, text: str, headers: list[tuple[str, str]] | None = None
) -> None:
    plain = [("content-type", "text/plain; charset=utf-8"), *(headers or [])]
    encoded = [(k.encode(), v.encode()) for k, v in plain]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": text.encode()})
