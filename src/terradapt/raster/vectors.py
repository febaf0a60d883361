"""Open vector files safely: the same rules as for rasters, and nothing is asked of a server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.parsers import expat

from terradapt.errors import SceneError, TerradaptError
from terradapt.raster.opening import CLOSED, check_file

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".kml")
_MAGIC = (b"SQLite format 3\0", b"fgb\x03fgb", b"\0\0'\n")  # GeoPackage, FlatGeobuf, Shapefile
_BOM = b"\xef\xbb\xbf"
_FOREIGN = (b"<ogr", b"<gdal", b"<vrt", b"<!doctype", b"<!entity")
_OPTIONS = {
    **CLOSED,
    "GML_DOWNLOAD_SCHEMA": "NO",
    "GML_SKIP_RESOLVE_ELEMS": "ALL",
    "OGR_SQLITE_LOAD_EXTENSIONS": "NONE",
    "OGR_SQLITE_LIST_VIRTUAL_OGR": "NO",
    "OGR_SQLITE_ALLOW_EXTERNAL_ACCESS": "NO",
    "CPL_ALLOW_VSISTDIN": "NO",
}
_EXCEPTIONS = ("NO_PROXY", "no_proxy")
"""Variables that would let GDAL pass by the proxy that nobody can reach."""
_OPTION_LOCK = threading.RLock()  # pyogrio's options are global


@contextmanager
def local_vector(path: str | Path, error: type[TerradaptError] = SceneError) -> Iterator[str]:
    """Give the name by which pyogrio may open a vector file, with GDAL's network closed meanwhile.

    The kind of file is told by its first bytes, so that no driver sees what is not its own: one
    that follows addresses (OGR VRT, WFS, GDALG, ...) least of all.

    Args:
        path: The file.
        error: What is raised.

    Raises:
        TerradaptError: Of class ``error``: no such file, an empty one, or none of GeoPackage,
            GeoJSON, FlatGeobuf, Shapefile and KML.
    """
    import pyogrio

    try:
        name = _checked(Path(path))
    except SceneError as fault:
        raise error(fault.message, fault.fix) from fault
    with _OPTION_LOCK:
        before = {key: pyogrio.get_gdal_config_option(key) for key in _OPTIONS}
        spared = {key: os.environ.pop(key) for key in _EXCEPTIONS if key in os.environ}
        pyogrio.set_gdal_config_options(_OPTIONS)
        try:
            yield name
        finally:
            pyogrio.set_gdal_config_options(before)
            os.environ.update(spared)


def _checked(path: Path) -> str:
    """Return GDAL's name of a file: GeoJSON's driver alone can be named in it."""
    head = check_file(path)
    if path.suffix.lower() == ".shp":
        for beside in path.parent.glob(f"{_plain(path.stem)}.*"):
            if not beside.is_file():
                raise SceneError(f"{beside}: is no file", "remove it: it stands beside a Shapefile")
    text = head.removeprefix(_BOM).lstrip()
    if head.startswith(_MAGIC):
        return str(path)
    if text.startswith(b"{"):
        return f"GeoJSON:{path}"
    if (
        text.startswith(b"<")
        and _root(head) == "kml"
        and not any(w in head.lower() for w in _FOREIGN)
    ):
        return str(path)
    raise SceneError(
        f"{path}: cannot be read (it is no vector file)",
        "save it as GeoPackage, GeoJSON, FlatGeobuf, Shapefile or KML",
    )


def _plain(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def _root(head: bytes) -> str:
    """Return the name of the element that XML begins with, without its prefix; "" for none."""
    found: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _: found.append(tag)
    try:
        parser.Parse(head, False)
    except expat.ExpatError:
        return ""
    return found[0].rpartition(":")[2] if found else ""
