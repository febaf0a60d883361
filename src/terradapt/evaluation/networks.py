"""Road networks of predictions against centrelines: APLS, TOPO, connectivity, pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terradapt.errors import DataError
from terradapt.evaluation.scoring import Scored
from terradapt.metrics.network import Roads
from terradapt.metrics.network_files import (
    INVENTED,
    MISSED,
    TRUE,
    compare_networks,
    draw_comparison,
    read_lines,
)
from terradapt.raster.crs import metric_crs, move_points, parse_crs
from terradapt.report import Plate
from terradapt.vector.roads import roads_from_array

SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb")
LEGEND = (("road found", TRUE), ("road missed", MISSED), ("road invented", INVENTED))
_FIGURES = ("apls", "topo_f1", "topo_precision", "topo_recall")
_COUNTED = ("components", "dead_ends")
_SIDE = 1024  # px of a picture, longer sides are thinned


@dataclass(frozen=True)
class Compared:
    """The networks of one image, for its picture.

    Attributes:
        id: The image.
        apls: Its APLS, 0..1.
        truth: Lines in the image's CRS.
        proposal: Lines in the image's CRS.
        transform: Pixel to CRS.
    """

    id: str
    apls: float
    truth: NDArray[Any]
    proposal: NDArray[Any]
    transform: Any


@dataclass
class NetworkScorer:
    """Scores the network of each image's predicted roads; figures are means over images.

    Args:
        road: Id of the road class.
        centrelines: A vector file, or a folder with one per image under the image's id; None: the
            label's own roads, made into lines the same way as the prediction's.
    """

    road: int
    centrelines: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)

    def add(self, image: Scored) -> dict[str, float]:
        """Score one image and return its figures for the per-image table.

        Raises:
            DataError: The image has no file of centrelines, or it cannot be read.
        """
        known = image.target != 255
        proposal = self._lines(image, (image.prediction == self.road) & known)
        if self.centrelines is None:
            truth = self._lines(image, image.target == self.road)
        else:
            truth = _clipped(centrelines_of(self.centrelines, image.id), image)
        scores = compare_networks(
            *(Roads.from_lines(_metric(lines, image)) for lines in (truth, proposal))
        )
        self.definitions = scores["definitions"]
        row = {k: float(scores[k]) for k in _FIGURES if k in scores}
        sides = {f"{s}_{k}": int(scores[s][k]) for s in ("truth", "proposal") for k in _COUNTED}
        self.rows.append({**row, **sides})
        self.compared.append(Compared(image.id, row["apls"], truth, proposal, image.transform))
        return {k: row[k] for k in ("apls", "topo_f1") if k in row}

    def metrics(self) -> dict[str, float | int]:
        """Return the means of APLS and TOPO over the images, and the sums of the counts."""
        if not self.rows:
            return {}
        means = {
            k: float(np.mean([r[k] for r in self.rows])) for k in _FIGURES if k in self.rows[0]
        }
        counts = {
            f"network_{k}_{side}": sum(r[f"{source}_{k}"] for r in self.rows)
            for source, side in (("truth", "label"), ("proposal", "prediction"))
            for k in _COUNTED
        }
        return {**means, **counts}

    def chosen(self, count: int) -> list[Compared]:
        """Return up to ``count`` images from the worst APLS to the best, the same every time."""
        ranked = sorted(self.compared, key=lambda c: (c.apls, c.id))
        picks = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
        return [ranked[i] for i in picks]

    def _lines(self, image: Scored, mask: NDArray[np.bool_]) -> NDArray[Any]:
        network = roads_from_array(mask, transform=image.transform, crs=image.crs)
        lines: NDArray[Any] = network.lines
        return lines


def draw_plate(compared: Compared, image: NDArray[np.uint8]) -> Plate:
    """Draw an image's networks over its (H, W, 3) pixels."""
    step = -(-max(image.shape[:2]) // _SIDE)
    a = compared.transform
    thin = type(a)(a.a * step, a.b * step, a.c, a.d * step, a.e * step, a.f)
    small = np.ascontiguousarray(image[::step, ::step])
    drawn = draw_comparison(small, compared.truth, compared.proposal, thin, reach=max(4 / step, 2))
    return Plate(compared.id, drawn, f"APLS {100 * compared.apls:.1f} %")


def centrelines_of(place: Path, name: str) -> tuple[NDArray[Any], Any]:
    """Return an image's lines and their CRS from a file, or from a folder with a file per image.

    Raises:
        DataError: No such file, or it cannot be read.
    """
    if not place.is_dir():
        return read_lines(place)
    found = [place / f"{name}{s}" for s in SUFFIXES if (place / f"{name}{s}").is_file()]
    if not found:
        raise DataError(
            f"{place}: no centrelines of the image '{name}'",
            f"put {name}.geojson there, or give one file for all images",
        )
    return read_lines(found[0])


def _clipped(read: tuple[NDArray[Any], Any], image: Scored) -> NDArray[Any]:
    """Bring lines into the image's CRS and cut them at its edges."""
    lines, crs = read
    if crs is not None and image.crs is not None and len(lines):
        own, other = parse_crs(image.crs, image.id), parse_crs(crs, "the centrelines")
        lines = shapely.transform(lines, lambda xy: move_points(xy, other, own))
    height, width = image.target.shape
    a = image.transform
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    frame = shapely.Polygon(
        [(a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f) for x, y in corners]
    )
    parts = shapely.get_parts(shapely.intersection(lines, frame))
    kept: NDArray[Any] = parts[shapely.get_type_id(parts) == 1]
    return kept


def _metric(lines: NDArray[Any], image: Scored) -> NDArray[Any]:
    """Lines in metres: in the UTM zone of a geographic CRS; pixels count as metres without one."""
    if image.crs is None or not len(lines):
        return lines
    own = parse_crs(image.crs, image.id)
    height, width = image.target.shape
    a = image.transform
    x, y = (
        a.a * width / 2 + a.b * height / 2 + a.c,
        a.d * width / 2 + a.e * height / 2 + a.f,
    )
    target = metric_crs(own, x, y)
    moved: NDArray[Any] = shapely.transform(lines, lambda xy: move_points(xy, own, target))
    return moved
