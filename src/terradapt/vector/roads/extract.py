"""Roads: a mask or scores in, a network out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from affine import Affine
from numpy.typing import NDArray

from terradapt.errors import ConfigError
from terradapt.options import check_fields
from terradapt.progress import Advance
from terradapt.raster import CRS, Georef
from terradapt.vector.lattice.metric import Metric
from terradapt.vector.roads.bridge import BridgeOptions, bridge
from terradapt.vector.roads.clean import CleanOptions, clean, drop_components, join_chains
from terradapt.vector.roads.network import Network, build_network
from terradapt.vector.roads.skeleton import blocks, skeleton_graph
from terradapt.vector.roads.source import ArraySource, MaskSource


@dataclass(frozen=True)
class RoadOptions:
    """How roads become a network; metres throughout.

    Args:
        max_width: What is wider is no road but a place where roads meet: one node.
        noise: Sizes below which parts are dropped.
        gaps: When gaps are closed.
        simplify: Greatest deviation of the lines from the smooth ones; None: half a pixel.
        block: Side of the blocks that are worked on, px.

    Raises:
        ConfigError: A value of the wrong kind or out of range.
    """

    max_width: float = 40.0
    noise: CleanOptions = field(default_factory=CleanOptions)
    gaps: BridgeOptions = field(default_factory=BridgeOptions)
    simplify: float | None = None
    block: int = 1024

    def __post_init__(self) -> None:
        for part in (self.noise, self.gaps, self):
            check_fields(part)
        if not (self.max_width > 0 and (self.simplify or 0) >= 0 and self.block > 0):
            raise ConfigError("a size below 0 for roads", "give metres, and pixels of a block")

    @classmethod
    def of(
        cls,
        max_width: float = 40.0,
        min_spur: float = 8.0,
        max_gap: float = 25.0,
        simplify: float | None = None,
        block: int = 1024,
    ) -> RoadOptions:
        """Return the options that people set, without the parts that they belong to.

        Args:
            max_width: Widest road, m.
            min_spur: Shortest dead end, m.
            max_gap: Longest gap that is closed, m; 0 closes none.
            simplify: Deviation allowed, m; None is half a pixel.
            block: Side of the blocks that are worked on, px.
        """
        noise, gaps = CleanOptions(min_spur=min_spur), BridgeOptions(max_gap=max_gap)
        return cls(max_width, noise, gaps, simplify, block)


DEFAULTS = RoadOptions()


def road_network(
    source: MaskSource,
    options: RoadOptions = DEFAULTS,
    progress: Advance | None = None,
) -> Network:
    """Return the road network of a scene; the same for every block size.

    Args:
        source: Mask and scores by window.
        options: Sizes.
        progress: Called with 1 after each block.
    """
    georef = source.georef
    metric = Metric.of(georef)
    graph = skeleton_graph(source, options.max_width, block=options.block, progress=progress)
    keep = replace(options.noise, min_component=0.0)
    graph = clean(graph, metric, keep)
    graph = join_chains(bridge(graph, source, options.gaps).compact())
    graph = drop_components(graph, metric, options.noise.min_component)
    simplify = options.simplify if options.simplify is not None else metric.pixel / 2
    return build_network(graph, georef, simplify)


def roads_from_array(
    array: NDArray[Any],
    *,
    transform: Affine | None = None,
    crs: CRS | str | None = None,
    value: int = 1,
    threshold: float = 0.5,
    options: RoadOptions = DEFAULTS,
) -> Network:
    """Return the road network of a mask, of class ids, or of scores in memory.

    Args:
        array: (H, W) bool mask, integer ids (``value`` is road), or float scores of 0..1 where NaN
            is no road.
        transform: Pixel to CRS; pixels of one metre when None.
        crs: The CRS, text that names one, or None.
        value: Class id of road.
        threshold: Scores from here on are road.
        options: Sizes.
    """
    own = transform if transform is not None else Affine.identity()
    georef = Georef(own, crs, *array.shape)
    return road_network(ArraySource(array, georef, value, threshold), options)


def block_count(source: MaskSource, options: RoadOptions) -> int:
    """Return how often ``progress`` will be called."""
    georef = source.georef
    return ceil(georef.height / options.block) * ceil(georef.width / options.block)


__all__ = ["Network", "RoadOptions", "block_count", "blocks", "road_network", "roads_from_array"]
