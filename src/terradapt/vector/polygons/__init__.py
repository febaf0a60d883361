"""Polygons: class ids in, a coverage of regions out."""
