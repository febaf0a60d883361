"""From a score of change to its probability: a monotone table that stands in a file.

The score is one minus the agreement of two dates' class probabilities. How often such a score is a
change is known from pairs whose changes are known; a table of it makes the score a probability.
Without one the score stays as it is, and the result says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from terradapt.documents import validated
from terradapt.errors import DataError
from terradapt.files import read_json
from terradapt.scene.options import STEPS

Share = Annotated[float, Field(ge=0, le=1)]


class ChangeTable(BaseModel):
    """Scores of change and their probabilities; between them it is linear.

    Args:
        scores: From 0 to 1, rising.
        probabilities: Of each, never falling.
        source: What it was fitted on, in words.
        ece: Expected calibration error on pairs that it was not fitted on; None if not measured.

    Raises:
        ValueError: Lists of unlike or no length, or that fall.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: tuple[Share, ...] = (0.0, 1.0)
    probabilities: tuple[Share, ...] = (0.0, 1.0)
    source: str = ""
    ece: Share | None = None

    def model_post_init(self, _: Any) -> None:
        """Check that the table is one."""
        if len(self.scores) != len(self.probabilities) or len(self.scores) < 2:
            raise ValueError("scores and probabilities are two lists of one length, 2 or more")
        if (np.diff(self.scores) <= 0).any() or (np.diff(self.probabilities) < 0).any():
            raise ValueError("scores rise, and probabilities never fall")

    def __call__(self, score: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities of scores."""
        if self == IDENTITY:
            return score
        return np.interp(score, self.scores, self.probabilities).astype(np.float32)

    def of_steps(self) -> NDArray[np.uint8]:
        """Return (251,) the probability of each step of the score, in steps of 0.004."""
        scores = (np.arange(STEPS + 1) / STEPS).astype(np.float32)
        return np.rint(np.clip(self(scores), 0, 1) * STEPS).astype(np.uint8)

    def __str__(self) -> str:
        if self == IDENTITY:
            return "not calibrated: one minus the agreement of the class probabilities"
        error = "" if self.ece is None else f", ECE {self.ece:.3f}"
        return f"calibrated on {self.source or 'pairs that are not named'}{error}"


IDENTITY = ChangeTable()


def read_table(path: str | Path | None) -> ChangeTable:
    """Read a table; the one that changes nothing where there is no file.

    Raises:
        DataError: No JSON, or no such table.
    """
    if path is None:
        return IDENTITY
    fix = "give a table that was fitted on pairs: scores, probabilities, source"
    values = read_json(path, DataError, fix)
    table: ChangeTable = validated(ChangeTable, values, path, DataError, fix)
    return table
