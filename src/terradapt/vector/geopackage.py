"""GeoPackage 1.3 by SQLite alone, so that vectorizing needs no second GDAL.

Every layer has a spatial index with the triggers that keep it true when QGIS edits the file.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.raster import CRS
from terradapt.raster.georef import crs_name

Layer = tuple[str, str, NDArray[Any], Mapping[str, NDArray[Any]]]

APPLICATION_ID, USER_VERSION = 0x47504B47, 10300  # "GPKG", 1.3.0
OWN_SRS = 100_000  # of a CRS without an EPSG code
WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,'
    'AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,'
    'AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],'
    'AXIS["Latitude",NORTH],AXIS["Longitude",EAST],AUTHORITY["EPSG","4326"]]'
)
TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (
    srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
    organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (
    table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '',
    last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
    min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
    CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (
    table_name TEXT NOT NULL, column_name TEXT NOT NULL, geometry_type_name TEXT NOT NULL,
    srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
    CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name),
    CONSTRAINT uk_gc_table_name UNIQUE (table_name),
    CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
    CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
CREATE TABLE gpkg_extensions (
    table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL, definition TEXT NOT NULL,
    scope TEXT NOT NULL,
    CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name));
"""
STYLES = """CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
    f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
    styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
    owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"""  # as QGIS makes it
RTREE = "http://www.geopackage.org/spec120/#extension_rtree"
FULL = "NEW.geom NOTNULL AND NOT ST_IsEmpty(NEW.geom)"
BARE = "NEW.geom ISNULL OR ST_IsEmpty(NEW.geom)"
PUT = (
    "INSERT OR REPLACE INTO {rtree} VALUES (NEW.fid, ST_MinX(NEW.geom), ST_MaxX(NEW.geom), "
    "ST_MinY(NEW.geom), ST_MaxY(NEW.geom));"
)
DROP = "DELETE FROM {rtree} WHERE id = OLD.fid;"
TRIGGERS = {
    "insert": f"AFTER INSERT ON {{table}} WHEN ({FULL}) BEGIN {PUT} END",
    "update1": f"AFTER UPDATE OF geom ON {{table}} WHEN OLD.fid = NEW.fid AND ({FULL}) "
    f"BEGIN {PUT} END",
    "update2": f"AFTER UPDATE OF geom ON {{table}} WHEN OLD.fid = NEW.fid AND ({BARE}) "
    f"BEGIN {DROP} END",
    "update3": f"AFTER UPDATE ON {{table}} WHEN OLD.fid != NEW.fid AND ({FULL}) "
    f"BEGIN {DROP} {PUT} END",
    "update4": f"AFTER UPDATE ON {{table}} WHEN OLD.fid != NEW.fid AND ({BARE}) "
    "BEGIN DELETE FROM {rtree} WHERE id IN (OLD.fid, NEW.fid); END",
    "delete": f"AFTER DELETE ON {{table}} WHEN OLD.geom NOTNULL BEGIN {DROP} END",
}


def write_geopackage(
    path: Path,
    layers: Sequence[Layer],
    crs: CRS | None = None,
    styles: Mapping[str, str] | None = None,
) -> None:
    """Write a new GeoPackage.

    Args:
        path: File to write; one that is there is replaced.
        layers: (name, geometry type, geometries, fields) of each.
        crs: The CRS, or None for plain coordinates.
        styles: QML of layers by name, which QGIS opens them with.

    Raises:
        sqlite3.Error: It cannot be written.
    """
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {USER_VERSION};"
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN; {TABLES}"
        )
        srs = _write_srs(database, crs)
        for layer in layers:
            _write_layer(database, layer, srs)
        if styles:
            _write_styles(database, styles)
        database.execute("COMMIT")


def encode(geometries: NDArray[Any], srs: int) -> list[bytes]:
    """Return GeoPackage blobs: a header with the bounds, then WKB; empty ones have no bounds."""
    bounds = shapely.bounds(geometries)[:, [0, 2, 1, 3]]  # min x, max x, min y, max y
    empty = shapely.is_empty(geometries)
    full = struct.pack("<2sBBi", b"GP", 0, 0b0000_0011, srs)
    bare = struct.pack("<2sBBi", b"GP", 0, 0b0001_0001, srs)
    return [
        bare + wkb if none else full + box.tobytes() + wkb
        for wkb, box, none in zip(
            shapely.to_wkb(geometries, byte_order=1), bounds.astype("<f8"), empty, strict=True
        )
    ]


