"""Networks and polygons to files: GeoPackage, GeoJSON, GraphML; written beside, then renamed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.errors import OutputError
from terradapt.files import check_output, replacing
from terradapt.raster import CRS
from terradapt.vector.geopackage import write_geopackage
from terradapt.vector.lonlat import to_lonlat
from terradapt.vector.roads.network import Network, import_networkx

Fields = dict[str, NDArray[Any]]
SUFFIXES = (".gpkg", ".geojson", ".json", ".graphml")


def write_network(path: str | Path, network: Network) -> None:
    """Write a network: ``.gpkg`` (layers ``edges`` and ``nodes``), ``.geojson`` or ``.graphml``.

    GeoJSON is in longitude and latitude, lines and points in one collection. GraphML carries the
    lines as WKT.

    Raises:
        OutputError: Another suffix, a folder that cannot be written to, or a GeoPackage that is
            open elsewhere.
        MissingExtraError: GraphML without networkx.
    """
    path = check_vector(path, SUFFIXES)
    edges: Fields = {
        "from_node": network.edges[:, 0],
        "to_node": network.edges[:, 1],
        "length_m": network.length,
        "width_m": network.width,
        "score": network.score,
        "bridged": network.bridged,
    }
    nodes: Fields = {"node": np.arange(len(network.nodes)), "degree": network.degree}
    points = np.asarray(shapely.points(network.nodes))
    layers: list[Layer] = [
        ("edges", "LineString", network.lines, edges),
        ("nodes", "Point", points, nodes),
    ]
    write_layers(path, layers, network.crs, graphml=lambda p: _write_graphml(p, network))


Layer = tuple[str, str, NDArray[Any], Fields]


def write_layers(
    path: Path,
    layers: Sequence[Layer],
    crs: CRS | None,
    *,
    graphml: Callable[[Path], None] | None = None,
) -> None:
    """Write layers as (name, geometry type, geometries, fields) by the path's suffix."""
    suffix = path.suffix.lower()
    with replacing(path, sqlite3.Error) as part:
        if suffix == ".gpkg":
            write_geopackage(part, layers, crs)
        elif suffix == ".graphml" and graphml is not None:
            graphml(part)
        else:
            _write_geojson(part, layers, crs)


def check_vector(
    path: str | Path, suffixes: Sequence[str], reads: Iterable[str | Path] = ()
) -> Path:
    """Return the path of a result that can be written; look before the long work starts.

    Args:
        path: The result.
        suffixes: Those that it may have.
        reads: What it is made from.

    Raises:
        OutputError: A suffix that is not written, a folder without permission, one of ``reads``,
            or a GeoPackage that another program holds open.
    """
    path = check_output(path, suffixes, reads=reads)
    if path.suffix.lower() == ".gpkg" and path.exists():
        _check_free(path)
    return path


def _check_free(path: Path) -> None:
    """A GeoPackage in use must not be replaced: its write-ahead log would belong to another."""
    busy = any(
        Path(f"{path}{end}").exists() and Path(f"{path}{end}").stat().st_size > 0
        for end in ("-wal", "-journal")
    )
    try:
        with sqlite3.connect(path, timeout=0, isolation_level=None) as database:
            database.execute("BEGIN EXCLUSIVE")
            database.execute("ROLLBACK")
    except sqlite3.OperationalError:
        busy = True
    except sqlite3.DatabaseError:  # no database: it is replaced like any file
        return
    finally:
        if "database" in locals():
            database.close()
    if busy:
        raise OutputError(
            f"{path}: is open in another program", "close it there (QGIS), or choose another name"
        )


def _write_geojson(path: Path, layers: Sequence[Layer], crs: CRS | None) -> None:
    """Write one collection in longitude and latitude (RFC 7946); without a CRS as they are."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        comma = ""
        for name, _, geometries, fields in layers:
            texts = shapely.to_geojson(to_lonlat(geometries, crs))
            rows = zip(*(np.asarray(v).tolist() for v in fields.values()), strict=True)
            for text, row in zip(texts, rows, strict=True):
                values = {"layer": name, **dict(zip(fields, row, strict=True))}
                file.write(
                    f'{comma}\n{{"type": "Feature", "properties": {json.dumps(values)}, '
                    f'"geometry": {text}}}'
                )
                comma = ","
        file.write("\n]}\n")


def _write_graphml(path: Path, network: Network) -> None:
    """Write GraphML whose edges have ids of their own: Gephi and yEd keep one edge of each id.

    All values are text, which osmnx asks for; it turns lengths and coordinates into numbers.
    """
    graph = network.graph()
    named = import_networkx().MultiGraph(**{k: v for k, v in graph.graph.items() if v is not None})
    named.add_nodes_from((node, _texts(values)) for node, values in graph.nodes(data=True))
    for i, (u, v, values) in enumerate(graph.edges(data=True)):
        named.add_edge(u, v, key=i, **_texts(values))
    import_networkx().write_graphml_xml(named, str(path))


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {key: getattr(value, "wkt", None) or str(value) for key, value in values.items()}
