"""Open rasters safely: allowed drivers, allowed places, sizes that fit, errors that name the file.

What a local file makes GDAL open is local too: its sidecars and, if it is a VRT, all its sources
are looked at first, and GDAL runs with its network closed unless addresses are allowed.
"""

from __future__ import annotations

import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from terradapt.errors import SceneError, reason, refusing
from terradapt.files import check_name, is_remote, size_text, stamp
from terradapt.raster.vrt import read_vrt

_PNG_END = b"IEND\xaeB`\x82"
_TAIL = 1 << 16  # bytes: other programs add theirs behind a PNG's end
_MAGIC = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\x89PNG\r\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\0\0\0\x0cjP  ", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
)
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jp2": "JP2OpenJPEG"}
_HEAD = 4096  # bytes; GDAL's drivers recognize files by fewer
CACHE_BYTES = 64 << 20
"""GDAL's block cache: fixed, so that memory does not grow with the machine or the scene."""
LARGEST_BLOCK = 512 << 20
"""Bytes of the largest tile or strip, all bands that are decoded with it."""
MOST_SIDE = 20_000_000
"""Pixels of the longest side: the equator in steps of 2 m."""
MOST_BANDS = 1024
MOST_SOURCES = 1_000_000
"""Of a VRT, those of the VRTs within it counted as often as they are named."""
DEEPEST_VRT = 4
_REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # ask for no files beside the one named
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_MAX_RETRY": 3,
}
CLOSED = {
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",  # every /vsi handler that asks a server
    "GDAL_HTTP_PROXY": "socks5h://127.0.0.1:0",  # all else that does: nobody can listen at port 0
    "GDAL_HTTPS_PROXY": "socks5h://127.0.0.1:0",
    "CPL_AWS_AUTODETECT_EC2": "NO",
    "CPL_MACHINE_IS_GCE": "NO",
    "PROJ_NETWORK": "OFF",
}
"""GDAL's options that close its network."""
_LOCAL = {
    **CLOSED,
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",  # only sidecars whose names are known here
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    "CPL_ALLOW_VSISTDIN": "NO",
}
_PIXEL_SIDECARS = (".ovr", ".OVR", ".msk", ".MSK")
_SIDECARS = (
    *(".aux.xml", ".aux", ".AUX", ".wld", ".WLD", ".tab", ".TAB", ".prj", ".PRJ"),
    *(".RPB", ".rpb", ".IMD", ".imd", "_RPC.TXT", "_rpc.txt", ".tfw", ".TFW", ".tifw", ".tiffw"),
    *(".pgw", ".PGW", ".pngw", ".jgw", ".JGW", ".jpgw", ".jpegw", ".j2w", ".J2W", ".jp2w"),
)
_FILTERS = threading.RLock()  # warning filters are global: one thread at a time changes them


def open_raster(path: str | Path, *, allow_remote: bool = False) -> Any:
    """Open a raster for reading: GeoTIFF, PNG, JPEG, JPEG 2000 or VRT, nothing else.

    Args:
        path: A local file, or an address when ``allow_remote``.
        allow_remote: Let GDAL follow ``s3://``, ``https://`` and ``/vsi`` paths.

    Raises:
        SceneError: No such file, an empty, damaged or foreign file, one that declares more than
            can be read, or an address not allowed.
    """
    check_name(path, SceneError)
    if not is_remote(path):
        driver = _local_driver(Path(path), allow_remote)
        if driver == "VRT":
            path = Path(path).resolve()  # as GDAL does: what is relative is so to the real file
        return _opened(path, driver, allow_remote)
    if not allow_remote:
        raise SceneError(
            f"{path}: is no local file", "copy it here, or allow addresses with --allow-remote"
        )
    driver = _SUFFIXES.get(Path(str(path).split("?")[0]).suffix.lower(), "GTiff")
    return _opened(path, driver, allow_remote, **_REMOTE_OPTIONS)


@contextmanager
def quiet() -> Iterator[None]:
    """Open files without rasterio's warning on images that have no georeference."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def gdal_env(allow_remote: bool = False, **options: Any) -> Any:
    """Return the GDAL environment of all reading and writing.

    It has a small, fixed block cache and, unless addresses are allowed, no network.
    """
    held = {"GDAL_CACHEMAX": CACHE_BYTES, "GDAL_PAM_ENABLED": True}
    return rasterio.Env(**{**held, **({} if allow_remote else _LOCAL), **options})


def check_file(path: Path) -> bytes:
    """Return the first bytes of a file that somebody named.

    Raises:
        SceneError: There is none, it is empty, a folder, or something that may never end.
    """
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise SceneError(f"{path}: no such file", "check the path") from error
        raise SceneError(f"{path}: cannot be read ({reason(error)})", "check the path") from error
    if stat.S_ISDIR(kind):
        raise SceneError(f"{path}: is a folder", "name a raster file in it")
    if not stat.S_ISREG(kind):
        raise SceneError(f"{path}: is a pipe or a device, no file", "write it to a file first")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({reason(error)})", "check its rights") from error
    if not head:
        raise SceneError(f"{path}: the file is empty", "copy or download it again")
    return head


def _local_driver(path: Path, allow_remote: bool) -> str:
    """Choose the driver by the file's first bytes, and look at all that GDAL opens with it."""
    head = check_file(path)
    if b"<vrtdataset" in head.lower():
        _count_sources(path.resolve(), allow_remote, 1)
        driver: str | None = "VRT"
    else:
        driver = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if driver is None:
        raise SceneError(
            f"{path}: is no raster that can be read",
            "use a GeoTIFF, PNG, JPEG, JPEG 2000 or VRT file",
        )
    if driver == "PNG" and not _has_its_end(path):
        raise SceneError(f"{path}: the file is cut short", "copy or download it again")
    for place in {path, path.resolve()}:
        _check_sidecars(place, allow_remote)
    return driver


