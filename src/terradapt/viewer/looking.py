"""Look again: the model's last convolution refitted on the corrections, in seconds.

Windows are seen once in a session; what they taught lies in memory, so that the second look is a
fit alone. Held-out places are neither learnt from nor kept.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE
from terradapt.errors import DataError, TerradaptError
from terradapt.files import writing
from terradapt.grid import Window
from terradapt.scene.resample import Resampled
from terradapt.viewer.mapping import ModelMap
from terradapt.viewer.pyramid import TILE
from terradapt.viewer.recent import Recent
from terradapt.viewer.session import Session
from terradapt.viewer.views import View

if TYPE_CHECKING:
    from terradapt.training.refitting import HeadView

_CORRECTED, _OTHERS = 32, 12  # windows of 512 px that are looked at, at most; others in like area
_TAUGHT, _KEPT = 4000, 1500  # pixels of a window, at most
_SPEAKS = 10  # pixels of the ground that is looked at, for which a corrected one speaks
_REMEMBERED = 96 << 20  # bytes of what windows show


@dataclass(frozen=True)
class _Cell:
    view: View
    map: ModelMap
    window: Window


class Eyes:
    """What windows look like to the model in use; forgotten when another one takes its place."""

    def __init__(self) -> None:
        self._of: str = ""
        self._view: HeadView | None = None
        self._seen = Recent[Any](_REMEMBERED)

    def of(self, session: Session) -> HeadView:
        """Return the view of the session's model.

        Raises:
            ConfigError: The model runs without torch.
        """
        from terradapt.training.refitting import HeadView

        model = session.model
        assert model is not None
        if self._view is None or self._of != model.sha256:
            self._seen.clear()
            self._of = model.sha256
            self._view = HeadView(model.predictor)
        return self._view

    def knows(self, cell: _Cell) -> bool:
        """Tell whether a window was seen."""
        return (cell.view.name, cell.window) in self._seen

    def see(self, cell: _Cell) -> tuple[Any, int]:
        """Return what the head takes of a window, and the side of the model's window, px.

        Raises:
            SceneError: The scene cannot be read there.
            ConfigError: The model's answers do not come from one convolution.
        """
        assert self._view is not None
        predictor, key = cell.map.job.predictor, (cell.view.name, cell.window)
        side = cell.window.height
        side = predictor.inner_side(side) if isinstance(predictor, Resampled) else side
        known = self._seen.get(key)
        if known is not None:
            return known, side
        pixels, _ = cell.map.job.source.read(cell.window)
        below = self._view.see(pixels, side)
        self._seen.put(key, below, below.nbytes)
        return below, side


class Look:
    """A look in a thread of its own; it goes on as :class:`terradapt.viewer.child.Child` does.

    Args:
        session: Its model is refitted on its corrections.
        eyes: What was seen before.
        run: Folder of the new checkpoint.
        tell: Called with its progress.
        ended: Called with ``files`` and ``metrics``, or None, and an error in words, or None.
    """

    def __init__(
        self,
        session: Session,
        eyes: Eyes,
        run: Path,
        tell: Callable[[dict[str, Any]], None],
        ended: Callable[[Any, tuple[str, str] | None], None],
    ) -> None:
        self._session, self._eyes, self._run = session, eyes, run
        self._tell, self._ended = tell, ended
        self._stopped = False
        self._thread = threading.Thread(target=self._look, name="look", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the window that is being seen, and return then."""
        self._stopped = True
        self._thread.join()

    def _look(self) -> None:
        try:
            self._ended(look_again(self._session, self._eyes, self._run, self._advance), None)
        except TerradaptError as error:
            self._ended(None, (error.message, error.fix))
        except Exception as fault:  # a library's, or ours: the page hears it and lives on
            what = f"looking again failed: {type(fault).__name__}: {fault}"
            self._ended(None, (what, "report it; Retrain goes another way"))

    def _advance(self, done: int, total: int) -> None:
        if self._stopped:
            raise DataError("stopped", "look again when you like")
        self._tell(
            {"phase": "look", "done": done, "total": total, "unit": "windows", "seconds_left": None}
        )


