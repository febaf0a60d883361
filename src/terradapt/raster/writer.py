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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from terradapt.classes import Colour
from terradapt.errors import OutputError
from terradapt.raster.cog import (
    TILE,
    Image,
    Level,
    Tags,
    halve_mean,
    halve_mode,
    pyramid_sizes,
    template_tags,
    tiles_across,
    write_cog,
)
from terradapt.raster.files import colour_table, replacing
from terradapt.raster.opening import quiet

_LEVEL = 4  # a quarter more bytes than 6, at less than half the time


@dataclass(frozen=True)
class Layer:
    """One output raster.

    Args:
        path: The GeoTIFF to write.
        bands: Its bands.
        dtype: ``"uint8"`` or ``"float16"``.
        nodata: Value of pixels without data; NaN for float16.
        colours: Colour table of a class raster, by id; None for other rasters.
        band_names: Descriptions of the bands.
        tags: Metadata of the file.
        scale: Factor from stored to true values.
    """

    path: Path
    bands: int = 1
    dtype: str = "uint8"
    nodata: float = 255
    colours: tuple[Colour, ...] | None = None
    band_names: tuple[str, ...] = ()
    tags: Mapping[str, str] | None = None
    scale: float = 1.0


class SceneWriter:
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
        self._signature = json.loads(json.dumps(dict(signature)))
        self._stamp = json.loads(json.dumps(list(stamp)))
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "encode")
        try:
            self._open(resume)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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
            self._log(entry)
        except OSError as error:
            raise OutputError(
                f"{self.path}: block row {self.rows_done} of {self.rows} cannot be written "
                f"({error.strerror})",
                "free some space, then run the same command with --resume",
            ) from error
        self.notes.append(note)

    def mark_unreadable(self) -> None:
        """Note that the scene's file could not be read, so that a mended copy may go on."""
        self._log({"unreadable": True})

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
        for file in (*self._files.values(), self._journal):
            file.close()

    def _open(self, resume: bool) -> None:
        self._files: dict[str, BinaryIO] = {}
        journal = self.part / "journal.jsonl"
        kept = self._kept(journal) if resume else 0
        if not resume and self.part.exists():
            shutil.rmtree(self.part)
        self.part.mkdir(parents=True, exist_ok=True)
        for name in self.layers:
            place = self.part / f"{name}.tiles"
            place.touch()
            self._files[name] = place.open("r+b")
        self._journal = journal.open("a+b")
        self._journal.truncate(kept)
        if not kept:
            self._log({"signature": self._signature, "stamp": self._stamp})
        for name, file in self._files.items():
            file.truncate(self._ends[name])
            file.seek(self._ends[name])

    def _kept(self, journal: Path) -> int:
        """Read the journal; return the bytes of its trusted lines."""
        if not journal.exists():
            return 0
        lines = journal.read_bytes().splitlines(keepends=True)
        if not lines or not lines[0].endswith(b"\n"):
            return 0
        head = json.loads(lines[0])
        kept, mended = len(lines[0]), False
        if head["signature"] != self._signature:
            raise self._foreign("scene, model or options")
        for line in lines[1:]:
            entry = _parsed(line)
            if entry is None or not (entry.get("unreadable") or self._trust(entry)):
                break
            mended = mended or "unreadable" in entry
            kept += len(line)
        if head["stamp"] != self._stamp and not mended:
            raise self._foreign("version of the scene's file")
        return kept

    def _foreign(self, what: str) -> OutputError:
        return OutputError(
            f"{self.part}: was left by a run with another {what}",
            "run with the same arguments as then, or without --resume to start afresh",
        )

    def _trust(self, entry: Any) -> bool:
        """Take a journal line over if its tiles are on the disk, whole."""
        for name in self.layers:
            offset, sizes, crc, _ = entry["layers"][name]
            with (self.part / f"{name}.tiles").open("rb") as file:
                file.seek(offset)
                content = file.read(sum(sizes))
            if len(content) != sum(sizes) or zlib.crc32(content) != crc:
                return False
        for name in self.layers:
            offset, sizes, _, shared = entry["layers"][name]
            self._enter(name, offset, sizes, shared)
        self.notes.append(entry["note"])
        return True

    def _log(self, entry: Any) -> None:
        self._journal.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _append(self, name: str, array: NDArray[Any]) -> tuple[int, list[int], int, list[int]]:
        """Write a row of tiles; return offset, stored sizes, checksum, and -1 or a shared tile."""
        layer, file = self.layers[name], self._files[name]
        content, sizes, shared = bytearray(), [], []
        offset = self._ends[name]
        has_empty = name in self._empty
        for tile in self._pool.map(_encoded, _tiles(layer, array)):
            if tile is None and has_empty:
                shared.append(1)
                continue
            data = tile if tile is not None else _encode(_blank(layer))
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
        tags = _template(layer, self.crs, self.transform, {**(layer.tags or {}), **extra})
        image = Image(layer.bands, layer.dtype, tags)
        across = tiles_across(self.width)
        rows = np.stack(self._index[name]).reshape(self.rows, layer.bands, across, 2)
        image.levels.append(_level(self.width, self.height, rows))
        file = self._files[name]
        try:
            for width, height in pyramid_sizes(self.width, self.height):
                image.levels.append(self._overview(layer, file, image.levels[-1], width, height))
            with replacing(layer.path) as beside, beside.open("wb") as out:
                write_cog(image, file, out)
        except OSError as error:
            raise _cannot_write(layer.path, error) from error

    def _overview(
        self, layer: Layer, file: BinaryIO, above: Level, width: int, height: int
    ) -> Level:
        """Halve a level, two rows of tiles at a time, appending to the part file."""
        across, down = tiles_across(width), tiles_across(height)
        grid = (layer.bands, tiles_across(above.height), tiles_across(above.width))
        offsets, sizes = above.offsets.reshape(grid), above.sizes.reshape(grid)
        index = np.empty((down, layer.bands, across, 2), np.int64)
        place = file.seek(0, os.SEEK_END)
        for row in range(down):
            jobs = []
            for band in range(layer.bands):
                for col in range(across):
                    cells = offsets[band, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
                    bytes_ = sizes[band, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
                    jobs.append((layer, self._cells(file, cells, bytes_)))
            file.seek(0, os.SEEK_END)
            for at, data in enumerate(self._pool.map(_halved, jobs)):
                file.write(data)
                index[row, at // across, at % across] = place, len(data)
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


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Read a journal line; None for one that a kill cut short."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return entry


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error})",
        "check the folder's rights and the free space, or choose another place with -o",
    )


