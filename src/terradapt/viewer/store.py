"""Blocks that are ready: a cache of a pure function, kept on disk, known by small pictures.

It is keyed by the job's signature (scene, model, options); removing it changes nothing.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terradapt.classes import IGNORE, ClassMap
from terradapt.files import replacing
from terradapt.grid import Window
from terradapt.viewer.png import colour_png, grey_png, indexed_png, read_own
from terradapt.viewer.pyramid import TILE, Pyramid

_THIN = 8  # px of a block to one of its small picture
_PERIOD = 12  # px of a hatched tile
_LIGHT, _DARK = (255, 255, 255, 150), (0, 0, 0, 110)  # RGBA of stripes, seen on any ground
_UNSURE, _SURE = (240, 90, 40), (25, 60, 90)  # RGB of confidence 0 and 1


@dataclass(frozen=True)
class Ready:
    """A finished block.

    Attributes:
        classes: (h, w) ids, 255 without data.
        confidence: (h, w) in steps of 0.004, 255 without data.
        facts: ``uncertainty`` (mean of 1 - margin of the two best, 0..1), ``doubt`` (the part of
            it that each id has) and ``areas`` (square metres by id).
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    facts: dict[str, Any]


class BlockStore:
    """The blocks of one scene and one model; may be used from several threads.

    Args:
        folder: Of all stores.
        signature: Of the job.
        pyramid: Of the scene.
        classes: Names and colours of the model.

    Attributes:
        key: Names the pixels: other ones have another.
    """

    def __init__(self, folder: Path, signature: str, pyramid: Pyramid, classes: ClassMap) -> None:
        self.folder, self.pyramid, self.classes = folder / signature, pyramid, classes
        self.key = signature[:16]
        self._lock = threading.Lock()
        self._small: dict[tuple[int, int], tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        self._facts: dict[tuple[int, int], dict[str, Any]] = {}
        for file in sorted(self.folder.glob("*-*.block")) if self.folder.is_dir() else ():
            with suppress(ValueError):
                row, col = (int(part) for part in file.stem.split("-"))
                if (row, col) in self.pyramid.blocks(Window(row * TILE, col * TILE, 1, 1)):
                    self._read(row, col)

    def __contains__(self, block: tuple[int, int]) -> bool:
        with self._lock:
            return block in self._small

    def __len__(self) -> int:
        with self._lock:
            return len(self._small)

    @property
    def facts(self) -> dict[tuple[int, int], dict[str, Any]]:
        """The facts of each block that is ready."""
        with self._lock:
            return dict(self._facts)

    def put(self, row: int, col: int, block: Ready) -> None:
        """Keep a block.

        Raises:
            OutputError: It cannot be written; it is not ready then.
        """
        parts = indexed_png(block.classes, self.classes.palette), grey_png(block.confidence)
        head = {"classes": len(parts[0]), "confidence": len(parts[1]), "facts": block.facts}
        with replacing(self._file(row, col), durable=False) as part:
            part.write_bytes(json.dumps(head).encode() + b"\n" + parts[0] + parts[1])
        self._remember(row, col, block)

    def get(self, row: int, col: int) -> Ready | None:
        """Return a block, None where it is not ready; a damaged one is not."""
        return self._read(row, col) if (row, col) in self else None

    def window(self, window: Window) -> NDArray[np.uint8] | None:
        """Return the (h, w) ids of a window within the scene; None unless all are ready."""
        ids = np.full((window.height, window.width), IGNORE, np.uint8)
        for row, col in self.pyramid.blocks(window):
            block = self.get(row, col)
            if block is None:
                return None
            area = self.pyramid.block(row, col)
            common = area.intersect(window)
            assert common is not None
            ids[common.shift(-window.row, -window.col).slices] = block.classes[
                common.shift(-area.row, -area.col).slices
            ]
        return ids

    def tile(self, level: int, x: int, y: int, layer: str) -> tuple[bytes, bool] | None:
        """Return a tile's PNG, and whether all of it is ready; None where there is no such tile.

        Level 0 of ``classes`` has the ids themselves as pixel values. What is not ready is hatched.

        Args:
            level: 0 and up.
            x: Column of the tile.
            y: Row of the tile.
            layer: ``classes`` or ``confidence``.
        """
        window = self.pyramid.tile(level, x, y)
        if window is None:
            return None
        if level == 0 and (block := self.get(y, x)) is not None:
            if layer == "confidence":
                return colour_png(_coloured(_padded(block.confidence))), True
            return indexed_png(_padded(block.classes), self.classes.palette), True
        side, step = self.pyramid.side(level), 1 << level
        picture = _hatched(side, window)
        whole = True
        for row, col in self.pyramid.blocks(window):
            small = self._thinned(row, col, step)
            area = self.pyramid.block(row, col)
            top, left = (area.row - window.row) >> level, (area.col - window.col) >> level
            height, width = -(-area.height // step), -(-area.width // step)
            if small is None:
                whole = False
                continue
            ids, sure = small
            patch = _coloured(sure) if layer == "confidence" else self._painted(ids)
            picture[top : top + height, left : left + width] = patch[:height, :width]
        rows = -(-max(0, self.pyramid.height - window.row) // step)
        cols = -(-max(0, self.pyramid.width - window.col) // step)
        picture[rows:] = 0
        picture[:, cols:] = 0
        return colour_png(picture), whole

    def _thinned(
        self, row: int, col: int, step: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        if step >= _THIN:
            with self._lock:
                found = self._small.get((row, col))
            by = step // _THIN
            return None if found is None else (found[0][::by, ::by], found[1][::by, ::by])
        block = self.get(row, col)
        if block is None:
            return None
        return block.classes[::step, ::step], block.confidence[::step, ::step]

    def _painted(self, ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        table = np.zeros((256, 4), np.uint8)
        table[: len(self.classes), :3] = self.classes.colours
        table[: len(self.classes), 3] = 255
        return table[ids]

    def _read(self, row: int, col: int) -> Ready | None:
        try:
            line, _, body = self._file(row, col).read_bytes().partition(b"\n")
            head = json.loads(line)
            split = int(head["classes"])
            if len(body) != split + int(head["confidence"]):
                raise ValueError("cut short")
            block = Ready(read_own(body[:split]), read_own(body[split:]), dict(head["facts"]))
            area = self.pyramid.block(row, col)
            if block.classes.shape != (area.height, area.width):
                raise ValueError("another size")
        except (OSError, ValueError, KeyError, TypeError):
            with self._lock:
                self._small.pop((row, col), None)
                self._facts.pop((row, col), None)
            return None
        self._remember(row, col, block)
        return block

    def _remember(self, row: int, col: int, block: Ready) -> None:
        small = tuple(a[::_THIN, ::_THIN].copy() for a in (block.classes, block.confidence))
        with self._lock:
            self._small[row, col] = small[0], small[1]
            self._facts[row, col] = block.facts

    def _file(self, row: int, col: int) -> Path:
        return self.folder / f"{row}-{col}.block"


def _padded(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if block.shape == (TILE, TILE):
        return block
    full = np.full((TILE, TILE), IGNORE, np.uint8)
    full[: block.shape[0], : block.shape[1]] = block
    return full


def _coloured(steps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA of a confidence in steps of 0.004: unsure glows, sure is dark."""
    share = np.linspace(0, 1, 251)[:, None]
    table = np.zeros((256, 4), np.uint8)
    table[:251, :3] = np.rint(np.array(_UNSURE) * (1 - share) + np.array(_SURE) * share)
    table[:251, 3] = 255
    return table[steps]


def _hatched(side: int, window: Window) -> NDArray[np.uint8]:
    """(side, side, 4): diagonal stripes that go on from tile to tile."""
    first = window.row // window.height * side, window.col // window.width * side
    rows, cols = (np.arange(side) + at for at in first)
    place = (rows[:, None] + cols[None]) % _PERIOD
    stripes = np.zeros((_PERIOD, 4), np.uint8)
    stripes[:2], stripes[2:4] = _LIGHT, _DARK
    tile: NDArray[np.uint8] = stripes[place]
    return tile
