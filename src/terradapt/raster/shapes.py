"""Geometries to pixels and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import features
from rasterio.transform import Affine

from terradapt.raster.opening import quiet


def rasterize(
    shapes: Iterable[tuple[Any, int]],
    *,
    height: int,
    width: int,
    transform: Affine,
    fill: int = 0,
    all_touched: bool = False,
    dtype: str = "uint8",
) -> NDArray[Any]:
    """Burn geometries into an (H, W) grid; later ones cover earlier ones.

    Args:
        shapes: Pairs of a geometry (shapely or GeoJSON mapping) and its value, of ``dtype``.
        height: Rows, px.
        width: Columns, px.
        transform: Pixel to CRS of the geometries.
        fill: Value elsewhere.
        all_touched: Burn every pixel touched, not only those whose centre is inside.
        dtype: Of the result, ``"uint8"`` or ``"int32"``.
    """
    pairs = [(g, v) for g, v in shapes if not getattr(g, "is_empty", False)]
    if not pairs:
        return np.full((height, width), fill, dtype)
    with quiet():  # rasterio changes the process's filters of warnings itself, and so do threads
        burnt: NDArray[Any] = features.rasterize(
            pairs,
            (height, width),
            fill=fill,
            transform=transform,
            all_touched=all_touched,
            dtype=dtype,
        )
    return burnt


def polygonize(
    array: NDArray[Any],
    *,
    transform: Affine | None = None,
    mask: NDArray[np.bool_] | None = None,
    connectivity: int = 4,
) -> list[tuple[dict[str, Any], int]]:
    """Return the polygons of equal neighbouring values as (GeoJSON geometry, value).

    Args:
        array: (H, W) integers.
        transform: Pixel to CRS; pixels when None.
        mask: (H, W) pixels to take part; all when None.
        connectivity: 4 or 8 neighbours.
    """
    kind = array.dtype if array.dtype in (np.uint8, np.int16, np.int32) else np.dtype(np.int32)
    with quiet():  # as above
        found = features.shapes(
            array.astype(kind, copy=False),
            mask=mask,
            connectivity=connectivity,
            transform=transform if transform is not None else Affine.identity(),
        )
        return [(geometry, int(value)) for geometry, value in found]
