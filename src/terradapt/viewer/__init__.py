"""The viewer: a scene and its map in a browser, corrections, and a model that learns from them.

A server for this machine alone. Pixels come from ``raster``, predictions from ``scene``, training
from ``training``; neither torch nor rasterio is imported here.
What the first picture does not need is imported where it is used: it shall be there in seconds.
"""