def _write_srs(database: sqlite3.Connection, crs: CRS | None) -> int:
    rows = [
        ("Undefined cartesian SRS", -1, "NONE", -1, "undefined", None),
        ("Undefined geographic SRS", 0, "NONE", 0, "undefined", None),
        ("WGS 84 geodetic", 4326, "EPSG", 4326, WGS84, None),
    ]
    srs = -1
    if crs is not None:
        code = crs.to_epsg()
        srs = code or OWN_SRS
        if srs != 4326:
            name = crs_name(crs)
            row = (name, srs, "EPSG" if code else "NONE", srs, crs.to_wkt(), None)
            rows.append(row)
    database.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", rows)
    return int(srs)


def _write_layer(database: sqlite3.Connection, layer: Layer, srs: int) -> None:
    name, kind, geometries, fields = layer
    geometries = np.asarray(geometries, object)
    table = _quoted(name)
    columns = {_quoted(key): np.asarray(values) for key, values in fields.items()}
    typed = "".join(f", {key} {_sql_type(values)}" for key, values in columns.items())
    database.execute(
        f"CREATE TABLE {table} (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, "
        f"geom {kind.upper()}{typed})"
    )
    total = shapely.total_bounds(geometries) if len(geometries) else np.full(4, np.nan)
    box = [None if np.isnan(v) else float(v) for v in total]
    database.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, min_x, min_y, max_x, max_y, "
        "srs_id) VALUES (?, 'features', ?, ?, ?, ?, ?, ?)",
        (name, name, *box, srs),
    )
    database.execute(
        "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', ?, ?, 0, 0)",
        (name, kind.upper(), srs),
    )
    rows = zip(
        range(1, len(geometries) + 1),
        encode(geometries, srs) if len(geometries) else [],
        *(values.tolist() for values in columns.values()),
        strict=True,
    )
    marks = ", ".join("?" * (2 + len(columns)))
    database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    _write_index(database, name, geometries)


def _write_styles(database: sqlite3.Connection, styles: Mapping[str, str]) -> None:
    database.execute(STYLES)
    database.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
        "VALUES ('layer_styles', 'attributes', 'layer_styles')"
    )
    database.executemany(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
        "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner, "
        "update_time) "
        "VALUES ('', '', ?, 'geom', ?, ?, '', 1, 'by terradapt', '', NULL)",
        [(name, name, qml) for name, qml in styles.items()],
    )


def _write_index(database: sqlite3.Connection, name: str, geometries: NDArray[Any]) -> None:
    """Write the layer's R-tree and the triggers that keep it true."""
    rtree = _quoted(f"rtree_{name}_geom")
    database.execute(f"CREATE VIRTUAL TABLE {rtree} USING rtree(id, minx, maxx, miny, maxy)")
    if len(geometries):
        known = np.flatnonzero(~shapely.is_empty(geometries))
        boxes = shapely.bounds(geometries[known])[:, [0, 2, 1, 3]]
        rows = zip((known + 1).tolist(), *boxes.T.tolist(), strict=True)
        database.executemany(f"INSERT INTO {rtree} VALUES (?, ?, ?, ?, ?)", rows)
    for event, body in TRIGGERS.items():
        trigger = _quoted(f"rtree_{name}_geom_{event}")
        text = body.format(table=_quoted(name), rtree=rtree)
        database.execute(f"CREATE TRIGGER {trigger} {text}")
    database.execute(
        "INSERT INTO gpkg_extensions VALUES (?, 'geom', 'gpkg_rtree_index', ?, 'write-only')",
        (name, RTREE),
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sql_type(values: NDArray[Any]) -> str:
    kinds = {"b": "BOOLEAN", "i": "INTEGER", "u": "INTEGER", "f": "REAL"}
    return kinds.get(values.dtype.kind, "TEXT")
