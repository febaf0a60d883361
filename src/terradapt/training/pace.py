"""The times of a run: what it still takes, and how fast it is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

LOG_EVERY = 10  # steps
FORWARD = 1 / 3
"""A window's prediction to a crop's training, where none was measured yet: a backward pass costs
about two forward ones."""
WITH_UNLABELLED = 2.3
"""A step that learns from unlabelled crops, too, to one that does not (docs/log/67)."""


@dataclass
class Pace:
    """Times of a run, measured as it goes.

    Attributes:
        crops: Of one step.
        validations: Step numbers after which the run is validated.
        windows: Of one validation.
        after: Windows that are predicted when the last step is done: calibration, report.
        begin: Steps before unlabelled crops count; None: they never do.
    """

    crops: int
    validations: tuple[int, ...]
    windows: int
    after: int
    begin: int | None = None
    _steps: float = 0.0
    _seconds: float = 0.0
    _started: bool = False
    _predicted: int = 0
    _predicting: float = 0.0

    def stepped(self, seconds: float, step: int) -> None:
        """Count the step that led to ``step``.

        The first chooses its kernels and starts its readers, and is left out.
        """
        if self._started:
            self._seconds += seconds
            self._steps += self._plain(step - 1, step)
        self._started = True

    def predicted(self, windows: int, seconds: float) -> None:
        """Count the windows of a validation."""
        self._predicted += windows
        self._predicting += seconds

    @property
    def known(self) -> bool:
        """Whether there is more to go by than the first step."""
        return self._steps > 0

    def left(self, step: int, total: int) -> float | None:
        """Return the seconds from a step to the end of the report; None where little is known."""
        if not self.known:
            return None
        each = self._seconds / self._steps
        window = FORWARD * each / self.crops
        if self._predicted:
            window = self._predicting / self._predicted
        ahead = sum(1 for at in self.validations if at > step)
        return self._plain(step, total) * each + (ahead * self.windows + self.after) * window

    def _plain(self, first: int, last: int) -> float:
        """Return as many plain steps as take the time of those from ``first`` to ``last``."""
        dear = 0 if self.begin is None else max(0, last - max(first, self.begin))
        return last - first + (WITH_UNLABELLED - 1) * dear


class Clock:
    """Reads the losses and the rate every few steps, so that a GPU is not waited for."""

    def __init__(self, crops_per_step: int) -> None:
        self.crops_per_step = crops_per_step
        self.steps = 0
        self.start = time.monotonic()

    def lap(self, logs: dict[str, Tensor]) -> dict[str, float]:
        """Count a step; every tenth time return its losses and the crops per second since."""
        self.steps += 1
        if self.steps % LOG_EVERY:
            return {}
        values = {k: float(v) for k, v in logs.items()}
        now = time.monotonic()
        rate = LOG_EVERY * self.crops_per_step / (now - self.start)
        self.start = now
        return {**values, "crops_per_second": round(rate, 3)}
