"""Polygons and road networks from class rasters."""
