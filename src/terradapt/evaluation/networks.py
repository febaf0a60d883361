"""Road networks of predictions against centrelines: APLS, TOPO, connectivity, pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from terradapt.errors import DataError
from terradapt.evaluation.scoring import Scored
from terradapt.grid import Window
from terradapt.metrics.network import Roads
from terradapt.metrics.network_apls import AplsOptions
from terradapt.metrics.network_files import (
    INVENTED,
    MISSED,
    TRUE,
    compare_networks,
    draw_comparison,
    read_lines,
)
from terradapt.raster import CRS, Georef
from terradapt.raster.georef import metric_crs, move_points
from terradapt.report import Plate
from terradapt.vector.roads.bridge import BridgeOptions
from terradapt.vector.roads.extract import RoadOptions, road_network
from terradapt.vector.roads.source import ArraySource

SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".fgb")
LEGEND = (("road found", TRUE), ("road missed", MISSED), ("road invented", INVENTED))
_FIGURES = ("apls", "topo_f1", "topo_precision", "topo_recall")
_COUNTED = ("components", "dead_ends")
AS_DRAWN = RoadOptions(gaps=BridgeOptions(max_gap=0.0))
_SIDE = 1024  # px of a picture, longer sides are thinned


@dataclass(frozen=True)
class Compared:
    """The networks of one image, for its picture.

    Attributes:
        id: The image.
        apls: Its APLS, 0..1.
        truth: Lines in the image's CRS.
        proposal: Lines in the image's CRS.
        georef: Where the image's pixels lie.
        reach: Roads of the one network this near to the other are found, px.
    """

    id: str
    apls: float
    truth: NDArray[Any]
    proposal: NDArray[Any]
    georef: Georef
    reach: float


@dataclass
class NetworkScorer:
    """Scores the network of each image's predicted roads; figures are means over images.

    The prediction's gaps are closed where the model's probabilities speak for it, the label's are
    left as they are drawn.

    Args:
        road: Id of the road class.
        centrelines: A vector file, or a folder with one per image under the image's id; None: the
            label's own roads, made into lines.
        pixel: Metres per pixel of images that do not say their own; None: a pixel is a metre.
        unplaced: Images that do not.
    """

    road: int
    centrelines: Path | None = None
    pixel: float | None = None
    unplaced: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)

    def add(self, image: Scored) -> dict[str, float]:
        """Score one image and return its figures for the per-image table.

        Raises:
            DataError: The image has no file of centrelines, or it cannot be read.
        """
        image = self._placed(image)
        known = image.target != 255
        grey = None if image.grey is None else image.grey.astype(np.float32) / np.float32(255)
        proposal = _lines(image, (image.prediction == self.road) & known, grey)
        if self.centrelines is None:
            truth = _lines(image, image.target == self.road)
        else:
            truth = _clipped(centrelines_of(self.centrelines, image.id), image)
        scores = compare_networks(
            *(Roads.from_lines(_metric(lines, image)) for lines in (truth, proposal))
        )
        self.definitions = scores["definitions"]
        row = {k: float(scores[k]) for k in _FIGURES if k in scores}
        sides = {f"{s}_{k}": int(scores[s][k]) for s in ("truth", "proposal") for k in _COUNTED}
        self.rows.append({**row, **sides})
        reach = max(AplsOptions().snap / (image.resolution or 1.0), 2.0)
        self.compared.append(
            Compared(image.id, row["apls"], truth, proposal, _georef(image), reach)
        )
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

    def notes(self) -> list[str]:
        """Return what a reader of the figures has to know."""
        if not self.unplaced:
            return []
        return [
            f"{len(self.unplaced)} of {len(self.rows)} images have no resolution: their networks "
            "are measured as if a pixel were a metre (--pixel METRES says better)."
        ]

    def chosen(self, count: int) -> list[Compared]:
        """Return up to ``count`` images from the worst APLS to the best, the same every time."""
        ranked = sorted(self.compared, key=lambda c: (c.apls, c.id))
        picks = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
        return [ranked[i] for i in picks]

    def _placed(self, image: Scored) -> Scored:
        """Give metres to an image without a CRS."""
        if image.georef is not None and image.georef.crs is not None:
            return image
        known = image.resolution or self.pixel
        if known is None:
            self.unplaced.append(image.id)
        size = known or 1.0
        georef = Georef(Affine.scale(size, -size), None, *image.target.shape)
        return replace(image, georef=georef, resolution=size)


def _lines(
    image: Scored, mask: NDArray[np.bool_], scores: NDArray[np.float32] | None = None
) -> NDArray[Any]:
    options = AS_DRAWN if scores is None else RoadOptions()
    source = ArraySource(mask, _georef(image), scores=scores)
    lines: NDArray[Any] = road_network(source, options).lines
    return lines


def _georef(image: Scored) -> Georef:
    """The place of an image that has been given one; its pixels are those of the label."""
    assert image.georef is not None
    return image.georef.crop(Window(0, 0, *image.target.shape))


def draw_plate(compared: Compared, image: NDArray[np.uint8]) -> Plate:
    """Draw an image's networks over its (H, W, 3) pixels."""
    step = -(-max(image.shape[:2]) // _SIDE)
    small = np.ascontiguousarray(image[::step, ::step])
    height, width = small.shape[:2]
    thin = compared.georef.crop(Window(0, 0, height * step, width * step)).zoom(height, width)
    drawn = draw_comparison(
        small, compared.truth, compared.proposal, thin, reach=compared.reach / step
    )
    return Plate(compared.id, drawn, f"APLS {100 * compared.apls:.1f} %")


def centrelines_of(place: Path, name: str) -> tuple[NDArray[Any], CRS | None]:
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


def _clipped(read: tuple[NDArray[Any], CRS | None], image: Scored) -> NDArray[Any]:
    """Bring lines into the image's CRS and cut them at its edges."""
    lines, crs = read
    georef = _georef(image)
    if crs is not None and georef.crs is not None and len(lines):
        lines = shapely.transform(lines, lambda xy: move_points(xy, crs, georef.crs))
    parts = shapely.get_parts(shapely.intersection(lines, shapely.Polygon(georef.outline())))
    kept: NDArray[Any] = parts[shapely.get_type_id(parts) == 1]
    return kept


def _metric(lines: NDArray[Any], image: Scored) -> NDArray[Any]:
    """Lines in metres: in the UTM zone of a geographic CRS; as they are without one."""
    georef = _georef(image)
    if georef.crs is None or not len(lines):
        return lines
    target = metric_crs(georef.crs, *georef.centre)
    moved: NDArray[Any] = shapely.transform(lines, lambda xy: move_points(xy, georef.crs, target))
    return moved
