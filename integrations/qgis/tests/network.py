"""Shortest paths by networkx between nodes of a network's GeoPackage, for the test in QGIS.

Run by the engine's Python: ``python network.py FILE.gpkg COUNT``. Prints JSON: pairs of ends with
the metres between them, in the plane of the CRS; null where there is no way.
"""

import json
import sys

import networkx as nx
import pyogrio
import shapely


def main() -> None:
    """Print the paths."""
    path, count = sys.argv[1], int(sys.argv[2])
    _, _, lines, _ = pyogrio.raw.read(path, layer="edges")
    graph = nx.MultiGraph()
    for line in shapely.from_wkb(lines):
        ends = tuple(line.coords[0]), tuple(line.coords[-1])  # equal to the last bit, or no node
        graph.add_edge(*ends, weight=line.length)
    nodes = sorted(graph.nodes)
    pairs = []
    for number in range(count):
        first = nodes[number * 7 % len(nodes)]
        last = nodes[(number * 13 + len(nodes) // 2) % len(nodes)]
        far = nx.has_path(graph, first, last) and first != last
        metres = nx.shortest_path_length(graph, first, last, "weight") if far else None
        pairs.append([first, last, metres])
    json.dump({"nodes": graph.number_of_nodes(), "pairs": pairs}, sys.stdout)


if __name__ == "__main__":
    main()
