"""GDAL's files beside a raster (``.aux.xml``): what they say that matters to its pixels.

Programs that show a raster write its statistics there, unasked: QGIS does at the first look. That
changes nothing of the scene, so it must not keep a stopped map from being gone on with.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from terradapt.files import stamp

SUFFIX = ".aux.xml"
_LONGEST = 1 << 24  # bytes; a longer one is told by its size and time like any file
_SHOWN = re.compile(
    rb'<MDI key="STATISTICS_\w+"\s*(/>|>[^<]*</MDI>)|<Histograms>.*?</Histograms>', re.DOTALL
)
_EMPTY = re.compile(
    rb"<(Metadata|PAMRasterBand|PAMDataset)(\s[^<>]*)?(/>|>\s*</\1>)|<\?xml[^>]*>|<!--.*?-->",
    re.DOTALL,
)


def beside_stamp(path: str | Path) -> list[int]:
    """Return what tells a changed file, as :func:`terradapt.files.stamp`; [] where it says nothing.

    Of an ``.aux.xml`` it is length and checksum of what it says beside statistics and histograms:
    nodata, georeference, names, colours.
    """
    found = stamp(path)
    if not str(path).endswith(SUFFIX) or not found or found[0] > _LONGEST:
        return found
    try:
        words = _SHOWN.sub(b"", Path(path).read_bytes())
    except OSError:
        return found
    before = None
    while words != before:  # an element is empty once those inside are gone
        before, words = words, _EMPTY.sub(b"", words)
    words = b" ".join(words.split())
    return [len(words), zlib.crc32(words)] if words else []
