"""Networks as other programs take them: pgRouting's rules, momepy and osmnx.

QGIS's own shortest path is held against networkx's in `make test-qgis`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pyogrio
import pytest
import shapely

from road_files import METRE, UTM, random_roads
from terradapt.vector import roads_from_array, write_network
from terradapt.vector.roads.network import Network

SEEDS = (0, 1)


def network(seed: int) -> Network:
    return roads_from_array(random_roads(seed, (400, 500), 7, 8.0), transform=METRE, crs=UTM)


def layer(path: Path, name: str) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    meta, _, wkb, fields = pyogrio.raw.read(path, layer=name)
    return dict(zip(meta["fields"], fields, strict=True)), shapely.from_wkb(wkb), meta["crs"]


def ways(graph: nx.Graph, weight: str, pairs: list[tuple[int, int]]) -> list[float | None]:
    """Return the shortest way of each pair, None where there is none."""
    simple = nx.MultiGraph(graph)
    return [
        nx.shortest_path_length(simple, a, b, weight) if nx.has_path(simple, a, b) else None
        for a, b in pairs
    ]


def pairs_of(count: int) -> list[tuple[int, int]]:
    return [(n * 7 % count, (n * 13 + count // 2) % count) for n in range(30)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_network_keeps_the_rules_of_pgrouting(tmp_path: Path, seed: int) -> None:
    """Whole numbers, no null, cost above 0; vertices are found by ends that are equal to the last
    bit; single lines in two dimensions."""
    path = tmp_path / "n.gpkg"
    write_network(path, network(seed))
    edges, lines, _ = layer(path, "edges")
    nodes, points, _ = layer(path, "nodes")
    assert len(lines) > 20
    assert pyogrio.read_info(path, layer="edges")["geometry_type"] == "LineString"
    assert pyogrio.read_info(path, layer="edges")["fid_column"] == "fid"
    assert (shapely.get_type_id(lines) == 1).all()
    assert not shapely.has_z(lines).any()
    ends = np.array([[line.coords[0], line.coords[-1]] for line in lines])
    places = dict(zip(nodes["node"].tolist(), shapely.get_coordinates(points), strict=True))
    for side, name in enumerate(("from_node", "to_node")):
        assert np.issubdtype(edges[name].dtype, np.integer)
        assert np.array_equal(ends[:, side], [places[n] for n in edges[name].tolist()])
    assert (edges["length_m"] > 0).all()
    found = np.unique(ends.reshape(-1, 2), axis=0)
    assert len(found) == len(np.unique(shapely.get_coordinates(points), axis=0)) == len(points)
    both = np.concatenate([edges["from_node"], edges["to_node"]])
    ids, degrees = np.unique(both, return_counts=True)
    assert dict(zip(ids.tolist(), degrees.tolist(), strict=True)) == dict(
        zip(nodes["node"].tolist(), nodes["degree"].tolist(), strict=True)
    )


@pytest.fixture(scope="module")
def sql() -> Iterator[Callable[[str], list[list[str]]]]:
    """Run SQL in a PostgreSQL of its own with pgRouting; it ends with the tests."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # pytest's own are closed to the user postgres
    as_user: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def call(name: str, *words: object, text: str = "") -> str:
        command = [*as_user, str(programs / name), *map(str, words)]
        done = subprocess.run(
            command, input=text, cwd="/", check=False, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    data, log = folder / "data", folder / "log"
    call("initdb", "-D", data, "--auth=trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    # The server keeps the pipes that it is given: it gets none.
    command = [*as_user, str(programs / "pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-o"]
    subprocess.run([*command, options, "start"], cwd="/", check=True, stdout=subprocess.DEVNULL)

    def ask(text: str) -> list[list[str]]:
        base = ("-h", folder, "-d", "postgres", "-qAtF,", "-v", "ON_ERROR_STOP=1")
        return [line.split(",") for line in call("psql", *base, text=text).splitlines()]

    try:
        ask("CREATE EXTENSION pgrouting CASCADE;")
        yield ask
    finally:
        call("pg_ctl", "-D", data, "-m", "fast", "stop")
        shutil.rmtree(folder)


@pytest.mark.networks
@pytest.mark.parametrize("seed", SEEDS)
def test_pgrouting_routes_on_the_edges_as_they_are(
    tmp_path: Path, seed: int, sql: Callable[[str], list[list[str]]]
) -> None:
    made = network(seed)
    path = tmp_path / "n.gpkg"
    write_network(path, made)
    edges, lines, _ = layer(path, "edges")
    rows = ",".join(
        f"({i}, {a}, {b}, {length!r}, ST_GeomFromWKB(decode('{line.wkb_hex}', 'hex'), 32633))"
        for i, (a, b, length, line) in enumerate(
            zip(
                edges["from_node"].tolist(),
                edges["to_node"].tolist(),
                edges["length_m"].tolist(),
                lines,
                strict=True,
            ),
            1,
        )
    )
    sql(
        "DROP TABLE IF EXISTS edges; CREATE TABLE edges (fid int PRIMARY KEY, from_node int, "
        "to_node int, length_m float8, geom geometry(LineString, 32633));"
        f"INSERT INTO edges VALUES {rows};"
    )
    pairs = [(a, b) for a, b in pairs_of(len(made.graph())) if a != b]
    asked = ",".join(f"({a},{b})" for a, b in pairs)
    table = "SELECT fid AS id, from_node AS source, to_node AS target, length_m AS cost FROM edges"
    found = sql(
        f"SELECT start_vid, end_vid, agg_cost FROM pgr_dijkstraCost('{table}', "
        f"'SELECT * FROM (VALUES {asked}) t (source, target)', directed := false);"
    )
    costs = {(int(a), int(b)): float(cost) for a, b, cost in found}
    ours = dict(zip(pairs, ways(made.graph(), "length", pairs), strict=True))
    assert costs == pytest.approx({pair: way for pair, way in ours.items() if way is not None})
    assert len(costs) > 5
    vertices = sql("SELECT count(*) FROM pgr_extractVertices('SELECT fid AS id, geom FROM edges');")
    assert vertices == [[str(made.graph().number_of_nodes())]]


@pytest.mark.networks
@pytest.mark.parametrize("seed", SEEDS)
def test_momepy_finds_the_same_graph(tmp_path: Path, seed: int) -> None:
    import geopandas
    import momepy

    made = network(seed)
    path = tmp_path / "n.gpkg"
    write_network(path, made)
    edges = geopandas.read_file(path, layer="edges", engine="pyogrio")
    graph = momepy.gdf_to_nx(edges, approach="primal", multigraph=True, length="planar")
    own = made.graph()
    assert graph.number_of_nodes() == own.number_of_nodes()
    assert graph.number_of_edges() == own.number_of_edges()
    assert nx.number_connected_components(nx.MultiGraph(graph)) == nx.number_connected_components(
        nx.MultiGraph(own)
    )
    nodes = geopandas.read_file(path, layer="nodes", engine="pyogrio")
    at = dict(zip(nodes["node"], ((p.x, p.y) for p in nodes.geometry), strict=True))
    pairs = [(list(at)[a], list(at)[b]) for a, b in pairs_of(len(at))]
    theirs = ways(graph, "length_m", [(at[a], at[b]) for a, b in pairs])
    ours = ways(own, "length", pairs)
    assert theirs == pytest.approx(ours)
    assert sum(way is not None and way > 0 for way in ours) > 5
    points, lines = momepy.nx_to_gdf(momepy.node_degree(graph))
    assert len(lines) == len(edges)
    assert sorted(points["degree"]) == sorted(nodes["degree"])


@pytest.mark.networks
@pytest.mark.parametrize("seed", SEEDS)
def test_osmnx_routes_on_the_graphml_and_on_the_geopackage(tmp_path: Path, seed: int) -> None:
    import geopandas
    import osmnx

    made = network(seed)
    for suffix in ("graphml", "gpkg"):
        write_network(tmp_path / f"n.{suffix}", made)
    loaded = osmnx.load_graphml(tmp_path / "n.graphml")
    assert len(loaded.edges) in (len(made.graph().edges), 2 * len(made.graph().edges))
    edges = geopandas.read_file(tmp_path / "n.gpkg", layer="edges", engine="pyogrio")
    nodes = geopandas.read_file(tmp_path / "n.gpkg", layer="nodes", engine="pyogrio")
    nodes = nodes.set_index("node").assign(x=lambda t: t.geometry.x, y=lambda t: t.geometry.y)
    edges = edges.rename(columns={"from_node": "u", "to_node": "v", "length_m": "length"})
    edges["key"] = edges.groupby(["u", "v"]).cumcount()
    directed = osmnx.graph_from_gdfs(nodes, edges.set_index(["u", "v", "key"]))
    pairs = pairs_of(len(nodes))
    ours = ways(made.graph(), "length", pairs)
    for graph in (loaded, directed):
        both = nx.MultiDiGraph(nx.MultiGraph(graph))  # roads lead both ways
        for (a, b), way in zip(pairs, ours, strict=True):
            route = osmnx.routing.shortest_path(both, a, b, weight="length")
            if way is None:
                assert route is None
            else:
                steps = pairwise(route)
                length = sum(min(d["length"] for d in both[u][v].values()) for u, v in steps)
                assert length == pytest.approx(way)
    points, lines = osmnx.graph_to_gdfs(loaded)
    assert len(points) == len(nodes)
    assert lines.crs.to_epsg() == 32633
