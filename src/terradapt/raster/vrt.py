"""What a VRT names: its sources, found by parsing it as XML of a stated form.

A VRT may come from anyone and may name any file, address or driver. GDAL has no switch for that, so
it is read here first, and only with the elements and attributes that a mosaic needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from terradapt.errors import SceneError
from terradapt.files import is_remote, size_text

LARGEST_VRT = 64 << 20
"""Bytes of the largest VRT that is read."""
_SOURCES = ("SimpleSource", "ComplexSource", "AveragedSource", "KernelFilteredSource", "Overview")
_PLAIN = (
    *("GeoTransform", "BlockXSize", "BlockYSize", "MaskBand", "Description", "UnitType"),
    *("Offset", "Scale", "CategoryNames", "Category", "NoDataValue", "NodataValue"),
    *("HideNoDataValue", "ColorInterp", "ColorTable", "Histograms", "HistItem", "HistMin"),
    *("HistMax", "BucketCount", "IncludeOutOfRange", "Approximate", "HistCounts"),
    *("SourceBand", "ScaleOffset", "ScaleRatio", "NODATA", "LUT", "Exponent", "SrcMin"),
    *("SrcMax", "DstMin", "DstMax", "Clip", "ColorTableComponent", "UseMaskBand"),
    *("Size", "Coefs", "Name", "Type", "Usage", "F"),
)
_NUMBERED = {f"c{i}" for i in range(1, 5)}
# Element to its attributes; GDAL ignores upper and lower case, this does not, so that nothing
# passes under another spelling. Without: derived and raw bands, warped, pansharpened and processed
# datasets, multidimensional groups, options of drivers.
_ALLOWED: dict[str, set[str]] = {
    "VRTDataset": {"rasterXSize", "rasterYSize"},
    "VRTRasterBand": {"dataType", "band", "blockXSize", "blockYSize", "subClass"},
    "SRS": {"dataAxisToSRSAxisMapping", "coordinateEpoch"},
    "GCPList": {"Projection", "dataAxisToSRSAxisMapping"},
    "GCP": {"Id", "Info", "Pixel", "Line", "X", "Y", "Z"},
    "Metadata": {"domain", "format"},
    "MDI": {"key"},
    "OverviewList": {"resampling"},
    "Entry": _NUMBERED,
    "SourceFilename": {"relativeToVRT", "relativetoVRT", "shared", "subsetting"},
    "SourceProperties": {"RasterXSize", "RasterYSize", "DataType", "BlockXSize", "BlockYSize"},
    "SrcRect": {"xOff", "yOff", "xSize", "ySize"},
    "DstRect": {"xOff", "yOff", "xSize", "ySize"},
    "Kernel": {"normalized"},
    "GDALRasterAttributeTable": {"Row0Min", "BinSize", "tableType"},
    "FieldDefn": {"index"},
    "Row": {"index"},
    **{tag: {"name", "resampling"} for tag in _SOURCES},
    **{tag: set[str]() for tag in _PLAIN},
}
_DRIVER = re.compile(r"\s|[<{(\"']|[A-Za-z0-9_]{2,}:")  # how GDAL's names for other things begin


@dataclass(frozen=True)
class VrtSource:
    """A source of a VRT.

    Args:
        name: As the VRT says.
        beside: It is relative to the VRT's folder, not to the process's.
    """

    name: str
    beside: bool

    def path(self, vrt: Path) -> Path:
        """Return where it lies.

        Raises:
            SceneError: It is no name of a local file.
        """
        if is_remote(self.name) or _DRIVER.match(self.name) or self.name != self.name.strip():
            raise SceneError(
                f"{vrt}: its source '{self.name[:200]}' is no local file",
                "build the VRT again: gdalbuildvrt",
            )
        return (vrt.parent if self.beside else Path()) / self.name


def read_vrt(path: Path) -> Iterator[VrtSource]:
    """Yield the sources of a VRT, each once.

    Raises:
        SceneError: It is too large, no XML, or has other elements than a mosaic needs.
    """
    if path.stat().st_size > LARGEST_VRT:
        raise SceneError(
            f"{path}: is a VRT of more than {size_text(LARGEST_VRT)}", "mosaic the files in parts"
        )
    walk = _Walk(path)
    walk.parse(path.read_bytes())
    return iter(dict.fromkeys(walk.found))


class _Walk:
    """The handlers of one parse."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[VrtSource] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self._beside = False

    def parse(self, data: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._refuse_declaration
        parser.XmlDeclHandler = self._check_encoding
        try:
            parser.Parse(data, True)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise SceneError(
                f"{self.path}: is no valid XML ({error})", "build the VRT again: gdalbuildvrt"
            ) from error

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._text.clear()
        if "Metadata" in self._open and "MDI" not in (tag, *self._open):
            self._open.append(tag)  # XML that a VRT only carries
            return
        allowed = _ALLOWED.get(tag)
        plain = attributes.get("subClass", "VRTSourcedRasterBand") == "VRTSourcedRasterBand"
        if allowed is None or not set(attributes) <= allowed or not plain:
            extra = sorted(set(attributes) - (allowed or set()))
            what = f"<{tag}>" if allowed is None or not extra else f"<{tag} {extra[0]}>"
            raise self._refused(f"with {what[:60]}" if plain else "with computed or raw bands")
        if (tag == "VRTDataset") != (not self._open):
            raise self._refused("within another")
        if tag == "SourceFilename":
            said = (attributes.get("relativeToVRT"), attributes.get("relativetoVRT"))
            if not set(said) <= {None, "0", "1"}:
                raise self._refused("with a path that is neither relative nor absolute")
            self._beside = "1" in said
        self._open.append(tag)

    def _end(self, tag: str) -> None:
        self._open.pop()
        if tag == "SourceFilename" and "Metadata" not in self._open:
            self.found.append(VrtSource("".join(self._text), self._beside))
        self._text.clear()

    def _refuse_declaration(self, *_: object) -> None:
        raise self._refused("with a document type or entities")

    def _check_encoding(self, _: str, encoding: str | None, __: int) -> None:
        if (encoding or "utf-8").lower() not in ("utf-8", "us-ascii"):
            raise self._refused(f"in {encoding}")

    def _refused(self, what: str) -> SceneError:
        return SceneError(
            f"{self.path}: a VRT {what} is not read", "write it as a GeoTIFF first: gdal_translate"
        )
