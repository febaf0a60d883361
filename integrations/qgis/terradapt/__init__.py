"""terradapt in QGIS: a Processing provider that calls the command line ``terradapt``.

Copyright (C) 2026 The terradapt developers

This program is free software; you can redistribute it and/or modify it under the terms of the GNU
General Public License as published by the Free Software Foundation; either version 2 of the
License, or (at your option) any later version.
"""


def classFactory(iface):
    """Return the plugin; QGIS calls this, with None for ``iface`` outside its window."""
    from .plugin import TerradaptPlugin

    return TerradaptPlugin(iface)
