"""Features: the geometries of a vector file's layer, checked where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from terradapt.errors import DataError, MissingExtraError, TerradaptError, refusing
from terradapt.files import check_name
from terradapt.raster.georef import Georef, parse_crs
from terradapt.raster.vectors import local_vector

IMAGE_COLUMN = "image"
"""Says of a feature on which image it lies, where images have no place on the ground."""
_NONE = "undefined "  # so GDAL names what stands in a file for no CRS


@dataclass(frozen=True)
class FeatureLayer:
    """The features of a layer.

    Attributes:
        geometries: (N,) shapely geometries in two dimensions, None where missing.
        columns: Column name to (N,) values.
        crs: The CRS; None where the file has none, or says that it is undefined.
    """

    geometries: NDArray[Any]
    columns: dict[str, NDArray[Any]]
    crs: CRS | None

    @property
    def images(self) -> list[str] | None:
        """The image that each feature names, "" where it names none; None without a column."""
        column = next((c for c in self.columns if c.casefold() == IMAGE_COLUMN), None)
        if column is None:
            return None
        values = self.columns[column]
        if values.dtype.kind == "f":  # numbers, some of them missing
            return ["" if np.isnan(v) else f"{v:.15g}" for v in values]
        return ["" if v is None else str(v).strip() for v in values]


def names_image(text: str, image: Path) -> bool:
    """Tell whether a text names an image: by its file's name, with its suffix or without."""
    path = image.as_posix()
    return text in (image.name, image.stem) or path.endswith(f"/{text}")


def upright(shapes: NDArray[Any], georef: Georef) -> NDArray[Any]:
    """Return shapes in the pixels of an image whose y grows downwards, as a copy.

    QGIS shows an image without a place below y = 0.

    Args:
        shapes: (N,) geometries.
        georef: Of the image.
    """
    below = np.zeros(len(shapes), bool)
    if georef.transform.e > 0 and len(shapes):
        below = shapely.bounds(shapes)[:, 3] <= 0
    turned = shapes.copy()
    turned[below] = shapely.transform(shapes[below], lambda xy: xy * [1, -1])
    return turned


def layer_names(path: str | Path, error: type[TerradaptError] = DataError) -> list[str]:
    """Return the layers of a vector file that have geometries.

    Args:
        path: The file.
        error: What is raised.

    Raises:
        TerradaptError: Of class ``error``: the file cannot be read.
        MissingExtraError: pyogrio is not installed.
    """
    try:
        import pyogrio
    except ImportError as missing:
        raise MissingExtraError("reading vector files", "vector") from missing
    check_name(path, error)
    with (
        refusing(path, error, "save it as GeoPackage or GeoJSON again", "cannot be read"),
        local_vector(path, error) as opened,
    ):
        return [str(name) for name, kind in pyogrio.list_layers(opened) if kind is not None]


def read_layer(
    path: str | Path,
    layer: str | None = None,
    *,
    prefer: Sequence[str] = (),
    columns: bool = True,
    error: type[TerradaptError] = DataError,
) -> FeatureLayer:
    """Read the features of a GeoPackage, GeoJSON, Shapefile or FlatGeobuf.

    Args:
        path: The file.
        layer: Its layer; None: the only one that has geometries.
        prefer: Layers of which the first is taken where there are several.
        columns: Read the attributes too.
        error: What is raised.

    Raises:
        TerradaptError: Of class ``error``: the file cannot be read, has no geometries or several
            layers of them, a CRS that is not understood, or coordinates that are no numbers.
        MissingExtraError: pyogrio is not installed.
    """
    try:
        import pyogrio
        import shapely
    except ImportError as missing:
        raise MissingExtraError("reading vector files", "vector") from missing
    path, fix = Path(path), "save it as GeoPackage or GeoJSON again"
    check_name(path, error)
    with (
        refusing(path, error, fix, "cannot be read as a vector file"),
        local_vector(path, error) as opened,
    ):
        names = [str(name) for name, kind in pyogrio.list_layers(opened) if kind is not None]
        chosen = layer or next((n for n in prefer if n in names), None)
        if chosen is None and len(names) != 1:
            what = f"{len(names)} layers: {', '.join(names[:6])}" if names else "no geometries"
            raise error(f"{path}: has {what}", "save the layer that is meant as a file of its own")
        wanted: list[str] | None = None if columns else []
        meta, _, wkb, values = pyogrio.raw.read(opened, layer=chosen or names[0], columns=wanted)
        blank = np.empty(0, object) if wkb is None else wkb
        shapes = shapely.force_2d(shapely.from_wkb(blank, on_invalid="ignore"))
        table = {str(n): np.asarray(v) for n, v in zip(meta["fields"], values, strict=True)}
    with refusing(path, error, "set a CRS with an EPSG code"):
        crs = parse_crs(meta["crs"], str(path)) if meta["crs"] else None
        if crs is not None and str(crs.to_dict(projjson=True)["name"]).lower().startswith(_NONE):
            crs = None
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    broken = np.unique(owner[~np.isfinite(xy).all(axis=1)])
    if len(broken):
        raise error(
            f"{path}: {len(broken)} features have coordinates that are no numbers, the first is "
            f"feature {int(broken[0]) + 1}",
            "remove them in a GIS",
        )
    return FeatureLayer(shapes, table, crs)
