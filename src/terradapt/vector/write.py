"""Networks and polygons to files: GeoPackage, GeoJSON, Shapefile, GraphML; all or nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.classes import Colour
from terradapt.errors import OutputError
from terradapt.files import check_new, check_output, replacing, write_together
from terradapt.raster import CRS
from terradapt.vector.geopackage import Layer, write_geopackage
from terradapt.vector.lonlat import to_lonlat
from terradapt.vector.polygons.extract import Polygons, area_key
from terradapt.vector.roads.network import Network, import_networkx
from terradapt.vector.shapefile import shapefile
from terradapt.vector.style import class_style, edge_style, node_style

Fields = dict[str, NDArray[Any]]
SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".graphml")
_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")
_INDEXES = (".qix", ".sbn", ".sbx")  # of a Shapefile that is replaced


def write_network(path: str | Path, network: Network, *, overwrite: bool = False) -> None:
    """Write a network: layers ``edges`` and ``nodes``, which QGIS opens coloured.

    GeoJSON is in longitude and latitude, lines and points in one collection. A Shapefile has the
    nodes beside it, as ``NAME_nodes.shp``. GraphML carries the lines as WKT. What comes from an
    image without scale lies on it as QGIS shows it, rows downward from 0.

    Args:
        path: ``.gpkg``, ``.geojson``, ``.shp`` or ``.graphml``.
        network: The roads.
        overwrite: Replace a file that is there.

    Raises:
        OutputError: Another suffix, a file that is there, a folder that cannot be written to, or a
            GeoPackage that is open elsewhere.
        MissingExtraError: GraphML without networkx.
    """
    path = check_vector(path, overwrite, roads=True)
    if path.suffix.lower() == ".graphml":
        with replacing(path) as part:
            _write_graphml(part, network)
        return
    edges: Fields = {
        "from_node": network.edges[:, 0],
        "to_node": network.edges[:, 1],
        f"length_{network.unit}": network.length,
        f"width_{network.unit}": network.width,
        "score": network.score,
        "bridged": network.bridged,
    }
    nodes: Fields = {"node": np.arange(len(network.nodes)), "degree": network.degree}
    layers: list[Layer] = [
        ("edges", "LineString", _placed(network.lines, network.unit), edges),
        ("nodes", "Point", _placed(shapely.points(network.nodes), network.unit), nodes),
    ]
    _write_layers(path, layers, network.crs, {"edges": edge_style(), "nodes": node_style()})


def write_polygons(
    path: str | Path,
    polygons: Polygons,
    names: Mapping[int, str] | None = None,
    colours: Mapping[int, Colour] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write polygons with ``class_id``, ``class`` and their area, which QGIS opens coloured.

    Args:
        path: ``.gpkg``, ``.geojson`` or ``.shp``.
        polygons: The polygons.
        names: Names by id instead of the polygons' own; the ids where there is none.
        colours: RGB by id instead of the polygons' own; made where there is none.
        overwrite: Replace a file that is there.

    Raises:
        OutputError: As :func:`write_network`.
    """
    path = check_vector(path, overwrite)
    names, colours = names or polygons.names, colours or polygons.colours
    name = np.array([names.get(int(v), str(v)) for v in polygons.value], object)
    fields = {"class_id": polygons.value, "class": name, area_key(polygons.unit): polygons.area}
    shapes = _placed(polygons.shapes, polygons.unit)
    ids = sorted({*names, *polygons.value.tolist()})
    style = class_style("class_id", [(i, names.get(i, str(i)), colours.get(i)) for i in ids])
    layer: Layer = ("polygons", "Polygon", shapes, fields)
    _write_layers(path, [layer], polygons.crs, {"polygons": style})


