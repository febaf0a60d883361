"""CompareOptions: everything about a comparison that is neither of its two sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from terradapt.changes.roads import AlongOptions
from terradapt.errors import ConfigError

GROWN = 0.1
"""Of the threshold: where regions of calibrated probability end, if nothing else is asked."""


@dataclass(frozen=True)
class CompareOptions:
    """How two dates are compared.

    Args:
        classes: Names to look at; all that both sides have when empty. All others are one.
        things: Classes that come and go (buildings, roads); others only change into each other.
        resolution: Metres per pixel of the comparison; None takes the coarser side's.
        threshold: Probability from which on it is a change, 0..1.
        grow: Probability from which on a pixel beside a change belongs to it, up to the threshold;
            None: a tenth of the threshold with a calibration, else the threshold.
        min_area: Smaller changes are not told, square metres.
        unlike: How much the imagery of a change differs at least, light taken out, in what ground
            without a change differs by; of two scenes alone. 0: it is not looked at.
        reach: How far the two dates may lie apart after their shift, m; None: from the estimate.
        align: Estimate the shift of the old side and take it out.
        aoi: Polygons; outside nothing is looked at.
        along: When a road runs alongside another.
        old_class: What features of OLD without a column ``class`` are, or 255 in a mask.
        new_class: The same of NEW.
        calibration: JSON table of scores of change and their probabilities; None: as they are.
        resume: Go on where a killed run stopped.
        overwrite: Replace a result that is there.

    Raises:
        ConfigError: A value out of its range.
    """

    classes: tuple[str, ...] = ()
    things: tuple[str, ...] = ("building", "house", "roof", "road", "car")
    resolution: float | None = None
    threshold: float = 0.5
    grow: float | None = None
    min_area: float = 20.0
    unlike: float = 0.5
    reach: float | None = None
    align: bool = True
    aoi: Path | None = None
    along: AlongOptions = field(default_factory=AlongOptions)
    old_class: str | None = None
    new_class: str | None = None
    calibration: Path | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(
                f"a threshold of {self.threshold:g} is out of range", "use a probability, 0 to 1"
            )
        if self.grow is not None and not 0 < self.grow <= self.threshold:
            raise ConfigError(
                f"grow {self.grow:g} is not above 0 and up to the threshold {self.threshold:g}",
                "use a probability that is lower than the threshold",
            )
        if not 0 <= self.min_area < float("inf"):
            raise ConfigError(
                f"a least area of {self.min_area:g} is out of range", "use square metres, 0 or more"
            )
        if not 0 <= self.unlike < float("inf"):
            raise ConfigError(
                f"a difference of {self.unlike:g} is out of range", "use a number, 0 or more"
            )
        if self.reach is not None and not 0 <= self.reach < float("inf"):
            raise ConfigError(f"a reach of {self.reach:g} m is out of range", "use metres, from 0")
        if self.resolution is not None and not 0 < self.resolution < float("inf"):
            raise ConfigError(
                f"'{self.resolution:g}' is no resolution", "use metres per pixel, above 0"
            )
