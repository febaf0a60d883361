"""Pixels to chains: the walker, the graph, the joining of blocks; roads and polygons share it."""