def look_again(
    session: Session, eyes: Eyes, run: Path, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Refit the session's model on its corrections into a new checkpoint.

    Args:
        session: Its worker sees the windows, one at a time between blocks.
        eyes: What was seen before.
        run: Folder of the checkpoint; made.
        advance: Called with the windows done and their number; may raise to stop.

    Returns:
        ``files``, the checkpoint, and ``metrics``: pixels learnt from, pixels kept, what
        old answers weigh, windows, seconds.

    Raises:
        DataError: Nothing to learn from.
        ConfigError: A model whose answers do not come from one last convolution.
        SceneError: A scene cannot be read.
        OutputError: The checkpoint cannot be written.
    """
    from terradapt.training.refitting import KEEP, MOST_NUMBERS, save_refitted

    begun = time.monotonic()
    model = session.model
    assert model is not None
    view = eyes.of(session)
    count = len(model.predictor.classes)
    taught, others = _cells(session, count, eyes)
    if not taught:
        raise DataError(
            "there is nothing to look at again yet",
            "correct something outside the dashed places, to a class that the model knows; new "
            "classes and files of corrections are learnt by Retrain",
        )
    cells = taught + others
    parts, ids = [], []
    areas = np.zeros(2)
    for done, cell in enumerate(cells):
        advance(done, len(cells))
        below, side = session.worker.ask(partial(eyes.see, cell)).result()
        share = min(1.0, MOST_NUMBERS / view.head.length / (len(cells) * (_TAUGHT + _KEPT)))
        rows, cols, own, found = _pixels(session, cell, count, share)
        areas += found
        scale = side / cell.window.height
        at = [np.minimum(((a + 0.5) * scale).astype(np.intp), side - 1) for a in (rows, cols)]
        parts.append(view.features(below, side, at[0], at[1]))
        ids.append(own)
    advance(len(cells), len(cells))
    target = np.concatenate(ids)
    out = run / "checkpoint.safetensors"
    with writing(run):
        run.mkdir(parents=True)
    keep = float(np.clip(areas[1] / (_SPEAKS * areas[0]), *KEEP))
    save_refitted(view, model.path, out, np.concatenate(parts), target, keep)
    metrics = {
        "corrected_pixels": int((target != IGNORE).sum()),
        "kept_pixels": int((target == IGNORE).sum()),
        "keep": round(keep, 2),
        "windows": len(cells),
        "seconds": round(time.monotonic() - begun, 2),
    }
    return {"files": [str(out)], "metrics": metrics}


def _cells(session: Session, count: int, eyes: Eyes) -> tuple[list[_Cell], list[_Cell]]:
    """Return windows with corrections, those of the last strokes first, and others that are ready.

    The others are drawn by chance, but the same ones again where they were seen already.
    """
    taught: dict[tuple[str, Window], _Cell] = {}
    others: list[tuple[bool, int, _Cell]] = []
    most = 0
    for view in session.views:
        shown = view.map
        if shown is None:
            continue
        side = shown.job.grid.window
        scale = max(1, TILE * TILE // side**2)
        most = max(most, scale)
        for stroke in reversed(session.pen().log.strokes(view.name)):
            left, top, right, bottom = stroke.area().bounds
            box = Window(int(top), int(left), int(bottom - top) + 2, int(right - left) + 2)
            for window in _windows(shown, box):
                key = view.name, window
                if (
                    key not in taught
                    and len(taught) < _CORRECTED * scale
                    and (_learnt(session, view, window, count) != IGNORE).any()
                ):
                    taught[key] = _Cell(view, shown, window)
        for row, col in shown.store.facts:
            if (row, col) in view.held:
                continue
            for window in _windows(shown, shown.pyramid.block(row, col)):
                cell = _Cell(view, shown, window)
                turn = zlib.crc32(repr((view.name, window)).encode())
                others.append((not eyes.knows(cell), turn, cell))
    others.sort(key=lambda o: o[:2])
    chosen = {(c.view.name, c.window): c for _, _, c in others}
    free = [c for key, c in chosen.items() if key not in taught]
    return list(taught.values()), free[: _OTHERS * most]


def _windows(shown: ModelMap, box: Window) -> list[Window]:
    """The windows, side by side, that a box touches; the last ones end with the scene."""
    side, source = shown.job.grid.window, shown.job.source
    inside = box.intersect(source.window)
    if inside is None:
        return []
    rows = range(inside.row // side, -(-inside.bottom // side))
    cols = range(inside.col // side, -(-inside.right // side))
    low, right = max(0, source.height - side), max(0, source.width - side)
    return [
        Window(min(r * side, low), min(c * side, right), side, side) for r in rows for c in cols
    ]


def _learnt(session: Session, view: View, window: Window, count: int) -> NDArray[np.uint8]:
    """(H, W) ids of what may be learnt in a window, 255 elsewhere: nothing of held-out places."""
    ids = session.pen().log.burnt(view.name, window)
    ids[ids >= count] = IGNORE
    ids[_held(view, window)] = IGNORE
    return ids


def _held(view: View, window: Window) -> NDArray[np.bool_]:
    """(H, W) whether pixels lie in held-out places, or beyond the scene."""
    assert view.map is not None
    out = np.ones((window.height, window.width), bool)
    for row, col in view.map.pyramid.blocks(window):
        common = view.map.pyramid.block(row, col).intersect(window)
        assert common is not None
        out[common.shift(-window.row, -window.col).slices] = (row, col) in view.held
    return out


def _pixels(
    session: Session, cell: _Cell, count: int, share: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8], tuple[int, int]]:
    """Draw rows, columns and ids of pixels of a window: corrected ones, and others (255).

    Also returns how many there are of both.
    """
    ids = _learnt(session, cell.view, cell.window, count)
    marked = session.pen().log.burnt(cell.view.name, cell.window) != IGNORE
    draw = np.random.default_rng(zlib.crc32(repr(cell.window).encode()))
    free = np.flatnonzero((~marked & ~_held(cell.view, cell.window)).ravel())
    taught = np.flatnonzero((ids != IGNORE).ravel())
    chosen = [
        draw.choice(places, min(len(places), max(1, int(most * share))), replace=False)
        for places, most in ((taught, _TAUGHT), (free, _KEPT))
        if len(places)
    ]
    at = np.concatenate([*chosen, np.empty(0, np.intp)])
    rows, cols = np.divmod(at, cell.window.width)
    return rows, cols, ids.ravel()[at], (len(taught), len(free))
