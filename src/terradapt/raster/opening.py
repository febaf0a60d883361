"""Open rasters safely: allowed drivers, allowed places, errors that name the file."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from terradapt.errors import SceneError, reason, refusing
from terradapt.files import check_name, is_remote

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
CACHE_BYTES = 64 << 20
"""GDAL's block cache: fixed, so that memory does not grow with the machine or the scene."""
_REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # ask for no files beside the one named
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_MAX_RETRY": 3,
}
_VRT_SOURCE = re.compile(r"<SourceFilename([^>]*)>([^<]*)</SourceFilename>", re.IGNORECASE)
_FILTERS = threading.RLock()  # warning filters are global: one thread at a time changes them
_VRT_REFUSED = re.compile(
    r"<!DOCTYPE|<!ENTITY|VRTDerivedRasterBand|VRTRawRasterBand|<SourceDataset", re.IGNORECASE
)


def open_raster(path: str | Path, *, allow_remote: bool = False) -> Any:
    """Open a raster for reading: GeoTIFF, PNG, JPEG, JPEG 2000 or VRT, nothing else.

    Args:
        path: A local file, or an address when ``allow_remote``.
        allow_remote: Let GDAL follow ``s3://``, ``https://`` and ``/vsi`` paths.

    Raises:
        SceneError: No such file, an empty, damaged or foreign file, or an address not allowed.
    """
    check_name(path, SceneError)
    if is_remote(path):
        if not allow_remote:
            raise SceneError(
                f"{path}: is no local file", "copy it here, or allow addresses with --allow-remote"
            )
        driver = _SUFFIXES.get(Path(str(path).split("?")[0]).suffix.lower(), "GTiff")
    else:
        driver = _local_driver(Path(path), allow_remote)
    options = _REMOTE_OPTIONS if is_remote(path) else {}
    fix = "copy it again if it is cut short, or write it as a GeoTIFF: gdal_translate"
    what = "cannot be read as a raster"
    with refusing(path, SceneError, fix, what), quiet(), rasterio.Env(**options):
        return rasterio.open(path, driver=driver)


@contextmanager
def quiet() -> Iterator[None]:
    """Open files without rasterio's warning on images that have no georeference."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def gdal_env(**options: Any) -> Any:
    """Return the GDAL environment of all reading and writing: a small, fixed block cache."""
    return rasterio.Env(**{"GDAL_CACHEMAX": CACHE_BYTES, "GDAL_PAM_ENABLED": True, **options})


def _local_driver(path: Path, allow_remote: bool) -> str:
    """Choose the driver by the file's first bytes, so that no other driver sees the file."""
    if not path.exists():
        raise SceneError(f"{path}: no such file", "check the path")
    if path.is_dir():
        raise SceneError(f"{path}: is a folder", "name a raster file in it")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise SceneError(
            f"{path}: cannot be read ({error.strerror})", "check its rights"
        ) from error
    if not head:
        raise SceneError(f"{path}: the file is empty", "copy or download it again")
    if b"<VRTDataset" in head:
        _check_vrt(path, allow_remote)
        return "VRT"
    driver = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if driver is None:
        raise SceneError(
            f"{path}: is no raster that can be read",
            "use a GeoTIFF, PNG, JPEG, JPEG 2000 or VRT file",
        )
    return driver


def _check_vrt(path: Path, allow_remote: bool) -> None:
    """A VRT may name any file or address: hold each of its sources to the same rules."""
    text = path.read_text("utf-8", errors="replace")
    if _VRT_REFUSED.search(text):
        raise SceneError(
            f"{path}: a VRT with code, raw bands or entities is not read",
            "write it as a GeoTIFF first: gdal_translate",
        )
    for attributes, source in _VRT_SOURCE.findall(text):
        if allow_remote and is_remote(source):
            continue
        home = path.parent if re.search(r"relativeToVRT\s*=\s*[\"']1", attributes) else Path()
        if is_remote(source) or not (home / source).is_file():
            raise SceneError(
                f"{path}: its source '{source}' is no local file",
                "build the VRT again: gdalbuildvrt",
            )


__all__ = ["RasterioIOError", "gdal_env", "is_remote", "open_raster", "quiet", "reason"]
