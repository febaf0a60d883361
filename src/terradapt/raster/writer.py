"""SceneWriter: rows of blocks in, cloud optimized GeoTIFFs out; survives a kill at any moment.

Finished rows of blocks are appended as compressed tiles to a part folder beside the result, each
with one line in a journal. A resumed writer keeps the rows that the journal vouches for and cuts
off the rest. :meth:`SceneWriter.commit` adds overviews, lays the tiles out and renames.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from terradapt.errors import OutputError
from terradapt.files import Closing, replacing, writing
from terradapt.machine import cpu_cores
from terradapt.raster.cog import (
    Image,
    Level,
    pyramid_sizes,
    tiles_across,
    write_cog,
)
from terradapt.raster.journal import Journal
from terradapt.raster.tiles import Layer, blank, encode_tile, encoded, halved, template, tiles


class SceneWriter(Closing):
    """Writes layers of one scene, block row by block row, from the top.

    Args:
        layers: What to write, by name. The part folder stands beside the first one's path.
        width: Columns, px.
        height: Rows, px.
        crs: Copied to every layer.
        transform: Copied to every layer.
        signature: JSON values that must be equal for a resume: scene, model, options.
        stamp: JSON values that tell the scene's file from a changed one; must be equal for a
            resume too, unless the run ended on an unreadable scene, which is then mended.
        resume: Go on with a part folder of the same signature.

    Attributes:
        rows_done: Block rows already written; go on with this one.
        notes: The JSON note of every written row.

    Raises:
        OutputError: The place cannot be written to, or the part folder is of other settings.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        *,
        width: int,
        height: int,
        crs: CRS | None,
        transform: Affine | None,
        signature: Mapping[str, Any],
        stamp: Sequence[Any] = (),
        resume: bool = False,
    ) -> None:
        self.layers = dict(layers)
        self.width, self.height = width, height
        self.crs, self.transform = crs, transform
        self.path = next(iter(self.layers.values())).path
        self.part = part_folder(self.path)
        self.notes: list[Any] = []
        self._index: dict[str, list[NDArray[np.int64]]] = {name: [] for name in layers}
        self._ends = dict.fromkeys(layers, 0)
        self._empty: dict[str, tuple[int, int]] = {}
        self._journal = Journal(self.part / "journal.jsonl", dict(signature), list(stamp))
        self._pool = ThreadPoolExecutor(min(4, cpu_cores()), "encode")
        with writing(self.path):
            self._open(resume)

    @property
    def rows_done(self) -> int:
        """Block rows that are on the disk."""
        return len(self.notes)

    @property
    def rows(self) -> int:
        """Block rows in all."""
        return tiles_across(self.height)

    def write_row(self, arrays: Mapping[str, NDArray[Any]], note: Any = None) -> None:
        """Append the next block row of every layer.

        Args:
            arrays: (bands, h, width) per layer; h is 512, or what is left at the bottom.
            note: A JSON value kept with the row.

        Raises:
            OutputError: The disk is full; what is there can be resumed.
        """
        entry: dict[str, Any] = {"row": self.rows_done, "note": note, "layers": {}}
        try:
            for name, array in arrays.items():
                entry["layers"][name] = self._append(name, array)
            self._journal.log(entry)
        except OSError as error:
            raise OutputError(
                f"{self.path}: block row {self.rows_done} of {self.rows} cannot be written "
                f"({error.strerror})",
                "free some space, then run the same command with --resume",
            ) from error
        self.notes.append(note)

    def mark_unreadable(self) -> None:
        """Note that the scene's file could not be read, so that a mended copy may go on."""
        self._journal.log({"unreadable": True})

    def commit(self, tags: Mapping[str, str] | None = None) -> None:
        """Add overviews and write every layer; :meth:`clean` then removes the part folder.

        Args:
            tags: More metadata for the first layer.

        Raises:
            OutputError: The result cannot be written.
        """
        assert self.rows_done == self.rows
        for number, (name, layer) in enumerate(self.layers.items()):
            self._assemble(name, layer, dict(tags or {}) if number == 0 else {})

    def clean(self) -> None:
        """Remove the part folder."""
        self.close()
        shutil.rmtree(self.part, ignore_errors=True)

    def close(self) -> None:
        """Close the files; the part folder stays."""
        self._pool.shutdown()
        for close in (*(f.close for f in self._files.values()), self._journal.close):
            with suppress(OSError):  # a full disk was already told
                close()

    def _open(self, resume: bool) -> None:
        self._files: dict[str, BinaryIO] = {}
        if not resume and self.part.exists():
            shutil.rmtree(self.part)
        self._journal.open(self._trust)
        for name in self.layers:
            place = self.part / f"{name}.tiles"
            place.touch()
            self._files[name] = place.open("r+b")
        for name, file in self._files.items():
            file.truncate(self._ends[name])
            file.seek(self._ends[name])

    def _trust(self, entry: Any) -> bool:
        """Take a journal line over if it is the next row and its tiles are on the disk, whole."""
        if entry.get("row") != self.rows_done or self.rows_done == self.rows:
            return False
        rows = entry.get("layers")
        if not isinstance(rows, dict) or rows.keys() != self.layers.keys():
            return False
        if not all(self._is_whole(name, rows[name]) for name in self.layers):
            return False
        for name in self.layers:
            offset, sizes, _, shared = rows[name]
            self._enter(name, offset, sizes, shared)
        self.notes.append(entry.get("note"))
        return True

    def _is_whole(self, name: str, row: Any) -> bool:
        """Tell whether a row of tiles follows the last one, is complete and has its checksum."""
        tiles = self.layers[name].bands * tiles_across(self.width)
        match row:
            case [int(offset), [*sizes], int(crc), [*shared]] if len(shared) == tiles:
                pass
            case _:
                return False
        has_empty = name in self._empty
        for kind in shared:  # the empty tile is stored once, before it is used again
            if kind not in ((0, 1) if has_empty else (0, 2)):
                return False
            has_empty = has_empty or kind == 2
        own = len(shared) - shared.count(1)
        if (offset, len(sizes)) != (self._ends[name], own) or not all(
            type(size) is int and size > 0 for size in sizes
        ):
            return False
        place = self.part / f"{name}.tiles"
        if not place.is_file() or place.stat().st_size < offset + sum(sizes):
            return False
        with place.open("rb") as file:
            file.seek(offset)
            return zlib.crc32(file.read(sum(sizes))) == crc

    def _append(self, name: str, array: NDArray[Any]) -> tuple[int, list[int], int, list[int]]:
        """Write a row of tiles; return offset, stored sizes, checksum, and -1 or a shared tile."""
        layer, file = self.layers[name], self._files[name]
        content, sizes, shared = bytearray(), [], []
        offset = self._ends[name]
        has_empty = name in self._empty
        for tile in self._pool.map(encoded, tiles(layer, array)):
            if tile is None and has_empty:
                shared.append(1)
                continue
            data = tile if tile is not None else encode_tile(blank(layer), layer)
            shared.append(0 if tile is not None else 2)
            has_empty = has_empty or tile is None
            sizes.append(len(data))
            content += data
        file.seek(offset)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        self._enter(name, offset, sizes, shared)
        return offset, sizes, zlib.crc32(content), shared

    def _enter(self, name: str, offset: int, sizes: Sequence[int], shared: Sequence[int]) -> None:
        """Note where a row's tiles lie: 0 an own tile, 2 the first empty one, 1 that one again."""
        own = iter(sizes)
        index = np.empty((len(shared), 2), np.int64)
        for i, kind in enumerate(shared):
            if kind == 1:
                index[i] = self._empty[name]
                continue
            size = next(own)
            index[i] = offset, size
            offset += size
            if kind == 2:
                self._empty[name] = (int(index[i, 0]), size)
        self._ends[name] = offset
        self._index[name].append(index)

    def _assemble(self, name: str, layer: Layer, extra: Mapping[str, str]) -> None:
        tags = template(layer, self.crs, self.transform, {**(layer.tags or {}), **extra})
        image = Image(layer.bands, layer.dtype, tags)
        across = tiles_across(self.width)
        rows = np.stack(self._index[name]).reshape(self.rows, layer.bands, across, 2)
        image.levels.append(_level(self.width, self.height, rows))
        file = self._files[name]
        with writing(layer.path):
            sizes = [] if layer.scratch else pyramid_sizes(self.width, self.height)
            for width, height in sizes:
                image.levels.append(self._overview(name, image.levels[-1], width, height))
        with replacing(layer.path) as part, part.open("wb") as out:
            write_cog(image, file, out)

    def _overview(self, name: str, above: Level, width: int, height: int) -> Level:
        """Halve a level, two rows of tiles at a time, appending to the part file."""
        layer, file = self.layers[name], self._files[name]
        across, down = tiles_across(width), tiles_across(height)
        grid = (layer.bands, tiles_across(above.height), tiles_across(above.width))
        offsets, sizes = above.offsets.reshape(grid), above.sizes.reshape(grid)
        index = np.empty((down, layer.bands, across, 2), np.int64)
        index[:] = self._empty.get(name, (-1, 0))
        place = file.seek(0, os.SEEK_END)
        for row in range(down):
            jobs, places = [], []
            for band, col in np.ndindex(layer.bands, across):
                cells = np.s_[band, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
                if (offsets[cells] == index[row, band, col, 0]).all():
                    continue  # four empty tiles are an empty one
                jobs.append((layer, self._cells(file, offsets[cells], sizes[cells])))
                places.append((row, band, col))
            file.seek(0, os.SEEK_END)
            for at, data in zip(places, self._pool.map(halved, jobs), strict=True):
                file.write(data)
                index[at] = place, len(data)
                place += len(data)
        return _level(width, height, index)

    @staticmethod
    def _cells(
        file: BinaryIO, offsets: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> list[list[bytes]]:
        def load(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return [
            [load(int(o), int(s)) for o, s in zip(*pair, strict=True)]
            for pair in zip(offsets, sizes, strict=True)
        ]


def part_folder(path: Path) -> Path:
    """Return the folder of a result's unfinished parts."""
    return path.with_name(path.name + ".part")


def signature_of(values: Any) -> str:
    """Return a short hash of JSON values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _level(width: int, height: int, rows: NDArray[np.int64]) -> Level:
    """Turn (tile rows, bands, tile columns, 2) into a level in the order of separate planes."""
    flat = rows.transpose(1, 0, 2, 3).reshape(-1, 2)
    return Level(width, height, flat[:, 0].copy(), flat[:, 1].copy())