def check_vector(
    path: str | Path,
    overwrite: bool = False,
    *,
    roads: bool = False,
    reads: Iterable[str | Path] = (),
) -> Path:
    """Return the path of a result that can be written; look before the long work starts.

    Args:
        path: The result.
        overwrite: Replace a file that is there.
        roads: It is a network, which may be GraphML, and as a Shapefile has its nodes beside it.
        reads: What it is made from.

    Raises:
        OutputError: A suffix that is not written, a file that is there, a folder without
            permission, one of ``reads``, or a GeoPackage that another program holds open.
    """
    places = [path := Path(path)]
    if path.suffix.lower() == ".shp":
        places = [p.with_suffix(s) for p in _shapefiles(path, 1 + roads) for s in _PARTS]
    check_output(path, SUFFIXES if roads else SUFFIXES[:-1], reads=reads, beside=places)
    if path.suffix.lower() == ".gpkg" and path.exists():
        _check_free(path)
    check_new(places, overwrite)
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


def _placed(shapes: Any, unit: str) -> NDArray[Any]:
    """Mirror what is counted in pixels: programs show an image without a place below y = 0."""
    if unit != "px":
        return np.asarray(shapes, object)
    mirrored: NDArray[Any] = shapely.transform(shapes, lambda xy: xy * [1, -1] + 0.0)
    return np.asarray(mirrored, object)


def _write_layers(
    path: Path, layers: Sequence[Layer], crs: CRS | None, styles: dict[str, str]
) -> None:
    """Write layers as (name, geometry type, geometries, fields) by the path's suffix."""
    suffix = path.suffix.lower()
    if suffix == ".shp":
        _write_shapefiles(path, layers, crs, styles)
        return
    with replacing(path, sqlite3.Error) as part:
        if suffix == ".gpkg":
            write_geopackage(part, layers, crs, styles)
        else:
            _write_geojson(part, layers, crs)
    if suffix != ".gpkg":
        write_together(_style_file(path, next(iter(styles.values()))))


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


def _write_shapefiles(
    path: Path, layers: Sequence[Layer], crs: CRS | None, styles: dict[str, str]
) -> None:
    contents: dict[Path, str | bytes] = {}
    for place, (name, kind, shapes, fields) in zip(
        _shapefiles(path, len(layers)), layers, strict=True
    ):
        files = shapefile(kind, shapes, fields, crs)
        contents |= {place.with_suffix(suffix): content for suffix, content in files.items()}
        contents |= _style_file(place, styles[name])
    write_together(contents)
    for place in _shapefiles(path, len(layers)):
        for suffix in (*_INDEXES, *([] if crs else [".prj"])):
            place.with_suffix(suffix).unlink(missing_ok=True)


def _shapefiles(path: Path, count: int) -> list[Path]:
    return [path, path.with_name(f"{path.stem}_nodes{path.suffix}")][:count]


def _style_file(path: Path, style: str) -> dict[Path, str | bytes]:
    """Return the style beside a file, unless a raster of the same name has its own there."""
    place = path.with_suffix(".qml")
    if place.exists() and "<renderer-v2" not in place.read_text("utf-8", errors="replace"):
        return {}
    return {place: style}


def _write_graphml(path: Path, network: Network) -> None:
    """Write GraphML whose edges have ids of their own: Gephi and yEd keep one edge of each id.

    All values are text, which osmnx asks for; it turns lengths and coordinates into numbers.
    """
    lines = _placed(network.lines, network.unit)
    nodes = shapely.get_coordinates(_placed(shapely.points(network.nodes), network.unit))
    names = ("x", "y", "degree"), ("length", "width", "score", "bridged", "geometry")
    named = import_networkx().MultiGraph(unit=network.unit)
    if network.crs is not None:
        named.graph["crs"] = str(network.crs)
    for i, values in enumerate(zip(*nodes.T.tolist(), network.degree.tolist(), strict=True)):
        named.add_node(i, **dict(zip(names[0], map(str, values), strict=True)))
    columns = (network.length, network.width, network.score, network.bridged)
    rows = zip(*(c.tolist() for c in columns), shapely.to_wkt(lines, -1), strict=True)
    for i, ((u, v), values) in enumerate(zip(network.edges.tolist(), rows, strict=True)):
        named.add_edge(u, v, key=i, **dict(zip(names[1], map(str, values), strict=True)))
    import_networkx().write_graphml_xml(named, str(path))
