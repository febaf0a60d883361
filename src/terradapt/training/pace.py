"""What a run still takes: its steps, its validations, and what comes after the last of them."""

from __future__ import annotations

from dataclasses import dataclass

FORWARD = 1 / 3
"""A window's prediction to a crop's training, where none was measured yet: a backward pass costs
about two forward ones."""


@dataclass
class Pace:
    """Times of a run, measured as it goes.

    Attributes:
        crops: Of one step.
        validations: Step numbers after which the run is validated.
        windows: Of one validation.
        after: Windows that are predicted when the last step is done: calibration, report.
    """

    crops: int
    validations: tuple[int, ...]
    windows: int
    after: int
    _steps: int = 0
    _seconds: float = 0.0
    _predicted: int = 0
    _predicting: float = 0.0

    def stepped(self, seconds: float) -> None:
        """Count a step; the first chooses its kernels and starts its readers, and is left out."""
        if self._steps:
            self._seconds += seconds
        self._steps += 1

    def predicted(self, windows: int, seconds: float) -> None:
        """Count the windows of a validation."""
        self._predicted += windows
        self._predicting += seconds

    @property
    def known(self) -> bool:
        """Whether there is more to go by than the first step."""
        return self._steps > 1

    def left(self, step: int, total: int) -> float | None:
        """Return the seconds from a step to the end of the report; None where little is known."""
        if not self.known:
            return None
        each = self._seconds / (self._steps - 1)
        window = FORWARD * each / self.crops
        if self._predicted:
            window = self._predicting / self._predicted
        ahead = sum(1 for at in self.validations if at > step)
        return (total - step) * each + (ahead * self.windows + self.after) * window
