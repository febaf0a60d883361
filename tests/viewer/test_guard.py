"""Safety: each line of it, and requests that nobody meant."""

from __future__ import annotations

import random
import re
import socket

import pytest

from terradapt.errors import OutputError
from terradapt.viewer.guard import BODY_LIMIT, HEADERS, Guard
from terradapt.viewer.server import build_server, listening_socket, page_files
from viewer_files import HOST, PORT, TOKEN, Browser, drawing, predicted, session


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with session(tmp_path_factory.mktemp("guard")) as found:
        predicted(found, (0, 0))
        yield found


@pytest.fixture
def browser(opened) -> Browser:
    return Browser.on(opened)


def test_the_server_listens_on_this_machine_alone() -> None:
    with listening_socket(0) as free:
        host, port = free.getsockname()
        assert host == "127.0.0.1"
        assert port > 0
        with pytest.raises(OutputError, match=str(port)):
            listening_socket(port)
        with pytest.raises(OutputError):
            listening_socket(70_000)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((socket.gethostbyname("localhost"), free_port()), 1)


def free_port() -> int:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        return int(other.getsockname()[1])


def test_the_secret_is_256_bits_and_another_each_time(opened) -> None:
    made = {build_server(opened, None, PORT).token for _ in range(4)}
    assert len(made) == 4
    assert all(re.fullmatch(r"[\w-]{43}", token) for token in made)


def test_the_first_address_gives_a_cookie_that_scripts_and_other_sites_do_not_have(browser) -> None:
    browser.cookie = None
    first = browser.get(f"/?token={TOKEN}")
    assert (first.status, first.headers["location"]) == (303, "/")
    kept = first.headers["set-cookie"]
    assert kept == f"terradapt-{PORT}={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    browser.cookie = kept.split(";")[0]
    assert browser.get("/").status == 200


PATHS = ["/", "/session", "/tiles/0/map/0/0/0.png", "/static/main.js", "/events", "/pixel/0/1/1"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", [None, f"terradapt-{PORT}=", f"terradapt-{PORT}={TOKEN}x", "a"])
def test_without_the_secret_nothing_is_answered(browser, path: str, cookie: str | None) -> None:
    browser.cookie = cookie
    assert browser.get(path).status == 403
    assert browser.get("/?token=wrong").status == 403
    assert browser.get(f"{path}?token={TOKEN}").status == (303 if path == "/" else 403)


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "", "[::1]"])
def test_another_host_is_refused_whatever_else_is_right(browser, host: str) -> None:
    assert browser.get("/", host=host).status == 400
    assert browser.get(f"/?token={TOKEN}", host=host).status == 400
    assert browser.get("/session", host=f"localhost:{PORT}").status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", f"https://{HOST}", None])
def test_a_write_from_another_origin_is_refused(browser, opened, origin: str | None) -> None:
    before = len(opened.pen().log.strokes())
    body = drawing()
    headers = {"origin": origin} if origin is not None else {}
    if origin is None:
        raw = {"content-type": "application/json"}
        assert browser.ask("POST", "/strokes", b"{}", raw).status == 403
    else:
        assert browser.post("/strokes", body, **headers).status == 403
    assert len(opened.pen().log.strokes()) == before


def test_a_form_of_another_page_cannot_write(browser) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert browser.post("/strokes", drawing(), **{"content-type": kind}).status == 415


def test_every_answer_forbids_what_is_not_ours(browser) -> None:
    browser.get("/")
    for answer in (browser.get("/"), browser.get("/nowhere"), browser.post("/strokes", b"x")):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert "default-src 'self'" in HEADERS["content-security-policy"]
    assert "unsafe" not in HEADERS["content-security-policy"]


def test_the_page_has_no_inline_script_no_style_and_no_address_of_elsewhere() -> None:
    for name, (content, _) in page_files().items():
        if name.startswith("ol/"):
            continue
        text = content.decode()
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.[\w.-]+", text), name
        for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert unsafe not in text, (name, unsafe)
    page = page_files()["index.html"][0].decode()
    assert not re.findall(r"\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    assert "BSD 2-Clause" in page_files()["ol/LICENSE.md"][0].decode()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../guard.py", "/static/..%2fguard.py", "/static/%2e%2e/guard.py",
        "/static//etc/passwd", "/static/ol/../../server.py", "/etc/passwd",
        "/../../../../etc/passwd", "/static/",
        "/tiles/0/../0/0/0.png", "/tiles/0/map/0/0/-1.png", "/tiles/0/map/99/0/0.png",
        "/tiles/0/map/0/99999999999999999999/0.png", "/tiles/0/map/0/0/0.tif",
        "/tiles/a/map/0/0/0.png", "/tiles/0/nosuch/0/0/0.png",
    ],
)  # fmt: skip
def test_no_path_and_no_number_out_of_range_leads_anywhere(browser, path: str) -> None:
    assert browser.get(path).status == 404


@pytest.mark.parametrize("path", ["/tiles/9/map/0/0/0.png", "/pixel/9/0/0", "/pixel/0/1100/0"])
def test_no_such_scene_or_pixel_is_told(browser, path: str) -> None:
    assert browser.get(path).status == 400


