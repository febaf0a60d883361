"""Networks as other programs take them: pgRouting's rules, momepy and osmnx.

QGIS's own shortest path is held against networkx's in `make test-qgis`.
"""

from __future__ import annotations

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
    """``pgr_dijkstra('SELECT fid AS id, from_node AS source, to_node AS target, length_m AS cost
    FROM edges', ...)``: whole numbers, no null, cost above 0; ``pgr_extractVertices`` finds the
    same vertices, since ends are equal to the last bit; single lines in two dimensions."""
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