def _has_its_end(path: Path) -> bool:
    """Tell whether a PNG is whole; GDAL fills up the rows that one lacks, without a word."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return _PNG_END in file.read()


def _check_sidecars(path: Path, allow_remote: bool) -> None:
    """Hold overviews and masks beside a raster to its rules; GDAL opens them with any driver."""
    for suffix in _PIXEL_SIDECARS:
        beside = path.with_name(path.name + suffix)
        if os.path.lexists(beside):
            if _local_driver(beside, allow_remote) != "GTiff":
                raise SceneError(f"{beside}: is no GeoTIFF", "remove it, or make it with gdaladdo")
            _check_once(str(beside), tuple(stamp(beside)), allow_remote)
    for suffix in _SIDECARS:
        for name in (path.name + suffix, path.stem + suffix):
            beside = path.with_name(name)
            if os.path.lexists(beside) and not beside.is_file():
                raise SceneError(f"{beside}: is no file", "remove it: it stands beside a raster")


def _count_sources(path: Path, allow_remote: bool, depth: int) -> int:
    """Look at all sources of a VRT; return how many there are, those within its VRTs included."""
    if depth > DEEPEST_VRT:
        raise SceneError(
            f"{path}: VRTs within VRTs, more than {DEEPEST_VRT} deep", "build one of the files"
        )
    count = 0
    for source in read_vrt(path):
        if allow_remote and is_remote(source.name):
            count += 1
            continue
        file = source.path(path)
        if not file.exists():
            raise SceneError(
                f"{path}: its source '{source.name}' is no local file",
                "build the VRT again: gdalbuildvrt",
            )
        if b"<vrtdataset" in check_file(file).lower():
            count += _count_sources(file.resolve(), allow_remote, depth + 1)
            _check_sidecars(file, allow_remote)
        else:
            _check_once(str(file), tuple(stamp(file)), allow_remote)
            count += 1
        if count > MOST_SOURCES:
            raise SceneError(
                f"{path}: has more than {MOST_SOURCES} sources", "mosaic the files in parts"
            )
    return count


@lru_cache(1 << 16)
def _check_once(path: str, _: tuple[int, ...], allow_remote: bool) -> None:
    """Open a file that a VRT or a raster brings along, to see that its own words are harmless."""
    _opened(path, _local_driver(Path(path), allow_remote), allow_remote).close()


def _opened(path: str | Path, driver: str, allow_remote: bool, **options: Any) -> Any:
    fix = "copy it again if it is cut short, or write it as a GeoTIFF: gdal_translate"
    what = "cannot be read as a raster"
    with refusing(path, SceneError, fix, what), quiet(), gdal_env(allow_remote, **options):
        file = rasterio.open(path, driver=driver)
        try:
            _check_declared(file, path, allow_remote)
        except BaseException:
            file.close()
            raise
        return file


def _check_declared(file: Any, path: str | Path, allow_remote: bool) -> None:
    """Compare what a file declares with what can be read, before any pixel is."""
    if max(file.width, file.height) > MOST_SIDE:
        raise SceneError(
            f"{path}: declares {file.width} x {file.height} px, more than {MOST_SIDE} to a side",
            "cut it into parts: gdal_translate -srcwin",
        )
    if file.count > MOST_BANDS:
        raise SceneError(
            f"{path}: declares {file.count} bands, more than {MOST_BANDS}",
            "choose some of them: gdal_translate -b",
        )
    together = file.count if file.interleaving == Interleaving.pixel else 1
    for (rows, cols), kind in zip(file.block_shapes, file.dtypes, strict=True):
        item = 4 if kind == "complex_int16" else np.dtype(kind).itemsize
        size = rows * cols * together * item
        if size > LARGEST_BLOCK:
            raise SceneError(
                f"{path}: declares tiles or strips of {cols} x {rows} px, {size_text(size)} each",
                "write it in smaller ones: gdal_translate -co TILED=YES",
            )
    if not allow_remote and "OVERVIEW_FILE" in file.tags(ns="OVERVIEWS"):
        raise SceneError(
            f"{path}: names another file as its overviews",
            "write it anew: gdal_translate, then gdaladdo",
        )


__all__ = [
    "RasterioIOError",
    "check_file",
    "gdal_env",
    "is_remote",
    "open_raster",
    "quiet",
    "reason",
]