def _level(width: int, height: int, rows: NDArray[np.int64]) -> Level:
    """Turn (tile rows, bands, tile columns, 2) into a level in the order of separate planes."""
    flat = rows.transpose(1, 0, 2, 3).reshape(-1, 2)
    return Level(width, height, flat[:, 0].copy(), flat[:, 1].copy())


def _blank(layer: Layer) -> NDArray[Any]:
    return np.full((TILE, TILE), layer.nodata, layer.dtype)


def _tiles(layer: Layer, array: NDArray[Any]) -> Iterable[tuple[NDArray[Any], float]]:
    for band in array:
        for left in range(0, array.shape[2], TILE):
            part = band[:, left : left + TILE]
            if part.shape == (TILE, TILE):
                tile = np.ascontiguousarray(part)
            else:
                tile = _blank(layer)
                tile[: part.shape[0], : part.shape[1]] = part
            yield tile, layer.nodata


def _encode(tile: NDArray[Any]) -> bytes:
    return zlib.compress(tile.data, _LEVEL)


def _encoded(job: tuple[NDArray[Any], float]) -> bytes | None:
    """Compress a tile; None for one without data."""
    tile, nodata = job
    empty = np.isnan(tile).all() if np.isnan(nodata) else (tile == nodata).all()
    return None if empty else _encode(tile)


def _halved(job: tuple[Layer, list[list[bytes]]]) -> bytes:
    layer, cells = job
    whole = np.full((2 * TILE, 2 * TILE), layer.nodata, layer.dtype)
    for r, row in enumerate(cells):
        for c, data in enumerate(row):
            tile = np.frombuffer(zlib.decompress(data), layer.dtype).reshape(TILE, TILE)
            whole[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE] = tile
    if layer.colours is not None:
        return _encode(np.ascontiguousarray(halve_mode(whole, int(layer.nodata))))
    return _encode(np.ascontiguousarray(halve_mean(whole, layer.nodata)))


def _template(
    layer: Layer, crs: CRS | None, transform: Affine | None, tags: Mapping[str, str]
) -> Tags:
    """Let GDAL encode georeference, colours and metadata in a tiny file of the same bands."""
    dtype = "float32" if layer.dtype == "float16" else layer.dtype
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": layer.bands, "width": 1, "height": 1, "dtype": dtype,
        "crs": crs, "nodata": layer.nodata, "bigtiff": "NO", "endianness": "LITTLE",
        "interleave": "band",
    }  # fmt: skip
    if transform is not None and transform != Affine.identity():
        profile["transform"] = transform
    with quiet(), MemoryFile() as memory:
        with memory.open(**profile) as file:
            if layer.colours is not None:
                file.write_colormap(1, colour_table(layer.colours))
            for band, name in enumerate(layer.band_names, 1):
                file.set_band_description(band, name)
            if layer.scale != 1.0:
                file.scales = (layer.scale,) * layer.bands
            file.update_tags(**tags)
        return template_tags(bytes(memory.getbuffer()))


__all__ = ["TILE", "Layer", "SceneWriter", "part_folder", "signature_of"]
