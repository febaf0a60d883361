"""Road networks from files, and a picture of what is true, missed and invented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from terradapt.errors import DataError
from terradapt.metrics.network import Roads
from terradapt.metrics.network_apls import AplsOptions, apls
from terradapt.metrics.network_topo import TopoOptions, topo
from terradapt.raster import CRS, Georef, rasterize, read_layer
from terradapt.raster.georef import metric_crs, move_points

TRUE, MISSED, INVENTED = (0, 200, 83), (255, 196, 0), (255, 0, 140)
"""RGB of roads that are in both networks, in the truth alone, and in the proposal alone."""
_FADED = 40  # grey under the image, of which half the contrast remains


def read_lines(path: str | Path, layer: str | None = None) -> tuple[NDArray[Any], CRS | None]:
    """Read the lines of a GeoPackage, GeoJSON or other vector file.

    Args:
        path: The file.
        layer: Its layer; None: ``edges`` where there is one, else the only one.

    Returns:
        Shapely lines (points and polygons are left out), and the CRS or None.

    Raises:
        DataError: The file cannot be read, or has other things than lines only.
    """
    found = read_layer(path, layer, prefer=("edges",), columns=False)
    lines: NDArray[Any] = found.geometries[np.isin(shapely.get_type_id(found.geometries), (1, 5))]
    if len(found.geometries) and not len(lines):
        raise DataError(f"{path}: has no lines", "use a file of road centrelines")
    return lines, found.crs


def read_pair(truth: str | Path, proposal: str | Path) -> tuple[Roads, Roads]:
    """Read two networks into the same metres.

    Geographic and other coordinates go to the UTM zone of the truth's middle (of the proposal's,
    where the truth is empty).

    Raises:
        DataError: A file cannot be read, or only one of them has a CRS.
    """
    files = [(read_lines(p), p) for p in (truth, proposal)]
    if len({crs is None for (_, crs), _ in files}) == 2:
        bare = next(p for (_, crs), p in files if crs is None)
        raise DataError(f"{bare}: has no CRS, the other network has one", "give it the right CRS")
    target = None
    for (lines, crs), _ in files:
        if len(lines) and crs is not None:
            west, south, east, north = shapely.total_bounds(lines)
            target = metric_crs(crs, (west + east) / 2, (south + north) / 2)
            break
    one, two = (Roads.from_lines(_moved(lines, crs, target)) for (lines, crs), _ in files)
    return one, two


def _moved(lines: NDArray[Any], crs: CRS | None, target: CRS | None) -> NDArray[Any]:
    if target is None or not len(lines):
        return lines
    moved: NDArray[Any] = shapely.transform(lines, lambda xy: move_points(xy, crs, target))
    return moved


def compare_networks(
    truth: Roads,
    proposal: Roads,
    *,
    apls_options: AplsOptions = AplsOptions(),  # noqa: B008 (frozen)
    topo_options: TopoOptions = TopoOptions(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Return APLS, TOPO and the connectivity of both networks, with their definitions."""
    by_path, by_place = apls(truth, proposal, apls_options), topo(truth, proposal, topo_options)
    definitions = [by_path.pop("definition"), by_place.pop("definition")]
    return {
        **by_path,
        **by_place,
        "truth": truth.connectivity(),
        "proposal": proposal.connectivity(),
        "definitions": definitions,
    }


def compare_files(truth: str | Path, proposal: str | Path) -> dict[str, Any]:
    """Return :func:`compare_networks` of two GeoPackage or GeoJSON files."""
    return compare_networks(*read_pair(truth, proposal))


def draw_comparison(
    image: NDArray[np.uint8],
    truth: NDArray[Any],
    proposal: NDArray[Any],
    georef: Georef,
    *,
    reach: float,
    width: float = 1.5,
) -> NDArray[np.uint8]:
    """Draw true, missed and invented roads over an image in three colours.

    Args:
        image: (H, W, 3) uint8.
        truth: Lines in the image's CRS.
        proposal: Lines in the image's CRS.
        georef: Where the image's pixels lie.
        reach: A road is found where the other network runs within this, px.
        width: Half width of the drawn lines, px.

    Returns:
        (H, W, 3) uint8: green true, yellow missed, pink invented; the image is faded.
    """
    one, two = (
        shapely.transform(_merged(x), lambda xy: georef.pixels(xy)[:, ::-1] + 0.5)
        for x in (truth, proposal)
    )
    near_one, near_two = shapely.buffer(one, reach), shapely.buffer(two, reach)
    layers = (
        (shapely.difference(one, near_two), MISSED),
        (shapely.difference(two, near_one), INVENTED),
        (shapely.intersection(two, near_one), TRUE),
    )
    drawn = image // 2 + np.uint8(_FADED)
    for lines, colour in layers:
        shape = shapely.buffer(lines, width)
        burnt = rasterize(
            [(shape, 1)],
            height=image.shape[0],
            width=image.shape[1],
            transform=Affine.identity(),
        )
        drawn[burnt == 1] = colour
    return drawn


def _merged(lines: NDArray[Any]) -> Any:
    return shapely.union_all(np.asarray(lines, object)) if len(lines) else shapely.LineString()