def test_a_body_has_a_limit_even_when_its_length_is_a_lie(browser) -> None:
    big = b'{"a": "' + b"x" * BODY_LIMIT + b'"}'
    assert browser.post("/strokes", big).status == 413
    assert browser.post("/strokes", big, **{"content-length": "12"}).status == 413


@pytest.mark.parametrize(
    "more",
    [
        {"points": []}, {"points": [[1, 2]]}, {"points": [[0, 0], [1, 1], [0, 0]]}, {"points": "x"},
        {"points": [[0, 0], [1, float("1e300")], [5, 5]]}, {"points": [[0, 0], [1, None], [5, 5]]},
        {"points": [[0, 0], [1, True], [5, 5]]}, {"points": [[0, 0, 0], [9, 9, 0], [9, 0, 0]]},
        {"points": [[-50, -50], [-10, -50], [-10, -10]]}, {"points": [[0, 0]] * 10_001},
        {"points": [[5000, 5000], [6000, 5000], [6000, 6000]]}, {"kind": "nosuch"},
        {"kind": None},
        {"kind": "brush", "width": 0}, {"kind": "brush", "width": -4},
        {"kind": "line", "width": 1e9},
        {"class": "nosuch"}, {"class": 5}, {"class": ""}, {"key": ""}, {"key": "../../x"},
        {"key": 5},
        {"scene": 9}, {"scene": "0"}, {"scene": None}, {"scene": 1.5},
        {"kind": "right", "place": [9, 9]}, {"kind": "right", "place": "x"},
    ],
)  # fmt: skip
def test_what_is_no_drawing_is_refused_in_words(browser, opened, more: dict) -> None:
    before = len(opened.pen().log.strokes())
    answer = browser.post("/strokes", drawing() | more)
    assert answer.status == 400
    assert answer.json["error"]
    assert answer.json["fix"]
    assert len(opened.pen().log.strokes()) == before


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\0b", "7", "-3", "class 1", "CLASS 1"])
def test_what_is_no_new_class_is_refused_in_words(browser, name: str) -> None:
    assert browser.post("/classes", {"name": name}).status == 400


def test_text_of_a_user_stays_text(browser, opened) -> None:
    name = "<img src=x onerror=alert(1)>"
    assert browser.post("/classes", {"name": name}).status == 200
    assert name in [c["name"] for c in browser.get("/session").json["classes"]]


WORDS = [
    "",
    "0",
    "1",
    "-1",
    "99999999999999999999",
    "map",
    "scene",
    "..",
    "%2e%2e",
    "\0",
    "é",
    "a" * 300,
]
NAMES = [
    "tiles",
    "pixel",
    "features",
    "hectares",
    "queue",
    "figures",
    "session",
    "static",
    "strokes",
]
NAMES += [
    "look",
    "undo",
    "classes",
    "retrain",
    "stop",
    "keep",
    "throw-away",
    "write-map",
    "favicon.ico",
]
VALUES = [
    None,
    0,
    -1,
    1.5,
    1 << 70,
    "x",
    [],
    {},
    [[1, 2]],
    True,
    "right",
    [0, 0, 600, 600],
    "\ud800",
]


def fuzz(browser: Browser, count: int, seed: int) -> dict[int, int]:
    """Send requests made of parts of good ones; return how often each status came."""
    draw, seen = random.Random(seed), dict[int, int]()
    for _ in range(count):
        parts = [draw.choice(NAMES), *(draw.choice(WORDS) for _ in range(draw.randint(0, 6)))]
        path = (
            "/" + "/".join(parts) + draw.choice(["", "", ".png", "?layer=strokes", "?token=%ff&&="])
        )
        headers = {}
        if draw.random() < 0.2:
            headers[draw.choice(["host", "origin", "cookie", "content-type"])] = draw.choice(
                [
                    "",
                    "x",
                    "évil",
                    f"terradapt-{PORT}=é",
                    'a="',
                    f"http://{HOST}",
                    "application/json;x",
                ]
            )
        if draw.random() < 0.5:
            answer = browser.get(path, **headers)
        else:
            keys = ["scene", "kind", "class", "points", "width", "key", "place", "window", "layers"]
            keys += ["stroke", "name", "square", "replaces"]
            body = drawing() if draw.random() < 0.5 else {}
            body |= {draw.choice(keys): draw.choice(VALUES) for _ in range(draw.randint(0, 4))}
            raw = body if draw.random() < 0.9 else draw.randbytes(30)
            if isinstance(raw, bytes):
                answer = browser.post(f"/{draw.choice(NAMES)}", raw, **headers)
            else:
                answer = browser.post(f"/{draw.choice(NAMES)}", raw, **headers)
        seen[answer.status] = seen.get(answer.status, 0) + 1
        assert 200 <= answer.status < 500, (path, answer.status, answer.body)
    return seen


def test_a_thousand_odd_requests_have_an_answer(browser) -> None:
    seen = fuzz(browser, 1000, 1)
    assert {200, 400, 404} <= seen.keys()


@pytest.mark.slow
def test_a_hundred_thousand_odd_requests_have_an_answer(browser) -> None:
    print(fuzz(browser, 100_000, 2))


def test_other_protocols_are_not_spoken(opened) -> None:
    guard: Guard = build_server(opened, None, PORT, TOKEN)
    browser = Browser(guard)
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        assert browser.ask(method, "/session", b"", {}).status == 405
