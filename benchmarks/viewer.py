"""``terradapt view`` in a Chromium: first picture, panning, memory, a look again, a retraining.

A scene without overviews is written, the server is started as a user starts it, and a headless
browser of 1600 x 900 px looks at it. First picture: from the start of the process, and from the
opening of the address, until the page has drawn all tiles of the whole scene. Panning: frames that
the map draws while it moves by 8 px a frame over blocks that are ready. Look again and Retrain:
from the click until the new model is shown, and until the view is predicted with it. Memory is the
server's own, without the process that trains: the peak of its resident set, and the greatest share
of it that is no file's (the rest are pages of libraries, which are shared and can be dropped).

    python benchmarks/viewer.py -o benchmarks/results
    python benchmarks/viewer.py --side 2048 --pan 1500 --steps 10 --rounds 1 -o /tmp/small
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from predict import write_scene

WIDTH, HEIGHT = 1600, 900  # px of the scene in view
LEFT, RIGHT, TOP, BOTTOM = 264, 300, 48, 28  # px of the page beside the scene
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
         "--remote-debugging-port=0"]  # fmt: skip
PAN = """
([seconds, step, far]) => new Promise((done) => {
  const map = terradapt.scene.map; const view = map.getView();
  const [x, y] = view.getCenter(); const times = [];
  let at = 0; let by = step; let drawn = 0;
  const key = map.on("postrender", () => { drawn += 1; });
  const start = performance.now();
  const turn = (now) => {
    times.push(now);
    if (now - start > seconds * 1000) {
      ol.Observable.unByKey(key);
      done({ drawn, times });
      return;
    }
    at += by;
    if (at >= far || at <= 0) by = -by;
    view.setCenter([x + at, y]);
    requestAnimationFrame(turn);
  };
  requestAnimationFrame(turn);
})
"""
STROKE = """
([points, name, key]) => fetch("/strokes", {
  method: "POST", headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ scene: 0, kind: "polygon", class: name, points, width: 0, key }),
}).then((answer) => answer.status)
"""


class Server:
    """``terradapt view``, as it is started by hand."""

    def __init__(self, checkpoint: Path, scene: Path, folder: Path, changes: list[str]) -> None:
        words = [sys.executable, "-m", "terradapt", "view", str(checkpoint), str(scene)]
        words += ["-o", str(folder), "--no-browser"]
        for change in changes:
            words += ["--set", change]
        self.start = time.perf_counter()
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = next((line for line in self.process.stdout if line.startswith("open ")), "")
        if not line:
            raise SystemExit("the server did not start")
        self.address = line.split()[1]
        self.listens = time.perf_counter() - self.start
        self._own, self._closed = 0.0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def peak_mib(self) -> dict[str, float]:
        """Return the peaks so far: of the resident set, and of what is its own."""
        return {"resident": self._mib("VmHWM"), "own": self._own}

    def _watch(self) -> None:
        while not self._closed.wait(0.02):
            self._own = max(self._own, self._mib("RssAnon"))

    def _mib(self, key: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{key}:")[1].split()[0]) / 1024

    def close(self) -> None:
        self._closed.set()
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def serving(*args: Any) -> Iterator[Server]:
    server = Server(*args)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def chromium(path: str, folder: Path) -> Iterator[Any]:
    """Start a browser in this process's session, so that both can be run undisturbed by others."""
    from playwright.sync_api import sync_playwright

    words = [path, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = next((line for line in process.stderr if line.startswith("DevTools listening on ")), "")
    try:
        with sync_playwright() as started:
            yield started.chromium.connect_over_cdp(line.split()[-1])
    finally:
        process.terminate()
        process.wait(60)


def wait_until_drawn(page: Any) -> None:
    """Return when the map has drawn every tile in view."""
    page.locator("#layers li").first.wait_for(timeout=60_000)
    page.evaluate(
        "() => new Promise((done) => { const m = terradapt.scene.map;"
        " m.once('rendercomplete', () => done(true)); m.render(); })"
    )


def wait_until_predicted(page: Any, seconds: float = 900) -> None:
    """Return when nothing in view waits for its prediction."""
    end, quiet = time.perf_counter() + seconds, 0
    while quiet < 5:
        page.wait_for_timeout(100)
        quiet = 0 if page.locator("#blocks").inner_text().strip() else quiet + 1
        if time.perf_counter() > end:
            raise SystemExit("the view was not predicted in time")


def show(page: Any, left: float, top: float) -> None:
    """Put the view's top left pixel somewhere, at full zoom, and ask for its prediction."""
    centre = [left + WIDTH / 2, -(top + HEIGHT / 2)]
    page.evaluate(
        "([x, y]) => { const v = terradapt.scene.map.getView(); v.setResolution(1);"
        " v.setCenter([x, y]); terradapt.scene.map.renderSync(); }",
        centre,
    )
    page.wait_for_timeout(300)
    wait_until_predicted(page)
    wait_until_drawn(page)


def write_checkpoint(path: Path, encoder: str, window: int) -> None:
    """Write a model with random weights: what it costs does not depend on what it knows."""
    import torch

    from terradapt import checkpoint, models
    from terradapt.classes import ISPRS
    from terradapt.config import EncoderConfig, InputSpec, ModelConfig, RunConfig
    from terradapt.meta import Meta

    torch.manual_seed(0)
    config = ModelConfig(name="kd-arafnet", encoder=EncoderConfig(name=encoder))
    model = models.build(config, len(ISPRS)).eval()
    spec = InputSpec(resolution=0.3)
    checkpoint.save(path, model, Meta(RunConfig(name="bench", model=config), ISPRS, spec, window))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    scene, start = folder / "scene.tif", folder / "model.safetensors"
    write_scene(scene, args.side, args.side)
    if args.checkpoint:
        shutil.copyfile(args.checkpoint, start)
    else:
        write_checkpoint(start, args.encoder, args.window)
    changes = [] if args.steps is None else [f"train.steps_per_epoch={args.steps}"]
    changes += [] if args.steps is None else ["train.epochs=1"]
    found: dict[str, Any] = {"listens_s": [], "opened_s": [], "first_picture_s": []}
    with chromium(args.chromium, folder / "profile") as browser:
        size = {"width": WIDTH + LEFT + RIGHT, "height": HEIGHT + TOP + BOTTOM}
        for turn in range(args.rounds):
            page = browser.new_context(viewport=size).new_page()
            with serving(start, scene, folder / f"loop{turn}", changes) as server:
                opened = time.perf_counter()
                page.goto(server.address)
                wait_until_drawn(page)
                found["listens_s"].append(server.listens)
                found["opened_s"].append(time.perf_counter() - opened)
                found["first_picture_s"].append(time.perf_counter() - server.start)
                print({k: v[-1] for k, v in found.items()}, flush=True)
                if turn == args.rounds - 1 and args.until != "first picture":
                    found |= use(page, server, args)
            page.context.close()
    return found


def use(page: Any, server: Server, args: argparse.Namespace) -> dict[str, Any]:
    """Pan, look again and retrain in an open page; return what was measured."""
    found: dict[str, Any] = {"peak_mib": {"first picture": server.peak_mib()}}
    while not page.evaluate("terradapt.state.scene.layers.some((l) => l.id === 'map')"):
        page.wait_for_timeout(20)
    found["model_open_s"] = time.perf_counter() - server.start
    begun = time.perf_counter()
    show(page, 0, 0)
    found["view_s"] = time.perf_counter() - begun
    for left in range(WIDTH, args.pan, WIDTH):
        show(page, left, 0)
    show(page, args.pan, 0)
    show(page, 0, 0)
    page.evaluate(PAN, [args.seconds, 8, args.pan])  # a first way, so that tiles are there
    seen = page.evaluate(PAN, [args.seconds, 8, args.pan])
    gaps = sorted(b - a for a, b in zip(seen["times"], seen["times"][1:], strict=False))
    found["frames_per_s"] = seen["drawn"] / args.seconds
    found["frame_ms_p95"] = gaps[int(0.95 * (len(gaps) - 1))]
    found["peak_mib"]["panning"] = server.peak_mib()
    print(found, flush=True)
    if args.until != "panning":
        teach(page, server, args, found)
    return found


def teach(page: Any, server: Server, args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Draw strokes, look again twice and retrain."""
    show(page, 0, 0)
    names = page.evaluate("terradapt.state.classes.map((c) => c.name)")
    held = {tuple(p) for p in page.evaluate("terradapt.state.scene.held")}
    free = [(r, c) for r in range(2) for c in range(3) if (r, c) not in held]

    def draw(turn: int, row: int, col: int, down: int) -> None:
        x, y = col * 512 + 100, row * 512 + down
        ring = [[x, y], [x + 120, y], [x + 120, y + 90], [x, y + 90]]
        given = [ring, names[turn % len(names)], f"stroke{turn:04d}"]
        if page.evaluate(STROKE, given) != 200:
            raise SystemExit("a stroke was refused")

    for turn, (row, col) in enumerate(free):
        draw(turn, row, col, 100)
    for word, button in (("look", "#look"), ("second look", "#look"), ("retrain", "#retrain")):
        if word == "retrain":
            if args.until == "look":
                break
            page.locator("#throw").click()
            page.locator("#retrain").wait_for(timeout=60_000)
        before = ""
        if word == "second look":  # of one stroke more: else the model would be the same
            before = chip(page)
            draw(len(free), *free[0], 300)
        begun = time.perf_counter()
        page.locator(button).click()
        while not (now := chip(page)) or now == before:
            if time.perf_counter() - begun > args.patience:
                raise SystemExit(f"{word}: not done after {args.patience} s")
            page.wait_for_timeout(50)
        found[f"{word}_s"] = time.perf_counter() - begun
        if word == "look":
            wait_until_predicted(page)
            found["look_predicted_s"] = time.perf_counter() - begun - 0.5  # 5 quiet tenths
        found["peak_mib"][word] = server.peak_mib()
        print({k: v for k, v in found.items() if word in k}, flush=True)


def chip(page: Any) -> str:
    """Return what the page says of a model on trial, "" without one or while it works."""
    if page.locator("#work").is_visible():
        return ""
    box = page.locator("#trial-chip")
    return box.inner_text() if box.is_visible() else ""


def write(args: argparse.Namespace, found: dict[str, Any]) -> None:
    from terradapt.machine import hardware

    def median(key: str) -> str:
        values = found[key] if isinstance(found[key], list) else [found[key]]
        return f"{statistics.median(values):.2f}"

    told = {
        "first_picture_s": "first picture, from the start of the process, s",
        "listens_s": "of it until the server listens, s",
        "opened_s": "of it from the opened address, s",
        "model_open_s": "the model is open, from the start of the process, s",
        "view_s": "a view predicted for the first time, s",
        "frames_per_s": "panning over ready blocks, frames/s",
        "frame_ms_p95": "time between frames, 95th percentile, ms",
        "look_s": "look again until the new model is shown, s",
        "look_predicted_s": "the same until the view is predicted by it, s",
        "second look_s": "a second look, s",
        "retrain_s": "retrain, s",
    }
    rows = [(text, median(key)) for key, text in told.items() if key in found]
    for when, peak in found.get("peak_mib", {}).items():
        both = f"{peak['resident']:.0f}, {peak['own']:.0f}"
        rows.append((f"server's peak memory, and its own, after: {when}, MiB", both))
    model = args.checkpoint.parent.name if args.checkpoint else f"kd-arafnet, {args.encoder}"
    steps = "the recipe's steps" if args.steps is None else f"{args.steps} steps"
    how = (
        f"{model}, window {args.window} px; scene {args.side} x {args.side} px, JPEG tiles, no "
        f"overviews; view {WIDTH} x {HEIGHT} px in a headless Chromium; {args.rounds} starts "
        f"(median)"
        + (f"; retrain: {steps} on the scene alone." if args.until == "retrain" else ".")
    )
    text = [f"# terradapt view, {date.today()}", "", hardware(), "", how, ""]
    text += ["| figure | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), ""]
    args.output.mkdir(parents=True, exist_ok=True)
    name = f"viewer_{os.cpu_count()}cpu_{date.today()}"
    (args.output / f"{name}.md").write_text("\n".join(text))
    settings = ("side", "pan", "rounds", "encoder", "window", "steps", "seconds")
    facts = {"hardware": hardware(), **{k: getattr(args, k) for k in settings}, **found}
    (args.output / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--side", type=int, default=10_000, help="of the scene, px")
    parser.add_argument("--pan", type=int, default=3200, help="how far the view moves, px")
    parser.add_argument("--seconds", type=float, default=8.0, help="of panning")
    parser.add_argument("--rounds", type=int, default=3, help="starts of the server")
    parser.add_argument("--checkpoint", type=Path, help="instead of random weights")
    parser.add_argument("--encoder", default="mobilenetv3_small_100")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--steps", type=int, help="of the retraining; the recipe's without it")
    parser.add_argument("--until", choices=["first picture", "panning", "look", "retrain"],
                        default="retrain", help="the last thing that is measured")  # fmt: skip
    parser.add_argument("--patience", type=float, default=1800.0, help="s, for one piece of work")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "/usr/bin/chromium")
    args = parser.parse_args()
    if args.pan + WIDTH > args.side:
        parser.error(f"--pan {args.pan}: the scene needs {args.pan + WIDTH} px")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write(args, measure(args, Path(folder)))


if __name__ == "__main__":
    main()
