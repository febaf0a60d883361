"""The protocol of an evaluation: what is counted, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from terradapt.errors import ConfigError
from terradapt.options import check_fields

GEOSEG_PATCH = 1024  # px; GeoSeg's patch tool pads test images to multiples of this


@dataclass(frozen=True)
class Protocol:
    """What is counted, and how; the defaults count every labelled pixel as it is.

    Args:
        road: Class with per-image road figures (Dice, IoU, MAE, RLOD); None: the second class of
            a checkpoint with two classes.
        threshold: With two classes, the second one where its probability is above this, 0..1.
        boundary: Tolerance of the boundary F1, metres; None: not measured.
        labels: ``eroded``: the labels with ignored borders that ISPRS evaluates on; ``full``: the
            labels as they are; ``auto``: eroded where the dataset has them, with the headline
            figures on the full ones beside.
        erode: Label pixels within this many px of another class are not counted (ISPRS erodes its
            labels by 3 px).
        geoseg_compat: Count padding to multiples of 1024 px as class 0, as GeoSeg's patch tool
            does; inflates the figures, for comparison only.
        resolution: What the model sees: ``auto`` resamples windows to the metres per pixel that it
            was trained at, ``native`` never does, a number is metres per pixel. Counted are the
            label's own pixels in any case.
        match: Dataset's class name -> checkpoint's, for classes with two names.
        network: Score the network of the road class: APLS and TOPO.
        centrelines: True lines for that: a vector file, or a folder with a file per image; None:
            the label's roads, made into lines.
        pixel: Metres per pixel of images that do not say their own, for the network.
        stretch: See :func:`terradapt.metrics.per_image.image_scores`.

    Raises:
        ConfigError: A value of the wrong kind or out of range.
    """

    road: str | None = None
    threshold: float = 0.5
    boundary: float | None = None
    labels: Literal["auto", "eroded", "full"] = "auto"
    erode: int = 0
    geoseg_compat: bool = False
    resolution: float | Literal["auto", "native"] = "auto"
    match: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    centrelines: Path | None = None
    pixel: float | None = None
    stretch: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"a threshold of {self.threshold:g}", "give a probability, 0 to 1")
        sizes = [x for x in (self.resolution, self.pixel) if isinstance(x, float)]
        boundary = 0.0 if self.boundary is None else self.boundary
        if not (boundary >= 0 and self.erode >= 0 and all(x > 0 for x in sizes)):
            raise ConfigError("a length below 0", "give metres above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return what the report says of it; what is off is left out."""
        values: dict[str, Any] = {
            "padding": "counted as class 0 (geoseg_compat)" if self.geoseg_compat else "ignored",
            "resolution": self.resolution,
        }
        if self.erode:
            values["eroded_px"] = self.erode
        if self.threshold != 0.5:
            values["threshold"] = self.threshold
        if self.boundary is not None:
            values["boundary_tolerance_m"] = self.boundary
        if self.network:
            values["network_truth"] = str(self.centrelines or "the labels, made into lines")
            values["network_gaps"] = "closed by the model's probabilities; the labels' as drawn"
            if self.pixel is not None:
                values["pixel_m"] = self.pixel
        if self.match:
            values["match"] = [f"{a}={b}" for a, b in self.match.items()]
        return values


class ProtocolChoices(TypedDict, total=False):
    """The fields of :class:`Protocol` as keywords, for type checkers and editors."""

    road: str | None
    threshold: float
    boundary: float | None
    labels: Literal["auto", "eroded", "full"]
    erode: int
    geoseg_compat: bool
    resolution: float | Literal["auto", "native"]
    match: Mapping[str, str]
    network: bool
    centrelines: str | Path | None
    pixel: float | None
    stretch: bool
